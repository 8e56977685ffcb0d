"""The source for RabbitMQ when gateways share a log: it consumes the raw stream from an offset.

- The raw stream (``raw_consumer``) keeps the messages of the event exchange while nothing consumes them. So
  an outage of all gateways loses nothing, within the retention.
- What is lost is reported: messages that retention removed, a stream that was created again, and an event
  exchange that was deleted.
- Connections, back-off, statuses and diagnoses are those of ``amqp_source``.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import partial

from yarl import URL

from celery_gateway.broker.address import address_of
from celery_gateway.broker.amqp_consumer import is_being_cancelled
from celery_gateway.broker.amqp_source import CHECK_SECONDS, SILENCE_SECONDS, AMQPSource
from celery_gateway.broker.backoff import FIRST_PAUSE_SECONDS
from celery_gateway.broker.diagnosis import diagnose
from celery_gateway.broker.rabbitmq_stream import difference_warning, stream_arguments
from celery_gateway.broker.raw_consumer import RawConsumer, RawStream
from celery_gateway.broker.source import Sink, Status
from celery_gateway.broker.urls import BY_URL, Access
from celery_gateway.errors import SourceError
from celery_gateway.events.message import Message

log = logging.getLogger(__name__)


async def _at_once() -> None: ...


class RawSource(AMQPSource):
    """Consumes the raw stream of a RabbitMQ. Arguments that are not described are those of ``AMQPSource``.

    Args:
        age_seconds, max_bytes: the retention of the raw stream, if it does not exist yet.
        start: the offset of the first message; 0 for the first one that is left.
        may_continue: asked when the broker waits for an acknowledgement. While it returns ``False``, no more
            messages come than the prefetch count allows, and the broker keeps the others.
        is_reported: returns once the losses that were reported to the sink cannot be forgotten any more.

    Attributes:
        start: the offset of the next message; may be set while ``run`` does not run.
        lost_messages: how many messages retention has removed before they were consumed, as far as that is
            known.
    """

    def __init__(
        self,
        urls: Sequence[str],
        *,
        age_seconds: float,
        max_bytes: int,
        start: int = 0,
        may_continue: Callable[[], bool] = lambda: True,
        is_reported: Callable[[], Awaitable[None]] = _at_once,
        exchange: str = "celeryev",
        name: str | None = None,
        access: Access = BY_URL,
        silence_seconds: float = SILENCE_SECONDS,
        check_seconds: float = CHECK_SECONDS,
        first_pause_seconds: float = FIRST_PAUSE_SECONDS,
    ) -> None:
        super().__init__(
            urls,
            exchange=exchange,
            name=name,
            access=access,
            silence_seconds=silence_seconds,
            check_seconds=check_seconds,
            first_pause_seconds=first_pause_seconds,
        )
        self.start = start
        self.lost_messages = 0
        self._may_continue = may_continue
        self._is_reported = is_reported
        self._has_lost_exchange = False
        self._is_difference_logged = False
        self._stream = RawStream(
            f"{access.queue_prefix}.raw", stream_arguments(age_seconds, max_bytes), self._report_difference
        )

    async def declare(self) -> None:
        """Declare the stream and its binding, so that messages are kept from now on, without consuming.

        Raises:
            SourceError: no URL can be used; the text is the diagnosis of the last one.
        """
        failure = ""
        for url, aiormq_url in self._urls:
            consumer = self._consumer(url, aiormq_url, _NoSink())
            try:
                await consumer.declare()
                return
            except (Exception, asyncio.CancelledError) as error:
                if is_being_cancelled():
                    raise asyncio.CancelledError from error
                diagnosis = diagnose(
                    error, url, phase=consumer.phase, exchange=self._exchange, access=self._access
                )
                failure = f"{diagnosis.what}. {diagnosis.remedy}"
            finally:
                await consumer.end()
        raise SourceError(failure)

    def _consumer(self, url: str, aiormq_url: URL, sink: Sink) -> RawConsumer:
        return RawConsumer(
            aiormq_url,
            self._tls,
            self._exchange,
            self._access,
            sink,
            partial(self._on_alarm, sink),
            partial(self._foreign_names.report, address_of(url).vhost),
            stream=self._stream,
            reader=_Reader(self, sink),
            may_continue=self._may_continue,
            is_reported=self._is_reported,
            silence_seconds=self._silence_seconds,
            check_seconds=self._check_seconds,
        )

    def _set_status(self, sink: Sink, status: Status) -> None:
        self._has_lost_exchange |= status.code == "exchange-missing"
        super()._set_status(sink, status)

    def _report_difference(self, name: str, difference: str) -> None:
        if not self._is_difference_logged:
            self._is_difference_logged = True
            log.warning("%s: %s", self._name or "broker", difference_warning(name, difference))

    def on_message(self, sink: Sink, message: Message) -> Iterator[None] | None:
        """Pass on a message of the stream."""
        assert message.offset is not None
        if self._has_lost_exchange:
            self._has_lost_exchange = False
            if self.start:
                sink.lost()
        self.start = message.offset + 1
        return sink.message(message)

    def on_restart(self, sink: Sink) -> None:
        """Report that messages may be missing; see ``restart_mark``."""
        if self.start:
            sink.lost()

    def on_missed(self, sink: Sink, count: int | None) -> None:
        """Report messages that are lost; see ``raw_consumer.Reader``."""
        if self.start:  # at the first start, those before the first one are not missed
            self._has_lost_exchange = False
            sink.lost()
        if count is None:
            self.start = 0
        elif self.start:
            self.lost_messages += count


class _Reader:
    """The reader of one connection."""

    def __init__(self, source: RawSource, sink: Sink) -> None:
        self._source = source
        self.message = partial(source.on_message, sink)
        self.on_restart = partial(source.on_restart, sink)
        self.missed = partial(source.on_missed, sink)

    @property
    def start(self) -> int:
        return self._source.start


class _NoSink:
    """The sink of a consumer that does not consume."""

    def message(self, message: Message) -> None: ...
    def status(self, status: Status) -> None: ...
    def lost(self) -> None: ...
