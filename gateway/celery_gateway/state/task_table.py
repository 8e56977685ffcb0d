"""The task table: one record for each task, and events joined with it.

Most of Celery's task events name neither the task nor its workflow: ``task-started`` is a uuid and a time.
Here each event gains ``name``, ``root_id``, ``parent_id``, ``queue``, ``state`` and ``attempt`` from the
record of its task. The record has what the events of the task have reported (``lifecycle``, ``task_names``).

- A key names a task: its cluster, if there are several, and its uuid as text (``event.id_text``).
- An event that arrives before its task is known waits for it (``join_buffer``); after that time it goes on
  with ``null`` names, and later events of the task do not wait again.
- The table is bounded by count and bytes, and evicts tasks above that (``eviction``). An evicted task leaves
  no record; its later events have ``null`` names.

Pure: no clock of its own, no I/O. ``now`` is any clock of seconds that only goes forward.
"""

from collections.abc import Iterable

from celery_gateway.events.event import ORIGIN_FIELDS, Event, Keys, id_text
from celery_gateway.state.activity import Activity
from celery_gateway.state.attempt import Attempt
from celery_gateway.state.join_buffer import JoinBuffer, WaitingEvent
from celery_gateway.state.lifecycle import apply, mark_lost
from celery_gateway.state.process import Process
from celery_gateway.state.shared_text import shared
from celery_gateway.state.task import Task
from celery_gateway.state.task_index import TaskIndex
from celery_gateway.state.task_names import NAMING_TYPES, add_names, lost_event, set_names
from celery_gateway.state.task_record import Record, record_key
from celery_gateway.state.task_statistics import TaskTableStatistics
from celery_gateway.state.text_size import text_bytes
from celery_gateway.state.transitions import READY_STATES, state_of

_TASK_OVERHEAD_BYTES = 1_150
"""The size of a record without texts. (Measured: tests/state/test_sizes.py.)"""
ORIGIN_BYTES = 100
"""The size of its origin, whose texts are those of the record."""
MAX_QUEUES = 1_000
"""How many names of queues are kept, for ``queues``. Above it they are collected again."""
NO_ORIGIN_KEYS: Keys = (None,) * len(ORIGIN_FIELDS)


