"""Deliveries, put together from the broker's bytes before the AMQP library sees them.

aiormq carries a delivery through three frame objects, as many queues and a task of its own: more CPU than
all that a gateway does with the event. Here the frames of deliveries (AMQP 0-9-1, sections 2.3.5 and 4.2) are
taken out as they come off the socket. Every other frame goes on to aiormq untouched, which keeps the
handshake, the channels, the answers and the errors.

- One channel is consumed: the first that gets a delivery. Another's would go the library's own way.
- The callback is called from the transport, in order; it must neither block nor raise.
"""

import asyncio
import struct
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import aio_pika
from aiormq.connection import TransportFactory
from aiormq.exceptions import AMQPConnectionError
from pamqp.header import ContentHeader
from yarl import URL

from gateway.message import Message
from gateway.source.tls import TLS

MAX_FRAME_BYTES = 256 << 20
"""RabbitMQ's frames have 128 kB at most, unless it is told otherwise; a larger one than this is no frame."""
HEARTBEAT_SECONDS = 1.0
"""The broker sends no heartbeats while it sends deliveries: so those count as one for aiormq now and then."""

MAX_PROPERTIES_BYTES = 16 << 10
"""The time that pamqp takes for a header grows with the square of its size: 350 ms for 120 kB. Celery's own
are of a hundred bytes."""

_METHOD, _HEADER, _BODY, _HEARTBEAT = 1, 2, 3, 8  # kinds of frame
_KINDS = frozenset({_METHOD, _HEADER, _BODY, _HEARTBEAT})
_FRAME_HEAD_BYTES, _CONTENT_HEAD_BYTES = 7, 12
_FRAME_END = 0xCE
_HEARTBEAT_FRAME = b"\x08\x00\x00\x00\x00\x00\x00\xce"
_DELIVER = b"\x00\x3c\x00\x3c"  # class basic, method deliver
_MAX_KNOWN_PROPERTIES, _MAX_KNOWN_PROPERTIES_BYTES = 1_000, 1_000

_frame = struct.Struct(">BHI").unpack_from
_uint64 = struct.Struct(">Q").unpack_from

_Properties = tuple[str | None, str | None, str | None]


class Delivery(NamedTuple):
    """A message that a consumer got; ``tag`` is what an acknowledgement names."""

    consumer_tag: bytes
    tag: int
    message: Message


Take = Callable[[Delivery], None]


