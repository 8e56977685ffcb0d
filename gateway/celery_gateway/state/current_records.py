"""The current record of an event's task, encoded once for all streams that need it. Pure."""

from dataclasses import dataclass

from celery_gateway.events.fields import Fields
from celery_gateway.events.matcher import Matcher
from celery_gateway.state.task import encode_fields, stale_field
from celery_gateway.state.task_table import TaskTable

MAX_CACHED = 500
MAX_CACHED_BYTES = 4 << 10
"""Maximum length of a record that is cached: all of them together take 2 MB at most."""


class CurrentRecords:
    """Encodes the records of a table.

    Args:
        tasks: the table. Each change of a record gives it another ``version``.
    """

    def __init__(self, tasks: TaskTable) -> None:
        self._tasks = tasks
        self._cache: dict[tuple[str, Fields], tuple[int, bytes]] = {}

    def find(
        self, uuid: str, cluster: str | None, fields: Fields, visible: Matcher | None = None
    ) -> bytes | None:
        """Return the record of a task as it is now.

        Args:
            uuid: the task's, as text (``event.id_text``).
            cluster: the name of its broker; ignored if the brokers have no names.
            fields: which of its fields are wanted, beside ``uuid``.
            visible: the filter that visible records pass; ``None``: all are visible.

        Returns:
            A JSON object like an item of ``GET /tasks``, but without ``children``: a task can have 50,000 of
            them, and this is called for each event. ``None`` if the task is not in the table, or not visible.
        """
        for key in self._tasks.keys(uuid, cluster):
            record = self._tasks.get(key)
            if record is None or (visible is not None and not visible.matches(record.keys())):
                continue
            cached = self._cache.get((key, fields))
            if cached is not None and cached[0] == record.version:
                return cached[1]
            task = record.task
            encoded = encode_fields(task, fields)
            if "stale" in fields:
                encoded += stale_field(task)
            encoded += b"}"
            if len(encoded) <= MAX_CACHED_BYTES:
                if len(self._cache) >= MAX_CACHED:
                    self._cache.clear()
                self._cache[key, fields] = record.version, encoded
            return encoded
        return None


@dataclass(frozen=True, slots=True)
class VisibleRecords:
    """The current records that pass a filter. Equal for equal filters, so that streams can share it."""

    records: CurrentRecords
    filter: Matcher

    def __call__(self, uuid: str, cluster: str | None, fields: Fields) -> bytes | None:
        """Return the record of a task; see ``CurrentRecords.find``."""
        return self.records.find(uuid, cluster, fields, self.filter)
