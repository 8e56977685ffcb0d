"""The course of a task: how its events change its record.

What events say is taken over field by field: a late event fills in what was not known, and never undoes
what a younger one of its kind said; the same event again changes nothing. ``state`` follows the table in
``state``. Texts that many tasks have in common (names, nodes, queues) are shared: there is one of each.
"""

from typing import Any

import msgspec

from gateway.event import Event, encode, is_client
from gateway.state import ATTEMPT_ENDED_STATES, READY_STATES, Reached, state_of, transition
from gateway.task import Task

MAX_TEXT_CHARS = 32_000
"""The most of a traceback or another text that is kept: its end. (On the stream it goes by whole.)"""
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

_CALL = ("args", "kwargs", "eta", "expires")
_ERROR = ("exception", "traceback")
_RULES: dict[str, tuple[str | None, tuple[str, ...]]] = {
    "task-sent": ("sent", (*_CALL, "queue", "exchange", "routing_key")),
    "task-received": ("received", _CALL),
    "task-started": ("started", ()),
    "task-succeeded": ("succeeded", ("result",)),
    "task-failed": ("failed", _ERROR),
    "task-retried": ("retried", _ERROR),
    "task-rejected": ("rejected", ()),
    "task-revoked": ("revoked", ()),
    "task-cancelled": (None, ()),
}
_CUSTOM_RULE: tuple[str | None, tuple[str, ...]] = ("informed", ())
"""By type of event: where its time goes, and which of its texts are kept."""

_COMMON = frozenset(
    {"type", "uuid", "timestamp", "hostname", "utcoffset", "pid", "clock", "local_received", "time", "id"}
    | {"cluster", "name", "root_id", "parent_id", "state"}
)
_SHARED = frozenset({"queue", "exchange", "routing_key", "kwargs"})
_PLANNED = frozenset({"eta", "expires"})
_NUMBERS = frozenset({int, float})
_BEGUN = frozenset({"STARTED", "RETRY"})
_ENDED_AT = {"succeeded": "SUCCESS", "failed": "FAILURE", "revoked": "REVOKED"}


def apply(task: Task, reached: Reached, event: Event) -> tuple[Reached, int]:
    """Take one of a task's events in; return how far it has come, and by how many bytes it has grown.

    ``reached`` is what this returned for the event before. The task's names are left alone. What is not of
    its field's type, or beyond its bounds, is passed over.
    """
    event_type: str = event["type"]
    time_field, fields = _RULES.get(event_type, _CUSTOM_RULE)
    get = event.get
    stamp: Any = get("timestamp")
    retries, hostname = get("retries"), get("hostname")
    is_timed = (type(stamp) is float or type(stamp) is int) and MIN_TIMESTAMP <= stamp < MAX_TIMESTAMP
    timestamp: float = stamp if is_timed else reached.timestamp
    if type(retries) is not int or not 0 <= retries < MAX_RETRIES:
        retries = None
    of_retries = reached.retries if retries is None else retries
    to = Reached(state_of(event_type), timestamp, of_retries, reached.retreats)

    before: float | None = None if time_field is None else getattr(task, time_field)
    is_past = timestamp <= reached.timestamp or timestamp == before
    is_past = is_past and _is_past(task, reached, to, before, hostname)
    if to.state in _BEGUN and (reached.state in READY_STATES or task.starts > task.retries):
        is_past = is_past or _is_of_earlier_message(task, to)
    if is_past:
        now = reached
    else:
        now = transition(reached, to)
        if now is not to and reached.state in READY_STATES and _has_begun_between(task, reached, to):
            now = to
    is_moved = now is to
    # A client tells what it has sent when that may have begun already, or be over.
    is_late = event_type == "task-sent" and retries is not None and retries < task.retries
    is_new = not is_late and (before is None or timestamp > before or is_moved)
    is_young = is_new or (timestamp == before and not is_late)

    grown = 0
    if event_type == "task-received" and task.informed is not None and is_new:
        if task.informed <= timestamp or (is_moved and hostname != task.worker):
            grown = _forget_info(task)
    elif time_field == "informed" and task.received is not None and timestamp < task.received:
        is_young = is_young and hostname != task.worker  # else it is of an earlier attempt
    if is_moved:
        if reached.state in READY_STATES:
            now = _end_after(task, to)
        task.state = now.state
    if not is_timed or timestamp >= task.timestamp or task.type is None:
        task.type = shared(event_type[:MAX_NAME_CHARS])
        clock = get("clock")
        if type(clock) is int and -MAX_INTEGER <= clock < MAX_INTEGER:
            task.clock = clock
        if is_timed:
            task.timestamp = timestamp
    if type(hostname) is str:
        if event_type == "task-sent":
            if is_young:
                task.client = shared(hostname[:MAX_NAME_CHARS])
        elif (is_moved or task.pid is None) and "@" in hostname:
            _set_worker(task, hostname, event, time_field == "informed")

    if is_young and is_timed and time_field is not None:
        setattr(task, time_field, timestamp)
    if fields:
        grown += _take_texts(task, event, fields, is_young, timestamp)
    elif time_field == "informed" and is_young:
        grown += _describe(task, event)
    if retries is not None and (event_type == "task-received" or event_type == "task-sent"):
        if retries and not task.starts and before is None and event_type == "task-received":
            task.starts = retries  # begun and retried so often before we listened
            now = _with_retreats(now, retries)
        if not is_late:
            _set_retries(task, retries, timestamp)
    if event_type == "task-started":
        if is_new and (is_timed or is_moved):
            _begin(task, before, timestamp if is_timed else None)
        elif not is_young and task.started is not None:
            queued_seconds = _queued_seconds(task, task.starts + 1, timestamp, task.started)
            task.queued_seconds = task.queued_seconds if queued_seconds is None else queued_seconds
    elif event_type == "task-retried" and is_new:
        now = _with_retreats(now, now.retreats + 1)
    elif is_new and (event_type == "task-succeeded" or (is_timed and task.started is not None)):
        _measure(task, event, time_field, timestamp)
    return now, grown


