"""Where a shared log and the raw streams are, by the settings of a gateway."""

from collections.abc import Sequence
from typing import NamedTuple

from celery_gateway.broker.redaction import without_password
from celery_gateway.broker.url_syntax import is_amqp, is_redis
from celery_gateway.broker.urls import Broker
from celery_gateway.errors import SourceError
from celery_gateway.log.engine import Engine
from celery_gateway.log.factory import broker_of, engine_for

MEMORY = "memory"


class RawPlace(NamedTuple):
    """A raw stream: its broker, its name, and the stream."""

    broker: Broker
    name: str
    stream: Engine

    @property
    def url(self) -> str:
        """That of the broker, without password."""
        return without_password(self.broker.urls[0])


class LogSettings(NamedTuple):
    """The settings of a gateway that decide where the log is, and how long it is kept."""

    log: str
    brokers: Sequence[Broker]
    queue_prefix: str
    age_seconds: float
    max_bytes: int

    @property
    def name(self) -> str:
        return f"{self.queue_prefix}.log"

    @property
    def raw_name(self) -> str:
        return f"{self.queue_prefix}.raw"

    @property
    def is_shared(self) -> bool:
        return self.log != MEMORY

    def engine(self) -> Engine:
        """Return the log, not open. With ``memory``, it is where ``rabbitmq`` or ``redis`` would have it.

        Raises:
            SourceError: see ``engine_for``; or it is ``memory``, and no log can be in the first broker.
        """
        return engine_for(
            self._shared_log(),
            self.brokers,
            prefix=self.queue_prefix,
            age_seconds=self.age_seconds,
            max_bytes=self.max_bytes,
        )

    def server(self) -> tuple[str, Broker]:
        """Return the kind of the log, ``rabbitmq`` or ``redis``, and its server.

        Raises:
            SourceError: as ``engine``.
        """
        return broker_of(self._shared_log(), self.brokers)

    def raw_streams(self) -> list[RawPlace]:
        """Return the raw streams, not open: one in each AMQP broker.

        Raises:
            SourceError: a URL cannot be read.
        """
        from celery_gateway.log.rabbitmq_log import RabbitMQLog

        return [
            RawPlace(
                broker,
                self.raw_name,
                RabbitMQLog(
                    broker.urls,
                    access=broker.access,
                    name=self.raw_name,
                    age_seconds=self.age_seconds,
                    max_bytes=self.max_bytes,
                ),
            )
            for broker in self.brokers
            if is_amqp(broker.urls[0])
        ]

    def _shared_log(self) -> str:
        if self.is_shared:
            return self.log
        url = self.brokers[0].urls[0] if self.brokers else ""
        if is_amqp(url):
            return "rabbitmq"
        if is_redis(url):
            return "redis"
        raise SourceError(
            f"{without_password(url) or 'the broker'} keeps no shared log: set --log to the URL of the log "
            "(amqp://… or redis://…)"
        )
