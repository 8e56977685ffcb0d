"""The place of a task in the task table. Pure."""

from celery_gateway.state.attempt import Attempts
from celery_gateway.state.task import Task


class Record(Attempts):
    """A task, its attempts, and its place in the table.

    Attributes:
        task: what events have reported of it.
        key: its uuid, with its cluster where there are several.
        number: numbers the tasks in the order in which they became known.
        version: the version of the table at the last change of the record.
        children: the records of the tasks that it has started, by key; ``None`` while no such task was known.
        name_rank: which event has named it: 0 a custom event, 1 ``task-sent``, 2 ``task-received``.
        last_event_at: when its last event arrived, on the clock of ``now``.
        size_bytes: its size, by estimate.
    """

    __slots__ = ("task", "key", "number", "version", "children", "name_rank", "last_event_at", "size_bytes")

    def __init__(self, task: Task, key: str, number: int) -> None:
        super().__init__()
        self.task = task
        self.key = key
        self.number = number
        self.version = 0
        self.children: dict[str, Record] | None = None
        self.name_rank = 0
        self.last_event_at = 0.0
        self.size_bytes = 0

    @property
    def child_ids(self) -> list[str]:
        """The uuids of the tasks that it has started."""
        return [child.task.uuid for child in self.children.values()] if self.children else []


def record_key(cluster: object, id: str) -> str:
    """Return the key of a task or a workflow where there are several clusters."""
    return f"{cluster}\0{id}"
