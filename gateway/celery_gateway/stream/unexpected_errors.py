"""Errors that are bugs of the gateway itself: logged, and contained to one stream.

Each kind of error is logged at most once a minute. A kind is the type of the error and the line that raised
it, so a frequent error hides no other error.
"""

import logging
import time
from collections.abc import Callable
from functools import wraps
from typing import Concatenate, ParamSpec, Protocol, TypeVar

LOG_SECONDS = 60.0
"""Minimum time between two log entries of one kind."""
MAX_KINDS = 1_000
"""Maximum number of kinds that are remembered; beyond it, all are forgotten."""

log = logging.getLogger("celery_gateway")

_logged: dict[tuple[str, str, int], tuple[float, int]] = {}
"""By kind: the monotonic time of the last log entry, and the number of errors since."""


def report(what: str, error: BaseException) -> None:
    """Log an unexpected error with its traceback, unless its kind was logged in the last minute.

    Args:
        what: what failed, and what the gateway does about it.
    """
    kind = _kind(error)
    logged_at, unlogged = _logged.get(kind, (-LOG_SECONDS, 0))
    now = time.monotonic()
    if now - logged_at < LOG_SECONDS:
        _logged[kind] = logged_at, unlogged + 1
        return
    if len(_logged) >= MAX_KINDS:
        _logged.clear()
    _logged[kind] = now, 0
    again = f" ({unlogged} more of this kind since the last entry)" if unlogged else ""
    log.error("%s; this is a bug, please report it%s", what, again, exc_info=error)


def _kind(error: BaseException) -> tuple[str, str, int]:
    trace = error.__traceback__
    if trace is None:
        return type(error).__qualname__, "", 0
    while trace.tb_next is not None:
        trace = trace.tb_next
    return type(error).__qualname__, trace.tb_frame.f_code.co_filename, trace.tb_lineno


class _Failing(Protocol):
    def fail(self, error: Exception) -> None: ...


_F = TypeVar("_F", bound=_Failing)
_P = ParamSpec("_P")


def contained(method: Callable[Concatenate[_F, _P], None]) -> Callable[Concatenate[_F, _P], None]:
    """Pass an unexpected error of a method to ``fail`` of its own object.

    So it ends one stream, and not the caller, which often calls the method for many streams.
    """

    @wraps(method)
    def call(self: _F, /, *args: _P.args, **options: _P.kwargs) -> None:
        try:
            method(self, *args, **options)
        except Exception as error:
            self.fail(error)

    return call
