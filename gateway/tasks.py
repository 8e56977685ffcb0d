"""The table of tasks: what is known of each by its uuid, and events joined with it.

Most of Celery's task events name neither the task nor its workflow: ``task-started`` is a uuid and a time.
Here each event gains ``name``, ``root_id``, ``parent_id`` and ``state``, learnt from ``task-sent`` and
``task-received`` of the same uuid. (A name also from ``know``, where workers are asked.) What else the events
say is kept in a record (see ``task`` and ``course``), by uuid, by root, and by parent.

- An event that comes before its task is known waits up to ``JOIN_WAIT_SECONDS`` for it; the events of one
  task keep their order. After that they go on with ``null``, and later ones of that task do not wait again.
- Memory is bounded by count and bytes. Over the bound the tasks that finished first are forgotten first,
  then those not heard of for longest; one that has not been heard of for ``UNHEARD_SECONDS`` goes before all
  of them, since Celery does not tell the end of every task. A forgotten task is gone from the table whole;
  its later events have ``null`` names.
- Pure: no clock of its own, no I/O. ``now`` is any clock of seconds that only goes forward.
"""

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from itertools import takewhile
from typing import NamedTuple

from gateway.course import apply, shared
from gateway.event import Event, encode
from gateway.state import READY_STATES, Reached, state_of
from gateway.task import Task

JOIN_WAIT_SECONDS = 1.0
"""Celery flushes a worker's events once a loop, so what names a task is at most a loop and a hop behind."""
MAX_WAITING_EVENTS = 10_000
MAX_WAITING_BYTES = 16 << 20
UNHEARD_SECONDS = 24 * 3600.0
MAX_EVICTED = 100_000
"""Of how many forgotten tasks at most it is remembered that they were known; of half as many at least."""

_TASK_OVERHEAD_BYTES = 1_300
"""Measured: 1,450 for a task whose own texts have 190 characters."""
_EVENT_OVERHEAD_BYTES = 2_000
_IDENTIFYING = frozenset({"task-sent", "task-received"})


class TasksStatistics(NamedTuple):
    """Counts of the table; the evicted and unnamed ones only grow."""

    known: int
    known_bytes: int
    waiting_events: int
    evicted_finished: int
    evicted_unfinished: int
    unnamed_events: int


class Record:
    """A task's place in the table.

    Attributes:
        task: what is known of it.
        number: counts tasks in the order in which they became known.
        version: of the table, when it changed last.
        children: the records of the tasks that it has started, by uuid; ``None`` or none: none is known.
    """

    __slots__ = (
        "task", "number", "version", "children", "reached", "is_received", "heard_at", "size_bytes"
    )  # fmt: skip

    def __init__(self, task: Task, number: int) -> None:
        self.task = task
        self.number = number
        self.version = 0
        self.children: dict[str, Record] | None = None
        self.reached = Reached()
        self.is_received = False
        self.heard_at = 0.0
        self.size_bytes = 0


class Root:
    """A workflow: the records of the tasks with one root_id, by uuid, and how many are not ready."""

    __slots__ = ("id", "members", "unready")

    def __init__(self, id: str) -> None:
        self.id = id
        self.members: dict[str, Record] = {}
        self.unready = 0


class _Waiting:
    __slots__ = ("deadline", "events", "size_bytes")

    def __init__(self, deadline: float) -> None:
        self.deadline = deadline
        self.events: list[Event] = []
        self.size_bytes = 0


