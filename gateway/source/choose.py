"""Which source serves a broker."""

from gateway.broker import Broker
from gateway.errors import SourceError
from gateway.source import Source
from gateway.source.amqp import AMQPSource
from gateway.source.virtual import VirtualSource

_AMQP_SCHEMES = frozenset({"amqp", "amqps", "pyamqp"})


def source_for(broker: Broker, *, exchange: str = "celeryev") -> Source:
    """Return a source for a broker whose URLs are as Celery takes them.

    Raises:
        SourceError: a URL is malformed, its transport is not installed, or they are of different kinds.
    """
    kinds = {url.partition("://")[0] in _AMQP_SCHEMES for url in broker.urls}
    if len(kinds) > 1:
        raise SourceError("a broker's URLs must all be amqp:// or all of another kind, to take turns")
    source = AMQPSource if kinds == {True} else VirtualSource
    return source(broker.urls, exchange=exchange, name=broker.name)
