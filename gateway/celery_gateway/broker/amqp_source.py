"""The AMQP source: an aio-pika consumer on the ``celeryev`` exchange.

- The queue is fresh, exclusive to the connection, and limited in age and size: it vanishes with us, and a
  gateway that stalls costs the broker a bounded queue, never the memory alarm that stops task publishers.
- What the broker drops from it for those limits it hands to a second queue of one message (dead-lettering):
  whatever comes out of that one says that events are missing here. The credit of the first queue is used up
  when that happens, so the word of it mostly comes before the events behind the hole: there is always credit
  for that word, since it is acknowledged at once, and not with the events. Only mostly, because the broker
  drops and goes on in one place, and hands the word on in another: if it is busy, and more credit comes at
  that moment, some of those events can be ahead (32 were lost 62 entries before their gap, once).
- When the exchange is deleted our binding goes with it, unsaid, and workers make it anew in a moment,
  without our binding. So there is a witness: an exchange of ours that is bound to it and is deleted by the
  broker when that binding goes (auto-delete). It is asked for every few seconds. Witnesses have numbered
  places, each held by the queue of losses of the same number: one that is left behind by a gateway that was
  killed is taken over by another.
- The exchange is declared as Celery declares it (celery/events/event.py): topic, durable. Declared in
  another way it would make *workers* fail; if it exists in another way it is taken as it is.
- It is bound with ``#``: prefork workers send lists under ``task.multi`` whatever the events' types.
- Nothing is awaited for a delivery (see ``deliveries``), and many are acknowledged at once; the prefetch is
  the credit that holds the broker back.
- A plain connection with our own loop, not aio-pika's robust one, which declares the same exclusive queue
  again before the broker has noticed that its first owner is gone. What a broker does not tell (a deleted
  exchange takes our binding along; a cable is pulled) is asked for every few seconds.
"""

import asyncio
import logging
import os
import platform
import secrets
from collections.abc import Sequence
from contextlib import suppress
from itertools import cycle

import aiormq
from aiormq.abc import AbstractChannel
from aiormq.exceptions import (
    ChannelAccessRefused,
    ChannelInvalidStateError,
    ChannelLockedResource,
    ChannelNotFoundEntity,
    ChannelPreconditionFailed,
)
from pamqp.common import FieldValue
from yarl import URL

from gateway import __version__
from gateway.broker import BY_URL, Access
from gateway.errors import SourceError
from gateway.source import Sink, Status
from gateway.source.attempts import Attempts
from gateway.source.deliveries import Connection, Delivery
from gateway.source.failure import Failure, consumer_cancelled, exchange_deleted, failure_of
from gateway.source.place import amqp_url
from gateway.source.tls import TLS

PREFETCH_MESSAGES = 2_000
"""The broker's credit: how much it sends before it hears from us again."""
ACKNOWLEDGE_SECONDS = 0.1
"""An acknowledgement costs more than a delivery. At this pace the credit is good for 20,000 a second."""
HEARTBEAT_SECONDS = 15
CONNECT_TIMEOUT_SECONDS = 10
ANSWER_TIMEOUT_SECONDS = 10
CLOSE_TIMEOUT_SECONDS = 2
CHECK_SECONDS = 2.0
QUEUE_ARGUMENTS: dict[str, FieldValue] = {
    "x-message-ttl": 60_000,  # milliseconds
    "x-expires": 60_000,
    "x-max-length": 100_000,
    "x-max-length-bytes": 64 << 20,
    "x-overflow": "drop-head",
}
PLACES = 100
"""As many witnesses can be left behind as gateways have been there at a time, and so many at most."""

_EVENTS, _LOSSES = b"events", b"losses"  # consumer tags

log = logging.getLogger(__name__)


