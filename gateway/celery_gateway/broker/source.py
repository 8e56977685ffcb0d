"""The protocols between a source and what consumes its messages.

- A source takes messages from one broker and hands them to a ``Sink``, in order. It runs until it is
  cancelled, and reconnects by itself.
- A source has no knowledge of events or subscribers: a message is bytes with a content type.
- All calls of a sink are made in the event loop.
"""

from collections.abc import Iterator
from typing import NamedTuple, Protocol

from celery_gateway.events.message import Message


class Status(NamedTuple):
    """Whether a source is consuming, and if not, why.

    Attributes:
        reason: a sentence that may have the broker's address, vhost and user.
        code: one of ``diagnosis.CODES``, ``not-connected-yet``, ``publishers-blocked``, ``recording-ended``,
            or ``""``.
    """

    is_consuming: bool
    reason: str
    code: str = ""

    @property
    def brief(self) -> str:
        """The reason without names and addresses."""
        state = ("consuming",) if self.is_consuming else ()
        details = (self.code, "the gateway's log has the details") if self.code else ()
        return "; ".join((*state, *details)) or "not connected yet"


NOT_CONNECTED = Status(False, "not connected yet", "not-connected-yet")
"""The status before the first attempt."""


class Sink(Protocol):
    """The receiver of a source's messages. Its methods must not block."""

    def message(self, message: Message) -> Iterator[None] | None:
        """Process one message; the order of the calls is the order of the stream.

        Returns:
            The rest of the work, if it is long. The source takes its steps, in as many turns of the event
            loop as it needs, before it hands over the next message.
        """

    def status(self, status: Status) -> None:
        """Record a changed status of the source."""

    def lost(self) -> None:
        """Record that messages may be missing here, because the source was not consuming."""


class KeptSource(Protocol):
    """A source whose broker keeps messages: each has its ``Message.offset``.

    Attributes:
        start: the offset of the next message; may be set while ``run`` does not run.
    """

    start: int

    async def declare(self) -> None:
        """Make sure that messages are kept from now on.

        Raises:
            SourceError: that is not possible now.
        """


class Source(Protocol):
    """A source of messages."""

    @property
    def status(self) -> Status:
        """The current status."""

    async def run(self, sink: Sink) -> None:
        """Consume until cancelled. An outage of the broker raises nothing; the source reconnects."""
