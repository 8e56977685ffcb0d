"""The course of a task: how its events change its record.

An event belongs to one attempt (``attempt``), and moves that by the table in ``state``. The record shows the
last attempt that a worker took up. When that is another one, its outcome and times start empty; events of an
attempt before it change nothing that is shown. The call (arguments, queue, eta) is that of the youngest
message, and the worker's account of it replaces the client's. The same event again changes nothing.

Texts that many tasks have in common (names, nodes, queues) are shared: there is one of each.
"""

from typing import Any

import msgspec

from gateway.attempt import Attempt, Attempts
from gateway.event import Event, encode, is_client
from gateway.matching import find, of_custom
from gateway.process import Process
from gateway.state import LOST, STATE_OF_EVENT, moves, state_of
from gateway.task import Task

MAX_TEXT_CHARS = 32_000
"""The most of a traceback or another text that is kept: its end. (On the stream it goes by whole.)"""
MAX_TRY_TEXT_CHARS = 1_000
"""The most of an exception that is kept of an attempt that is not shown any more."""
MAX_INFO_BYTES = 16_000
"""The most that a custom event's own fields may be, as JSON, to be kept."""
MAX_NAME_CHARS = 255
"""The most of a type or a node's name that is kept. (No more fits into a routing key.)"""
MIN_TIMESTAMP, MAX_TIMESTAMP = -62_135_596_800, 253_402_300_800
"""Epoch seconds of the years 1 to 9999. An event with another timestamp counts as one without."""
MAX_SECONDS = 1e12
MAX_RETRIES = 1 << 31
MAX_INTEGER = 1 << 63

MAX_SHARED_TEXTS = 10_000
_texts: dict[str, str] = {}

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
"""By type of event: where its time goes, and which of its texts are kept."""
_OWN_TYPES = {event_type: event_type for event_type in STATE_OF_EVENT}  # one copy of each in memory
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


def apply(
    task: Task, attempts: Attempts, event: Event, process: Process | None = None, now: float = 0.0
) -> tuple[Attempt, int]:
    """Apply one of the task's events; the task's names are left alone.

    What is not of its field's type, or beyond its bounds, is passed over.

    Args:
        attempts: those of the task.
        process: the worker's main process that the event is from; ``None`` for a client's.
        now: when it arrived, on a clock that only goes forward.

    Returns:
        The attempt that it belongs to, and by how many bytes the task has grown.
    """
    event_type: str = event["type"]
    get = event.get
    stamp: Any = get("timestamp")
    if not ((type(stamp) is float or type(stamp) is int) and MIN_TIMESTAMP <= stamp < MAX_TIMESTAMP):
        stamp = None
    clock = get("clock")
    if type(clock) is not int or not -MAX_INTEGER <= clock < MAX_INTEGER:
        clock = None
    to = STATE_OF_EVENT.get(event_type)
    own_type = _OWN_TYPES.get(event_type)
    if to is None:
        to, is_news = state_of(event_type), True
        attempt = of_custom(attempts, process, _worker_name(event, process), now)
        if attempt.state == LOST:
            return attempt, 0
    else:
        retries = get("retries")
        if type(retries) is not int or not 0 <= retries < MAX_RETRIES:
            retries = None
        is_discard = to == "REVOKED" and get("terminated") is False
        attempt, is_news = find(attempts, event_type, retries, stamp, clock, process, now, is_discard)
    if not is_news:
        return attempt, 0
    if is_moved := moves(attempt.state, to):
        attempt.state = to
    if process is not None and (is_moved or attempts not in process.held):
        attempts.hold(attempt)
    grown = 0
    shown = attempts.shown
    if shown is not attempt and attempts.show() is not shown:
        grown = _show(task, attempts, shown)
    is_shown = attempts.shown is attempt
    if is_shown:
        task.state = attempt.state
        if to != "PENDING":
            task.attempts = attempt.number
    if to == "PENDING":
        grown += _take_sent(task, attempts, attempt, event, stamp)
    elif own_type is None:
        if is_shown:
            grown += _take_custom(task, event, process, stamp)
    else:
        if attempt.precedes(clock, stamp):
            attempt.clock, attempt.stamp = clock, stamp
        if to == "RECEIVED":
            grown += _take_received(task, attempts, attempt, event, stamp)
        elif to == "STARTED":
            attempt.started = stamp
            if process is not None:
                process.starts += 1
            if is_shown:
                task.started = stamp
                _measure_queue(task)
                _measure_run(task)
        elif attempt.state == to:
            grown += _take_end(task, attempts, attempt, event, stamp)
        if is_shown and process is not None:
            task.worker, task.pid = process.hostname, process.pid
        elif is_shown:
            _set_worker(task, event)
    if is_shown and attempt.state == to:
        task.type = own_type or shared(event_type[:MAX_NAME_CHARS])
        task.lost = None
        if stamp is not None:
            task.timestamp = stamp
        if clock is not None:
            task.clock = clock
    return attempt, grown