class AMQPSource:
    """Consumes a RabbitMQ (or another broker of AMQP 0-9-1).

    Args:
        urls: ``amqp://user:password@host:port/vhost``, ``amqps://…`` or Celery's ``pyamqp://…``; when one
            fails the next is tried.
        exchange: Celery's ``event_exchange``.
        name: the broker's, for the log.
        access: how to log in, and how to speak TLS if a URL says ``amqps://``.

    Raises:
        SourceError: a URL is malformed, or what TLS needs is missing.
    """

    def __init__(
        self,
        urls: Sequence[str],
        *,
        exchange: str = "celeryev",
        name: str | None = None,
        access: Access = BY_URL,
    ) -> None:
        name_there = f"celery-gateway {__version__}"
        try:
            self._urls = [
                (
                    url,
                    amqp_url(
                        url,
                        heartbeat_seconds=HEARTBEAT_SECONDS,
                        name=name_there,
                        login_method=access.login_method,
                    ),
                )
                for url in urls
            ]
        except ValueError as error:
            raise SourceError(f"the broker URL cannot be read: {error}") from None
        self._tls = TLS(access.tls) if access.tls else None
        self._exchange = exchange
        self._queue_prefix = access.queue_prefix
        self._name = name
        self._status = Status(False, "not connected yet")

    @property
    def status(self) -> Status:
        return self._status

    async def run(self, sink: Sink) -> None:
        attempts = Attempts(self._name, len(self._urls))
        has_failed = False
        for url, full_url in cycle(self._urls):
            consumer = _Consumer(full_url, self._tls, self._exchange, self._queue_prefix, sink)
            try:
                await consumer.begin(has_failed)
                attempts.succeeded(f"consuming {self._exchange} of {full_url.host}:{full_url.port}")
                self._tell(sink, Status(True, f"consuming {self._exchange}"))
                failure = await consumer.failure(url)
            except (Exception, asyncio.CancelledError) as error:
                if isinstance(error, asyncio.CancelledError) and _is_being_cancelled():
                    raise
                # (aiormq cancels what waits for an answer when its connection goes down.)
                failure = failure_of(error, url, self._exchange, self._queue_prefix)
                if failure.code == "unexpected":
                    log.error("broker: an error that was not foreseen; the source goes on", exc_info=error)
            finally:
                has_failed = True
                if self._status.is_consuming:
                    self._tell(sink, Status(False, "the connection to the broker has ended"))
                await consumer.end()
            self._tell(sink, Status(False, f"{failure.what}. {failure.remedy}"))
            await asyncio.sleep(attempts.failed(failure))

    def _tell(self, sink: Sink, status: Status) -> None:
        self._status = status
        sink.status(status)


