"""One connection to the RabbitMQ of the log: it appends to the stream, and consumes it.

- One channel appends and consumes. All else is declared on other channels, which a refusal closes.
- Messages, acknowledgements and cancellations are written at once (``broker.amqp_output``).
- Messages are published to an exchange of the log's own, with the name of the stream: the permissions that a
  gateway has do not allow the default exchange.
- The broker returns a message that no queue gets (``mandatory``): then the stream was deleted.
"""

import asyncio
import logging
from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

from aiormq.abc import AbstractChannel
from aiormq.exceptions import ChannelNotFoundEntity, ChannelPreconditionFailed
from pamqp.commands import Basic
from pamqp.common import FieldValue
from yarl import URL

from celery_gateway.broker.amqp_connection import Connection
from celery_gateway.broker.amqp_consumer import (
    CLOSE_TIMEOUT_SECONDS,
    CONNECT_TIMEOUT_SECONDS,
    is_being_cancelled,
)
from celery_gateway.broker.amqp_frames import Delivery
from celery_gateway.broker.amqp_output import Publishing
from celery_gateway.broker.diagnosis import Phase, diagnose
from celery_gateway.broker.rabbitmq_stream import NoStreamError, StreamConsumer, declare_stream
from celery_gateway.broker.silence import SilenceMonitor, running_timeout
from celery_gateway.broker.tls import TLS
from celery_gateway.broker.urls import Access
from celery_gateway.log.engine import LogError, LogGone

HEARTBEAT_SECONDS = 2
SILENCE_SECONDS = 3.0
"""How long the broker may send nothing; it sends heartbeats every ``HEARTBEAT_SECONDS`` / 2."""
MAX_UNSENT_BYTES = 64 << 20
"""How much may wait until the broker reads; an alarm of the broker stops it."""
_MESSAGE_ID = "log"

log = logging.getLogger(__name__)


class Target(NamedTuple):
    """A stream at one of the broker's URLs.

    Attributes:
        url: as Celery takes it.
        aiormq_url: the same as aiormq takes it.
        exchange: Celery's ``event_exchange``, for the permissions that diagnoses recommend.
    """

    url: str
    aiormq_url: URL
    tls: TLS | None
    access: Access
    name: str
    exchange: str


