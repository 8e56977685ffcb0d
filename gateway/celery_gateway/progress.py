"""Send the progress of a task as an event, from inside the task: ``report`` and ``ProgressMixin``.

(Celery's own ``update_state`` writes to the result backend only.) This module runs in workers:

- It imports the standard library only; Celery is there already where a task runs.
- It raises nothing into the task except the task's own soft time limit, and delays it only for a short time:
  ``WAIT_SECONDS`` each for a connection from the pool, for the broker to answer, and for the broker to take
  an event. After a failure nothing is sent for ``PAUSE_SECONDS``.
- In a run of a task, events of one type are at least ``MIN_INTERVAL_SECONDS`` apart, except for the event
  that completes the total. The last report in between is sent with the next event, or when the run ends.
- The state of a run is an attribute of its request, so threads, greenlets and forked processes share
  nothing.
- Nothing is sent for a task that is called directly or runs eagerly, nor for the state of another task.
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
PAUSE_SECONDS = 10.0
LOG_INTERVAL_SECONDS = 60.0
MAX_REPR_CHARS = 1024  # as for the args and the result in Celery's events

_RESERVED_FIELDS = frozenset(
    {
        *("type", "uuid", "timestamp", "hostname", "utcoffset", "pid", "clock"),
        *("name", "root_id", "parent_id", "state", "id", "time", "cluster", "fields"),
        *("_fields", "__dict__", "__now__"),
    }
)
"""Fields that each event has or that the gateway sets, and parameters of celery.events.event.Event. Fields of
the user with these names are sent within ``fields``, where the gateway moves its own ``id`` as well."""
_CELERY_STATES = frozenset(
    {
        *("PENDING", "RECEIVED", "STARTED", "SUCCESS", "FAILURE", "RETRY", "REVOKED", "REJECTED", "IGNORED"),
        *("SENT", "SUCCEEDED", "FAILED", "RETRIED", "CANCELLED"),
    }
)
"""States of Celery, and the verbs of its events: a ``task-failed`` from here would be taken for Celery's."""
_RUN_ATTRIBUTE = "_gateway_progress"

_log = logging.getLogger(__name__)
_next_log_at = 0.0
_paused_until = 0.0
_is_signal_connected = False


def report(task: Any, /, current: float, total: float | None = None, **fields: Any) -> None:
    """Send a ``task-progress`` event with ``current``, ``total``, ``progress`` and further fields.

    Args:
        task: the task that runs: ``self`` in a bound task, or ``celery.current_task``.
        current: how much is done, in any unit.
        total: how much there is to do, in the same unit; ``None`` if it is not known.
        fields: further fields. ``progress``, a number from 0 to 1, is ``current / total`` unless it is given
            here, and ``None`` if the total is not known or not above 0. Values that are not JSON become their
            ``repr``. Fields with reserved names (``name``, ``state``, ``hostname``, …) are in ``fields``.
    """
    _report(task, "task-progress", {"current": current, "total": total, **fields})


class ProgressMixin:
    """A mixin for Task classes: ``update_state`` also sends an event for custom states.

    Write ``class ProgressTask(ProgressMixin, celery.Task)``, then ``@app.task(bind=True,
    base=ProgressTask)``. The event's type is ``task-`` and the state in lower case; the gateway makes the
    state of it again, in upper case. Its fields are those of ``meta``, as for ``report``.
    """

    def update_state(
        self, task_id: str | None = None, state: str | None = None, meta: Any = None, **kwargs: Any
    ) -> None:
        """Write the state to the result backend, and send it as an event; as ``celery.Task.update_state``."""
        super().update_state(task_id, state, meta, **kwargs)  # type: ignore[misc]  # celery.Task
        if isinstance(state, str) and state.upper() not in _CELERY_STATES:
            fields = meta if isinstance(meta, Mapping) else {} if meta is None else {"meta": meta}
            _report(self, f"task-{state.lower()}", fields, task_id)


class _Report(NamedTuple):
    event_type: str
    fields: Mapping[Any, Any]
    timestamp: float
    completes: bool


class _Run:
    """The reports of one run of a task: when they were sent, and the one that is still to be sent."""

    __slots__ = ("sent_at", "is_complete", "unsent")

    def __init__(self) -> None:
        self.sent_at: dict[str, float] = {}
        self.is_complete = False
        self.unsent: _Report | None = None


class _ProducerWithTimeout:
    """A producer that does not wait long for a broker which takes nothing (an alarm, a broken network)."""

    def __init__(self, producer: Any) -> None:
        self._producer = producer

    def publish(self, body: Any, **kwargs: Any) -> None:
        self._producer.publish(body, timeout=WAIT_SECONDS, **kwargs)


def _report(task: Any, event_type: str, fields: Mapping[Any, Any], task_id: str | None = None) -> None:
    """Send a report now, or keep it for later; log failures."""
    try:
        request = task.request
        if request.id is None or request.is_eager or task_id not in (None, request.id):
            return
        _connect_signal()
        run = getattr(request, _RUN_ATTRIBUTE, None)
        if run is None:
            run = _Run()
            setattr(request, _RUN_ATTRIBUTE, run)
        completes = _progress(fields.get("current"), fields.get("total")) == 1
        run.unsent = _Report(event_type, fields, time(), completes)
        sent_at = run.sent_at.get(event_type)
        is_due = sent_at is None or monotonic() - sent_at >= MIN_INTERVAL_SECONDS
        if is_due or (completes and not run.is_complete):
            _send(task, request, run, run.unsent)
    except _soft_time_limit():
        raise
    except Exception as error:
        _log_failure(error)


