"""A task table that can follow another gateway's: it applies events which that one has joined.

Rules: a joined event is applied as it was before the join, so that the record is the same as at the gateway
that joined it. What only the join has told (the names of a task whose first events were not seen here) is
taken from the joined event. Nothing waits: the order of the joined events is that of their application.

Pure.
"""

from collections.abc import Mapping
from typing import Any

from celery_gateway.events.event import Event, id_text
from celery_gateway.events.event_types import LOST
from celery_gateway.state.join_buffer import JoinBuffer
from celery_gateway.state.process import Process
from celery_gateway.state.shared_text import shared
from celery_gateway.state.task_record import Record, record_key
from celery_gateway.state.task_table import TaskTable
from celery_gateway.state.text_size import text_bytes

MAX_UNNUMBERED = 10_000
"""With so many tasks without an event, those that were evicted are removed."""

_NAMES = ("name", "root_id", "parent_id")


class ReplicatedTaskTable(TaskTable):
    """The table of a gateway with a shared log; its arguments are those of ``TaskTable``."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._unnumbered: dict[str, Record] = {}  # those without an event in the log yet
        self._graph.keep_unnumbered()

    def follow(
        self, event: Event, added: Mapping[str, Any], now: float, process: Process | None, arrived: float
    ) -> None:
        """Apply an event which another gateway has joined.

        Args:
            event: as it was before the join.
            added: the fields that the join has added.
            process: as for ``join``.
            arrived: epoch seconds of ``now``.
        """
        key = self._key(event)
        if key is None or not event["type"].startswith("task-"):
            return
        self.arrived = arrived
        record = self._records.get(key)
        if record is None:
            record = self._add(key, id_text(event["uuid"]) or "")
        self._update(event, record, process, now)
        task = record.task
        if task.name is None or task.root_id is None:
            self._set_joined_names(record, event, added)
            self.activity.update(record)
        self._evict(now)

    def set_number(self, event: Event, position: int) -> None:
        """Number the task of a joined event by the position of its first event: so each gateway has the same.

        Args:
            position: that of the event in the log. It only grows from call to call.
        """
        if not self._unnumbered and not self._graph.unnumbered:
            return
        key = self._key(event)
        if key is not None:
            self._graph.set_number(key, position)
        record = None if key is None else self._unnumbered.pop(key, None)
        if record is not None and self._records.get(record.key) is record:
            record.number = self._number = position
            del self._records[record.key]  # to the end: the records are in the order of their numbers
            self._records[record.key] = record

    def follow_lost(self, event: Event) -> None:
        """Apply a ``task-lost`` that another gateway has made."""
        key = self._key(event)
        record = None if key is None else self._records.get(key)
        if record is None:
            return
        process = None if record.current is None else record.current.process
        if process is not None and record in process.assigned:
            self._mark_lost(record, process, event["timestamp"])
            process.assigned.pop(record, None)
        if record.task.state == LOST:
            record.task.lost = record.task.timestamp = event["timestamp"]

    def drop_waiting(self) -> None:
        """Forget the events that wait: another gateway joins them."""
        self._waiting = JoinBuffer()

    def _add(self, key: str, uuid: str) -> Record:
        if len(self._unnumbered) >= MAX_UNNUMBERED:
            self._unnumbered = {key: each for key, each in self._unnumbered.items() if key in self._records}
        record = self._unnumbered[key] = super()._add(key, uuid)
        return record

    def _key(self, event: Event) -> str | None:
        uuid = id_text(event.get("uuid"))
        return uuid if uuid is None or not self._clusters else record_key(event["cluster"], uuid)

    def _set_joined_names(self, record: Record, event: Event, added: Mapping[str, Any]) -> None:
        """Set the names that the join has added. The event's own ones are names only in some events."""
        task = record.task
        if task.root_id is None and type(added.get("root_id")) is str:
            names = {name: added.get(name, event.get(name)) for name in _NAMES}
            self._set_names({"type": "", **names}, record)
        name = added.get("name")
        if task.name is None and type(name) is str:  # a worker has told it on request
            task.name = shared(name)
            self._grow(record, text_bytes(name))