class LogConnection:
    """One connection: ``open`` it, and ``close`` or ``abort`` it in the end.

    Attributes:
        ended: its result is the error with which the connection has ended.
    """

    def __init__(self, target: Target) -> None:
        self.ended: asyncio.Future[LogError] = asyncio.get_running_loop().create_future()
        self._target = target
        self._connection = Connection(target.aiormq_url, self._on_delivery, target.tls)
        self._consumers: set[StreamConsumer] = set()
        self._beginnings: set[asyncio.Task[bool]] = set()
        self._channel: AbstractChannel | None = None
        self._publishing: Publishing | None = None
        self._silence: SilenceMonitor | None = None
        self._is_closing = False

    @property
    def is_usable(self) -> bool:
        return self._channel is not None and not self.ended.done()

    async def open(self) -> None:
        """Connect.

        Raises:
            LogError: it failed, and the connection is aborted.
        """
        phase = Phase.CONNECT
        try:
            async with running_timeout(CONNECT_TIMEOUT_SECONDS):
                await self._connection.connect()
                phase = Phase.CONSUME
                self._channel = channel = await self._open_channel()
            _raise_if_cancelled()
        except (Exception, asyncio.CancelledError) as error:
            if self._connection.is_socket_open and phase is Phase.CONNECT:
                phase = Phase.LOGIN
            self.abort()
            raise self._error(error, phase) from error
        connection = self._connection
        self._silence = SilenceMonitor(
            lambda: connection.reads, connection.send_heartbeat, SILENCE_SECONDS, HEARTBEAT_SECONDS / 3
        )
        self._silence.start()
        self._silence.ended.add_done_callback(self._on_end)
        channel.closing.add_done_callback(self._on_end)
        self._watch_returns(channel)
        self._publishing = Publishing(
            channel.number,
            connection.max_frame_bytes,
            self._target.name,
            "",
            Basic.Properties(delivery_mode=2, message_id=_MESSAGE_ID),
            mandatory=True,
        )

    async def declare(self, arguments: dict[str, FieldValue]) -> str:
        """Declare the stream and its exchange.

        Returns:
            The broker's text if the stream exists with other arguments; else ``""``.

        Raises:
            LogError: it failed.
        """
        name = self._target.name
        try:
            async with running_timeout(CONNECT_TIMEOUT_SECONDS):
                channel, difference = await declare_stream(
                    await self._open_channel(), name, arguments, self._open_channel
                )
                try:
                    await channel.exchange_declare(name, exchange_type="fanout", durable=True)
                except ChannelPreconditionFailed as error:  # it is used as it is
                    log.warning("log: the exchange %s is not as a gateway declares it: %s", name, error)
                    channel = await self._open_channel()
                await channel.queue_bind(name, name)
                await channel.close()
            _raise_if_cancelled()
            return difference
        except NoStreamError as error:
            raise LogError(f"{error}. Delete it, or set another event_queue_prefix in the app") from error
        except (Exception, asyncio.CancelledError) as error:
            raise self._error(error, Phase.CONSUME) from error

    async def find(self) -> str:
        """Check that there is a stream, without a change; return ``""``.

        Raises:
            LogGone: there is none.
            LogError: it failed.
        """
        name = self._target.name
        try:
            async with running_timeout(CONNECT_TIMEOUT_SECONDS):
                channel = await self._open_channel()
                await channel.queue_declare(name, passive=True)
                await channel.close()
            _raise_if_cancelled()
            return ""
        except ChannelNotFoundEntity:
            raise LogGone(f"there is no stream {name}") from None
        except (Exception, asyncio.CancelledError) as error:
            raise self._error(error, Phase.CONSUME) from error

    async def delete(self) -> None:
        """Delete the stream and its exchange; it is no error if there is none.

        Raises:
            LogError: it failed.
        """
        try:
            async with running_timeout(CONNECT_TIMEOUT_SECONDS):
                channel = await self._open_channel()
                await channel.queue_delete(self._target.name)
                await channel.exchange_delete(self._target.name)
                await channel.close()
            _raise_if_cancelled()
        except (Exception, asyncio.CancelledError) as error:
            raise self._error(error, Phase.CONSUME) from error

    def publish(self, data: bytes) -> None:
        """Append a message; see ``Engine.append``."""
        self._raise_if_ended()
        if self._publishing is None:
            raise LogError("the log is not open")
        if self._connection.unsent_bytes > MAX_UNSENT_BYTES:
            error = LogError(
                f"the broker of the log has not read {MAX_UNSENT_BYTES >> 20} MiB: an alarm (memory or disk) "
                "blocks publishers, or it is overloaded. To show the alarms: rabbitmq-diagnostics alarms"
            )
            self._end(error)  # what follows would have a gap before it
            raise error
        self._connection.write(self._publishing.frames(data))

    async def begin(self, consumer: StreamConsumer, *, is_checked: bool) -> None:
        """Begin to consume; ``stop`` the consumer in the end, also after an error.

        Raises:
            LogGone: there is no stream, or it is another one (see ``StreamConsumer.begin``).
            LogError: the connection is lost.
        """
        self._raise_if_ended()
        if self._channel is None:
            raise LogError("the log is not open")
        self._consumers.add(consumer)
        beginning = asyncio.create_task(
            consumer.begin(self._connection, self._channel, is_checked=is_checked)
        )
        self._beginnings.add(beginning)
        beginning.add_done_callback(self._on_begun)
        try:
            is_same = await asyncio.shield(beginning)
            _raise_if_cancelled()
        except (Exception, asyncio.CancelledError) as error:
            raise self._error(error, Phase.CONSUME) from error
        if not is_same:
            raise LogGone(f"the stream {self._target.name} was created again")

    def stop(self, consumer: StreamConsumer) -> None:
        """Stop a consumer. May be called again."""
        self._consumers.discard(consumer)
        consumer.stop()

    async def wait_until_sent(self, consumer: StreamConsumer) -> None:
        """Wait until the deliveries that the broker has sent to a consumer are processed.

        Raises:
            LogError: the connection is lost.
        """
        try:
            assert self._channel is not None
            await consumer.wait_until_sent(self._channel)
            _raise_if_cancelled()
        except (Exception, asyncio.CancelledError) as error:
            raise self._error(error, Phase.LOST) from error

    async def cancelled_error(self) -> LogError:
        """Return what it means that the broker has cancelled a consumer."""
        name = self._target.name
        try:
            async with running_timeout(SILENCE_SECONDS):
                channel = await self._open_channel()
                await channel.queue_declare(name, passive=True)
                await channel.close()
            _raise_if_cancelled()
        except (Exception, asyncio.CancelledError) as error:
            return self._error(error, Phase.LOST)
        return LogError(f"the broker cancelled the consumer of the stream {name}")

    async def close(self) -> None:
        """Close in good order if that is possible; what was appended is sent before."""
        self._is_closing = True
        for consumer in list(self._consumers):
            self.stop(consumer)
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT_SECONDS):
                await self._connection.close()
        except Exception:
            log.debug("log: the connection could not be closed in good order", exc_info=True)
        except asyncio.CancelledError:
            if is_being_cancelled():
                raise
        finally:
            self.abort()

    def abort(self) -> None:
        """Close at once. May be called again."""
        self._is_closing = True
        if self._silence is not None:
            self._silence.stop()
        self._connection.abort()
        if not self.ended.done():
            self.ended.set_result(LogError("the connection to the log was closed"))

    def _on_delivery(self, delivery: Delivery) -> Iterator[None] | None:
        for consumer in self._consumers:
            if delivery.consumer_tag == consumer.encoded_tag:
                return consumer.on_delivery(delivery)
        return None

    def _watch_returns(self, channel: AbstractChannel) -> None:
        """Detect messages that the broker returns, by means of aiormq's table of published messages."""
        returned: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        channel.message_id_delivery_tag[_MESSAGE_ID] = 1  # type: ignore[attr-defined]
        channel.confirmations[1] = returned  # type: ignore[attr-defined]
        returned.add_done_callback(self._on_return)

    def _on_return(self, returned: asyncio.Future[object]) -> None:
        if not returned.cancelled() and not returned.exception():
            self._end(LogGone(f"the stream {self._target.name} was deleted"))

    def _on_begun(self, beginning: asyncio.Task[bool]) -> None:
        self._beginnings.discard(beginning)
        if not beginning.cancelled():
            beginning.exception()  # it is not reported again, if nothing waits for it any more

    def _on_end(self, ended: asyncio.Future[None]) -> None:
        if not self._is_closing:
            error = None if ended.cancelled() else ended.exception()
            self._end(self._error(error or ConnectionError("closed"), Phase.LOST))

    def _end(self, error: LogError) -> None:
        if not self.ended.done():
            self.ended.set_result(error)
        self.abort()

    def _error(self, error: BaseException, phase: Phase) -> LogError:
        """Return an error of the log for an error of the connection.

        Raises:
            CancelledError: the current task is being cancelled. (aiormq replaces these errors.)
        """
        _raise_if_cancelled(error)
        target = self._target
        if isinstance(error, ChannelNotFoundEntity) and "no queue" in str(error):
            return LogGone(f"the stream {target.name} was deleted")
        diagnosis = diagnose(error, target.url, phase=phase, exchange=target.exchange, access=target.access)
        if diagnosis.code == "consume-failed":  # without a row for the error
            reason = error.args[0] if error.args else type(error).__name__
            return LogError(f"cannot use the stream {target.name}: {reason}")
        return LogError(f"{diagnosis.what}. {diagnosis.remedy}")

    def _raise_if_ended(self) -> None:
        if self.ended.done():
            error = self.ended.result()
            raise type(error)(*error.args)  # another one, because each raise adds to its traceback

    async def _open_channel(self) -> AbstractChannel:
        assert self._connection.transport is not None
        open_channel = partial(self._connection.transport.connection.channel, publisher_confirms=False)
        return await open_channel(on_return_raises=False)


def _raise_if_cancelled(cause: BaseException | None = None) -> None:
    if is_being_cancelled():
        raise asyncio.CancelledError from cause
