"""An aio-pika connection whose deliveries bypass aiormq (``amqp_frames``).

This is the only module that touches private parts of aiormq: the attribute named by ``_GRACE``. Without it,
aiormq's own monitor of silence runs beside ``silence``, and nothing else changes.
"""

import asyncio
from typing import Any

import aio_pika
from aiormq.connection import TransportFactory
from aiormq.exceptions import AMQPConnectionError
from yarl import URL

from celery_gateway.broker.amqp_frames import HEARTBEAT_FRAME, DeliveryReader, OnDelivery
from celery_gateway.broker.tls import TLS

_GRACE = "_Connection__heartbeat_grace_timeout"
_NEVER_SECONDS = 1e6
"""Not infinite, because uvloop has no infinite timers."""


class Connection(aio_pika.Connection):
    """A connection whose deliveries go to a callback: ``connect`` it, and ``abort`` it in the end.

    Args:
        url: as aiormq takes it.
        on_delivery: see ``DeliveryReader``.
        tls: for an ``amqps://`` URL; without it, the query of the URL has the options.
    """

    def __init__(self, url: URL, on_delivery: OnDelivery, tls: TLS | None = None) -> None:
        super().__init__(url)
        self._socket = _Socket(on_delivery, tls)
        self.kwargs["transport_factory"] = self._socket

    async def connect(self, timeout: float | None = None) -> None:  # noqa: ASYNC109  (aio-pika's)
        await super().connect(timeout)
        assert self.transport is not None
        # aiormq's monitor of silence counts time in which this event loop does not run (see ``silence``).
        if hasattr(self.transport.connection, _GRACE):
            setattr(self.transport.connection, _GRACE, _NEVER_SECONDS)

    @property
    def is_socket_open(self) -> bool:
        """Whether TCP and TLS are connected, or were."""
        return self._socket.is_open

    @property
    def reads(self) -> int:
        """How often something was read from the broker."""
        return self._socket.reads

    @property
    def properties(self) -> bytes:
        """The properties of the delivery with which ``on_delivery`` is called, as AMQP encodes them."""
        return self._socket.properties

    @property
    def heartbeat_seconds(self) -> int:
        """The interval that was negotiated with the broker; 0 for no heartbeats."""
        assert self.transport is not None
        return int(getattr(self.transport.connection, "heartbeat_timeout", 0))

    @property
    def max_frame_bytes(self) -> int:
        """The limit that was negotiated with the broker; 0 for none."""
        assert self.transport is not None
        return int(self.transport.connection.connection_tune.frame_max or 0)

    @property
    def unsent_bytes(self) -> int:
        """How many bytes wait until the broker reads."""
        return self._socket.unsent_bytes

    def write(self, frames: bytes) -> None:
        """Write whole frames to the socket at once, behind the bytes that wait there."""
        self._socket.write(frames)

    def send_heartbeat(self) -> None:
        """Write a heartbeat, as ``write`` does."""
        self._socket.write(HEARTBEAT_FRAME)

    async def caught_up(self) -> None:
        """Wait until all deliveries that were read are processed."""
        await self._socket.caught_up()

    def ignore_deliveries(self) -> None:
        """Drop deliveries from now on; replies of the broker still arrive."""
        self._socket.ignore_deliveries()

    def abort(self) -> None:
        """Close the socket at once, without flushing. May be called in any state."""
        self._socket.abort()


class _Socket(TransportFactory):
    """Opens the socket of one connection, with a ``DeliveryReader``."""

    def __init__(self, on_delivery: OnDelivery, tls: TLS | None) -> None:
        self._on_delivery = on_delivery
        self._tls = tls
        self._transport: asyncio.WriteTransport | None = None
        self._reader: DeliveryReader | None = None

    async def create(self, url: URL, **options: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        loop = asyncio.get_running_loop()
        ssl_context_provider = options.pop("ssl_context_provider")
        if url.scheme == "amqps":
            tls = self._tls
            options["ssl"] = await (
                asyncio.to_thread(tls.context) if tls else ssl_context_provider.get_context()
            )
            options["server_hostname"] = tls.server_hostname if tls else None  # None: the URL's host
        reader = self._reader = DeliveryReader(self._on_delivery)
        protocol = asyncio.StreamReaderProtocol(reader)
        try:
            self._transport, _ = await loop.create_connection(
                lambda: protocol, url.host or "localhost", url.port or 5672, **options
            )
        except OSError as error:
            raise AMQPConnectionError(*error.args) from error
        return reader, asyncio.StreamWriter(self._transport, protocol, reader, loop)

    @property
    def is_open(self) -> bool:
        return self._transport is not None

    @property
    def reads(self) -> int:
        return 0 if self._reader is None else self._reader.reads

    @property
    def properties(self) -> bytes:
        return b"" if self._reader is None else self._reader.properties

    @property
    def unsent_bytes(self) -> int:
        return 0 if self._transport is None else self._transport.get_write_buffer_size()

    def write(self, frame: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(frame)

    async def caught_up(self) -> None:
        if self._reader is not None:
            await self._reader.caught_up()

    def ignore_deliveries(self) -> None:
        if self._reader is not None:
            self._reader.ignore_deliveries()

    def abort(self) -> None:
        if self._reader is not None:
            self._reader.abandon()
        if self._transport is not None:
            self._transport.abort()
