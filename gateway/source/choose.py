"""Which source serves a broker URL."""

from gateway.source import Source
from gateway.source.amqp import AMQPSource
from gateway.source.virtual import VirtualSource

_AMQP_SCHEMES = frozenset({"amqp", "amqps", "pyamqp"})


def source_for(url: str, *, exchange: str = "celeryev") -> Source:
    """Return a source for a broker URL as Celery takes it.

    Raises:
        SourceError: the URL is malformed, or its transport is not installed.
    """
    if url.partition("://")[0] in _AMQP_SCHEMES:
        return AMQPSource(url, exchange=exchange)
    return VirtualSource(url, exchange=exchange)
