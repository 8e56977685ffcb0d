"""A task as events describe it: the fields of Celery's own ``State.Task``, and what follows from them.

Names are those of celery/events/state.py (``Task._fields``), except that ``worker`` and ``client`` are node
names. What events say is taken over field by field: a late event fills in what was not known, and never
undoes what a younger one of its kind said. ``state`` follows the table in ``state``.

Texts that many tasks have in common (names, nodes, queues) are interned: there is one of each in memory.
"""

from collections.abc import Iterable
from sys import intern
from typing import Any

import msgspec

from gateway.event import Event, encode
from gateway.state import READY_STATES, Reached, state_of, transition

MAX_TEXT_CHARS = 32_000
"""The most of a traceback or another text that is kept: its end. (On the stream it goes by whole.)"""
MAX_INFO_BYTES = 16_000
"""The most of a custom event's own fields that is kept."""

ACTIVE_STATES = frozenset({"RECEIVED", "STARTED"})
"""States in which a worker has the task. A custom state counts as one, too."""

_CALL = ("args", "kwargs", "eta", "expires")
_ERROR = ("exception", "traceback")
_RULES: dict[str, tuple[str | None, tuple[str, ...]]] = {
    "task-sent": ("sent", (*_CALL, "queue", "exchange", "routing_key")),
    "task-received": ("received", _CALL),
    "task-started": ("started", ()),
    "task-succeeded": ("succeeded", ("result", "runtime")),
    "task-failed": ("failed", _ERROR),
    "task-retried": ("retried", _ERROR),
    "task-rejected": ("rejected", ()),
    "task-revoked": ("revoked", ()),
    "task-cancelled": (None, ()),
}
"""By type of event: where its time goes, and which of its fields are kept."""

_COMMON = frozenset(
    {"type", "uuid", "timestamp", "hostname", "utcoffset", "pid", "clock", "local_received", "time", "id"}
    | {"cluster", "name", "root_id", "parent_id", "state"}
)
_SHARED = frozenset({"queue", "exchange", "routing_key", "kwargs"})
_NOT_RUNNING = frozenset({None, "PENDING", "RETRY", "CANCELLED", "REJECTED"}) | READY_STATES


class Task(msgspec.Struct, gc=False):  # no reference leads back to it, so the collector can pass it by
    """What is known of one task. Times are epoch seconds, UTC, on the sender's clock.

    Attributes:
        type: of the latest event.
        timestamp: of the youngest event.
        worker: the node that received or runs it.
        client: the node that sent it.
        attempts: how often a worker has begun it.
        queued_seconds: from sent (or received, where that was not seen) to started, of the last attempt.
        runtime: seconds, as the worker says; of a failed task from started to failed.
        info: the own fields of the latest custom event, such as ``task-progress``.
        progress: 0..1, where ``info`` has ``current`` and ``total``.
        pid: of the worker that runs it.
        cluster: the broker's name; left out where it has none.
    """

    uuid: str
    name: str | None = None
    state: str | None = None
    root_id: str | None = None
    parent_id: str | None = None
    type: str | None = None
    timestamp: float = 0.0
    worker: str | None = None
    client: str | None = None
    queue: str | None = None
    exchange: str | None = None
    routing_key: str | None = None
    sent: float | None = None
    received: float | None = None
    started: float | None = None
    succeeded: float | None = None
    failed: float | None = None
    retried: float | None = None
    revoked: float | None = None
    rejected: float | None = None
    args: str | None = None
    kwargs: str | None = None
    eta: str | None = None
    expires: str | float | None = None
    retries: int = 0
    attempts: int = 0
    queued_seconds: float | None = None
    runtime: float | None = None
    result: str | None = None
    exception: str | None = None
    traceback: str | None = None
    info: dict[str, Any] | None = None
    progress: float | None = None
    clock: int | None = None
    pid: int | None = None
    cluster: str | msgspec.UnsetType = msgspec.UNSET

    @property
    def is_ready(self) -> bool:
        """True if it has ended, whichever way."""
        return self.state in READY_STATES

    @property
    def is_running(self) -> bool:
        """True if a worker has it in its hands."""
        return self.state not in _NOT_RUNNING

    @property
    def begun_at(self) -> float | None:
        """When it was first heard of."""
        return self.sent or self.received or self.started

    @property
    def ended_at(self) -> float | None:
        """When it ended; ``None`` if it has not."""
        ended = {"SUCCESS": self.succeeded, "FAILURE": self.failed, "REVOKED": self.revoked}
        return ended.get(self.state or "")

    def keys(self) -> tuple[str | None, ...]:
        """Return what filters look at, as ``event.keys`` does: of its latest event, so to speak."""
        return (
            self.type,
            self.name,
            self.root_id,
            self.parent_id,
            self.uuid,
            self.worker or self.client,
            self.state,
            self.queue,
            None if self.cluster is msgspec.UNSET else self.cluster,
        )


