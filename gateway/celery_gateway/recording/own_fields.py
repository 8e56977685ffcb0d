"""Events of a recording as they were sent, without what the gateway has added to them. Pure.

A gateway adds fields to each event (``events.normalize``, ``state.task_names``), and events of its own.

- Always removed: ``id``, ``time`` and ``truncated``, which another gateway makes itself, and the control
  messages and ``task-lost`` events of the gateway. Texts that were truncated stay so.
- For a gateway, the names of the task stay (``JOINED_FIELDS``). It keeps the values that an event has, so it
  shows the events of a task as they were shown, even if the recording lacks the event that names the task.
- For a broker, Celery's own events have exactly the fields that Celery sends. In other events these fields
  may be their own, so only those that are ``null`` are removed.
"""

from typing import Final

from celery_gateway.events.event import Event
from celery_gateway.events.event_types import STATE_OF_EVENT

JOINED_FIELDS: Final = ("name", "root_id", "parent_id", "queue", "state", "attempt")
"""The fields that a gateway adds to the events of a task, where an event has none."""
_SENT_FIELDS: Final = {
    "task-sent": frozenset({"name", "root_id", "parent_id", "queue"}),
    "task-received": frozenset({"name", "root_id", "parent_id"}),
}
"""Those of ``JOINED_FIELDS`` that Celery sends (celery/app/amqp.py, celery/worker/request.py)."""
_MOVED_FIELDS: Final = frozenset({"id", "time", "truncated", "cluster"})
"""An event's own fields of these names, and then ``fields`` as well, are in its field ``fields``."""


def is_of_gateway(event: Event) -> bool:
    """Return whether a message was made by the gateway, not sent by a worker or client.

    >>> is_of_gateway({"type": "gateway-gap"}), is_of_gateway({"type": "task-sent"})
    (True, False)
    """
    event_type = event["type"]
    is_lost = event_type == "task-lost" and event.get("source") == "gateway"
    return is_lost or event_type.startswith("gateway-")


def for_gateway(event: Event) -> Event:
    """Remove from an event what another gateway adds to any event; return the event.

    >>> for_gateway({"type": "a-b", "fields": {"id": 5}, "time": "2026-11-21T04:21:11.206692Z", "id": "x-1"})
    {'type': 'a-b', 'id': 5}
    """
    for name in ("id", "time", "truncated"):
        event.pop(name, None)
    moved = event.get("fields")
    if type(moved) is dict and moved.keys() & _MOVED_FIELDS and moved.keys() <= _MOVED_FIELDS | {"fields"}:
        del event["fields"]
        event.update(moved)
    return event


def for_broker(event: Event) -> Event:
    """Remove what a gateway has added to an event that ``for_gateway`` has returned; return the event.

    >>> for_broker({"type": "task-started", "uuid": "a", "name": "shop.pay", "state": "STARTED"})
    {'type': 'task-started', 'uuid': 'a'}
    """
    event_type = event["type"]
    sent = _SENT_FIELDS.get(event_type, frozenset())
    is_celerys = event_type in STATE_OF_EVENT
    for name in JOINED_FIELDS:
        if name in event and ((is_celerys and name not in sent) or (not is_celerys and event[name] is None)):
            del event[name]
    return event
