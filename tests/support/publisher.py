"""Puts messages on `celeryev` as a test wants them: events as Celery sends them, or any other bytes."""

import json
import time
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from celery.events.event import event_exchange
from kombu import Connection


def task_event(type: str, uuid: str, **fields: Any) -> dict[str, Any]:
    """An event as a worker makes it."""
    return {
        "type": type,
        "uuid": uuid,
        "hostname": "w1@host",
        "timestamp": time.time(),
        "utcoffset": 0,
        "pid": 1,
        "clock": 1,
        **fields,
    }


def received(uuid: str, name: str, root_id: str | None = None, **fields: Any) -> dict[str, Any]:
    """A task-received: what names a task."""
    about = {"name": name, "root_id": root_id or uuid, "parent_id": None, "args": "()", "kwargs": "{}"}
    return task_event("task-received", uuid, **about, retries=0, eta=None, expires=None, **fields)


def walk(
    name: str = "shop.charge", root_id: str | None = None, uid: str | None = None
) -> list[dict[str, Any]]:
    """A task's events from received to succeeded."""
    uid = uid or str(uuid.uuid4())
    return [
        received(uid, name, root_id),
        task_event("task-started", uid),
        task_event("task-succeeded", uid, result="None", runtime=0.01),
    ]


class Publisher:
    """A connection to the broker that publishes to the event exchange, declared as Celery declares it."""

    def __init__(self, url: str) -> None:
        self._connection = Connection(url)
        self._channel = self._connection.channel()
        event_exchange(self._channel).declare()

    def send(self, *bodies: Mapping[str, Any] | Sequence[Any]) -> None:
        """Publish each event, or list of events, as one message of JSON."""
        for body in bodies:
            self.send_raw(json.dumps(body).encode())

    def send_raw(
        self,
        body: bytes,
        content_type: str | None = "application/json",
        content_encoding: str | None = "utf-8",
        headers: Mapping[str, Any] | None = None,
    ) -> None:
        message = self._channel.prepare_message(
            body, content_type=content_type, content_encoding=content_encoding, headers=headers or {}
        )
        self._channel.basic_publish(message, exchange="celeryev", routing_key="task.multi")

    def close(self) -> None:
        self._connection.release()