class Tasks:
    """The table of tasks.

    Args:
        max_tasks: how many tasks are remembered at most.
        max_bytes: and in how many bytes, by estimate.
        has_clusters: events bear the name of their broker as ``cluster``.
    """

    def __init__(
        self, *, max_tasks: int = 100_000, max_bytes: int = 200_000_000, has_clusters: bool = False
    ) -> None:
        self._max_tasks = max_tasks
        self._max_bytes = max_bytes
        self._has_clusters = has_clusters
        self._records: dict[str, Record] = {}  # in the order of their numbers
        # Each in the order of the last change; a task is in one of the two. (A dict's first key is costly
        # to find once many before it were deleted.)
        self._unfinished: OrderedDict[str, Record] = OrderedDict()
        self._finished: OrderedDict[str, Record] = OrderedDict()
        self._roots: dict[str, Root] = {}
        # Children of parents that are not known (yet, or any more); each is in one place at most.
        self._orphans: dict[str, dict[str, Record]] = {}
        self._evicted: set[int] = set()  # hashes of uuids
        self._evicted_before: set[int] = set()
        self._waiting: OrderedDict[str, _Waiting] = OrderedDict()
        self._number = 0
        self._version = 0
        self._bytes = 0
        self._waiting_events = 0
        self._waiting_bytes = 0
        self._evicted_finished = 0
        self._evicted_unfinished = 0
        self._unnamed_events = 0

    def statistics(self) -> TasksStatistics:
        """Return the table's counts."""
        return TasksStatistics(
            known=len(self._records),
            known_bytes=self._bytes,
            waiting_events=self._waiting_events,
            evicted_finished=self._evicted_finished,
            evicted_unfinished=self._evicted_unfinished,
            unnamed_events=self._unnamed_events,
        )

    @property
    def next_deadline(self) -> float | None:
        """When ``release`` has something to do next, on the clock of ``now``; ``None`` if nothing waits."""
        for waiting in self._waiting.values():
            return waiting.deadline
        return None

    @property
    def version(self) -> int:
        """Counts the changes of the table."""
        return self._version

    def get(self, uuid: str) -> Record | None:
        """Return a task's record; ``None`` if it is not known (any more)."""
        return self._records.get(uuid)

    def was_evicted(self, uuid: str) -> bool:
        """Tell whether a task that is not known was, not too long ago."""
        hashed = hash(uuid)
        return uuid not in self._records and (hashed in self._evicted or hashed in self._evicted_before)

    def root(self, root_id: str) -> Root | None:
        """Return the workflow of this root, as far as it is known."""
        return self._roots.get(root_id)

    def newest(self) -> Iterator[Record]:
        """Give all records, those that became known last first. The table must not change meanwhile."""
        return reversed(self._records.values())

    def changed_since(self, version: int) -> list[str]:
        """Return the uuids of the tasks that have changed after the table had this version; all for -1."""
        if version < 0:
            return [*self._finished, *self._unfinished]
        return [
            record.task.uuid
            for records in (self._finished, self._unfinished)
            for record in takewhile(lambda record: record.version > version, reversed(records.values()))
        ]

    def join(self, event: Event, now: float) -> Iterable[Event]:
        """Take an event in; return the events that are ready to go on, joined, in order.

        Usually that is the event itself. It is nothing when the event has to wait, and more than one when
        it names a task that others waited for.
        """
        ready = self._join(event, now)
        self._evict(now)
        return ready

    def know(self, uuid: str, name: str, now: float) -> list[Event]:
        """Learn the name of a task that was under way before we listened; return the events freed by it.

        It gives way to what events say or have said; in a full table a task that is new finds no place. The
        workflow stays unknown: workers do not tell it when they are asked.
        """
        record = self._records.get(uuid)
        held: list[Event] = []
        if record is None:
            held = self._stop_waiting(uuid)
            if not held and not self._has_room_for(uuid, name):
                return []
            record = self._add(uuid)
            record.heard_at = now
        if record.task.name is None:
            record.task.name = shared(name)
            self._grow(record, len(name))
        self._touch(record)
        ready = [self._apply(event, record, now) for event in held]
        self._evict(now)
        return ready

    def _has_room_for(self, *texts: str) -> bool:
        size_bytes = _TASK_OVERHEAD_BYTES + sum(map(len, texts))
        return len(self._records) < self._max_tasks and self._bytes + size_bytes <= self._max_bytes

    def _join(self, event: Event, now: float) -> Iterable[Event]:
        uuid = event.get("uuid")
        event_type: str = event["type"]
        if type(uuid) is not str:
            if event_type.startswith("task-"):
                _joined(event, Task("", state=state_of(event_type)))
            return (event,)
        record = self._records.get(uuid)
        if not event_type.startswith("task-"):
            return (event if record is None else _joined(event, record.task),)
        if record is not None:
            return (self._apply(event, record, now),)
        if event_type in _IDENTIFYING:
            record = self._add(uuid)
            held = self._stop_waiting(uuid)
            if not held:
                return (self._apply(event, record, now),)
            self._identify(event, record)  # before those that waited for it are joined
            return [self._apply(waited, record, now) for waited in (*held, event)]
        if "name" in event and "root_id" in event and uuid not in self._waiting:
            # It needs no names, and gives none: they may be of its own making.
            return (_joined(event, Task(uuid, state=state_of(event_type))),)
        return self._wait(event, uuid, now)

    def release_all(self, now: float, cluster: str | None) -> list[Event]:
        """Return all events that wait, of a cluster if they have one, joined with what little is known."""
        uuids = [
            uuid
            for uuid, waiting in self._waiting.items()
            if not self._has_clusters or waiting.events[0]["cluster"] == cluster
        ]
        released = [event for uuid in uuids for event in self._give_up(uuid, now)]
        self._evict(now)
        return released

    def release(self, now: float) -> list[Event]:
        """Return the events that have waited long enough, joined with what little is known."""
        released: list[Event] = []
        while self._waiting:
            uuid, waiting = next(iter(self._waiting.items()))
            if waiting.deadline > now:
                break
            released += self._give_up(uuid, now)
        self._evict(now)
        return released

    def _wait(self, event: Event, uuid: str, now: float) -> list[Event]:
        waiting = self._waiting.get(uuid)
        if waiting is None:
            waiting = self._waiting[uuid] = _Waiting(now + JOIN_WAIT_SECONDS)
        size_bytes = _EVENT_OVERHEAD_BYTES + len(encode(event))
        waiting.events.append(event)
        waiting.size_bytes += size_bytes
        self._waiting_events += 1
        self._waiting_bytes += size_bytes
        released: list[Event] = []
        while self._waiting_events > MAX_WAITING_EVENTS or self._waiting_bytes > MAX_WAITING_BYTES:
            released += self._give_up(next(iter(self._waiting)), now)
        return released

    def _stop_waiting(self, uuid: str) -> list[Event]:
        waiting = self._waiting.pop(uuid, None)
        if waiting is None:
            return []
        self._waiting_events -= len(waiting.events)
        self._waiting_bytes -= waiting.size_bytes
        return waiting.events

    def _give_up(self, uuid: str, now: float) -> list[Event]:
        held = self._stop_waiting(uuid)
        record = self._add(uuid)
        return [self._apply(event, record, now) for event in held]

    def _add(self, uuid: str) -> Record:
        self._number += 1
        record = self._records[uuid] = self._unfinished[uuid] = Record(Task(uuid), self._number)
        if self._orphans:
            record.children = self._orphans.pop(uuid, None)
        self._grow(record, _TASK_OVERHEAD_BYTES + len(uuid))
        return record

    def _identify(self, event: Event, record: Record) -> None:
        """Learn names from a task-sent or task-received; the worker's word goes before the client's.

        A worker knows a task by its ``shadow``, and one that was replaced by its new name.
        """
        task = record.task
        is_received = event["type"] == "task-received"
        if record.is_received and not is_received:
            return
        record.is_received = is_received
        name, root_id, parent_id = event.get("name"), event.get("root_id"), event.get("parent_id")
        if type(name) is str and name != task.name:
            self._grow(record, len(name) - len(task.name or ""))
            task.name = shared(name)
        if type(root_id) is str and root_id != task.root_id:
            self._leave_root(record)
            self._grow(record, len(root_id) - len(task.root_id or ""))
            self._enter_root(record, root_id)
        # A retried task without a parent is sent again as its own child (celery/app/task.py, retry).
        if type(parent_id) is str and parent_id != task.parent_id and parent_id != task.uuid:
            self._leave_parent(record)
            self._grow(record, len(parent_id) - len(task.parent_id or ""))
            parent = self._records.get(parent_id)
            task.parent_id = parent_id if parent is None else parent.task.uuid
            if parent is None:
                siblings = self._orphans.setdefault(parent_id, {})
            else:
                siblings = parent.children = {} if parent.children is None else parent.children
                self._touch(parent)
            siblings[task.uuid] = record

    def _enter_root(self, record: Record, root_id: str) -> None:
        root = self._roots.get(root_id)
        if root is None:
            owner = self._records.get(root_id)
            root = self._roots[root_id] = Root(root_id if owner is None else owner.task.uuid)
        record.task.root_id = root.id
        root.members[record.task.uuid] = record
        root.unready += record.task.state not in READY_STATES

    def _leave_root(self, record: Record) -> None:
        root_id = record.task.root_id
        root = None if root_id is None else self._roots.get(root_id)
        if root is None or root.members.pop(record.task.uuid, None) is None:
            return
        root.unready -= record.task.state not in READY_STATES
        if not root.members:
            del self._roots[record.task.root_id or ""]

    def _leave_parent(self, record: Record) -> None:
        parent_id = record.task.parent_id
        if parent_id is None:
            return
        parent = self._records.get(parent_id)
        siblings = self._orphans.get(parent_id) if parent is None else parent.children
        if siblings is not None:
            siblings.pop(record.task.uuid, None)
            if parent is None and not siblings:
                del self._orphans[parent_id]

    def _apply(self, event: Event, record: Record, now: float) -> Event:
        """Move the task on by one of its events, and return the event joined."""
        event_type: str = event["type"]
        task = record.task
        if event_type in _IDENTIFYING:
            self._identify(event, record)
        if self._has_clusters:
            task.cluster = event["cluster"]
        was_ready = task.state in READY_STATES
        record.reached, grown = apply(task, record.reached, event)
        if grown:
            self._grow(record, grown)
        record.heard_at = now
        is_ready = task.state in READY_STATES
        if is_ready != was_ready:
            there, here = self._unfinished, self._finished
            if was_ready:
                there, here = here, there
            del there[task.uuid]
            here[task.uuid] = record
            if task.root_id is not None and (root := self._roots.get(task.root_id)) is not None:
                root.unready += 1 if was_ready else -1
        self._touch(record)
        if task.name is None and "name" not in event:
            self._unnamed_events += 1
        return _joined(event, task)

    def _touch(self, record: Record) -> None:
        """Take note that a record has changed; those that changed last are last in their line."""
        self._version += 1
        record.version = self._version
        is_finished = record.task.state in READY_STATES
        (self._finished if is_finished else self._unfinished).move_to_end(record.task.uuid)

    def _grow(self, record: Record, size_bytes: int) -> None:
        record.size_bytes += size_bytes
        self._bytes += size_bytes

    def _evict(self, now: float) -> None:
        while len(self._records) > self._max_tasks or self._bytes > self._max_bytes:
            oldest = next(iter(self._unfinished.values()), None)
            if self._finished and (oldest is None or now - oldest.heard_at < UNHEARD_SECONDS):
                _, record = self._finished.popitem(last=False)
                self._evicted_finished += 1
            else:
                _, record = self._unfinished.popitem(last=False)
                self._evicted_unfinished += 1
            self._forget(record)

    def _forget(self, record: Record) -> None:
        """Take a record out of all that leads to it."""
        uuid = record.task.uuid
        del self._records[uuid]
        self._leave_root(record)
        self._leave_parent(record)
        if record.children:
            self._orphans[uuid] = record.children
        self._bytes -= record.size_bytes
        self._evicted.add(hash(uuid))
        if len(self._evicted) >= MAX_EVICTED // 2:
            self._evicted, self._evicted_before = set(), self._evicted


def _joined(event: Event, task: Task) -> Event:
    """Add to an event what it does not say itself."""
    event.setdefault("name", task.name)
    event.setdefault("root_id", task.root_id)
    event.setdefault("parent_id", task.parent_id)
    event.setdefault("state", task.state)
    return event