def lose(task: Task, attempts: Attempts, process: Process, time: float) -> Attempt | None:
    """Mark what a process had in its hands as lost, for it is gone.

    Args:
        time: epoch seconds.

    Returns:
        The attempt that the task shows, if that is lost now; ``None`` if another one goes on.
    """
    kept = attempts.kept()
    for attempt in tuple(attempts.of_process(process)):
        # A worker that stops does not acknowledge what it has not started: the broker delivers it again.
        is_back = process.stopping_at is not None and attempt.state == "RECEIVED"
        is_retried = any(a.run == attempt.run and a.retries > attempt.retries for a in kept)
        if not is_back and not is_retried:
            attempt.state = LOST
    shown = attempts.shown
    if shown is None or shown.state != LOST or task.lost is not None:
        return None
    task.state, task.type = LOST, "task-lost"
    task.lost = task.timestamp = time
    return shown


def shared(text: str) -> str:
    """Return the one copy in memory of a text that many tasks have. (``sys.intern`` may never let one go.)"""
    if len(_texts) >= MAX_SHARED_TEXTS:
        _texts.clear()
    return _texts.setdefault(text, text) if len(text) <= MAX_NAME_CHARS else text


def _worker_name(event: Event, process: Process | None) -> str | None:
    """Return the worker that a custom event is from; ``None`` for a client's."""
    if process is not None:
        return process.hostname
    hostname = event.get("hostname")
    return hostname if type(hostname) is str and "@" in hostname and not is_client(hostname) else None


def _show(task: Task, attempts: Attempts, before: Attempt | None) -> int:
    """Let the task show another attempt, of which nothing is known yet; return by how much it has grown."""
    shown = attempts.shown
    assert shown is not None
    task.attempts = shown.number if shown.is_heard else 0
    if before is None:
        return 0
    grown = 0 if task.info is None else -len(task.info)
    kept_bytes = sum(_ATTEMPT_BYTES + _size(attempt.exception) for attempt in attempts.kept()[:-1])
    grown, attempts.earlier_bytes = grown + kept_bytes - attempts.earlier_bytes, kept_bytes
    for field in _OF_ATTEMPT:
        setattr(task, field, None)
    for field in _TEXTS_OF_ATTEMPT:
        grown -= _size(getattr(task, field))
        setattr(task, field, None)
    task.informed = task.info = task.progress = None
    if shown.run != before.run:
        for field in _OF_RUN:
            setattr(task, field, None)
        task.retries = shown.retries
    if not shown.is_heard:
        task.worker = task.pid = None
    return grown


def _take_sent(task: Task, attempts: Attempts, attempt: Attempt, event: Event, stamp: float | None) -> int:
    attempt.sent = stamp
    last = attempts.last
    if last is None or attempt.run != last.run or attempt.retries < task.retries:
        return 0  # of a message before the youngest
    hostname = event.get("hostname")
    if type(hostname) is str:
        task.client = shared(hostname[:MAX_NAME_CHARS])
    task.sent, task.retries = stamp, attempt.retries
    grown = _take_texts(task, event, _SENT, is_second_hand=last.received is not None)
    if attempt.received is None:
        attempt.eta = task.eta
    if attempts.shown is last:
        _measure_queue(task)
    return grown


def _take_received(
    task: Task, attempts: Attempts, attempt: Attempt, event: Event, stamp: float | None
) -> int:
    attempt.received = stamp
    eta = event.get("eta")
    attempt.eta = eta if type(eta) is str else None
    grown = 0
    if attempts.last is attempt:
        task.retries = attempt.retries
        grown = _take_texts(task, event, _CALL)
    if attempts.shown is attempt:
        task.received = stamp
        _measure_queue(task)
    return grown