def apply(task: Task, reached: Reached, event: Event) -> tuple[Reached, int]:
    """Take one of a task's events in; return how far it has come, and by how many characters it has grown.

    ``reached`` is what this returned for the event before. The task's names are left alone.
    """
    event_type: str = event["type"]
    stamp, retries = event.get("timestamp"), event.get("retries")
    timestamp = stamp if type(stamp) is float or type(stamp) is int else reached.timestamp
    to = Reached(state_of(event_type), timestamp, retries if type(retries) is int else reached.retries)
    now = transition(reached, to)
    if now is to:
        task.state = to.state
        task.retries = to.retries
        if event_type == "task-started":
            task.attempts = max(task.attempts, task.retries) + 1
            task.runtime = None
    elif event_type == "task-started" and not task.attempts:
        task.attempts = task.retries + 1
    task.type = intern(event_type)
    if timestamp > task.timestamp:
        task.timestamp = timestamp
    hostname = event.get("hostname")
    if event_type == "task-sent":
        if type(hostname) is str:
            task.client = intern(hostname)
    elif now is to and type(hostname) is str and "@" in hostname:
        task.worker = intern(hostname)
        pid = event.get("pid")
        task.pid = pid if type(pid) is int else None
    clock = event.get("clock")
    if type(clock) is int:
        task.clock = clock
    rule = _RULES.get(event_type)
    if rule is None:
        return now, _describe(task, event)
    time_field, fields = rule
    is_young = True
    if time_field is not None:
        before = getattr(task, time_field)
        is_young = before is None or timestamp >= before
        if is_young and stamp is not None:
            setattr(task, time_field, timestamp)
    if not fields:
        if event_type == "task-started" and is_young:
            queued_since = task.sent or task.received
            if queued_since is not None:
                task.queued_seconds = max(0.0, timestamp - queued_since)
        return now, 0
    # Of a call the worker's word goes before the client's.
    is_second_hand = event_type == "task-sent" and task.received is not None
    grown = 0
    for field in fields:
        value = event.get(field)
        if value is None:
            continue
        known = getattr(task, field)
        if known is not None and (is_second_hand or not is_young):
            continue
        if type(value) is str:
            if len(value) > MAX_TEXT_CHARS:
                value = value[-MAX_TEXT_CHARS:]
            grown += len(value)
            if field in _SHARED:
                value = intern(value)
        elif type(value) is not float and type(value) is not int:
            continue
        if type(known) is str:
            grown -= len(known)
        setattr(task, field, value)
    if event_type == "task-failed" and task.started is not None and task.runtime is None:
        task.runtime = max(0.0, timestamp - task.started)
    return now, grown


def view(task: Task, children: Iterable[str], is_stale: bool) -> bytes:
    """Return a task as JSON, with what lies outside of its record.

    Args:
        children: the uuids of the tasks that it has started.
        is_stale: its worker died while it had it.
    """
    return b'%b,"children":%b,"stale":%b}' % (
        encode(task)[:-1],
        encode(list(children)),
        b"true" if is_stale else b"false",
    )


VIEW_FIELDS = (*Task.__struct_fields__, "children", "stale")
"""The fields of ``view``, in its order."""


def _describe(task: Task, event: Event) -> int:
    """Take a custom event's own fields in; return by how many characters the task has grown."""
    info = {field: value for field, value in event.items() if field not in _COMMON}
    before = 0 if task.info is None else len(encode(task.info))
    size = len(encode(info)) if info else 0
    if size > MAX_INFO_BYTES:
        info, size = {}, 0
    task.info = info or None
    current, total = info.get("current"), info.get("total")
    task.progress = None
    if isinstance(current, int | float) and isinstance(total, int | float) and total > 0:
        task.progress = min(1.0, max(0.0, current / total))
    return size - before
