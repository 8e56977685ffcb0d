"""One connection to RabbitMQ that consumes the event exchange, from ``begin`` to ``end``.

- The event queue is new for each connection, exclusive to it, and limited in age and size. The broker deletes
  it with the connection. A gateway that stalls costs the broker a bounded queue, and never causes the memory
  alarm that blocks the publishers of tasks.
- The event exchange is declared as Celery declares it (celery/events/event.py): topic, durable. Another
  declaration would make *workers* fail. If the exchange exists with other properties, it is used as it is.
- The queue is bound with ``#``: prefork workers send lists under ``task.multi``, whatever the types of the
  events.
- The overflow queue (``overflow_queue``) and the tripwire exchange (``tripwire``) are optional: without the
  permission for them, losses at the broker or a deleted event exchange are not reported.
- The exchange and the binding are checked every few seconds: the broker does not report when they are gone.
  These checks also get replies from a broker that has nothing else to send (``silence``).
"""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress

from aiormq.abc import AbstractChannel
from aiormq.exceptions import ChannelAccessRefused, ChannelNotFoundEntity, ChannelPreconditionFailed
from yarl import URL

from celery_gateway.broker import alarm
from celery_gateway.broker.amqp_connection import Connection
from celery_gateway.broker.amqp_deliveries import EVENTS_TAG, OVERFLOW_TAG, PREFETCH_MESSAGES, Deliveries
from celery_gateway.broker.amqp_queues import QUEUE_ARGUMENTS, ReportForeign, event_queue_name
from celery_gateway.broker.diagnosis import (
    Diagnosis,
    Phase,
    consumer_cancelled,
    diagnose,
    exchange_deleted,
)
from celery_gateway.broker.overflow_queue import ForeignMessages, declare_overflow_queue
from celery_gateway.broker.silence import SilenceMonitor, running_timeout
from celery_gateway.broker.source import Sink
from celery_gateway.broker.tls import TLS
from celery_gateway.broker.tripwire import declare_tripwire
from celery_gateway.broker.urls import Access

CONNECT_TIMEOUT_SECONDS = 10
CLOSE_TIMEOUT_SECONDS = 2

log = logging.getLogger(__name__)


