"""Which fields of a task record an event sets.

``lifecycle`` has found the attempt that the event belongs to, and has set its state. Then, by type of event:

| event | fields |
|---|---|
| ``task-sent`` | call, queue, exchange, routing_key, client, sent, queued_seconds |
| ``task-received`` | call, received, queued_seconds |
| ``task-started`` | started, queued_seconds, runtime |
| ``task-succeeded`` | succeeded, result, runtime, progress |
| ``task-failed`` | failed, exception, traceback, runtime |
| ``task-retried`` | retried, exception, traceback |
| ``task-rejected`` | rejected |
| ``task-revoked`` | revoked |
| custom | custom, custom_at, progress |

- The call (retries, args, kwargs, eta, expires) is that of the last message. The worker's values replace the
  client's.
- The other fields are set by events of the current attempt only, but ``retried`` and ``rejected`` by those of
  any attempt of the current run.
- A value of the wrong type, or beyond its limits, is ignored.
- The same event again changes nothing.

Each function returns by how many bytes the record has grown. Pure.
"""

from collections.abc import Callable
from typing import Any

import msgspec

from celery_gateway.events.event import Event, encode, is_client
from celery_gateway.events.event_types import STATE_OF_EVENT
from celery_gateway.state.attempt import Attempt, Attempts
from celery_gateway.state.process import Process
from celery_gateway.state.shared_text import MAX_NAME_CHARS, shared
from celery_gateway.state.task import Task
from celery_gateway.state.text_size import text_bytes

MAX_TEXT_CHARS = 32_000
"""The maximum length of a traceback or another text: its end is kept. (On a stream it is complete.)"""
MAX_ATTEMPT_TEXT_CHARS = 1_000
"""The maximum length of the exception that is kept of each attempt."""
MAX_CUSTOM_BYTES = 16_000
"""The maximum size of a custom event's own fields, as JSON; larger ones are not kept."""
MAX_SECONDS = 1e12
MAX_DURATION_SECONDS = 365 * 24 * 3600.0
"""A longer wait or run is the result of a wrong clock."""
MAX_INTEGER = 1 << 63

_ATTEMPT_BYTES = 300
_CALL = ("args", "kwargs", "eta", "expires")
_SENT = (*_CALL, "queue", "exchange", "routing_key")
_ERROR = ("exception", "traceback")
_ENDS: dict[str, tuple[str | None, tuple[str, ...]]] = {
    "task-succeeded": ("succeeded", ("result",)),
    "task-failed": ("failed", _ERROR),
    "task-retried": ("retried", _ERROR),
    "task-rejected": ("rejected", ()),
    "task-revoked": ("revoked", ()),
    "task-cancelled": (None, ()),
}
"""By type of event: the field of its time, and the fields of its texts."""
_OF_ATTEMPT = ("received", "started", "succeeded", "failed", "revoked", "lost", "queued_seconds", "runtime")
_TEXTS_OF_ATTEMPT = ("result", "exception", "traceback")
_OF_RUN = ("sent", "retried", "rejected")

_COMMON = frozenset(
    {"type", "uuid", "timestamp", "hostname", "utcoffset", "pid", "clock", "local_received", "time", "id"}
    | {"cluster", "name", "root_id", "parent_id", "queue", "state", "attempt"}
)
_SHARED = frozenset({"queue", "exchange", "routing_key", "kwargs"})
_PLANNED = frozenset({"eta", "expires"})
_NUMBERS = frozenset({int, float})


def set_sent(task: Task, attempts: Attempts, attempt: Attempt, event: Event, stamp: float | None) -> int:
    """Set the fields of ``task-sent``.

    Args:
        stamp: the time of the event, epoch seconds; ``None`` if it has none.
    """
    attempt.sent = stamp
    last = attempts.last
    if last is None or attempt.run != last.run or attempt.retries < task.retries:
        return 0  # not the last message
    hostname = event.get("hostname")
    grown = 0
    if type(hostname) is str:
        client = shared(hostname[:MAX_NAME_CHARS])
        if client is not task.client:
            grown = text_bytes(client) - (0 if task.client is None else text_bytes(task.client))
            task.client = client
    task.sent, task.retries = stamp, attempt.retries
    grown += _set_texts(task, event, _SENT, is_client_value=last.received is not None)
    if attempt.received is None:
        attempt.eta = task.eta
    if attempts.current is last and task.started is not None:
        _set_queued_seconds(task, task.started)
    return grown


