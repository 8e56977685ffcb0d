"""The source for RabbitMQ, or another broker of AMQP 0-9-1: consume, and reconnect after each end.

- Each attempt is a new plain connection (``amqp_consumer``). aio-pika's robust connection would declare the
  same exclusive queue again before the broker has detected that the first connection is lost.
- Problems that a broker does not report (a deleted exchange, a broken network) are detected by checks every
  few seconds. Silence of the broker is measured in turns of the event loop (``silence``).
- Publishers that an alarm of the broker blocks are reported (``alarm``).
"""

import asyncio
import logging
from collections.abc import Sequence
from functools import partial
from itertools import cycle

from yarl import URL

from celery_gateway import __version__
from celery_gateway.broker import alarm
from celery_gateway.broker.address import address_of, amqp_url
from celery_gateway.broker.amqp_consumer import Consumer, is_being_cancelled
from celery_gateway.broker.amqp_queues import ForeignNames
from celery_gateway.broker.backoff import FIRST_PAUSE_SECONDS, Backoff
from celery_gateway.broker.diagnosis import diagnose
from celery_gateway.broker.source import NOT_CONNECTED, Sink, Status
from celery_gateway.broker.tls import TLS
from celery_gateway.broker.urls import BY_URL, Access
from celery_gateway.errors import SourceError

HEARTBEAT_SECONDS = 15
SILENCE_SECONDS = 10.0
CHECK_SECONDS = 2.0

log = logging.getLogger(__name__)


class AMQPSource:
    """Consumes a RabbitMQ.

    Args:
        urls: ``amqp://user:password@host:port/vhost``, ``amqps://…`` or Celery's ``pyamqp://…``; after a
            failure the next one is tried.
        exchange: Celery's ``event_exchange``.
        name: the broker's, for the log.
        access: how to log in, and the options of TLS for an ``amqps://`` URL.
        silence_seconds: how long the broker may send nothing before the gateway reconnects.
        check_seconds: the interval at which the exchange and the binding are checked.
        first_pause_seconds: the first pause of the back-off.

    Raises:
        SourceError: a URL is malformed, or a requirement of TLS is missing.
    """

    def __init__(
        self,
        urls: Sequence[str],
        *,
        exchange: str = "celeryev",
        name: str | None = None,
        access: Access = BY_URL,
        silence_seconds: float = SILENCE_SECONDS,
        check_seconds: float = CHECK_SECONDS,
        first_pause_seconds: float = FIRST_PAUSE_SECONDS,
    ) -> None:
        to_aiormq = partial(
            amqp_url,
            heartbeat_seconds=HEARTBEAT_SECONDS,
            name=f"celery-gateway {__version__}",
            login_method=access.login_method,
        )
        try:
            self._urls = [(url, to_aiormq(url)) for url in urls]
        except ValueError as error:
            raise SourceError(f"the broker URL cannot be read: {error}") from None
        self._tls = TLS(access.tls) if access.tls else None
        self._exchange = exchange
        self._access = access
        self._silence_seconds = silence_seconds
        self._check_seconds = check_seconds
        self._name = name
        self._first_pause_seconds = first_pause_seconds
        self._foreign_names = ForeignNames(name)
        self._status = NOT_CONNECTED

    @property
    def status(self) -> Status:
        return self._status

    async def run(self, sink: Sink) -> None:
        backoff = Backoff(self._name, len(self._urls), first_pause_seconds=self._first_pause_seconds)
        has_failed = False
        for url, aiormq_url in cycle(self._urls):
            cause: BaseException | None = None
            consumer = self._consumer(url, aiormq_url, sink)
            try:
                await consumer.begin(has_failed)
                backoff.record_success(f"consuming {self._exchange} of {aiormq_url.host}:{aiormq_url.port}")
                self._set_status(sink, Status(True, f"consuming {self._exchange}"))
                diagnosis = await consumer.wait_for_end(url)
            except (Exception, asyncio.CancelledError) as error:
                if isinstance(error, asyncio.CancelledError) and is_being_cancelled():
                    raise
                cause = error
                diagnosis = diagnose(
                    error, url, phase=consumer.phase, exchange=self._exchange, access=self._access
                )
            finally:
                has_failed = True
                if self._status.is_consuming:
                    reason = "the connection to the broker has ended"
                    self._set_status(sink, Status(False, reason, "connection-lost"))
                await consumer.end()
            self._set_status(sink, Status(False, f"{diagnosis.what}. {diagnosis.remedy}", diagnosis.code))
            await asyncio.sleep(backoff.record_failure(diagnosis, cause))

    def _consumer(self, url: str, aiormq_url: URL, sink: Sink) -> Consumer:
        return Consumer(
            aiormq_url,
            self._tls,
            self._exchange,
            self._access,
            sink,
            partial(self._on_alarm, sink),
            partial(self._foreign_names.report, address_of(url).vhost),
            silence_seconds=self._silence_seconds,
            check_seconds=self._check_seconds,
        )

    def _on_alarm(self, sink: Sink, is_on: bool) -> None:
        if is_on:
            log.warning("broker: %s. %s", alarm.BLOCKED, alarm.REMEDY)
            reason = f"consuming {self._exchange}, but {alarm.BLOCKED}. {alarm.REMEDY}"
            self._set_status(sink, Status(True, reason, "publishers-blocked"))
        elif self._status.is_consuming:
            self._set_status(sink, Status(True, f"consuming {self._exchange}"))

    def _set_status(self, sink: Sink, status: Status) -> None:
        self._status = status
        sink.status(status)
