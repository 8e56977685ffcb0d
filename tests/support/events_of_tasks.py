"""Events of tasks with given times, as workers and clients send them."""

from typing import Any

from tests.support.publisher import received, task_event

Event = dict[str, Any]
CALL = {"retries": 0, "eta": None, "expires": None}


def sent(uid: str, name: str, at: float, root: str = "", parent: str | None = None, **fields: Any) -> Event:
    """Return a ``task-sent``.

    Args:
        at: epoch seconds.
        root: the id of the root; by default the task's own.
    """
    about = {"name": name, "root_id": root or uid, "parent_id": parent, "queue": "shop"}
    return task_event(
        "task-sent", uid, timestamp=at, **about | CALL | {"args": "()", "kwargs": "{}"} | fields
    )


def taken(uid: str, name: str, at: float, root: str = "", parent: str | None = None, **fields: Any) -> Event:
    """Return a ``task-received``; arguments as of ``sent``."""
    return received(uid, name, root or uid) | {"timestamp": at, "parent_id": parent} | fields


def then(subject: str, uid: str, at: float, **fields: Any) -> Event:
    """Return a ``task-…`` of a worker."""
    return task_event(f"task-{subject}", uid, timestamp=at, **fields)


def done(
    uid: str, name: str, at: float, root: str = "", parent: str | None = None, **fields: Any
) -> list[Event]:
    """Return the events of a task that waits 0.2 s, runs 0.5 s and succeeds."""
    return [
        taken(uid, name, at, root, parent, **fields),
        then("started", uid, at + 0.2),
        then("succeeded", uid, at + 0.7, result="None", runtime=0.5),
    ]


def failing(
    uid: str, name: str, at: float, root: str = "", parent: str | None = None, **outcome: Any
) -> list[Event]:
    """Return the events of a task that fails; its exception and traceback are ``outcome``."""
    return [
        taken(uid, name, at, root, parent),
        then("started", uid, at + 0.2),
        then("failed", uid, at + 0.7, **{"exception": "ValueError('no')", "traceback": None} | outcome),
    ]
