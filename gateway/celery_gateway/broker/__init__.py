"""Sources: each takes messages from one kind of broker and hands them on, in order.

A source owns its connection and its reconnecting. It is given a ``Sink`` and is run until it is cancelled;
it knows nothing of events, and nothing of those who read them.
"""

from typing import NamedTuple, Protocol

from gateway.message import Message


class Status(NamedTuple):
    """Whether a source is consuming, and if not, why (fit to be shown to a person)."""

    is_consuming: bool
    reason: str


class Sink(Protocol):
    """Where a source puts what it takes. Called in the event loop; must not block."""

    def message(self, message: Message) -> None:
        """Take one message; the order of the calls is the order of the stream."""

    def status(self, status: Status) -> None:
        """Take note that the source's status is another one now."""

    def lost(self) -> None:
        """Take note that messages may have been missed here (the source was away from the broker)."""


class Source(Protocol):
    """A source of messages."""

    @property
    def status(self) -> Status:
        """How it is doing now."""

    async def run(self, sink: Sink) -> None:
        """Consume until cancelled. Outages are waited out, not raised."""
