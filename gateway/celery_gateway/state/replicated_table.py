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

_NAMES = ("name", "root_id", "parent_id")


class ReplicatedTaskTable(TaskTable):
    """The table of a gateway with a shared log; its arguments are those of ``TaskTable``."""

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
            self._set_joined_names(record, {**added, **event})
        self._evict(now)

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

    def _key(self, event: Event) -> str | None:
        uuid = id_text(event.get("uuid"))
        return uuid if uuid is None or not self._clusters else record_key(event["cluster"], uuid)

    def _set_joined_names(self, record: Record, joined: dict[str, Any]) -> None:
        task = record.task
        if task.root_id is None and type(joined.get("root_id")) is str:
            names = {name: joined.get(name) for name in _NAMES}
            self._set_names({"type": "", **names}, record)
        name = joined.get("name")
        if task.name is None and type(name) is str:  # a worker has told it on request
            task.name = shared(name)
            self._grow(record, text_bytes(name))
