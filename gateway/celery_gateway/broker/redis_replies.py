"""A list in Redis to which workers push their replies.

- The list expires by itself, so nothing stays behind when the gateway is killed.
- It has one item of ours. Redis deletes an empty list, and its expiry with it, so without this item a late
  reply would make a list that stays.

Blocks, so it belongs into a thread.
"""

from collections.abc import Mapping
from typing import Any

from celery_gateway.broker.redis_envelope import read_envelope
from celery_gateway.events.message import UNREADABLE, Message

EXPIRE_SECONDS = 60.0
"""How long the list exists if nobody deletes it."""

_OUR_ITEM = b""


class ReplyList:
    """The list for the replies to some commands.

    Args:
        client: of redis-py.
        key: of the list.
    """

    def __init__(self, client: Any, key: str) -> None:
        self._client = client
        self._key = key
        self._count = 0

    def keep(self, seconds: float = EXPIRE_SECONDS) -> None:
        """Create the list if needed, and let it expire some seconds from now."""
        milliseconds = max(int(seconds * 1000), 1)
        if not self._client.pexpire(self._key, milliseconds):
            with self._client.pipeline(transaction=True) as pipeline:
                pipeline.rpush(self._key, _OUR_ITEM)
                pipeline.pexpire(self._key, milliseconds)
                pipeline.execute()

    def release(self, expected: int, seconds: float) -> None:
        """Delete the list if all replies have arrived, otherwise keep it for late ones.

        Args:
            expected: the number of all replies.
            seconds: how long late replies are possible.
        """
        if self._count >= expected:
            self._client.delete(self._key)
        else:
            self.keep(seconds)

    def read(self) -> list[tuple[Message, Mapping[str, Any]]]:
        """Return the replies that have arrived, with their headers, without those that cannot be read."""
        count = self._client.llen(self._key) - 1  # the last one is our item
        if count <= 0:
            return []
        with self._client.pipeline(transaction=False) as pipeline:
            for _ in range(count):
                pipeline.lpop(self._key)  # workers push to this end
            items = pipeline.execute()
        self._count += count
        envelopes = [read_envelope(item) for item in reversed(items) if item]
        return [(message, headers) for message, headers, _ in envelopes if message is not UNREADABLE]