def _connect_signal() -> None:
    """Let the end of each run send its last report. Forked processes inherit this from their parent."""
    global _is_signal_connected
    if not _is_signal_connected:
        from celery.signals import task_postrun

        task_postrun.connect(_send_last, weak=False, dispatch_uid=__name__)
        _is_signal_connected = True


def _send_last(task: Any = None, **_: Any) -> None:
    request = task.request
    run = getattr(request, _RUN_ATTRIBUTE, None)
    if run is not None and run.unsent is not None:
        _send(task, request, run, run.unsent)


def _send(task: Any, request: Any, run: _Run, unsent: _Report) -> None:
    global _paused_until
    now = monotonic()
    if now < _paused_until:
        return
    if _paused_until:
        _paused_until = now + PAUSE_SECONDS  # after a pause only one thread sends, and the others wait
    try:
        _publish(task.app, request.hostname, unsent.event_type, _event_fields(task, request, unsent))
    except _soft_time_limit():
        raise
    except Exception as error:
        _paused_until = monotonic() + PAUSE_SECONDS
        _log_failure(error)
    else:
        _paused_until = 0.0
        run.sent_at[unsent.event_type] = monotonic()
        run.is_complete = unsent.completes
        run.unsent = None


def _publish(app: Any, hostname: str | None, event_type: str, fields: dict[str, Any]) -> None:
    """Publish an event, like ``Task.send_event``, but with timeouts. Raises the errors of kombu."""
    with app.pool.acquire(block=True, timeout=WAIT_SECONDS) as connection:
        if connection.connected:
            # The broker may have closed the connection while the task was busy: then reconnect once.
            with suppress(*connection.recoverable_connection_errors):
                return _publish_on(connection, app, hostname, event_type, fields)
        _publish_on(connection, app, hostname, event_type, fields)


def _publish_on(connection: Any, app: Any, hostname: str | None, event_type: str, fields: Any) -> None:
    try:
        _connect(connection)
        channel = connection.default_channel
        dispatcher = app.events.Dispatcher(connection, hostname, channel=channel, buffer_while_offline=False)
        with dispatcher:
            if dispatcher.producer is not None:  # None: a transport without events
                dispatcher.publish(event_type, fields, _ProducerWithTimeout(dispatcher.producer))
    except BaseException:
        connection.collect()  # part of a frame may have been sent, and an orderly close has no timeout
        raise


def _connect(connection: Any) -> None:
    """Try each URL of the broker once, for at most ``WAIT_SECONDS`` each."""
    usual_seconds = connection.connect_timeout
    connection.connect_timeout = min(usual_seconds or WAIT_SECONDS, WAIT_SECONDS)
    try:
        retries = max(len(connection.alt or ()) - 1, 0)
        connection.ensure_connection(max_retries=retries, interval_start=0, interval_step=0, interval_max=0)
    finally:
        connection.connect_timeout = usual_seconds


def _event_fields(task: Any, request: Any, unsent: _Report) -> dict[str, Any]:
    """Return the fields of the event. With name and root, filters match it without earlier events."""
    fields = {"uuid": request.id, "timestamp": unsent.timestamp, "name": request.shadow or task.name}
    if request.root_id is not None:
        fields["root_id"] = request.root_id
    if request.parent_id not in (None, request.id):  # a retried task is sent again as its own child
        fields["parent_id"] = request.parent_id
    reserved: dict[str, Any] = {}
    for key, value in unsent.fields.items():
        name = str(key)
        (reserved if name in _RESERVED_FIELDS else fields)[name] = _plain(value)
    if reserved:
        fields["fields"] = reserved
    if "current" in fields:
        fields.setdefault("progress", _progress(unsent.fields["current"], unsent.fields.get("total")))
    return fields


def _progress(current: Any, total: Any) -> float | None:
    """Return the progress from 0 to 1; ``None`` if it is not known.

    >>> _progress(1, 4), _progress(5, 4), _progress(1, None)
    (0.25, 1.0, None)
    """
    try:
        progress = float(current / total) if total > 0 else None
    except (TypeError, ValueError, ArithmeticError):
        return None
    if progress is None or progress != progress:
        return None
    return min(max(progress, 0.0), 1.0)


def _plain(value: Any) -> Any:
    """Return a value that JSON can represent: dates and the like as kombu writes them, others as ``repr``."""
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
    except _soft_time_limit():
        raise
    except Exception:
        return saferepr(value, MAX_REPR_CHARS)


def _soft_time_limit() -> type[Exception]:
    """Return the exception that a pool raises in a task which exceeds its soft time limit."""
    from celery.exceptions import SoftTimeLimitExceeded

    limit: type[Exception] = SoftTimeLimitExceeded
    return limit


def _log_failure(error: Exception) -> None:
    global _next_log_at
    now = monotonic()
    if now >= _next_log_at:
        _next_log_at = now + LOG_INTERVAL_SECONDS
        _log.warning("cannot send the progress of tasks: %r. The tasks continue without it", error)