def set_received(task: Task, attempts: Attempts, attempt: Attempt, event: Event, stamp: float | None) -> int:
    """Set the fields of ``task-received``."""
    attempt.received = stamp
    eta = event.get("eta")
    attempt.eta = eta[:MAX_NAME_CHARS] if type(eta) is str else None
    grown = 0
    if attempts.last is attempt:
        task.retries = attempt.retries
        grown = _set_texts(task, event, _CALL)
    if attempts.current is attempt:
        task.received = stamp
        if task.started is not None:
            _set_queued_seconds(task, task.started)
    return grown


def set_started(task: Task, attempts: Attempts, attempt: Attempt, event: Event, stamp: float | None) -> int:
    """Set the fields of ``task-started``."""
    attempt.started = stamp
    if attempts.current is attempt:
        task.started = stamp
        if stamp is not None:
            _set_queued_seconds(task, stamp)
            if task.runtime is None:
                _set_runtime(task, stamp)
    return 0


def set_ended(task: Task, attempts: Attempts, attempt: Attempt, event: Event, stamp: float | None) -> int:
    """Set the fields of an event that ends an attempt, unless the attempt has ended otherwise before."""
    event_type = event["type"]
    if attempt.state != STATE_OF_EVENT[event_type]:
        return 0
    time_field, fields = _ENDS[event_type]
    attempt.ended = stamp
    exception = event.get("exception")
    if fields is _ERROR and type(exception) is str:
        attempt.exception = exception[:MAX_ATTEMPT_TEXT_CHARS]
    current = attempts.current
    if time_field == "retried" or time_field == "rejected":
        if current is None or current.run != attempt.run:
            return 0
        setattr(task, time_field, stamp)
    if current is not attempt:
        return 0
    if time_field is not None:
        setattr(task, time_field, stamp)
    grown = _set_texts(task, event, fields) if fields else 0
    for field in _TEXTS_OF_ATTEMPT:
        if field not in fields and (text := getattr(task, field)) is not None:  # of another outcome
            grown -= text_bytes(text)
            setattr(task, field, None)
    if fields is _ERROR:
        grown += resize_attempts(task, attempts)
    runtime: Any = None
    if attempt.state == "SUCCESS":
        task.progress = 1.0
        runtime = event.get("runtime")
    task.runtime = runtime if _is_seconds(runtime) and runtime <= MAX_DURATION_SECONDS else None
    if task.runtime is None and task.started is not None:
        _set_runtime(task, task.started)
    return grown


Setter = Callable[[Task, Attempts, Attempt, Event, float | None], int]
SETTERS: dict[str, Setter] = {
    "PENDING": set_sent,
    "RECEIVED": set_received,
    "STARTED": set_started,
    **dict.fromkeys((STATE_OF_EVENT[event_type] for event_type in _ENDS), set_ended),
}
"""By the state that one of Celery's own events reports: what sets its fields."""


def set_custom(task: Task, event: Event, process: Process | None, stamp: float | None) -> int:
    """Set the fields of a custom event."""
    hostname = worker_name(event, process)
    grown = 0
    if task.worker is None and hostname is not None:
        task.worker = shared(hostname[:MAX_NAME_CHARS])
        grown = text_bytes(task.worker)
    if stamp is not None:
        task.custom_at = stamp
    custom = {field: value for field, value in event.items() if field not in _COMMON}
    before = 0 if task.custom is None else len(task.custom)
    text = encode(custom) if custom else b""
    task.custom = msgspec.Raw(text) if 0 < len(text) <= MAX_CUSTOM_BYTES else None
    task.progress = 1.0 if task.state == "SUCCESS" else _progress(custom)
    return grown + (0 if task.custom is None else len(task.custom)) - before


def set_worker(task: Task, event: Event, process: Process | None) -> int:
    """Set the worker to the process of an event, or else to the one that the event names."""
    if process is not None:
        task.pid = process.pid
        hostname = process.hostname
        if task.worker is hostname:
            return 0
    else:
        named, pid = event.get("hostname"), event.get("pid")
        if type(named) is not str or "@" not in named:
            return 0
        hostname = shared(named[:MAX_NAME_CHARS])
        task.pid = pid if type(pid) is int and -MAX_INTEGER <= pid < MAX_INTEGER else None
    grown = text_bytes(hostname) - text_bytes(task.worker)
    task.worker = hostname
    return grown