class Consumer:
    """The consumer of one connection.

    Args:
        url: as aiormq takes it.
        tls: see ``amqp_connection.Connection``.
        exchange: Celery's ``event_exchange``.
        access: for the queue prefix, and for diagnoses.
        sink: gets the messages.
        on_alarm: called with ``True`` when an alarm of the broker begins to block publishers, and with
            ``False`` when it ends.
        report_foreign: called for a queue or an exchange of another owner with one of our names.
        silence_seconds: how long the broker may send nothing.
        check_seconds: the interval of the checks of exchange and binding.

    Attributes:
        phase: how far the connection has come.
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
        silence_seconds: float,
        check_seconds: float,
    ) -> None:
        self._url = url
        self._tls = tls
        self._exchange = exchange
        self._access = access
        self._sink = sink
        self._on_alarm = on_alarm
        self._report_foreign = report_foreign
        self._silence_seconds = silence_seconds
        self._check_seconds = check_seconds
        self._queue = event_queue_name(access.queue_prefix)
        self._tripwire: str | None = None
        self._foreign_messages: ForeignMessages | None = None
        self._deliveries = Deliveries(sink, self._is_dead_letter, self._on_foreign_message)
        self._connection = Connection(url, self._deliveries.on_delivery, tls)
        self._is_cancelled = asyncio.Event()
        self._is_connected = self._is_consuming = False

    @property
    def phase(self) -> Phase:
        if self._is_consuming:
            return Phase.LOST
        if self._is_connected:
            return Phase.CONSUME
        return Phase.LOGIN if self._connection.is_socket_open else Phase.CONNECT

    async def begin(self, has_failed: bool) -> None:
        """Connect and consume.

        Args:
            has_failed: whether the source was connected, or tried to, before: then a loss is reported.

        Raises:
            Exception: any error of the connection (see ``diagnose``).
        """
        async with running_timeout(CONNECT_TIMEOUT_SECONDS):
            await self._connection.connect()
            self._is_connected = True
            try:
                channel = await self._declare()
            except ChannelAccessRefused:  # the overflow queue is optional
                await self._abandon_queue()
                channel = await self._declare_event_queue(await self._declare_exchange(), None)
            channel.on_consumer_cancel_callbacks.add(lambda _: self._is_cancelled.set())
            self._deliveries.channel = channel
            if has_failed:
                self._sink.lost()  # before the first delivery, which may come ahead of the reply
            await channel.basic_consume(self._queue, _not_called, consumer_tag=EVENTS_TAG.decode())
            self._is_consuming = True

    async def wait_for_end(self, url: str) -> Diagnosis:
        """Wait until the consumer has ended, and return why.

        Args:
            url: the broker's, as Celery takes it, for the diagnosis.
        """
        channel = self._deliveries.channel
        assert channel is not None
        cancelled = asyncio.create_task(self._is_cancelled.wait())
        checks = asyncio.create_task(self._check())
        alarms = asyncio.create_task(
            alarm.watch(
                self._url, self._tls, lambda: self._deliveries.last_tag, self._tripwire or "", self._on_alarm
            )
        )
        silence = self._monitor_silence()
        waiters = {cancelled, checks, channel.closing, silence.ended}
        try:
            await asyncio.wait(waiters, return_when=asyncio.FIRST_COMPLETED)
            if self._is_cancelled.is_set():
                return consumer_cancelled(url, self._queue, self._access)
            ended = next(each for each in (channel.closing, checks, silence.ended) if each.done())
            error = asyncio.CancelledError() if ended.cancelled() else ended.exception()
            if isinstance(error, ChannelNotFoundEntity):
                return exchange_deleted(url, self._exchange)
            return diagnose(
                error or ConnectionError("closed"),
                url,
                phase=Phase.LOST,
                exchange=self._exchange,
                access=self._access,
            )
        finally:
            silence.stop()
            for task in (cancelled, checks, alarms):
                task.cancel()
            await asyncio.gather(cancelled, checks, alarms, return_exceptions=True)

    async def end(self) -> None:
        """Close the connection, in good order if that is possible; the broker deletes the queues with it.

        Deliveries that were read before are processed, unless the source is being stopped.
        """
        if is_being_cancelled():
            self._connection.ignore_deliveries()
        self._deliveries.stop()
        if self._foreign_messages is not None:
            self._foreign_messages.stop()
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT_SECONDS):
                await self._connection.caught_up()
                if self._deliveries.channel is not None and self._tripwire is not None:
                    await self._deliveries.channel.exchange_delete(self._tripwire)
                await self._connection.close()
        except Exception:
            log.debug("broker: the connection could not be closed in good order", exc_info=True)
        except asyncio.CancelledError:
            if is_being_cancelled():
                raise
        finally:
            self._connection.abort()

    def _monitor_silence(self) -> SilenceMonitor:
        connection, heartbeat_seconds = self._connection, self._connection.heartbeat_seconds
        limit_seconds = self._silence_seconds
        if heartbeat_seconds:
            limit_seconds = min(limit_seconds, 3.0 * (heartbeat_seconds + 1))
        monitor = SilenceMonitor(
            lambda: connection.reads, connection.send_heartbeat, limit_seconds, heartbeat_seconds / 3
        )
        monitor.start()
        return monitor

    async def _declare(self) -> AbstractChannel:
        """Declare everything, with the overflow queue and, if that is permitted, the tripwire exchange."""
        prefix = self._access.queue_prefix
        channel, overflow, slot = await declare_overflow_queue(
            await self._declare_exchange(), prefix, self._open_channel, self._report_foreign
        )
        self._foreign_messages = ForeignMessages(self._queue, overflow, self._open_channel, self._sink.lost)
        self._deliveries.channel = channel  # dead letters may arrive from here on
        await channel.queue_bind(overflow, overflow)
        await channel.basic_qos(prefetch_count=1)
        await channel.basic_consume(overflow, _not_called, consumer_tag=OVERFLOW_TAG.decode())
        channel = await self._declare_event_queue(channel, overflow)
        with suppress(ChannelAccessRefused):  # the tripwire exchange is optional
            self._tripwire = await declare_tripwire(
                self._exchange, prefix, slot, self._open_channel, self._report_foreign
            )
        return channel

    async def _declare_exchange(self) -> AbstractChannel:
        """Declare the event exchange, if that is permitted; return an open channel."""
        channel = await self._open_channel()
        try:
            await channel.exchange_declare(self._exchange, exchange_type="topic", durable=True)
        except (ChannelPreconditionFailed, ChannelAccessRefused):
            # It exists with other properties, or may not be declared; binding to it may still be permitted.
            channel = await self._open_channel()
        return channel

    async def _declare_event_queue(self, channel: AbstractChannel, overflow: str | None) -> AbstractChannel:
        """Declare the event queue and bind it; ``overflow`` is the exchange for what the broker drops."""
        arguments = QUEUE_ARGUMENTS | ({"x-dead-letter-exchange": overflow} if overflow else {})
        await channel.queue_declare(self._queue, exclusive=True, auto_delete=True, arguments=arguments)
        await channel.queue_bind(self._queue, self._exchange, routing_key="#")
        await channel.basic_qos(prefetch_count=PREFETCH_MESSAGES)
        return channel

    async def _abandon_queue(self) -> None:
        """Delete the event queue, which may be bound already and would fill, and choose another name."""
        self._deliveries.channel = self._foreign_messages = None
        with suppress(ChannelAccessRefused):
            await (await self._open_channel()).queue_delete(self._queue)
        self._queue = event_queue_name(self._access.queue_prefix)

    async def _open_channel(self) -> AbstractChannel:
        channel = await self._connection.channel(publisher_confirms=False)
        underlay: AbstractChannel = await channel.get_underlay_channel()
        return underlay

    def _is_dead_letter(self) -> bool:
        return self._queue.encode() in self._connection.properties

    def _on_foreign_message(self, is_behind: bool) -> None:
        if self._foreign_messages is not None:
            self._foreign_messages.record(is_behind)

    async def _check(self) -> None:
        """Check again and again that the exchange and the binding exist.

        There is no deadline for a reply: a broker that sends heartbeats only is alive. To bind again changes
        nothing if the binding exists. A lost permission to bind is not an error: the broker still delivers.

        Raises:
            Exception: an exchange is gone, or the connection is lost.
        """
        channel = await self._open_channel()
        may_bind = True
        while True:
            await asyncio.sleep(self._check_seconds)
            for exchange in filter(None, (self._tripwire, self._exchange)):
                await channel.exchange_declare(exchange, passive=True)
            if may_bind:
                try:
                    await channel.queue_bind(self._queue, self._exchange, routing_key="#")
                except ChannelAccessRefused:
                    may_bind = False
                    channel = await self._open_channel()


def is_being_cancelled() -> bool:
    """Return whether the current task is being cancelled, not only a wait for aiormq in it."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def _not_called(_: object) -> None:
    """Stands for the callback that aiormq requires: deliveries do not reach it."""