class _Consumer:
    """One connection's life: ``begin``, ``failure``, ``end``."""

    def __init__(self, url: URL, tls: TLS | None, exchange: str, queue_prefix: str, sink: Sink) -> None:
        self._exchange = exchange
        self._queue_prefix = queue_prefix
        self._sink = sink
        self._queue = self._queue_name()
        self._place = ""
        self._witness: str | None = None
        self._connection = Connection(url, self._take, tls)
        self._channel: AbstractChannel | None = None
        self._is_cancelled = asyncio.Event()
        self._taken = self._acknowledged = 0  # delivery tags of events
        self._loss_tag: int | None = None  # of the word of a loss; there is one at a time
        self._loss_taken = asyncio.Event()
        self._is_loss_told = False  # and no event has come since
        self._acknowledger: asyncio.Task[None] | None = None

    async def begin(self, has_failed: bool) -> None:
        """Connect and consume.

        Raises:
            Exception: whatever stands in the way (see ``failure_of``).
        """
        async with asyncio.timeout(CONNECT_TIMEOUT_SECONDS):
            await self._connection.connect()
            try:
                channel = await self._declare(with_losses=True)
                await self._place_witness()
            except ChannelAccessRefused:  # to be told of losses is optional
                self._queue = self._queue_name()
                channel = await self._declare(with_losses=False)
            channel.on_consumer_cancel_callbacks.add(lambda _: self._is_cancelled.set())
            self._channel = channel
            if has_failed:
                self._sink.lost()  # before the first delivery: those may come ahead of the answer
            await channel.basic_consume(self._queue, _not_called, consumer_tag=_EVENTS.decode())

    async def failure(self, url: str) -> Failure:
        """Return what has ended the consumer, once something has."""
        assert self._channel is not None
        cancelled = asyncio.create_task(self._is_cancelled.wait())
        checked = asyncio.create_task(self._check())
        waiters = {cancelled, checked, self._channel.closing}
        try:
            await asyncio.wait(waiters, return_when=asyncio.FIRST_COMPLETED)
            if self._is_cancelled.is_set():
                return consumer_cancelled(url, self._queue, self._queue_prefix)
            ended = self._channel.closing if self._channel.closing.done() else checked
            error = asyncio.CancelledError() if ended.cancelled() else ended.exception()
            if isinstance(error, ChannelNotFoundEntity):
                return exchange_deleted(url, self._exchange)
            return failure_of(error or ConnectionError("closed"), url, self._exchange, self._queue_prefix)
        finally:
            for task in (cancelled, checked):
                task.cancel()
            await asyncio.gather(cancelled, checked, return_exceptions=True)

    async def end(self) -> None:
        """Close the connection, in good order if that is possible; the queue goes with it."""
        if self._acknowledger is not None:
            self._acknowledger.cancel()
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT_SECONDS):
                if self._channel is not None and self._witness is not None:
                    await self._channel.exchange_delete(self._witness)
                await self._connection.close()
        except Exception:
            log.debug("broker: the connection could not be closed in good order", exc_info=True)
        except asyncio.CancelledError:
            if _is_being_cancelled():
                raise
        finally:
            self._connection.abort()

    async def _declare(self, *, with_losses: bool) -> AbstractChannel:
        """Return a channel on which the queue is declared and bound."""
        channel = await self._open_channel()
        try:
            await channel.exchange_declare(self._exchange, exchange_type="topic", durable=True)
        except (ChannelPreconditionFailed, ChannelAccessRefused):
            # It exists in another way, or is not ours to declare; to bind to it may be allowed all the same.
            channel = await self._open_channel()
        arguments = QUEUE_ARGUMENTS
        if with_losses:
            channel, losses = await self._take_place(channel)
            self._channel = channel  # losses may be told from here on
            arguments = arguments | {"x-dead-letter-exchange": losses}
            await channel.exchange_declare(losses, exchange_type="fanout", auto_delete=True)
            await channel.queue_bind(losses, losses)
            await channel.basic_qos(prefetch_count=1)
            await channel.basic_consume(losses, _not_called, consumer_tag=_LOSSES.decode())
        await channel.queue_declare(self._queue, exclusive=True, auto_delete=True, arguments=arguments)
        await channel.queue_bind(self._queue, self._exchange, routing_key="#")
        await channel.basic_qos(prefetch_count=PREFETCH_MESSAGES)
        return channel

    async def _take_place(self, channel: AbstractChannel) -> tuple[AbstractChannel, str]:
        """Return the name of a queue of losses that no other gateway has, and the channel that holds it."""
        arguments = QUEUE_ARGUMENTS | {"x-max-length": 1}
        for self._place in (*map(str, range(PLACES)), secrets.token_hex(4)):  # the lowest that is free
            losses = f"{self._queue_prefix}.losses.{self._place}"
            try:
                await channel.queue_declare(losses, exclusive=True, auto_delete=True, arguments=arguments)
                break
            except ChannelLockedResource:  # another's, who lives
                channel = await self._open_channel()
        return channel, losses

    async def _place_witness(self) -> None:
        """Bind a witness to the exchange, where we have the right to (write on it)."""
        channel = await self._open_channel()
        witness = f"{self._queue_prefix}.witness.{self._place}"
        try:
            await channel.exchange_delete(witness)  # of one that was killed; it may be of an older exchange
            await channel.exchange_declare(witness, exchange_type="direct", auto_delete=True)
            await channel.exchange_bind(destination=self._exchange, source=witness)
        except ChannelAccessRefused:
            channel = await self._open_channel()
            await channel.exchange_delete(witness)
        else:
            self._witness = witness

    def _queue_name(self) -> str:
        return f"{self._queue_prefix}.{platform.node()}.{os.getpid()}.{secrets.token_hex(4)}"

    async def _open_channel(self) -> AbstractChannel:
        channel = await self._connection.channel(publisher_confirms=False)
        underlay: AbstractChannel = await channel.get_underlay_channel()
        return underlay

    def _take(self, delivery: Delivery) -> None:
        if delivery.consumer_tag == _LOSSES:
            if not self._is_loss_told:
                self._is_loss_told = True
                self._sink.lost()
            self._loss_tag = delivery.tag
            self._loss_taken.set()
        else:
            self._is_loss_told = False
            self._sink.message(delivery.message)
            self._taken = delivery.tag
        if self._acknowledger is None:
            self._acknowledger = asyncio.create_task(self._acknowledge())

    async def _acknowledge(self) -> None:
        """Acknowledge what is taken until there is nothing more to: losses at once, events now and then."""
        assert self._channel is not None
        now = asyncio.get_running_loop().time
        due = now() + ACKNOWLEDGE_SECONDS
        try:
            while self._loss_tag is not None or self._taken > self._acknowledged:
                with suppress(TimeoutError):
                    async with asyncio.timeout_at(due):
                        await self._loss_taken.wait()
                # Both are read at one moment: a later word of a loss has a tag beyond these events'. No tag
                # may be acknowledged twice.
                loss_tag, taken = self._loss_tag, self._taken
                self._loss_tag = None
                self._loss_taken.clear()
                if loss_tag is not None:
                    await self._channel.basic_ack(loss_tag, wait=False)
                if now() >= due:
                    due = now() + ACKNOWLEDGE_SECONDS
                    if taken > self._acknowledged:
                        self._acknowledged = taken
                        await self._channel.basic_ack(taken, multiple=True, wait=False)
        except (aiormq.AMQPError, ChannelInvalidStateError, OSError):
            log.debug("broker: deliveries could not be acknowledged", exc_info=True)
        finally:
            self._acknowledger = None

    async def _check(self) -> None:
        """Ask again and again whether the exchange and our binding are there; raises when they are not.

        A binding that is there is not made twice. That the right to make it was taken away ends nothing:
        the broker goes on delivering.
        """
        channel = await self._open_channel()
        may_bind = True
        while True:
            await asyncio.sleep(CHECK_SECONDS)
            async with asyncio.timeout(ANSWER_TIMEOUT_SECONDS):
                for exchange in filter(None, (self._witness, self._exchange)):
                    await channel.exchange_declare(exchange, passive=True)
                if may_bind:
                    try:
                        await channel.queue_bind(self._queue, self._exchange, routing_key="#")
                    except ChannelAccessRefused:
                        may_bind = False
                        channel = await self._open_channel()


def _is_being_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def _not_called(_: object) -> None:
    """Stands where aiormq wants a callback: the deliveries do not come that way."""
