"""One connection to RabbitMQ that consumes the raw stream, from ``begin`` to ``end``.

- The raw stream is a durable RabbitMQ stream that gets all messages of the event exchange, also while no
  gateway runs. Its retention is limited by age and size. No gateway deletes it.
- The event exchange, the checks, and the detection of silence and alarms are those of ``amqp_consumer``.
  There is no overflow queue and no tripwire exchange.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import NamedTuple, Protocol

from aiormq.abc import AbstractChannel
from pamqp.common import FieldValue
from yarl import URL

from celery_gateway.broker.amqp_connection import Connection
from celery_gateway.broker.amqp_consumer import CONNECT_TIMEOUT_SECONDS, Consumer
from celery_gateway.broker.amqp_deliveries import PREFETCH_MESSAGES, Deliveries
from celery_gateway.broker.amqp_frames import Delivery
from celery_gateway.broker.amqp_queues import ReportForeign
from celery_gateway.broker.rabbitmq_stream import StreamConsumer, declare_stream
from celery_gateway.broker.restart_mark import has_mark, set_mark
from celery_gateway.broker.silence import running_timeout
from celery_gateway.broker.source import Sink
from celery_gateway.broker.tls import TLS
from celery_gateway.broker.urls import Access
from celery_gateway.events.message import Message


class RawStream(NamedTuple):
    """The raw stream as it is to be declared.

    Attributes:
        report_difference: called with the name and the broker's text, if it exists with other arguments.
    """

    name: str
    arguments: dict[str, FieldValue]
    report_difference: Callable[[str, str], None]


class Reader(Protocol):
    """Gets what a ``RawConsumer`` consumes, and has the place where it begins."""

    @property
    def start(self) -> int:
        """The offset of the next message."""

    def message(self, message: Message) -> Iterator[None] | None:
        """Process a message; see ``Sink``."""

    def missed(self, count: int | None) -> None:
        """Record that messages before the next one were lost; ``None``: an unknown number.

        Then the stream was created again, and the next message is its first.
        """

    def on_restart(self) -> None:
        """Record that the broker was restarted: messages may be missing."""


class RawConsumer(Consumer):
    """The consumer of one connection. Arguments that are not described are those of ``Consumer``.

    Args:
        may_continue: see ``StreamConsumer``.
        is_reported: returns once what was reported to the reader cannot be lost any more.
    """

    def __init__(
        self,
        url: URL,
        tls: TLS | None,
        exchange: str,
        access: Access,
        sink: Sink,
        on_alarm: Callable[[bool], None],
        report_foreign: ReportForeign,
        *,
        stream: RawStream,
        reader: Reader,
        may_continue: Callable[[], bool],
        is_reported: Callable[[], Awaitable[None]],
        silence_seconds: float,
        check_seconds: float,
    ) -> None:
        super().__init__(
            url,
            tls,
            exchange,
            access,
            sink,
            on_alarm,
            report_foreign,
            silence_seconds=silence_seconds,
            check_seconds=check_seconds,
        )
        self._stream = stream
        self._reader = reader
        self._may_continue = may_continue
        self._is_reported = is_reported
        self._queue = stream.name
        self._needs_mark = False
        self._deliveries = self._of_stream = _StreamDeliveries(sink)
        self._connection = Connection(url, self._of_stream.on_delivery, tls)

    async def begin(self, has_failed: bool) -> None:
        """Connect, declare and consume; see ``Consumer``. A failure before loses nothing."""
        async with running_timeout(CONNECT_TIMEOUT_SECONDS):
            channel = await self._connect_and_declare()
            self._deliveries.channel = channel
            await self._check_mark()
            if not await self._consume(channel):
                self._reader.missed(None)
                await self._consume(channel)
            self._is_consuming = True

    async def _check_mark(self) -> None:
        """Report a restart of the broker; ``_check`` sets the mark again."""
        self._needs_mark = not await has_mark(self._stream.name, self._open_channel)
        if self._needs_mark:
            if not self._reader.start:  # nothing was read yet
                await set_mark(self._stream.name, self._open_channel)
                self._needs_mark = False
            self._reader.on_restart()

    async def _check(self) -> None:
        marking = asyncio.create_task(self._mark()) if self._needs_mark else None
        try:
            await super()._check()
        finally:
            if marking is not None:
                marking.cancel()
                await asyncio.gather(marking, return_exceptions=True)

    async def _mark(self) -> None:
        # Until then another gateway that reads the stream reports the restart, too: this one may end first.
        await self._is_reported()
        await set_mark(self._stream.name, self._open_channel)
        self._needs_mark = False

    async def declare(self) -> None:
        """Connect and declare, without consuming.

        Raises:
            Exception: any error of the connection (see ``diagnose``).
        """
        async with running_timeout(CONNECT_TIMEOUT_SECONDS):
            await self._connect_and_declare()

    async def _connect_and_declare(self) -> AbstractChannel:
        await self._connection.connect()
        self._is_connected = True
        name, arguments, report_difference = self._stream
        channel, difference = await declare_stream(
            await self._declare_exchange(), name, arguments, self._open_channel
        )
        if difference:
            report_difference(name, difference)
        await channel.queue_bind(name, self._exchange, routing_key="#")
        return channel

    async def _consume(self, channel: AbstractChannel) -> bool:
        reader = self._reader
        consumer = self._of_stream.consumer = StreamConsumer(
            self._stream.name,
            reader.start,
            reader.message,
            prefetch=PREFETCH_MESSAGES,
            on_missed=reader.missed,
            on_cancel=self._is_cancelled.set,
            may_continue=self._may_continue,
        )
        return await consumer.begin(self._connection, channel, is_checked=True)


class _StreamDeliveries(Deliveries):
    """The deliveries of the stream, with the interface that ``Consumer`` uses."""

    def __init__(self, sink: Sink) -> None:
        super().__init__(sink, lambda: False, lambda is_behind: None)
        self.consumer: StreamConsumer | None = None

    def on_delivery(self, delivery: Delivery) -> Iterator[None] | None:
        self.last_tag = delivery.tag
        return self.consumer.on_delivery(delivery) if self.consumer is not None else None

    def stop(self) -> None:
        if self.consumer is not None:
            self.consumer.stop()
