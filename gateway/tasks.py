"""What is known of each task by its uuid, and events joined with it.

Most of Celery's task events name neither the task nor its workflow: ``task-started`` is a uuid and a time.
Here each event gains ``name``, ``root_id``, ``parent_id`` and ``state``, learnt from ``task-sent`` and
``task-received`` of the same uuid. (A name also from ``know``, where workers are asked.)

- An event that comes before its task is known waits up to ``JOIN_WAIT_SECONDS`` for it; the events of one
  task keep their order. After that they go on with ``null``, and later ones of that task do not wait again.
- Memory is bounded by count and bytes. Over the bound the tasks that finished first are forgotten first,
  then those not heard of for longest; a forgotten task's later events have ``null`` names.
- Pure: no clock of its own, no I/O. ``now`` is any clock of seconds that only goes forward.
"""

from collections import OrderedDict
from collections.abc import Iterable
from typing import NamedTuple

from gateway.event import Event, encode
from gateway.state import READY_STATES, Reached, state_of, transition

JOIN_WAIT_SECONDS = 1.0
"""Celery flushes a worker's events once a loop, so what names a task is at most a loop and a hop behind."""
MAX_WAITING_EVENTS = 10_000
MAX_WAITING_BYTES = 16 << 20

_TASK_OVERHEAD_BYTES = 500
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


