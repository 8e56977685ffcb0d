"""The names of a task (its own, its root's, its parent's), and events joined with them.

- ``task-sent`` and ``task-received`` name a task. The worker's names replace the client's: a worker has the
  ``shadow`` of a task, and the new name of a task that was replaced.
- A custom event names a task that no other event has named.
- A task without a root (task protocol 1, Celery 3.1) is its own root.

Pure.
"""

from celery_gateway.events.event import Event, id_text, rfc3339
from celery_gateway.state.shared_text import shared
from celery_gateway.state.task import Task
from celery_gateway.state.task_graph import TaskGraph
from celery_gateway.state.task_record import UNKNOWN_ORIGIN, Record
from celery_gateway.state.text_size import text_bytes

_RANKS = {"task-sent": 1, "task-received": 2}
NAMING_TYPES = frozenset(_RANKS)
"""The types of the events that always name their task."""


def set_names(
    record: Record, event: Event, graph: TaskGraph, *, keeps_origin: bool = False
) -> tuple[int, Record | None]:
    """Set the names of a task from an event that has some, unless a better event has set them.

    Args:
        keeps_origin: whether the event sets the ``Origin`` of the task, too.

    Returns:
        By how many bytes the record has grown, and the parent if it has a new child.
    """
    task, event_type = record.task, event["type"]
    rank = _RANKS.get(event_type, 0)
    if keeps_origin and rank:
        record.set_origin(event)
    if rank < record.name_rank or (not rank and task.root_id is not None):
        return 0, None
    record.name_rank = rank
    name = event.get("name")
    # Scopes compare the root of the origin: a later event must not move the task into another workflow.
    root_id = record.origin.root_id or id_text(event.get("root_id"))
    parent_id = id_text(event.get("parent_id"))
    grown, parent = 0, None
    if type(name) is str and name != task.name:
        grown = text_bytes(name)
        if task.name is not None:
            grown -= text_bytes(task.name)
        task.name = shared(name)
    if root_id is None and rank and task.root_id is None:
        root_id = task.uuid
    if root_id is not None and root_id != task.root_id:
        grown += graph.set_root(record, root_id)
    if keeps_origin and (root := record.root) is not None:
        root.set_stranger(record, record.origin is UNKNOWN_ORIGIN)
    # A retried task without a parent is sent again as its own child (celery/app/task.py, retry).
    if parent_id is not None and parent_id != task.parent_id and parent_id != task.uuid:
        parent, grown_by_parent = graph.set_parent(record, parent_id)
        grown += grown_by_parent
    return grown, parent


def add_names(event: Event, task: Task, attempt: int | None = None) -> Event:
    """Add the names and the state of its task to an event, where it has none; return the event.

    Args:
        attempt: the number of the attempt that it belongs to; 0 if that is of an earlier run; ``None`` for
            the task's current one.
    """
    event.setdefault("name", task.name)
    event.setdefault("root_id", task.root_id)
    event.setdefault("parent_id", task.parent_id)
    event.setdefault("queue", task.queue)
    event.setdefault("state", task.state)
    if task.uuid:
        event.setdefault("attempt", task.attempt if attempt is None else attempt)
    return event


def lost_event(task: Task, time: float, reason: str) -> Event:
    """Return the event that a task is lost, without its names.

    Args:
        time: epoch seconds.
        reason: why its process is taken for gone, for people.
    """
    event: Event = {"type": "task-lost", "uuid": task.uuid, "timestamp": time, "time": rfc3339(time)}
    event |= {"hostname": task.worker, "pid": task.pid, "retries": task.retries}
    return event | {"source": "gateway", "reason": reason}