def shared(text: str) -> str:
    """Return the one copy in memory of a text that many tasks have. (``sys.intern`` may never let one go.)"""
    if len(_texts) >= MAX_SHARED_TEXTS:
        _texts.clear()
    return _texts.setdefault(text, text) if len(text) <= MAX_NAME_CHARS else text


def _with_retreats(reached: Reached, retreats: int) -> Reached:
    state, timestamp, retries, _ = reached
    return Reached(state, timestamp, retries, retreats)  # _replace costs twice as much


def _is_past(task: Task, reached: Reached, to: Reached, before: float | None, hostname: object) -> bool:
    """Tell whether an event, no younger than the state, was seen already or is of an earlier attempt.

    Within an attempt all comes from one worker, and so by one clock; still an older event is heard, since
    clocks are set back, unless there is a sign of another attempt.
    """
    if to.timestamp == before:
        return to.retries <= reached.retries
    if before is not None and to.timestamp < before:
        return hostname == task.worker
    return (
        to.state in ATTEMPT_ENDED_STATES
        and to.timestamp < reached.timestamp
        and (task.attempts > 1 or (task.worker is not None and hostname != task.worker))
    )


def _is_of_earlier_message(task: Task, to: Reached) -> bool:
    """Tell whether an attempt is one before that of the last message, which a worker may read first.

    So with a retry that comes back at once: one of the worker's processes sends it, another begins it, and
    may even have ended it, before the worker tells of the attempt before, with a younger timestamp, that it
    was retried.
    """
    if to.state == "STARTED":
        return task.starts < task.retries
    return min(task.starts, to.retreats + 1) <= task.retries


def _has_begun_between(task: Task, reached: Reached, to: Reached) -> bool:
    """Tell whether an attempt is known that began after the end that was reached and before ``to``."""
    begun_at = max(task.received or reached.timestamp, task.started or reached.timestamp)
    return to.state != "PENDING" and reached.timestamp < begun_at < to.timestamp


def _forget_info(task: Task) -> int:
    """Forget what custom events said of the attempt before; return by how much the task has grown."""
    grown = 0 if task.info is None else -len(task.info)
    task.informed = task.info = task.progress = None
    return grown


def _end_after(task: Task, to: Reached) -> Reached:
    """Return ``to``, a new attempt of a task that had ended; or the attempt's own end, if that came first."""
    for time_field, state in _ENDED_AT.items():
        ended_at = getattr(task, time_field)
        if ended_at is not None and ended_at > to.timestamp:
            to = Reached(state, ended_at, to.retries, to.retreats)
    return to


def _set_worker(task: Task, hostname: str, event: Event, is_custom: bool) -> None:
    if is_custom:  # from clients, too, and with the pid of the worker's child
        if task.worker is None and not is_client(hostname):
            task.worker = shared(hostname[:MAX_NAME_CHARS])
        return
    pid = event.get("pid")
    task.worker = shared(hostname[:MAX_NAME_CHARS])
    task.pid = pid if type(pid) is int and -MAX_INTEGER <= pid < MAX_INTEGER else None