def reset(task: Task, attempts: Attempts, before: Attempt | None) -> int:
    """Empty the fields of the attempt, since another attempt has become the current one.

    Args:
        before: the attempt that was the current one; ``None`` if there was none.
    """
    current = attempts.current
    assert current is not None
    task.attempt = current.number if current.has_worker else 0
    if before is None:
        return 0
    grown = 0 if task.custom is None else -len(task.custom)
    for field in _OF_ATTEMPT:
        setattr(task, field, None)
    for field in _TEXTS_OF_ATTEMPT:
        grown -= text_bytes(getattr(task, field))
        setattr(task, field, None)
    grown += resize_attempts(task, attempts)
    task.custom_at = task.custom = task.progress = None
    if current.run != before.run:
        for field in _OF_RUN:
            setattr(task, field, None)
        task.retries = current.retries
    if not current.has_worker:
        grown -= text_bytes(task.worker)
        task.worker = task.pid = None
    return grown


def resize_attempts(task: Task, attempts: Attempts) -> int:
    """Estimate the size of the attempts after the first one, and of texts that the record does not share."""
    size_bytes = _ATTEMPT_BYTES * (attempts.count - 1)
    for attempt in attempts.kept():
        size_bytes += len(attempt.marks)
        if attempt.exception is not task.exception:
            size_bytes += text_bytes(attempt.exception)
        if attempt.eta is not task.eta:
            size_bytes += text_bytes(attempt.eta)
    grown, attempts.further_bytes = size_bytes - attempts.further_bytes, size_bytes
    return grown


def worker_name(event: Event, process: Process | None) -> str | None:
    """Return the node name of the worker that sent a custom event; ``None`` if a client sent it."""
    if process is not None:
        return process.hostname
    hostname = event.get("hostname")
    return hostname if type(hostname) is str and "@" in hostname and not is_client(hostname) else None


def _set_texts(task: Task, event: Event, fields: tuple[str, ...], is_client_value: bool = False) -> int:
    """Set texts of the record to those of the event.

    Args:
        is_client_value: a worker has sent the call before; set only fields that it has left out.
    """
    grown = 0
    for field in fields:
        value = event.get(field)
        known = getattr(task, field)
        if value == known:
            continue
        is_planned = field in _PLANNED  # null means: not planned
        if is_client_value and field in _CALL and (is_planned or known is not None):
            continue
        if type(value) is str:
            if len(value) > MAX_TEXT_CHARS:
                value = value[-MAX_TEXT_CHARS:]
            if field in _SHARED:
                value = shared(value)
            grown += len(value) if value.isascii() else text_bytes(value)
        elif value is None:
            if known is None or not is_planned or field not in event:
                continue
        elif field != "expires" or not _is_seconds(value):
            continue
        if type(known) is str:
            grown -= len(known) if known.isascii() else text_bytes(known)
        setattr(task, field, value)
    return grown


def _is_seconds(value: object) -> bool:
    return (type(value) is float or type(value) is int) and 0 <= value < MAX_SECONDS


def _set_queued_seconds(task: Task, started: float) -> None:
    sent, rejected, received = task.sent, task.rejected, task.received
    is_redelivered = task.attempt > task.retries + 1  # the attempt has no message of its own
    if is_redelivered and not (sent and rejected and sent > rejected):
        sent = rejected
    queued_at = received if sent is None or sent > started else sent
    seconds = -1.0 if queued_at is None else started - queued_at
    task.queued_seconds = seconds if 0 <= seconds <= MAX_DURATION_SECONDS else None


def _set_runtime(task: Task, started: float) -> None:
    """Set the runtime to the time from start to end, where the worker has not reported it."""
    ended = task.failed if task.succeeded is None else task.succeeded
    if ended is not None:
        seconds = ended - started
        task.runtime = seconds if 0 <= seconds <= MAX_DURATION_SECONDS else None


def _progress(custom: dict[str, Any]) -> float | None:
    """Return the progress that a custom event reports, from 0 to 1; ``None`` if it reports none."""
    reported: Any = custom.get("progress")
    current: Any = custom.get("current")
    total: Any = custom.get("total")
    if type(reported) in _NUMBERS and 0 <= reported <= 1:
        return float(reported)
    if type(current) in _NUMBERS and type(total) in _NUMBERS and total > 0:
        try:
            return min(1.0, max(0.0, float(current / total)))
        except OverflowError:
            return None
    return None
