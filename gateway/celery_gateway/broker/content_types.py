"""A source that is restricted to some content types, as Celery's receivers are by ``accept``.

A message of another type is passed on without its body, under a type that is never decoded. So it is counted
and logged with all other refused messages.
"""

from collections.abc import Collection, Iterator

from celery_gateway.broker.source import Sink, Source, Status
from celery_gateway.events.message import UNREADABLE, Message

_REFUSED = Message(b"", "not accepted")


class RestrictedSource:
    """Passes on the messages of another source.

    Args:
        content_types: those that are accepted. A message without one is JSON, as for kombu's consumers.
    """

    def __init__(self, source: Source, content_types: Collection[str]) -> None:
        self._source = source
        self._content_types = frozenset(content_types)

    @property
    def status(self) -> Status:
        return self._source.status

    async def run(self, sink: Sink) -> None:
        await self._source.run(_RestrictedSink(sink, self._content_types))


class _RestrictedSink:
    def __init__(self, sink: Sink, content_types: frozenset[str]) -> None:
        self._sink = sink
        self._content_types = content_types
        self.lost = sink.lost
        self.status = sink.status

    def message(self, message: Message) -> Iterator[None] | None:
        content_type = message.content_type
        if content_type not in self._content_types:
            plain = (content_type or "application/json").partition(";")[0].strip().lower()
            if plain not in self._content_types and message is not UNREADABLE:
                message = _REFUSED._replace(offset=message.offset)
        return self._sink.message(message)
