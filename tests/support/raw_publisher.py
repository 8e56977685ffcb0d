"""Publishes bytes under any properties, valid or not, at the speed of the socket.

The frames are written here (AMQP 0-9-1, sections 2.3.5 and 4.2): a client library would refuse to send what a
test wants sent, and costs more a message than the gateway may.
"""

import socket
import struct
from collections.abc import Iterable
from typing import NamedTuple

from celery.events.event import event_exchange
from kombu import Connection

JSON = "application/json"
FRAME_BYTES = 128 << 10
"""RabbitMQ's frames, and so a body's parts, are no larger."""


def short(text: bytes) -> bytes:
    """A short string, as properties and names are encoded."""
    return bytes([len(text)]) + text


def long(data: bytes) -> bytes:
    """A long string, table or array, as the values of headers are encoded."""
    return struct.pack(">I", len(data)) + data


class Properties(NamedTuple):
    """What is said of a body. `odd` takes the place of the rest: AMQP's flags, and the bytes that follow."""

    content_type: str | None = JSON
    content_encoding: str | None = "utf-8"
    compression: str | None = None
    odd: tuple[int, bytes] | None = None

    def encoded(self) -> bytes:
        """AMQP 0-9-1, section 4.2.6.1: flags, and the properties that they announce."""
        if self.odd is not None:
            flags, rest = self.odd
            return struct.pack(">H", flags) + rest
        flags, parts = 0, b""
        for bit, text in ((15, self.content_type), (14, self.content_encoding)):
            if text is not None:
                flags |= 1 << bit
                parts += short(text.encode())
        if self.compression is not None:
            flags |= 1 << 13
            parts += long(short(b"compression") + b"S" + long(self.compression.encode()))
        return struct.pack(">H", flags) + parts


class RawPublisher:
    """A connection to the broker that publishes to the event exchange.

    With `timeout_seconds`, a write that the broker does not take in that time raises TimeoutError.
    """

    def __init__(self, url: str, timeout_seconds: float | None = None) -> None:
        self._connection = Connection(url, connect_timeout=timeout_seconds or 10)
        self._channel = self._connection.channel()
        event_exchange(self._channel).declare()
        self._socket: socket.socket = self._connection.connection.transport.sock
        self._socket.settimeout(timeout_seconds)
        self._method = struct.pack(">HHH", 60, 40, 0) + short(b"celeryev") + short(b"task.multi") + b"\0"

    def send(self, bodies: Iterable[tuple[bytes, Properties]]) -> None:
        """Publish bodies in one write."""
        parts: list[bytes] = []
        size = FRAME_BYTES - 8
        for data, properties in bodies:
            parts += self._frame(1, self._method)
            parts += self._frame(2, struct.pack(">HHQ", 60, 0, len(data)) + properties.encoded())
            for start in range(0, len(data), size):
                parts += self._frame(3, data[start : start + size])
        self._socket.sendall(b"".join(parts))

    def finish(self) -> None:
        """Return when the broker has taken everything; raises what it has closed the channel with."""
        self._channel.close()
        self._connection.release()

    def close(self) -> None:
        """Let go of the connection, as it is. May be called again."""
        self._connection.release()

    def drop(self) -> None:
        """Let go without a goodbye: there may be nobody to answer it."""
        self._connection.collect()

    def _frame(self, kind: int, payload: bytes) -> tuple[bytes, bytes, bytes]:
        return struct.pack(">BHI", kind, self._channel.channel_id, len(payload)), payload, b"\xce"
