"""A task's progress, told from inside it as an event: ``report`` and ``ProgressMixin``.

Celery's own ``update_state`` writes to the result backend, and nobody hears of it. This is for workers, so:

- It imports nothing but the standard library; celery is there already where a task runs.
- It never raises into the task, except for the task's own soft time limit, and never holds it up for long:
  ``WAIT_SECONDS`` for a connection from the pool, for the broker to answer and for it to take an event.
  After a failure nothing is tried for ``QUIET_SECONDS``.
- Events of one type leave a run of a task ``MIN_INTERVAL_SECONDS`` apart, in between only the one that
  completes it. What was kept back goes with the next, or when the run ends: the last is always told.
- What a run has told lies on its request, so threads, greenlets and forked children share none of it.
- Told by no one: a task that is called directly or eagerly, and another task's state.
"""

import json
import logging
from collections.abc import Mapping
from contextlib import suppress
from numbers import Integral, Real
from time import monotonic, time
from typing import Any, NamedTuple

__all__ = ["ProgressMixin", "report"]

MIN_INTERVAL_SECONDS = 0.25
WAIT_SECONDS = 1.0
QUIET_SECONDS = 10.0
LOG_INTERVAL_SECONDS = 60.0
MAX_REPR_CHARACTERS = 1024  # as Celery's own args and result

# Names that mean something of their own in every event, or that the gateway sets; and the parameters of
# celery.events.event.Event. Info of these names goes into "fields", as the gateway does with its "id".
_TAKEN = frozenset(
    {
        *("type", "uuid", "timestamp", "hostname", "utcoffset", "pid", "clock"),
        *("name", "root_id", "parent_id", "state", "id", "time", "cluster", "fields"),
        *("_fields", "__dict__", "__now__"),
    }
)
# Celery's states, and the words of its events: `task-failed` from here would be taken for the real one.
_CELERYS_OWN = frozenset(
    {
        *("PENDING", "RECEIVED", "STARTED", "SUCCESS", "FAILURE", "RETRY", "REVOKED", "REJECTED", "IGNORED"),
        *("SENT", "SUCCEEDED", "FAILED", "RETRIED", "CANCELLED"),
    }
)
_RUN = "_gateway_progress"

_log = logging.getLogger(__name__)
_log_again_at = 0.0
_quiet_until = 0.0
_ends_are_heard = False


def report(task: Any, /, current: float, total: float | None = None, **info: Any) -> None:
    """Tell how far a task is, in a ``task-progress`` event: ``current``, ``total``, ``progress``, ``info``.

    Args:
        task: the task that runs, ``self`` in a bound one, or ``celery.current_task``.
        current: how much is done, in any unit.
        total: how much there is to do, in the same; ``None`` when that is not known.
        info: more fields. ``progress``, a number from 0 to 1, is ``current / total`` unless given here, and
            ``None`` when the total is not known or not above 0. What is not JSON becomes its ``repr``. A name
            that events use themselves (``name``, ``state``, ``hostname``, …) is found under ``fields``.
    """
    _tell(task, "task-progress", {"current": current, "total": total, **info})


class ProgressMixin:
    """For a Task class: what ``update_state`` writes for a state of the user's own is told as an event, too.

    ``class ProgressTask(ProgressMixin, celery.Task)``, then ``@app.task(bind=True, base=ProgressTask)``. The
    event's type is ``task-`` and the state in small letters, of which the gateway makes the state again (in
    capitals); its fields are those of ``meta``, as ``report`` takes them.
    """

    def update_state(
        self, task_id: str | None = None, state: str | None = None, meta: Any = None, **kwargs: Any
    ) -> None:
        super().update_state(task_id, state, meta, **kwargs)  # type: ignore[misc]  # celery.Task
        if isinstance(state, str) and state.upper() not in _CELERYS_OWN:
            fields = meta if isinstance(meta, Mapping) else {} if meta is None else {"meta": meta}
            _tell(self, f"task-{state.lower()}", fields, task_id)


class _Report(NamedTuple):
    event_type: str
    meta: Mapping[Any, Any]
    timestamp: float
    completes: bool


class _Run:
    """What one run of a task has told, and what it still has to."""

    __slots__ = ("sent_at", "is_complete", "unsent")

    def __init__(self) -> None:
        self.sent_at: dict[str, float] = {}
        self.is_complete = False
        self.unsent: _Report | None = None


class _Impatient:
    """A producer that does not wait for a broker which takes nothing (an alarm, a broken network)."""

    def __init__(self, producer: Any) -> None:
        self._producer = producer

    def publish(self, body: Any, **kwargs: Any) -> None:
        self._producer.publish(body, timeout=WAIT_SECONDS, **kwargs)


def _tell(task: Any, event_type: str, meta: Mapping[Any, Any], task_id: str | None = None) -> None:
    try:
        request = task.request
        if request.id is None or request.is_eager or task_id not in (None, request.id):
            return
        _hear_ends()
        run = getattr(request, _RUN, None)
        if run is None:
            run = _Run()
            setattr(request, _RUN, run)
        completes = _progress(meta.get("current"), meta.get("total")) == 1
        run.unsent = _Report(event_type, meta, time(), completes)
        sent_at = run.sent_at.get(event_type)
        is_due = sent_at is None or monotonic() - sent_at >= MIN_INTERVAL_SECONDS
        if is_due or (completes and not run.is_complete):
            _send(task, request, run, run.unsent)
    except _time_limit():
        raise
    except Exception as error:
        _complain(error)


