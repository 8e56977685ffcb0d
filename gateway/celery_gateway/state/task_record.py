"""The place of a task in the task table. Pure."""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, NamedTuple

from celery_gateway.events.event import Event, Keys, id_text
from celery_gateway.events.fields import ALL_FIELDS, Fields
from celery_gateway.state.attempt import Attempts
from celery_gateway.state.name_activity import NameActivity
from celery_gateway.state.shared_text import shared
from celery_gateway.state.task import Task, view

if TYPE_CHECKING:
    from celery_gateway.state.task_graph import Root


class Origin(NamedTuple):
    """The names of a task in its first ``task-sent`` or ``task-received``, which decide who may see it.

    Later events may change the names that clients see, but never these: otherwise an event could move
    a task into the scope of another user.
    """

    name: str | None = None
    root_id: str | None = None
    parent_id: str | None = None
    queue: str | None = None


UNKNOWN_ORIGIN = Origin()


class Record(Attempts):
    """A task, its attempts, and its place in the table.

    Attributes:
        task: what events have reported of it.
        key: its uuid, with its cluster where there are several.
        number: numbers the tasks in the order in which they became known.
        version: the version of the table at the last change of the record.
        children: the records of the tasks that it has started, by key; ``None`` while no such task was known.
        name_rank: which event has named it: 0 a custom event, 1 ``task-sent``, 2 ``task-received``.
        origin: see ``Origin``; all ``None`` before such an event, and if the table does not keep origins.
        last_event_at: when its last event arrived, on the clock of ``now``.
        size_bytes: its size, by estimate.
        root: its workflow; ``None`` if that is not known.
        activity: what counts it; ``None`` if nothing does.
        counted_state: the state with which it is counted there.
    """

    __slots__ = (
        "task",
        "key",
        "number",
        "version",
        "children",
        "name_rank",
        "origin",
        "last_event_at",
        "size_bytes",
        "root",
        "activity",
        "counted_state",
    )

    def __init__(self, task: Task, key: str, number: int) -> None:
        super().__init__()
        self.task = task
        self.key = key
        self.number = number
        self.version = 0
        self.children: dict[str, Record] | None = None
        self.name_rank = 0
        self.origin = UNKNOWN_ORIGIN
        self.last_event_at = 0.0
        self.size_bytes = 0
        self.root: Root | None = None
        self.activity: NameActivity | None = None
        self.counted_state: str | None = None

    def keys(self) -> Keys:
        """Return the values that filters and scopes compare."""
        return (*self.task.keys(), *self.origin, self.task.state)

    def set_origin(self, event: Event) -> None:
        """Set the origin from a ``task-sent`` or ``task-received``, unless an earlier one has set it."""
        queue = event.get("queue")
        queue = shared(queue) if type(queue) is str and event["type"] == "task-sent" else None
        if self.origin is UNKNOWN_ORIGIN:
            name, uuid = event.get("name"), self.task.uuid
            parent_id = id_text(event.get("parent_id"))
            self.origin = Origin(
                shared(name) if type(name) is str else None,
                shared(id_text(event.get("root_id")) or uuid),
                None if parent_id is None or parent_id == uuid else shared(parent_id),
                queue,
            )
        elif self.origin.queue is None and queue is not None:  # a worker's event has no queue
            self.origin = self.origin._replace(queue=queue)

    def view(
        self,
        fields: Fields = ALL_FIELDS,
        *,
        with_attempts: bool = False,
        is_visible: Callable[["Record"], bool] | None = None,
    ) -> bytes:
        """Return the task as clients see it, as JSON.

        Args:
            fields: the fields to keep beside ``uuid``.
            with_attempts: whether all fields include the attempts.
            is_visible: returns whether a child is listed; ``None``: all are.
        """
        children: Iterable[str] = ()
        if "children" in fields and self.children:
            shown = self.children.values()
            children = [child.task.uuid for child in shown if is_visible is None or is_visible(child)]
        attempts = self.current_run() if shows_attempts(fields, with_attempts) else None
        return view(self.task, children, attempts, fields)

    @property
    def child_ids(self) -> list[str]:
        """The uuids of the tasks that it has started."""
        return [child.task.uuid for child in self.children.values()] if self.children else []


def shows_attempts(fields: Fields, with_attempts: bool) -> bool:
    """Return whether a view has the attempts: they have to be asked for, by name or ``with_attempts``."""
    return "attempts" in fields and (with_attempts or fields.wanted is not None)


def record_key(cluster: object, id: str) -> str:
    """Return the key of a task or a workflow where there are several clusters."""
    return f"{cluster}\0{id}"
