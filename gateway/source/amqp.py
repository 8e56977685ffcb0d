"""The AMQP source: an aio-pika consumer on the ``celeryev`` exchange.

- The queue is fresh, exclusive to the connection, and limited in age and size: it vanishes with us, and a
  gateway that stalls costs the broker a bounded queue, never the memory alarm that stops task publishers.
- The exchange is declared as Celery declares it (celery/events/event.py): topic, durable. Declared in
  another way it would make *workers* fail; if it exists in another way it is taken as it is.
- It is bound with ``#``: prefork workers send lists under ``task.multi`` whatever the events' types.
- The consumer's callback awaits nothing. Deliveries are acknowledged many at once; the prefetch is the credit
  that holds the broker back. (aio-pika's own ``Queue.consume`` costs half as much again as the channel's
  ``basic_consume`` beneath it, which is used here.)
- A plain connection with our own loop, not aio-pika's robust one, which declares the same exclusive queue
  again before the broker has noticed that its first owner is gone.
"""

import asyncio
import logging
import os
import platform
import secrets
from contextlib import suppress

import aiormq
from aio_pika.abc import AbstractConnection
from aiormq.abc import AbstractChannel
from kombu.utils.url import url_to_parts
from pamqp.common import FieldValue
from yarl import URL

from gateway import __version__
from gateway.errors import SourceError
from gateway.source import Sink, Status
from gateway.source.backoff import Backoff
from gateway.source.deliveries import Delivery, connect

PREFETCH_MESSAGES = 2_000
"""The broker's credit: how much it sends before it hears from us again."""
ACKNOWLEDGE_SECONDS = 0.05
"""An acknowledgement costs like a delivery. At this pace the credit is good for 40,000 messages a second."""
HEARTBEAT_SECONDS = 15
CONNECT_TIMEOUT_SECONDS = 10
CLOSE_TIMEOUT_SECONDS = 2
QUEUE_ARGUMENTS: dict[str, FieldValue] = {
    "x-message-ttl": 60_000,  # milliseconds
    "x-expires": 60_000,
    "x-max-length": 100_000,
    "x-max-length-bytes": 64 << 20,
    "x-overflow": "drop-head",
}

log = logging.getLogger(__name__)


class AMQPSource:
    """Consumes a RabbitMQ (or another broker of AMQP 0-9-1).

    Args:
        url: ``amqp://user:password@host:port/vhost``, ``amqps://…`` or Celery's ``pyamqp://…``.
        exchange: Celery's ``event_exchange``.

    Raises:
        SourceError: the URL is malformed.
    """

    def __init__(self, url: str, *, exchange: str = "celeryev") -> None:
        self._url = _with_defaults(url)
        self._exchange = exchange
        self._status = Status(False, "not connected yet")

    @property
    def status(self) -> Status:
        return self._status

    async def run(self, sink: Sink) -> None:
        backoff = Backoff()
        was_consuming = False
        while True:
            try:
                await self._connect_and_consume(sink, backoff, was_consuming)
                reason = "the broker ended the consumer"
            except (OSError, TimeoutError, aiormq.AMQPError) as error:
                reason = f"{type(error).__name__}: {error}"
            except Exception as error:
                log.exception("broker: an error that was not foreseen; the source goes on")
                reason = f"{type(error).__name__}: {error}"
            was_consuming = was_consuming or self._status.is_consuming
            self._status = Status(False, reason)
            await asyncio.sleep(backoff.after(reason))

    async def _connect_and_consume(self, sink: Sink, backoff: Backoff, was_consuming: bool) -> None:
        """Consume until the consumer ends; raises what ended it, where that was an error."""
        deliveries = _Acknowledged(sink)
        connection = await connect(self._url, deliveries.take, CONNECT_TIMEOUT_SECONDS)
        try:
            channel = await self._open_channel(connection)
            queue = f"celery-gateway.{platform.node()}.{os.getpid()}.{secrets.token_hex(4)}"
            await channel.queue_declare(queue, exclusive=True, auto_delete=True, arguments=QUEUE_ARGUMENTS)
            await channel.queue_bind(queue, self._exchange, routing_key="#")
            cancelled = asyncio.Event()
            channel.on_consumer_cancel_callbacks.add(lambda _: cancelled.set())
            if was_consuming:
                sink.lost()
            deliveries.channel = channel
            await channel.basic_consume(queue, _unused)
            backoff.reset()
            self._status = Status(True, f"consuming {self._exchange}")
            sink.consuming()
            log.info("broker: consuming %s through the queue %s", self._exchange, queue)
            waiter = asyncio.create_task(cancelled.wait())
            try:
                await asyncio.wait({waiter, channel.closing}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                waiter.cancel()
            if channel.closing.done():
                channel.closing.result()
        finally:
            with suppress(Exception):
                await asyncio.wait_for(connection.close(), CLOSE_TIMEOUT_SECONDS)

    async def _open_channel(self, connection: AbstractConnection) -> AbstractChannel:
        """Return a channel that has seen the exchange declared as Celery does, or already there."""
        channel = await _new_channel(connection)
        try:
            await channel.exchange_declare(self._exchange, exchange_type="topic", durable=True)
        except (aiormq.exceptions.ChannelPreconditionFailed, aiormq.exceptions.ChannelAccessRefused):
            # It exists in another way, or is not ours to declare; to bind to it may be allowed all the same.
            channel = await _new_channel(connection)
        await channel.basic_qos(prefetch_count=PREFETCH_MESSAGES)
        return channel


class _Acknowledged:
    def __init__(self, sink: Sink) -> None:
        self.channel: AbstractChannel | None = None
        self._sink = sink
        self._taken = self._acknowledged = 0  # delivery tags
        self._acknowledger: asyncio.Task[None] | None = None

    def take(self, delivery: Delivery) -> None:
        self._sink.message(delivery.message)
        self._taken = delivery.tag
        if self._acknowledger is None:
            self._acknowledger = asyncio.create_task(self._acknowledge())

    async def _acknowledge(self) -> None:
        """Acknowledge what is taken, now and then, until there is nothing more to."""
        with suppress(aiormq.AMQPError, aiormq.exceptions.ChannelInvalidStateError, OSError):
            while self._taken > self._acknowledged:
                await asyncio.sleep(ACKNOWLEDGE_SECONDS)
                self._acknowledged = self._taken
                await self.channel.basic_ack(self._acknowledged, multiple=True, wait=False)
        self._acknowledger = None


async def _unused(_: object) -> None: ...


async def _new_channel(connection: AbstractConnection) -> AbstractChannel:
    channel = await connection.channel(publisher_confirms=False)
    underlay: AbstractChannel = await channel.get_underlay_channel()
    return underlay


def _with_defaults(url: str) -> URL:
    """Return Celery's broker URL as aio-pika wants it, with our heartbeat and name unless it has its own."""
    try:
        parts = url_to_parts(url)
        query = {"heartbeat": HEARTBEAT_SECONDS, "name": f"celery-gateway {__version__}", **parts.query}
        return URL.build(
            scheme="amqps" if parts.scheme == "amqps" else "amqp",
            host=parts.hostname or "localhost",
            port=parts.port or (5671 if parts.scheme == "amqps" else 5672),
            user=parts.username or "guest",
            password=parts.password or "guest",
            path=f"/{parts.path or '/'}",
            query=query,
        )
    except ValueError as error:
        raise SourceError(f"the broker URL cannot be read: {error}") from None