def _hear_ends() -> None:
    """From the first report on, a run's end sends what is unsent. A forked child has this from its parent."""
    global _ends_are_heard
    if not _ends_are_heard:
        from celery.signals import task_postrun

        task_postrun.connect(_send_last, weak=False, dispatch_uid=__name__)
        _ends_are_heard = True


def _send_last(task: Any = None, **_: Any) -> None:
    request = task.request
    run = getattr(request, _RUN, None)
    if run is not None and run.unsent is not None:
        _send(task, request, run, run.unsent)


def _send(task: Any, request: Any, run: _Run, unsent: _Report) -> None:
    global _quiet_until
    now = monotonic()
    if now < _quiet_until:
        return
    if _quiet_until:
        _quiet_until = now + QUIET_SECONDS  # one tries; other threads wait to see how it goes
    try:
        _publish(task.app, request.hostname, unsent.event_type, _fields(task, request, unsent))
    except _time_limit():
        raise
    except Exception as error:
        _quiet_until = monotonic() + QUIET_SECONDS
        _complain(error)
    else:
        _quiet_until = 0.0
        run.sent_at[unsent.event_type] = monotonic()
        run.is_complete = unsent.completes
        run.unsent = None


def _publish(app: Any, hostname: str | None, event_type: str, fields: dict[str, Any]) -> None:
    """As ``Task.send_event``, which may wait for ever. Raises whatever kombu does."""
    with app.pool.acquire(block=True, timeout=WAIT_SECONDS) as connection:
        if connection.connected:
            # The broker may have closed it while the task was busy elsewhere: then once more, anew.
            with suppress(*connection.recoverable_connection_errors):
                return _publish_on(connection, app, hostname, event_type, fields)
        _publish_on(connection, app, hostname, event_type, fields)


def _publish_on(connection: Any, app: Any, hostname: str | None, event_type: str, fields: Any) -> None:
    try:
        _connect(connection)
        channel = connection.default_channel
        dispatcher = app.events.Dispatcher(connection, hostname, channel=channel, buffer_while_offline=False)
        with dispatcher:
            if dispatcher.producer is not None:  # None: a transport that has no events
                dispatcher.publish(event_type, fields, _Impatient(dispatcher.producer))
    except BaseException:
        connection.collect()  # half a frame may have gone out, and closing in good order may take for ever
        raise


def _connect(connection: Any) -> None:
    """Try each of the broker's URLs once, for ``WAIT_SECONDS`` at most."""
    usual_seconds = connection.connect_timeout
    connection.connect_timeout = min(usual_seconds or WAIT_SECONDS, WAIT_SECONDS)
    try:
        retries = max(len(connection.alt or ()) - 1, 0)
        connection.ensure_connection(max_retries=retries, interval_start=0, interval_step=0, interval_max=0)
    finally:
        connection.connect_timeout = usual_seconds


def _fields(task: Any, request: Any, unsent: _Report) -> dict[str, Any]:
    """The event's fields. With name and root it finds its subscribers even if no one heard the task begin."""
    fields = {"uuid": request.id, "timestamp": unsent.timestamp, "name": request.shadow or task.name}
    if request.root_id is not None:
        fields["root_id"] = request.root_id
    if request.parent_id not in (None, request.id):  # a retried task is sent again as its own child
        fields["parent_id"] = request.parent_id
    aside: dict[str, Any] = {}
    for key, value in unsent.meta.items():
        name = str(key)
        (aside if name in _TAKEN else fields)[name] = _plain(value)
    if aside:
        fields["fields"] = aside
    if "current" in fields:
        fields.setdefault("progress", _progress(unsent.meta["current"], unsent.meta.get("total")))
    return fields


def _progress(current: Any, total: Any) -> float | None:
    """From 0 to 1; ``None`` when that cannot be said."""
    try:
        progress = float(current / total) if total > 0 else None
    except (TypeError, ValueError, ArithmeticError):
        return None
    if progress is None or progress != progress:
        return None
    return min(max(progress, 0.0), 1.0)


def _plain(value: Any) -> Any:
    """The value as JSON has it; dates and the like as kombu writes them; else its ``repr``."""
    if isinstance(value, str | bool | int | float | None):
        return value
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        return float(value)
    from celery.utils.saferepr import saferepr
    from kombu.utils.json import dumps

    try:
        return json.loads(dumps(value))
    except _time_limit():
        raise
    except Exception:
        return saferepr(value, MAX_REPR_CHARACTERS)


def _time_limit() -> type[Exception]:
    """What the pool raises into a task that takes too long, wherever it is just now."""
    from celery.exceptions import SoftTimeLimitExceeded

    limit: type[Exception] = SoftTimeLimitExceeded
    return limit


def _complain(error: Exception) -> None:
    global _log_again_at
    now = monotonic()
    if now >= _log_again_at:
        _log_again_at = now + LOG_INTERVAL_SECONDS
        _log.warning("Progress could not be sent; the tasks go on without: %r", error)