class DeliveryReader(asyncio.StreamReader):
    """A stream that lacks the deliveries of what is fed to it: those are given to ``take``."""

    def __init__(self, take: Take) -> None:
        super().__init__()
        self._take = take
        self._is_amqp = True
        self._rest = b""  # of what was fed: the beginning of a frame
        self._channel: int | None = None
        self._expected = 0  # the kind of the open delivery's next frame
        self._consumer_tag = b""
        self._tag = 0
        self._properties: _Properties = (None, None, None)
        self._known_properties: dict[bytes, _Properties] = {}
        self._body: list[bytes] = []
        self._body_bytes_left = 0
        self._heartbeat_due = 0.0

    def feed_data(self, data: bytes) -> None:  # type: ignore[override]  # what transports give
        if not self._is_amqp:
            super().feed_data(data)
            return
        if self._rest:
            data = self._rest + data
        others = []
        position, available = 0, len(data)
        while available - position > _FRAME_HEAD_BYTES:
            kind, channel, size = _frame(data, position)
            start = position + _FRAME_HEAD_BYTES
            end = start + size
            if kind not in _KINDS or size > MAX_FRAME_BYTES or (end < available and data[end] != _FRAME_END):
                # Another protocol, or another version of this one: aiormq says it best.
                self._is_amqp = False
                others.append(data[position:])
                position = available
                break
            if end >= available:
                break
            if not self._took(kind, channel, data, start, end):
                others.append(data[position : end + 1])
            position = end + 1
        self._rest = data[position:]
        if others:
            super().feed_data(b"".join(others))
        elif position and time.monotonic() >= self._heartbeat_due:
            self._heartbeat_due = time.monotonic() + HEARTBEAT_SECONDS
            super().feed_data(_HEARTBEAT_FRAME)

    def _took(self, kind: int, channel: int, data: bytes, start: int, end: int) -> bool:
        """Take in the frame whose payload lies there, if it is part of a delivery."""
        if kind == _METHOD:
            if not data.startswith(_DELIVER, start) or self._channel not in (None, channel):
                return False
            self._channel = channel
            tag_start = start + 5
            tag_end = tag_start + data[tag_start - 1]
            self._consumer_tag = data[tag_start:tag_end]
            self._tag = _uint64(data, tag_end)[0]
            self._expected = _HEADER
            return True
        if channel != self._channel or kind != self._expected:
            return False
        if kind == _HEADER:
            self._properties = self._read_properties(data, start, end)
            self._body_bytes_left = _uint64(data, start + 4)[0]
        else:
            self._body.append(data[start:end])
            self._body_bytes_left -= end - start
        if self._body_bytes_left > 0:
            self._expected = _BODY
            return True
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        self._body.clear()
        self._expected = 0
        self._take(Delivery(self._consumer_tag, self._tag, Message(body, *self._properties)))
        return True

    def _read_properties(self, data: bytes, start: int, end: int) -> _Properties:
        """Return what a content header says of its body. (A publisher's headers are mostly the same.)"""
        encoded = data[start + _CONTENT_HEAD_BYTES : end]
        known = self._known_properties.get(encoded)
        if known is None:
            header = ContentHeader()
            try:
                if len(encoded) > MAX_PROPERTIES_BYTES:
                    raise ValueError("too long to be read in time")
                header.unmarshal(data[start:end])
                properties = header.properties
                compression = (properties.headers or {}).get("compression")
                known = (
                    properties.content_type,
                    properties.content_encoding,
                    None if compression is None else str(compression),
                )
            except (ValueError, TypeError, ArithmeticError, RecursionError, struct.error):
                known = ("unreadable properties", None, None)
            if len(self._known_properties) >= _MAX_KNOWN_PROPERTIES:
                self._known_properties.clear()
            if len(encoded) <= _MAX_KNOWN_PROPERTIES_BYTES:
                self._known_properties[encoded] = known
        return known


class Connection(aio_pika.Connection):
    """A connection whose deliveries go to ``take``; ``connect`` it, and ``abort`` it in the end.

    ``tls`` is how an ``amqps://`` URL is spoken to; without, the URL's own query says it.
    """

    def __init__(self, url: URL, take: Take, tls: TLS | None = None) -> None:
        super().__init__(url)
        self._sockets = _Sockets(take, tls)
        self.kwargs["transport_factory"] = self._sockets

    def abort(self) -> None:
        """Close the socket at once, whatever is still to be said. May be called in any state."""
        self._sockets.abort()


class _Sockets(TransportFactory):
    """Opens a connection's socket with a ``DeliveryReader``."""

    def __init__(self, take: Take, tls: TLS | None) -> None:
        self._take = take
        self._tls = tls
        self._transport: asyncio.WriteTransport | None = None

    async def create(self, url: URL, **options: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        loop = asyncio.get_running_loop()
        ssl_context_provider = options.pop("ssl_context_provider")
        if url.scheme == "amqps":
            tls = self._tls
            options["ssl"] = await (
                asyncio.to_thread(tls.context) if tls else ssl_context_provider.get_context()
            )
            options["server_hostname"] = tls.server_hostname if tls else None  # None: the URL's host
        reader = DeliveryReader(self._take)
        protocol = asyncio.StreamReaderProtocol(reader)
        try:
            self._transport, _ = await loop.create_connection(
                lambda: protocol, url.host or "localhost", url.port or 5672, **options
            )
        except OSError as error:
            raise AMQPConnectionError(*error.args) from error
        return reader, asyncio.StreamWriter(self._transport, protocol, reader, loop)

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()