class TaskTable(TaskIndex):
    """The table of tasks.

    Args:
        max_tasks: the maximum number of tasks.
        max_bytes: the maximum size of their records, by estimate.
        clusters: the names of the brokers, if they have names: events then have theirs as ``cluster``.
        keeps_origins: whether records have an ``Origin``, for scopes.
    """

    def __init__(
        self,
        *,
        max_tasks: int = 100_000,
        max_bytes: int = 200_000_000,
        clusters: Iterable[str] = (),
        keeps_origins: bool = False,
    ) -> None:
        super().__init__(clusters)
        self.keeps_origins = keeps_origins
        self.activity = Activity(by_origin=keeps_origins)
        self._max_tasks = max_tasks
        self._max_bytes = max_bytes
        self._waiting = JoinBuffer()
        self._gone: dict[Process, None] = {}  # processes that are gone, and were assigned a task afterwards
        self.arrived: float | None = None  # when the last event arrived, epoch seconds
        self._number = 0
        self._bytes = 0
        self._unnamed_events = 0

    def statistics(self) -> TaskTableStatistics:
        """Return the table's counts."""
        return TaskTableStatistics(
            known=len(self._records),
            known_bytes=self._bytes + self._graph.size_bytes,
            waiting_events=self._waiting.event_count,
            evicted_finished=self._order.evicted_finished,
            evicted_unfinished=self._order.evicted_unfinished,
            unnamed_events=self._unnamed_events,
            activity_names=len(self.activity),
            activity_bytes=self.activity.size_bytes,
        )

    @property
    def next_deadline(self) -> float | None:
        """When ``release`` has events to return next, on the clock of ``now``; ``None`` if none wait."""
        return self._waiting.next_deadline

    def join(
        self, event: Event, now: float, process: Process | None = None, arrived: float | None = None
    ) -> Iterable[Event]:
        """Join an event, and apply it to its task.

        Args:
            process: the worker's main process that sent it (``WorkerTable.on_event``).
            arrived: epoch seconds of ``now``, in place of timestamps that cannot be true
                (``lifecycle.apply``).

        Returns:
            The joined events that are ready, in order: none if the event has to wait; several if it names a
            task that others have waited for; usually the event itself.
        """
        self.arrived = arrived
        ready = self._join(event, process, now)
        if len(self._records) > self._max_tasks or self._bytes + self._graph.size_bytes > self._max_bytes:
            self._evict(now)
        return ready

    def origin_keys(self, event: Event) -> Keys:
        """Return the values of ``ORIGIN_FIELDS`` of a joined event's task; none if origins are not kept."""
        if not self.keeps_origins:
            return ()
        uuid = id_text(event.get("uuid"))
        key = uuid if uuid is None or not self._clusters else record_key(event["cluster"], uuid)
        record = None if key is None else self._records.get(key)
        return NO_ORIGIN_KEYS if record is None else (*record.origin, record.task.state)

    def set_name(self, uuid: str, name: str, now: float, cluster: str | None = None) -> list[Event]:
        """Set the name of a task that no event has named, as a worker gives it on request.

        The workflow stays unknown: workers do not name it. In a full table a new task is not added.

        Returns:
            The events that have waited for the name.
        """
        key = uuid if cluster is None else record_key(cluster, uuid)
        record = self._records.get(key)
        waiting: list[WaitingEvent] = []
        if record is None:
            waiting = self._waiting.remove(key)
            if not waiting and not self._has_room_for(key, name):
                return []
            record = self._add(key, uuid)
            record.last_event_at = now
            if cluster is not None:
                record.task.cluster = cluster
        if record.task.name is None:
            record.task.name = shared(name)
            self._grow(record, text_bytes(name))
        self._order.touch(record)
        self.activity.update(record)
        ready = [self._apply(event, record, process, now) for event, process in waiting]
        self._evict(now)
        return ready

    def mark_lost(
        self, process: Process, reason: str, time: float, successor: Process | None = None
    ) -> list[Event]:
        """Mark the tasks of a process that is gone as lost.

        Args:
            reason: why the process is taken for gone, for people.
            time: epoch seconds.
            successor: the next life of the process, if it began before that was known.

        Returns:
            A ``task-lost`` event for each task whose current attempt is lost.
        """
        events = []
        for record in tuple(process.assigned):
            assert isinstance(record, Record)
            if successor is not None:
                record.transfer(process, successor)
            attempt = self._mark_lost(record, process, time)
            if attempt is None:
                continue
            event = lost_event(record.task, time, reason)
            if self._clusters:
                event["cluster"] = record.task.cluster
            events.append(add_names(event, record.task, attempt.number))
        process.assigned.clear()
        return events

    def mark_lost_late(self, time: float) -> list[Event]:
        """Do the same for tasks whose events were joined after their process was found to be gone."""
        gone, self._gone = self._gone, {}
        reason = "its process is gone"
        return [event for process in gone for event in self.mark_lost(process, reason, time)]

    def release_all(self, now: float, cluster: str | None) -> list[Event]:
        """Return all events that wait, of a cluster if there are several, joined as far as possible."""
        keys = self._waiting.keys(cluster if self._clusters else None)
        released = [event for key in keys for event in self._release(key, now)]
        self._evict(now)
        return released

    def release(self, now: float) -> list[Event]:
        """Return the events that have waited for long enough, joined as far as possible."""
        released: list[Event] = []
        while (deadline := self._waiting.next_deadline) is not None and deadline <= now:
            released += self._release(self._waiting.oldest(), now)
        self._evict(now)
        return released

    def _mark_lost(self, record: Record, process: Process, time: float) -> Attempt | None:
        """Mark one task of a process as lost; return its current attempt if that is lost now."""
        root = record.root
        if root is not None:
            root.count(record.task, -1)
        attempt = mark_lost(record.task, record, process, time)
        if root is not None:
            root.count(record.task, 1)
        self._order.touch(record)
        self.activity.update(record)
        return attempt

    def _join(self, event: Event, process: Process | None, now: float) -> Iterable[Event]:
        uuid = event.get("uuid")
        event_type: str = event["type"]
        if type(uuid) is not str and (uuid := id_text(uuid)) is None:
            if event_type.startswith("task-"):
                add_names(event, Task("", state=state_of(event_type)))
            return (event,)
        key = record_key(event["cluster"], uuid) if self._clusters else uuid
        record = self._records.get(key)
        if not event_type.startswith("task-"):
            return (event if record is None else add_names(event, record.task),)
        if record is not None:
            return (self._apply(event, record, process, now),)
        if event_type in NAMING_TYPES:
            record = self._add(key, uuid)
            waiting = self._waiting.remove(key)
            if not waiting:
                return (self._apply(event, record, process, now),)
            self._set_names(event, record)  # before the events that have waited are joined
            return [self._apply(waited, record, by, now) for waited, by in (*waiting, (event, process))]
        if "name" in event and "root_id" in event and key not in self._waiting:
            return (self._apply(event, self._add(key, uuid), process, now),)
        self._waiting.add(key, event, process, now)
        released: list[Event] = []
        while self._waiting.is_full:
            released += self._release(self._waiting.oldest(), now)
        return released

    def _release(self, key: str, now: float) -> list[Event]:
        """Add a task that no event has named, and return its events."""
        waiting = self._waiting.remove(key)
        record = self._add(key, id_text(waiting[0][0]["uuid"]) or "")
        return [self._apply(event, record, process, now) for event, process in waiting]

    def _add(self, key: str, uuid: str) -> Record:
        self._number += 1
        record = self._records[key] = Record(Task(uuid), key, self._number)
        self._order.add(record)
        self._graph.adopt_orphans(record)
        size_bytes = _TASK_OVERHEAD_BYTES + text_bytes(key) + (ORIGIN_BYTES if self.keeps_origins else 0)
        self._grow(record, size_bytes if key is uuid else size_bytes + text_bytes(uuid))
        return record

    def _set_names(self, event: Event, record: Record) -> None:
        grown, parent = set_names(record, event, self._graph, keeps_origin=self.keeps_origins)
        if parent is not None:
            self._order.touch(parent)
        if grown:
            self._grow(record, grown)
        self.activity.on_names(record)

    def _apply(self, event: Event, record: Record, process: Process | None, now: float) -> Event:
        """Apply an event to its task, and return it joined."""
        attempt = self._update(event, record, process, now)
        current = record.current
        is_of_run = current is None or current.run == attempt.run
        return add_names(event, record.task, attempt.number if is_of_run else 0)

    def _update(self, event: Event, record: Record, process: Process | None, now: float) -> Attempt:
        """Apply an event to its task; return the attempt that it belongs to."""
        event_type: str = event["type"]
        task = record.task
        if self._clusters:
            task.cluster = event["cluster"]
        before, was_lost, was_unsent = task.state, task.lost is not None, task.sent is None
        attempt, grown = apply(task, record, event, process, now, self.arrived)
        if grown:
            self._grow(record, grown)
        record.last_event_at = now
        if process is not None and process.gone_at is not None:
            self._gone[process] = None
        state = task.state
        is_ready = state in READY_STATES  # then its end may have changed
        if is_ready or state is not before:
            if is_ready != (before in READY_STATES):
                self._order.set_finished(record, is_ready)
            if record.root is not None:
                record.root.move(task, before)
        is_lost, is_unsent = task.lost is not None, task.sent is None
        if (is_lost != was_lost or is_unsent != was_unsent) and record.root is not None:
            record.root.mark(is_lost - was_lost, is_unsent - was_unsent)
        if event_type in NAMING_TYPES or (task.root_id is None and "root_id" in event):
            if event_type == "task-sent":
                if attempt is record.current and attempt.received is None:
                    record.name_rank = 0  # no worker has named this message yet
                if task.queue and task.queue not in self._queues:
                    self._add_queue(task.queue)
            self._set_names(event, record)
        self._order.touch(record)
        self.activity.on_event(record, attempt, event_type, event, self.arrived or 0.0)
        if task.name is None and "name" not in event:
            self._unnamed_events += 1
        return attempt

    def _add_queue(self, queue: str) -> None:
        if len(self._queues) >= MAX_QUEUES:
            self._queues.clear()
        self._queues.add(queue)

    def _grow(self, record: Record, size_bytes: int) -> None:
        record.size_bytes += size_bytes
        self._bytes += size_bytes

    def _has_room_for(self, *texts: str) -> bool:
        size_bytes = self._bytes + self._graph.size_bytes + _TASK_OVERHEAD_BYTES + sum(map(text_bytes, texts))
        return len(self._records) < self._max_tasks and size_bytes <= self._max_bytes

    def _evict(self, now: float) -> None:
        while len(self._records) > self._max_tasks or self._bytes + self._graph.size_bytes > self._max_bytes:
            record = self._order.pop(now)
            del self._records[record.key]
            self.activity.remove(record)
            self._graph.remove(record)
            record.unassign()
            self._bytes -= record.size_bytes
