"""The table of tasks: what is known of each by its uuid, and events joined with it.

Most of Celery's task events name neither the task nor its workflow: ``task-started`` is a uuid and a time.
Here each event gains ``name``, ``root_id``, ``parent_id``, ``queue``, ``state`` and ``attempt``, taken from
``task-sent`` and ``task-received`` of the same uuid. (A name also from ``know``, where workers are asked; the
names of a task that nobody has named yet from a custom event that brings them.) What else the events say is
kept in a record (see ``task`` and ``course``), by uuid, by root, and by parent.

- A task is known by its cluster and its uuid, as text (``event.id_text``): two brokers may have one uuid.
- An event that comes before its task is known waits up to ``JOIN_WAIT_SECONDS`` for it; the events of one
  task keep their order. After that they go on with ``null``, and later ones of that task do not wait again.
- A task without a root (task protocol 1, Celery 3.1) is its own root.
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

from gateway.attempt import Attempts
from gateway.course import apply, lose, shared
from gateway.event import Event, encode, id_text, rfc3339
from gateway.process import Process
from gateway.state import READY_STATES, state_of
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
_NAME_RANKS = {"task-sent": 1, "task-received": 2}
_IDENTIFYING = frozenset(_NAME_RANKS)


class TasksStatistics(NamedTuple):
    """Counts of the table; the evicted and unnamed ones only grow."""

    known: int
    known_bytes: int
    waiting_events: int
    evicted_finished: int
    evicted_unfinished: int
    unnamed_events: int


class Record(Attempts):
    """A task's place in the table, and its attempts.

    Attributes:
        task: what is known of it.
        number: counts tasks in the order in which they became known.
        version: of the table, when it changed last.
        key: its uuid, with its cluster where there are several.
        children: the records of the tasks that it has started, by key; ``None`` or none: none is known.
        name_rank: who named it: 0 nobody that has to, 1 a client, 2 a worker.
        size_bytes: what it takes, by estimate.
    """

    __slots__ = ("task", "key", "number", "version", "children", "name_rank", "heard_at", "size_bytes")

    def __init__(self, task: Task, key: str, number: int) -> None:
        super().__init__()
        self.task = task
        self.key = key
        self.number = number
        self.version = 0
        self.children: dict[str, Record] | None = None
        self.name_rank = 0
        self.heard_at = 0.0
        self.size_bytes = 0

    @property
    def child_ids(self) -> list[str]:
        """The uuids of the tasks that it has started."""
        return [child.task.uuid for child in self.children.values()] if self.children else []


class Root:
    """A workflow: the records of the tasks with one root_id, by key.

    Attributes:
        unready: how many have not ended.
        lost: how many of those are lost.
        unsent: of how many no ``task-sent`` has come.
    """

    __slots__ = ("id", "members", "unready", "lost", "unsent")

    def __init__(self, id: str) -> None:
        self.id = id
        self.members: dict[str, Record] = {}
        self.unready = self.lost = self.unsent = 0

    def count(self, task: Task, by: int) -> None:
        """Add a task to the counts (``by`` 1), or take it out (-1)."""
        self.unready += by * (task.state not in READY_STATES)
        self.lost += by * (task.lost is not None)
        self.unsent += by * (task.sent is None)


class _Waiting:
    __slots__ = ("deadline", "events", "size_bytes")

    def __init__(self, deadline: float) -> None:
        self.deadline = deadline
        self.events: list[tuple[Event, Process | None]] = []
        self.size_bytes = 0


class Tasks:
    """The table of tasks.

    Args:
        max_tasks: how many tasks are remembered at most.
        max_bytes: and in how many bytes, by estimate.
        clusters: the names of the brokers, if they have any: events then bear theirs as ``cluster``.
    """

    def __init__(
        self, *, max_tasks: int = 100_000, max_bytes: int = 200_000_000, clusters: Iterable[str] = ()
    ) -> None:
        self._max_tasks = max_tasks
        self._max_bytes = max_bytes
        self._clusters = tuple(clusters)
        self._records: dict[str, Record] = {}  # by key, in the order of their numbers
        # Each in the order of the last change; a task is in one of the two. (A dict's first key is costly
        # to find once many before it were deleted.)
        self._unfinished: OrderedDict[str, Record] = OrderedDict()
        self._finished: OrderedDict[str, Record] = OrderedDict()
        self._roots: dict[str, Root] = {}
        # Children of parents that are not known (yet, or any more); each is in one place at most.
        self._orphans: dict[str, dict[str, Record]] = {}
        self._evicted: set[int] = set()  # hashes of keys
        self._evicted_before: set[int] = set()
        self._waiting: OrderedDict[str, _Waiting] = OrderedDict()
        self._late: dict[Process, None] = {}  # processes that are gone, and hold something
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

    def get(self, key: str) -> Record | None:
        """Return the record with a key (its uuid, where brokers have no names); ``None`` if there is none."""
        return self._records.get(key)

    def find(self, uuid: str, cluster: str | None = None) -> list[Record]:
        """Return the records of a uuid: one at most, or one at most for each cluster if none is named."""
        return [record for key in self.keys(uuid, cluster) if (record := self._records.get(key)) is not None]

    def was_evicted(self, uuid: str, cluster: str | None = None) -> bool:
        """Return whether a task that is not known was, not too long ago."""
        hashes = [hash(key) for key in self.keys(uuid, cluster) if key not in self._records]
        return any(hashed in self._evicted or hashed in self._evicted_before for hashed in hashes)

    def roots(self, root_id: str, cluster: str | None = None) -> list[Root]:
        """Return the workflows of a root, as far as they are known, as ``find`` does."""
        return [root for key in self.keys(root_id, cluster) if (root := self._roots.get(key)) is not None]

    def keys(self, id: str, cluster: str | None = None) -> list[str]:
        """Return the keys that a task or workflow of this id can have."""
        if not self._clusters:
            return [id]
        return [_key(name, id) for name in self._clusters if cluster is None or name == cluster]

    def newest(self) -> Iterator[Record]:
        """Give all records, those that became known last first. The table must not change meanwhile."""
        return reversed(self._records.values())

    def changed_since(self, version: int) -> list[str]:
        """Return the keys of the tasks that have changed after the table had this version; all for -1."""
        if version < 0:
            return [*self._finished, *self._unfinished]
        return [
            record.key
            for records in (self._finished, self._unfinished)
            for record in takewhile(lambda record: record.version > version, reversed(records.values()))
        ]

    def join(self, event: Event, now: float, process: Process | None = None) -> Iterable[Event]:
        """Take an event in; return the events that are ready to go on, joined, in order.

        Usually that is the event itself. It is nothing when the event has to wait, and more than one when
        it names a task that others waited for.

        Args:
            process: the worker's main process that it comes from (``Workers.hear``).
        """
        ready = self._join(event, process, now)
        self._evict(now)
        return ready

    def know(self, uuid: str, name: str, now: float, cluster: str | None = None) -> list[Event]:
        """Take the name of a task that was under way before we listened; return the events freed by it.

        It gives way to what events say or have said; in a full table a task that is new finds no place. The
        workflow stays unknown: workers do not tell it when they are asked.
        """
        key = uuid if cluster is None else _key(cluster, uuid)
        record = self._records.get(key)
        held: list[tuple[Event, Process | None]] = []
        if record is None:
            held = self._stop_waiting(key)
            if not held and not self._has_room_for(key, name):
                return []
            record = self._add(key, uuid)
            record.heard_at = now
            if cluster is not None:
                record.task.cluster = cluster
        if record.task.name is None:
            record.task.name = shared(name)
            self._grow(record, len(name))
        self._touch(record)
        ready = [self._apply(event, record, process, now) for event, process in held]
        self._evict(now)
        return ready

    def lose(self, process: Process, why: str, time: float, successor: Process | None = None) -> list[Event]:
        """Mark what a process had in its hands as lost; return a ``task-lost`` event for each such task.

        Args:
            why: how it is known that the process is gone, for people.
            time: epoch seconds.
            successor: its next life, which may have begun before that was known.
        """
        events = []
        for record in tuple(process.held):
            assert isinstance(record, Record)
            if successor is not None:
                record.hand_over(process, successor)
            task = record.task
            root = self._root_of(record)
            if root is not None:
                root.count(task, -1)
            attempt = lose(task, record, process, time)
            if root is not None:
                root.count(task, 1)
            self._touch(record)
            if attempt is None:
                continue
            event: Event = {"type": "task-lost", "uuid": task.uuid, "timestamp": time, "time": rfc3339(time)}
            event |= {"hostname": task.worker, "pid": task.pid, "retries": task.retries}
            event |= {"source": "gateway", "reason": why}
            if self._clusters:
                event["cluster"] = task.cluster
            events.append(_joined(event, task, attempt.number))
        process.held.clear()
        return events

    def lose_late(self, time: float) -> list[Event]:
        """Return the same for events that went on only after their process was known to be gone."""
        processes, self._late = self._late, {}
        return [event for process in processes for event in self.lose(process, "its process is gone", time)]

    def _has_room_for(self, *texts: str) -> bool:
        size_bytes = _TASK_OVERHEAD_BYTES + sum(map(len, texts))
        return len(self._records) < self._max_tasks and self._bytes + size_bytes <= self._max_bytes

    def _join(self, event: Event, process: Process | None, now: float) -> Iterable[Event]:
        uuid = event.get("uuid")
        event_type: str = event["type"]
        if type(uuid) is not str and (uuid := id_text(uuid)) is None:
            if event_type.startswith("task-"):
                _joined(event, Task("", state=state_of(event_type)))
            return (event,)
        key = _key(event["cluster"], uuid) if self._clusters else uuid
        record = self._records.get(key)
        if not event_type.startswith("task-"):
            return (event if record is None else _joined(event, record.task),)
        if record is not None:
            return (self._apply(event, record, process, now),)
        if event_type in _IDENTIFYING:
            record = self._add(key, uuid)
            held = self._stop_waiting(key)
            if not held:
                return (self._apply(event, record, process, now),)
            self._identify(event, record)  # before those that waited for it are joined
            return [self._apply(waited, record, by, now) for waited, by in (*held, (event, process))]
        if "name" in event and "root_id" in event and key not in self._waiting:
            return (self._apply(event, self._add(key, uuid), process, now),)
        return self._wait(event, process, key, now)

    def release_all(self, now: float, cluster: str | None) -> list[Event]:
        """Return all events that wait, of a cluster if they have one, joined with what little is known."""
        keys = [
            key
            for key, waiting in self._waiting.items()
            if not self._clusters or waiting.events[0][0]["cluster"] == cluster
        ]
        released = [event for key in keys for event in self._give_up(key, now)]
        self._evict(now)
        return released

    def release(self, now: float) -> list[Event]:
        """Return the events that have waited long enough, joined with what little is known."""
        released: list[Event] = []
        while self._waiting:
            key, waiting = next(iter(self._waiting.items()))
            if waiting.deadline > now:
                break
            released += self._give_up(key, now)
        self._evict(now)
        return released

    def _wait(self, event: Event, process: Process | None, key: str, now: float) -> list[Event]:
        waiting = self._waiting.get(key)
        if waiting is None:
            waiting = self._waiting[key] = _Waiting(now + JOIN_WAIT_SECONDS)
        size_bytes = _EVENT_OVERHEAD_BYTES + len(encode(event))
        waiting.events.append((event, process))
        waiting.size_bytes += size_bytes
        self._waiting_events += 1
        self._waiting_bytes += size_bytes
        released: list[Event] = []
        while self._waiting_events > MAX_WAITING_EVENTS or self._waiting_bytes > MAX_WAITING_BYTES:
            released += self._give_up(next(iter(self._waiting)), now)
        return released

    def _stop_waiting(self, key: str) -> list[tuple[Event, Process | None]]:
        waiting = self._waiting.pop(key, None)
        if waiting is None:
            return []
        self._waiting_events -= len(waiting.events)
        self._waiting_bytes -= waiting.size_bytes
        return waiting.events

    def _give_up(self, key: str, now: float) -> list[Event]:
        held = self._stop_waiting(key)
        record = self._add(key, id_text(held[0][0]["uuid"]) or "")
        return [self._apply(event, record, process, now) for event, process in held]

    def _add(self, key: str, uuid: str) -> Record:
        self._number += 1
        record = self._records[key] = self._unfinished[key] = Record(Task(uuid), key, self._number)
        if self._orphans:
            record.children = self._orphans.pop(key, None)
        self._grow(record, _TASK_OVERHEAD_BYTES + len(key))
        return record

    def _identify(self, event: Event, record: Record) -> None:
        """Take names from an event that has some; the worker's word replaces the client's.

        A worker knows a task by its ``shadow``, and one that was replaced by its new name. A custom event
        may have names of its own making: they stand until another one says.
        """
        task, event_type = record.task, event["type"]
        rank = _NAME_RANKS.get(event_type, 0)
        if rank < record.name_rank or (not rank and task.root_id is not None):
            return
        record.name_rank = rank
        name = event.get("name")
        root_id, parent_id = id_text(event.get("root_id")), id_text(event.get("parent_id"))
        if type(name) is str and name != task.name:
            self._grow(record, len(name) - len(task.name or ""))
            task.name = shared(name)
        if root_id is None and rank and task.root_id is None:
            root_id = task.uuid
        if root_id is not None and root_id != task.root_id:
            self._leave_root(record)
            self._grow(record, len(root_id) - len(task.root_id or ""))
            self._enter_root(record, root_id)
        # A retried task without a parent is sent again as its own child (celery/app/task.py, retry).
        if parent_id is not None and parent_id != task.parent_id and parent_id != task.uuid:
            self._leave_parent(record)
            self._grow(record, len(parent_id) - len(task.parent_id or ""))
            parent_key = self._key_beside(record, parent_id)
            parent = self._records.get(parent_key)
            task.parent_id = parent_id if parent is None else parent.task.uuid
            if parent is None:
                siblings = self._orphans.setdefault(parent_key, {})
            else:
                siblings = parent.children = {} if parent.children is None else parent.children
                self._touch(parent)
            siblings[record.key] = record

    def _key_beside(self, record: Record, id: str) -> str:
        """Return the key of another id in the cluster of a record."""
        return _key(record.task.cluster, id) if self._clusters else id

    def _enter_root(self, record: Record, root_id: str) -> None:
        key = self._key_beside(record, root_id)
        root = self._roots.get(key)
        if root is None:
            owner = self._records.get(key)
            root = self._roots[key] = Root(root_id if owner is None else owner.task.uuid)
        record.task.root_id = root.id
        root.members[record.key] = record
        root.count(record.task, 1)

    def _root_of(self, record: Record) -> Root | None:
        root_id = record.task.root_id
        return None if root_id is None else self._roots.get(self._key_beside(record, root_id))

    def _leave_root(self, record: Record) -> None:
        root = self._root_of(record)
        if root is None or root.members.pop(record.key, None) is None:
            return
        root.count(record.task, -1)
        if not root.members:
            del self._roots[self._key_beside(record, root.id)]

    def _leave_parent(self, record: Record) -> None:
        parent_id = record.task.parent_id
        if parent_id is None:
            return
        key = self._key_beside(record, parent_id)
        parent = self._records.get(key)
        siblings = self._orphans.get(key) if parent is None else parent.children
        if siblings is not None:
            siblings.pop(record.key, None)
            if parent is None and not siblings:
                del self._orphans[key]

    def _apply(self, event: Event, record: Record, process: Process | None, now: float) -> Event:
        """Move the task on by one of its events, and return the event joined."""
        event_type: str = event["type"]
        task = record.task
        if self._clusters:
            task.cluster = event["cluster"]
        was_ready, was_lost, was_unsent = task.state in READY_STATES, task.lost is not None, task.sent is None
        attempt, grown = apply(task, record, event, process, now)
        if grown:
            self._grow(record, grown)
        record.heard_at = now
        if process is not None and process.gone_at is not None:
            self._late[process] = None
        is_ready, is_lost, is_unsent = task.state in READY_STATES, task.lost is not None, task.sent is None
        if is_ready != was_ready or is_lost != was_lost or is_unsent != was_unsent:
            if is_ready != was_ready:
                there, here = self._unfinished, self._finished
                if was_ready:
                    there, here = here, there
                del there[record.key]
                here[record.key] = record
            if (root := self._root_of(record)) is not None:
                root.unready += was_ready - is_ready
                root.lost += is_lost - was_lost
                root.unsent += is_unsent - was_unsent
        if event_type in _IDENTIFYING or (task.root_id is None and "root_id" in event):
            if event_type == "task-sent" and attempt is record.shown and attempt.received is None:
                record.name_rank = 0  # no worker has named this message yet
            self._identify(event, record)
        self._touch(record)
        if task.name is None and "name" not in event:
            self._unnamed_events += 1
        shown = record.shown
        is_of_run = shown is None or shown.run == attempt.run
        return _joined(event, task, attempt.number if is_of_run else 0)

    def _touch(self, record: Record) -> None:
        """Take note that a record has changed; those that changed last are last in their line."""
        self._version += 1
        record.version = self._version
        is_finished = record.task.state in READY_STATES
        (self._finished if is_finished else self._unfinished).move_to_end(record.key)

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
        key = record.key
        del self._records[key]
        self._leave_root(record)
        self._leave_parent(record)
        record.release()
        if record.children:
            self._orphans[key] = record.children
        self._bytes -= record.size_bytes
        self._evicted.add(hash(key))
        if len(self._evicted) >= MAX_EVICTED // 2:
            self._evicted, self._evicted_before = set(), self._evicted


def _key(cluster: object, id: str) -> str:
    return f"{cluster}\0{id}"


def _joined(event: Event, task: Task, attempt: int | None = None) -> Event:
    """Add to an event what it does not say itself.

    Args:
        attempt: the number of the attempt of the task's run that it belongs to; 0 if that is of a run before.
    """
    event.setdefault("name", task.name)
    event.setdefault("root_id", task.root_id)
    event.setdefault("parent_id", task.parent_id)
    event.setdefault("queue", task.queue)
    event.setdefault("state", task.state)
    if task.uuid:
        event.setdefault("attempt", task.attempts if attempt is None else attempt)
    return event