def _set_retries(task: Task, retries: int, timestamp: float) -> None:
    is_youngest = (task.sent is None or task.sent <= timestamp) and (
        task.received is None or task.received <= timestamp
    )
    if is_youngest or retries > task.retries:  # it is the younger one even if its clock is behind
        task.retries = retries
        task.attempts = max(task.attempts, retries)


def _take_texts(task: Task, event: Event, fields: tuple[str, ...], is_young: bool, timestamp: float) -> int:
    """Take an event's texts over; return by how many bytes the task has grown."""
    event_type = event["type"]
    if fields is _ERROR:  # told by events of two types
        rival = task.retried if event_type == "task-failed" else task.failed
        is_young = is_young and (rival is None or timestamp >= rival)
    # Of a call the worker's word goes before the client's.
    is_second_hand = event_type == "task-sent" and task.received is not None
    grown = 0
    for field in fields:
        value = event.get(field)
        known = getattr(task, field)
        is_planned = field in _PLANNED  # and null means that it is not
        if is_second_hand and (is_planned or (known is not None and field in _CALL)):
            continue
        if not is_young and (is_planned or known is not None):
            continue
        if type(value) is str:
            if len(value) > MAX_TEXT_CHARS:
                value = value[-MAX_TEXT_CHARS:]
            grown += len(value) if value.isascii() else 4 * len(value)
            if field in _SHARED:
                value = shared(value)
        elif value is None:
            if known is None or not is_planned or field not in event:
                continue
        elif field != "expires" or not _is_seconds(value):
            continue
        if type(known) is str:
            grown -= _size(known)
        setattr(task, field, value)
    return grown


def _size(text: str) -> int:
    return len(text) if text.isascii() else 4 * len(text)


def _is_seconds(value: object) -> bool:
    return (type(value) is float or type(value) is int) and 0 <= value < MAX_SECONDS


def _begin(task: Task, before: float | None, started: float | None) -> None:
    """Count an attempt; tell how long it was in the queue, and how long it ran if its end came first.

    Args:
        before: when the attempt before was started.
        started: ``None`` if the event does not say.
    """
    starts = task.starts = task.starts + 1
    task.attempts = max(starts, task.retries)
    task.queued_seconds = None if started is None else _queued_seconds(task, starts, before, started)
    if task.succeeded is None or started is None or task.succeeded < started:
        task.runtime = None
    if task.runtime is None:
        task.runtime = _since_start(task, task.succeeded) or _since_start(task, task.failed)


def _queued_seconds(task: Task, starts: int, before: float | None, started: float) -> float | None:
    """Return how long the attempt that started then was in the queue.

    Args:
        starts: how many are known.
        before: when the attempt before was started.
    """
    if starts <= task.retries + 1:
        before = None  # each had a message of its own
    # Of sent and rejected the younger: a client tells what it has sent late, when that may have come back.
    for told in ((task.sent, task.rejected), (task.received,)):
        if fit := [at for at in told if at is not None and at <= started and (before is None or at > before)]:
            return started - max(fit)
    return None


def _measure(task: Task, event: Event, time_field: str | None, timestamp: float) -> None:
    """Tell what a new event other than task-started says of the times of the attempt it belongs to."""
    if time_field == "succeeded":
        if task.failed is None or task.failed <= timestamp:
            runtime = event.get("runtime")
            if task.started is not None:
                task.attempts = max(task.attempts, task.retries + 1)
            task.runtime = runtime if _is_seconds(runtime) else _since_start(task, task.succeeded)
    elif time_field == "failed":
        if task.succeeded is None or task.succeeded < timestamp:
            task.runtime = _since_start(task, task.failed)
    elif (
        task.started is not None
        and timestamp <= task.started
        and (
            (time_field == "sent" and task.attempts <= task.retries + 1)
            or (time_field == "rejected" and (task.sent is None or task.sent < timestamp))
            or (time_field == "received" and task.queued_seconds is None)
        )
    ):
        task.queued_seconds = task.started - timestamp


def _since_start(task: Task, ended_at: float | None) -> float | None:
    if ended_at is None or task.started is None or ended_at < task.started:
        return None
    return ended_at - task.started


def _describe(task: Task, event: Event) -> int:
    """Take a custom event's own fields in; return by how many bytes the task has grown."""
    info = {field: value for field, value in event.items() if field not in _COMMON}
    before = 0 if task.info is None else len(task.info)
    text = encode(info) if info else b""
    task.info = msgspec.Raw(text) if 0 < len(text) <= MAX_INFO_BYTES else None
    task.progress = _progress(info)
    return (0 if task.info is None else len(task.info)) - before


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
