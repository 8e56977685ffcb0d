"""A source narrowed to some content types, as Celery's receivers are by their ``accept``.

What is of another type goes on without its body, as something that nobody reads: so it is never decoded, and
is counted and told of where all that is refused is.
"""

from collections.abc import Collection

from gateway.message import Message
from gateway.source import Sink, Source, Status

_REFUSED = Message(b"", "not accepted")


class Accepting:
    """Hands on what another source takes.

    Args:
        content_types: those that are accepted; a message without one is JSON, as for kombu's consumers.
    """

    def __init__(self, source: Source, content_types: Collection[str]) -> None:
        self._source = source
        self._content_types = frozenset(content_types)

    @property
    def status(self) -> Status:
        return self._source.status

    async def run(self, sink: Sink) -> None:
        await self._source.run(_Narrowed(sink, self._content_types))


class _Narrowed:
    def __init__(self, sink: Sink, content_types: frozenset[str]) -> None:
        self._sink = sink
        self._content_types = content_types
        self.lost = sink.lost
        self.status = sink.status

    def message(self, message: Message) -> None:
        content_type = message.content_type
        if content_type not in self._content_types:
            plain = (content_type or "application/json").partition(";")[0].strip().lower()
            if plain not in self._content_types:
                message = _REFUSED
        self._sink.message(message)
