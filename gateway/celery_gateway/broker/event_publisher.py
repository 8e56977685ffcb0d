"""Publishes events to a broker, one in each message, as Celery's dispatcher does.

Source: celery/events/dispatcher.py. Blocks, so it belongs into a command or a thread.
"""

from collections.abc import Callable
from typing import Any, Self

from celery.events.event import get_exchange
from kombu import Producer

from celery_gateway.broker.diagnosis import Phase, diagnose
from celery_gateway.broker.kombu_connection import kombu_connection
from celery_gateway.broker.redaction import without_password
from celery_gateway.broker.url_syntax import is_amqp, is_redis
from celery_gateway.broker.urls import Broker
from celery_gateway.errors import SourceError
from celery_gateway.events.event import Event

CONNECT_SECONDS = 10.0
_TRANSIENT = 1
_MAX_PAUSE_SECONDS = 5.0


class EventPublisher:
    """A connection to a broker: a context manager, which connects.

    Args:
        broker: its first URL is used.
        exchange: Celery's ``event_exchange``.
        on_outage: called with the error each time that publishing has failed, before the next attempt.

    Raises:
        SourceError: the URL cannot be used, or within the context: the broker cannot be reached.
    """

    def __init__(self, broker: Broker, exchange: str, on_outage: Callable[[str], None]) -> None:
        self._url = broker.urls[0]
        self._broker = broker
        self._exchange_name = exchange
        self._on_outage = on_outage
        if not (is_amqp(self._url) or is_redis(self._url)):
            raise SourceError(
                f"cannot publish to {without_password(self._url)}: use RabbitMQ (amqp://) or Redis (redis://)"
            )
        try:
            self._connection = kombu_connection(
                self._url, broker.access, "replay", connect_seconds=CONNECT_SECONDS
            )
        except (TypeError, ValueError, KeyError) as error:
            raise SourceError(f"the URL {without_password(self._url)} cannot be used: {error}") from None

    def __enter__(self) -> Self:
        try:
            self._connection.connect()
            self._connection.default_channel  # noqa: B018  (for Redis, the first use of the connection)
        except Exception as error:
            self._connection.release()
            found = diagnose(
                error,
                self._url,
                phase=Phase.CONNECT,
                exchange=self._exchange_name,
                access=self._broker.access,
            )
            raise SourceError(f"{found.what}. {found.remedy}") from error
        self._exchange = get_exchange(self._connection, name=self._exchange_name)
        self._producer = Producer(self._connection, serializer="json", auto_declare=False)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._connection.release()

    def publish(self, event: Event) -> None:
        """Publish an event; during an outage, wait and try again."""
        self._producer.publish(
            event,
            exchange=self._exchange.name,
            routing_key=event["type"].replace("-", "."),
            headers={"hostname": event.get("hostname")},
            delivery_mode=_TRANSIENT,
            declare=[self._exchange],
            retry=True,
            retry_policy={
                "max_retries": None,
                "interval_start": 0.2,
                "interval_step": 0.5,
                "interval_max": _MAX_PAUSE_SECONDS,
                "errback": self._errback,
            },
        )

    def _errback(self, error: Any, interval: float) -> None:
        self._on_outage(str(error) or type(error).__name__)