class _Task:
    __slots__ = ("name", "root_id", "parent_id", "is_received", "reached", "size_bytes")

    def __init__(self, reached: Reached) -> None:
        self.name: str | None = None
        self.root_id: str | None = None
        self.parent_id: str | None = None
        self.is_received = False
        self.reached = reached
        self.size_bytes = 0


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
    """

    def __init__(self, *, max_tasks: int = 100_000, max_bytes: int = 200_000_000) -> None:
        self._max_tasks = max_tasks
        self._max_bytes = max_bytes
        # Each in the order of eviction; a task is in one of the first two. (A dict's first key is costly
        # to find once many before it were deleted.)
        self._unfinished: OrderedDict[str, _Task] = OrderedDict()
        self._finished: OrderedDict[str, _Task] = OrderedDict()
        self._waiting: OrderedDict[str, _Waiting] = OrderedDict()
        self._bytes = 0
        self._waiting_events = 0
        self._waiting_bytes = 0
        self._evicted_finished = 0
        self._evicted_unfinished = 0
        self._unnamed_events = 0

    def statistics(self) -> TasksStatistics:
        """Return the table's counts."""
        return TasksStatistics(
            known=len(self._unfinished) + len(self._finished),
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

    def join(self, event: Event, now: float) -> Iterable[Event]:
        """Take an event in; return the events that are ready to go on, joined, in order.

        Usually that is the event itself. It is nothing when the event has to wait, and more than one when
        it names a task that others waited for.
        """
        ready = self._join(event, now)
        self._evict()
        return ready

    def _join(self, event: Event, now: float) -> Iterable[Event]:
        uuid = event.get("uuid")
        event_type: str = event["type"]
        if type(uuid) is not str:
            if event_type.startswith("task-"):
                _joined(event, _Task(Reached(state_of(event_type))))
            return (event,)
        task = self._finished.get(uuid) or self._unfinished.get(uuid)
        if not event_type.startswith("task-"):
            return (event if task is None else _joined(event, task),)
        if task is not None:
            return (self._apply(event, uuid, task),)
        if event_type in _IDENTIFYING:
            task = self._add(uuid)
            held = self._stop_waiting(uuid)
            if not held:
                return (self._apply(event, uuid, task),)
            self._identify(event, uuid, task)  # before those that waited for it are joined
            return [self._apply(waited, uuid, task) for waited in (*held, event)]
        if "name" in event and "root_id" in event and uuid not in self._waiting:
            # It needs no names, and gives none: they may be of its own making.
            return (_joined(event, _Task(Reached(state_of(event_type)))),)
        return self._wait(event, uuid, now)

    def know(self, uuid: str, name: str) -> list[Event]:
        """Learn the name of a task that was under way before we listened; return the events freed by it.

        It gives way to what events say or have said; in a full table a task that is new finds no place. The
        workflow stays unknown: workers do not tell it when they are asked.
        """
        task = self._finished.get(uuid) or self._unfinished.get(uuid)
        held: list[Event] = []
        if task is None:
            held = self._stop_waiting(uuid)
            if not held and not self._has_room_for(uuid, name):
                return []
            task = self._add(uuid)
        if task.name is None:
            task.name = name
            self._resize(task, uuid)
        ready = [self._apply(event, uuid, task) for event in held]
        self._evict()
        return ready

    def release(self, now: float) -> list[Event]:
        """Return the events that have waited long enough, joined with what little is known."""
        released: list[Event] = []
        while self._waiting:
            uuid, waiting = next(iter(self._waiting.items()))
            if waiting.deadline > now:
                break
            released += self._give_up(uuid)
        self._evict()
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
            released += self._give_up(next(iter(self._waiting)))
        return released

    def _stop_waiting(self, uuid: str) -> list[Event]:
        waiting = self._waiting.pop(uuid, None)
        if waiting is None:
            return []
        self._waiting_events -= len(waiting.events)
        self._waiting_bytes -= waiting.size_bytes
        return waiting.events

    def _give_up(self, uuid: str) -> list[Event]:
        held = self._stop_waiting(uuid)
        task = self._add(uuid)
        return [self._apply(event, uuid, task) for event in held]

    def _add(self, uuid: str) -> _Task:
        task = self._unfinished[uuid] = _Task(Reached())
        self._resize(task, uuid)
        return task

    def _identify(self, event: Event, uuid: str, task: _Task) -> None:
        """Learn names from a task-sent or task-received; the worker's word goes before the client's.

        A worker knows a task by its ``shadow``, and one that was replaced by its new name.
        """
        is_received = event["type"] == "task-received"
        if task.is_received and not is_received:
            return
        task.is_received = is_received
        parent_id = _text(event, "parent_id")
        names = (
            _text(event, "name") or task.name,
            _text(event, "root_id") or task.root_id,
            # A retried task without a parent is sent again as its own child (celery/app/task.py, retry).
            (None if parent_id == uuid else parent_id) or task.parent_id,
        )
        if names != (task.name, task.root_id, task.parent_id):
            task.name, task.root_id, task.parent_id = names
            self._resize(task, uuid)

    def _apply(self, event: Event, uuid: str, task: _Task) -> Event:
        """Move the task on by one of its events, and return the event joined."""
        event_type: str = event["type"]
        if event_type in _IDENTIFYING:
            self._identify(event, uuid, task)
        timestamp, retries = event.get("timestamp"), event.get("retries")
        was = task.reached
        to = Reached(
            state_of(event_type),
            timestamp if type(timestamp) is float or type(timestamp) is int else was.timestamp,
            retries if type(retries) is int else was.retries,
        )
        task.reached = transition(was, to)
        self._file(uuid, task)
        if task.name is None and "name" not in event:
            self._unnamed_events += 1
        return _joined(event, task)

    def _file(self, uuid: str, task: _Task) -> None:
        """Put a task last in the line of eviction that its state belongs to."""
        if task.reached.state not in READY_STATES:
            self._finished.pop(uuid, None)
            self._unfinished[uuid] = task
            self._unfinished.move_to_end(uuid)
        elif uuid not in self._finished:
            self._unfinished.pop(uuid, None)
            self._finished[uuid] = task

    def _resize(self, task: _Task, uuid: str) -> None:
        size_bytes = _TASK_OVERHEAD_BYTES + sum(
            len(text) for text in (uuid, task.name, task.root_id, task.parent_id) if text
        )
        self._bytes += size_bytes - task.size_bytes
        task.size_bytes = size_bytes

    def _has_room_for(self, *texts: str) -> bool:
        size_bytes = _TASK_OVERHEAD_BYTES + sum(map(len, texts))
        known = len(self._unfinished) + len(self._finished)
        return known < self._max_tasks and self._bytes + size_bytes <= self._max_bytes

    def _evict(self) -> None:
        while len(self._unfinished) + len(self._finished) > self._max_tasks or self._bytes > self._max_bytes:
            if self._finished:
                _, task = self._finished.popitem(last=False)
                self._evicted_finished += 1
            else:
                _, task = self._unfinished.popitem(last=False)
                self._evicted_unfinished += 1
            self._bytes -= task.size_bytes


def _text(event: Event, field: str) -> str | None:
    value = event.get(field)
    return value if type(value) is str else None


def _joined(event: Event, task: _Task) -> Event:
    """Add to an event what it does not say itself."""
    event.setdefault("name", task.name)
    event.setdefault("root_id", task.root_id)
    event.setdefault("parent_id", task.parent_id)
    event.setdefault("state", task.reached.state)
    return event
