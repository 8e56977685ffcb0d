"""Which source serves a broker."""

from collections.abc import Collection

from gateway.broker import Broker
from gateway.errors import SourceError
from gateway.source import Source
from gateway.source.accept import Accepting
from gateway.source.amqp import AMQPSource
from gateway.source.virtual import VirtualSource

_AMQP_SCHEMES = frozenset({"amqp", "amqps", "pyamqp"})


def source_for(
    broker: Broker, *, exchange: str = "celeryev", accept: Collection[str] | None = None
) -> Source:
    """Return a source for a broker whose URLs are as Celery takes them.

    Args:
        exchange: Celery's ``event_exchange``.
        accept: the content types of messages that are taken; ``None`` for all.

    Raises:
        SourceError: a URL is malformed, its transport is not installed, they are of different kinds, or the
            broker's access cannot be had (a certificate's file is missing).
    """
    kinds = {url.partition("://")[0] in _AMQP_SCHEMES for url in broker.urls}
    if len(kinds) > 1:
        raise SourceError("a broker's URLs must all be amqp:// or all of another kind, to take turns")
    kind = AMQPSource if kinds == {True} else VirtualSource
    source = kind(broker.urls, exchange=exchange, name=broker.name, access=broker.access)
    return source if accept is None else Accepting(source, accept)
