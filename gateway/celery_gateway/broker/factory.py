"""The source for a broker, by the schemes of its URLs."""

from collections.abc import Collection

from celery_gateway.broker.amqp_source import AMQPSource
from celery_gateway.broker.content_types import RestrictedSource
from celery_gateway.broker.memory_source import MemorySource
from celery_gateway.broker.recording_source import RecordingSource
from celery_gateway.broker.redis_source import RedisSource
from celery_gateway.broker.source import Source
from celery_gateway.broker.url_syntax import is_amqp, is_recording, is_redis
from celery_gateway.broker.urls import Broker
from celery_gateway.errors import SourceError


def source_for(
    broker: Broker, *, exchange: str = "celeryev", accept: Collection[str] | None = None
) -> Source:
    """Return a source for a broker, whose URLs are as ``urls.brokers`` returns them.

    Args:
        exchange: Celery's ``event_exchange``.
        accept: the content types of messages that are accepted; ``None`` for all.

    Raises:
        SourceError: a URL is malformed, the package of its transport is not installed, the URLs are of
            different kinds, or a requirement of the access is missing (a certificate's file).
        RecordingError: the file of a recording cannot be used.
    """
    kinds = {_kind(url) for url in broker.urls}
    if len(kinds) > 1:
        raise SourceError(
            "the URLs of one broker have different transports: use URLs of one transport, or name the "
            "brokers (--broker eu=amqp://… --broker us=redis://…)"
        )
    (kind,) = kinds
    source: Source = kind(broker.urls, exchange=exchange, name=broker.name, access=broker.access)
    return source if accept is None else RestrictedSource(source, accept)


def _kind(url: str) -> type[AMQPSource | RedisSource | RecordingSource | MemorySource]:
    if is_amqp(url):
        return AMQPSource
    if is_redis(url):
        return RedisSource
    return RecordingSource if is_recording(url) else MemorySource