def _take_end(task: Task, attempts: Attempts, attempt: Attempt, event: Event, stamp: float | None) -> int:
    time_field, fields = _ENDS[event["type"]]
    attempt.ended = stamp
    exception = event.get("exception")
    if fields is _ERROR and type(exception) is str:
        attempt.exception = exception[:MAX_TRY_TEXT_CHARS]
    if time_field == "retried" or time_field == "rejected":
        shown = attempts.shown
        if shown is None or shown.run != attempt.run:
            return 0
        setattr(task, time_field, stamp)  # of whichever attempt
    if attempts.shown is not attempt:
        return 0
    if time_field is not None:
        setattr(task, time_field, stamp)
    grown = _take_texts(task, event, fields) if fields else 0
    for field in _TEXTS_OF_ATTEMPT:
        if field not in fields and (text := getattr(task, field)) is not None:  # of another outcome
            grown -= _size(text)
            setattr(task, field, None)
    runtime = None
    if attempt.state == "SUCCESS":
        task.progress = 1.0
        runtime = event.get("runtime")
    task.runtime = runtime if _is_seconds(runtime) else None
    _measure_run(task)
    return grown


def _take_custom(task: Task, event: Event, process: Process | None, stamp: float | None) -> int:
    hostname = _worker_name(event, process)
    if task.worker is None and hostname is not None:
        task.worker = shared(hostname[:MAX_NAME_CHARS])
    if stamp is not None:
        task.informed = stamp
    info = {field: value for field, value in event.items() if field not in _COMMON}
    before = 0 if task.info is None else len(task.info)
    text = encode(info) if info else b""
    task.info = msgspec.Raw(text) if 0 < len(text) <= MAX_INFO_BYTES else None
    task.progress = 1.0 if task.state == "SUCCESS" else _progress(info)
    return (0 if task.info is None else len(task.info)) - before


def _set_worker(task: Task, event: Event) -> None:
    hostname, pid = event.get("hostname"), event.get("pid")
    if type(hostname) is str and "@" in hostname:
        task.worker = shared(hostname[:MAX_NAME_CHARS])
        task.pid = pid if type(pid) is int and -MAX_INTEGER <= pid < MAX_INTEGER else None


def _take_texts(task: Task, event: Event, fields: tuple[str, ...], is_second_hand: bool = False) -> int:
    """Set the task's texts to the event's; return by how many bytes the task has grown.

    Args:
        is_second_hand: fill only missing fields of the call: the worker's values take precedence.
    """
    grown = 0
    for field in fields:
        value = event.get(field)
        known = getattr(task, field)
        if value == known:
            continue
        is_planned = field in _PLANNED  # and null means that it is not
        if is_second_hand and field in _CALL and (is_planned or known is not None):
            continue
        if type(value) is str:
            if len(value) > MAX_TEXT_CHARS:
                value = value[-MAX_TEXT_CHARS:]
            if field in _SHARED:
                value = shared(value)
            grown += len(value) if value.isascii() else 4 * len(value)
        elif value is None:
            if known is None or not is_planned or field not in event:
                continue
        elif field != "expires" or not _is_seconds(value):
            continue
        if type(known) is str:
            grown -= len(known) if known.isascii() else 4 * len(known)
        setattr(task, field, value)
    return grown


def _size(text: str | None) -> int:
    if text is None:
        return 0
    return len(text) if text.isascii() else 4 * len(text)


def _is_seconds(value: object) -> bool:
    return (type(value) is float or type(value) is int) and 0 <= value < MAX_SECONDS


def _measure_queue(task: Task) -> None:
    """Set how long the attempt was in the queue."""
    started = task.started
    if started is None:
        return
    sent, rejected, received = task.sent, task.rejected, task.received
    is_redelivered = task.attempts > task.retries + 1  # otherwise it had a message of its own
    if is_redelivered and not (sent and rejected and sent > rejected):
        sent = rejected
    queued_at = received if sent is None or sent > started else sent
    task.queued_seconds = None if queued_at is None or queued_at > started else started - queued_at


def _measure_run(task: Task) -> None:
    """Set how long the attempt ran, where its worker does not say."""
    ended = task.failed if task.succeeded is None else task.succeeded
    if task.runtime is None and task.started is not None and ended is not None and ended >= task.started:
        task.runtime = ended - task.started


def _progress(info: dict[str, Any]) -> float | None:
    said: Any = info.get("progress")
    current: Any = info.get("current")
    total: Any = info.get("total")
    if type(said) in _NUMBERS and 0 <= said <= 1:
        return float(said)
    if type(current) in _NUMBERS and type(total) in _NUMBERS and total > 0:
        try:
            return min(1.0, max(0.0, float(current / total)))
        except OverflowError:
            return None
    return None
