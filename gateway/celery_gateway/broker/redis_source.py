"""The source for Redis: the channels on which Celery's events are published, with or without sentinels.

Pub/sub has no queue: after each reconnect a loss is reported. A message whose envelope cannot be read is
passed on as ``UNREADABLE``, so that it is counted; no other message is lost with it.
"""

import logging
import time
from collections.abc import Sequence

from celery_gateway.broker.address import address_of
from celery_gateway.broker.diagnosis import Phase
from celery_gateway.broker.redis_connection import RedisConnection
from celery_gateway.broker.redis_envelope import EnvelopeReader
from celery_gateway.broker.thread_source import Session, ThreadSource
from celery_gateway.broker.urls import BY_URL, Access
from celery_gateway.errors import SourceError

POLL_SECONDS = 0.5
SWEEP_SECONDS = 300.0

log = logging.getLogger(__name__)


class RedisSource(ThreadSource):
    """Consumes a Redis.

    Args:
        urls: ``redis://…``, ``rediss://…``, ``redis+socket://…``, or sentinels between semicolons; after a
            failure the next one is tried.
        exchange: Celery's ``event_exchange``.
        name: the broker's, for the log.
        access: how the gateway connects; its transport options replace the gateway's defaults.

    Raises:
        SourceError: a URL is malformed, or the package for Redis is not installed.
    """

    def __init__(
        self,
        urls: Sequence[str],
        *,
        exchange: str = "celeryev",
        name: str | None = None,
        access: Access = BY_URL,
    ) -> None:
        super().__init__(urls, self._consume_redis, exchange=exchange, name=name, access=access)
        try:
            for url in urls:
                address_of(url)
                RedisConnection(url, access)
        except (ValueError, KeyError, TypeError) as error:
            raise SourceError(f"the broker URL cannot be read: {error}") from None

    def _consume_redis(self, url: str, session: Session) -> None:
        connection, where = RedisConnection(url, self.access), address_of(url).host_and_port
        try:
            connection.open()
            session.phase = Phase.CONSUME
            topics = connection.topics(self.exchange)
            subscription = connection.subscribe(topics)
            try:
                session.begin(where)
                if connection.is_replica():
                    log.warning(
                        "broker: %s is a read-only replica: events arrive from its master, but remote "
                        "control of workers (--control) needs the master. Set the master in the URL",
                        where,
                    )
                reader = EnvelopeReader(has_duplicates=len(topics) > 1)
                sweep_at = time.monotonic()
                while not session.is_stopping():
                    published = subscription.read(POLL_SECONDS)
                    if published is not None and (message := reader.message(published.payload)) is not None:
                        session.message(message)
                    if time.monotonic() >= sweep_at:
                        sweep_at = time.monotonic() + SWEEP_SECONDS
                        connection.sweep(self.exchange)
            finally:
                subscription.close()
        finally:
            connection.close()
