"""The sizes of queues by passive declarations: RabbitMQ, and kombu's queues in memory.

- A passive declaration creates nothing. For a queue that does not exist, or that is another connection's own,
  the broker closes the channel (AMQP 0-9-1, ``queue.declare``), so that the next queue needs another one.
- The connection is none of the source's.

Blocks, so it belongs into a thread.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any, Final

from kombu import Connection

from celery_gateway.broker.kombu_connection import kombu_connection
from celery_gateway.broker.queue_reading import QueueSize
from celery_gateway.broker.urls import BY_URL, Access

CONNECT_SECONDS: Final = 4
SOCKET_SECONDS: Final = 4
_ERRORS: Final = {
    403: "the user of the gateway lacks a permission for this queue",
    404: "the broker has no such queue",
    405: "the queue is exclusive to another connection",
}
"""By the reply code of AMQP."""


class KombuQueues:
    """Implements ``QueueBackend``.

    Args:
        url: as ``urls.brokers`` returns it.
        access: how the gateway connects.
    """

    def __init__(self, url: str, access: Access = BY_URL) -> None:
        self._url = url
        self._access = access
        self._connection: Connection | None = None
        self._channel: Any = None

    @property
    def is_connected(self) -> bool:
        return self._connection is not None

    def read(self, names: Sequence[str], deadline: float) -> Iterator[tuple[str, QueueSize]]:
        connection = self._connection or self._open()
        for name in names:
            if time.monotonic() >= deadline:
                return
            yield name, self._size(connection, name)

    def close(self) -> None:
        connection, self._connection, self._channel = self._connection, None, None
        if connection is not None:
            with suppress(Exception):
                connection.release()
            connection.collect()

    def _open(self) -> Connection:
        connection = kombu_connection(self._url, self._access, "queues", connect_seconds=CONNECT_SECONDS)
        connected = connection.connect()
        if connection.transport.driver_type == "amqp":  # py-amqp waits for replies of the broker without end
            connected.transport.sock.settimeout(SOCKET_SECONDS)
        self._connection = connection
        return connection

    def _size(self, connection: Connection, name: str) -> QueueSize:
        if self._channel is None:
            self._channel = connection.channel()
        try:
            declared = self._channel.queue_declare(name, passive=True)
        except connection.channel_errors as error:
            with suppress(Exception):
                self._channel.close()
            self._channel = None
            code = int(getattr(error, "reply_code", None) or 0)
            text = _ERRORS.get(code, f"the broker does not report this queue (code {code})")
            return QueueSize(exists=code != 404, error=text)
        counts_consumers = connection.transport.driver_type == "amqp"
        return QueueSize(declared.message_count, declared.consumer_count if counts_consumers else None)
