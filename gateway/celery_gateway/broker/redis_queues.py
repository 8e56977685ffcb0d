"""The sizes of queues in Redis: each is a list, with further lists for priorities (kombu/transport/redis.py).

Blocks, so it belongs into a thread.
"""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Final

from celery_gateway.broker.queue_reading import QueueSize
from celery_gateway.broker.redis_connection import RedisConnection
from celery_gateway.broker.urls import BY_URL, Access

_OPTIONS: Final = {"socket_timeout": 4, "socket_connect_timeout": 4}  # seconds


class RedisQueues:
    """Implements ``QueueBackend``; see ``KombuQueues``."""

    def __init__(self, url: str, access: Access = BY_URL) -> None:
        self._url = url
        self._access = access
        self._connection: RedisConnection | None = None

    @property
    def is_connected(self) -> bool:
        return self._connection is not None

    def read(self, names: Sequence[str], deadline: float) -> Iterator[tuple[str, QueueSize]]:
        connection = self._connection or self._open()
        for name, lengths in zip(names, connection.queue_lengths(names), strict=True):
            yield name, _size(lengths)

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(*connection.errors):
                connection.close()

    def _open(self) -> RedisConnection:
        connection = RedisConnection(self._url, self._access, _OPTIONS)
        try:
            connection.open()
        except BaseException:
            with suppress(*connection.errors):
                connection.close()
            raise
        self._connection = connection
        return connection


def _size(lengths: dict[str, int | Exception]) -> QueueSize:
    """Return the size of a queue from the lengths of its lists, by priority."""
    error = next((length for length in lengths.values() if isinstance(length, Exception)), None)
    if error is not None:
        is_refused = type(error).__name__ == "NoPermissionError"
        reason = (
            "the user of the gateway lacks the permission for LLEN on this queue"
            if is_refused
            else "its key in Redis is not a list"
        )
        return QueueSize(error=reason)
    counts = {priority: length for priority, length in lengths.items() if isinstance(length, int) and length}
    depth = sum(counts.values())
    uses_priorities = bool(counts.keys() - {next(iter(lengths))})
    return QueueSize(depth, None, counts if uses_priorities else None, exists=depth > 0)
