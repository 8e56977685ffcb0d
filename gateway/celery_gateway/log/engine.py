"""The interface to the server that keeps the log.

An engine keeps messages in one order, the same for every reader. It knows nothing of what is in them: the
rules for who may write are in ``order``.

- An *offset* is the place of a message in the engine: a number that only grows, possibly with gaps.
- Retention removes the oldest messages. A reader that starts before them gets the first one that is left,
  and has to compare.
- All methods belong to one running event loop.
"""

from collections.abc import Callable
from typing import NamedTuple, Protocol

from celery_gateway.errors import GatewayError

FIRST = 0
"""The offset to start at the oldest message."""


class LogError(GatewayError):
    """The log cannot be used now; the text says why, without secrets."""


class LogGone(LogError):
    """The log was deleted, or created again: offsets and positions from before are not valid any more."""


class Stored(NamedTuple):
    """A message of the log."""

    offset: int
    data: bytes


class Place(NamedTuple):
    """Where a log is, for people, without secrets: ``kind`` is ``rabbitmq`` or ``redis``."""

    kind: str
    address: str
    name: str


class Engine(Protocol):
    """One connection of one gateway to the server of the log."""

    @property
    def place(self) -> Place:
        """Where the log is."""

    async def open(self, *, creates: bool = True) -> None:
        """Connect, and create the log if there is none. May be called again after an error.

        Args:
            creates: if ``False``, nothing is created or changed: to look at a log.

        Raises:
            LogGone: there is no log, and none was to be created.
            LogError: the server cannot be used.
        """

    async def close(self) -> None:
        """Close all connections. May be called again. Does not delete anything."""

    def append(self, data: bytes) -> None:
        """Send a message to the end of the log.

        It returns at once. Messages of one engine keep their order; after an error, those that were sent
        last may be missing, and none in between. A caller that has to know reads them back.

        Raises:
            LogError: there is no connection.
        """

    async def tail(self, start: int, on_message: Callable[[Stored], None]) -> None:
        """Call a function with each message from an offset on, also with those to come, until cancelled.

        The function must neither block nor raise. It is called for some milliseconds in one turn of the event
        loop at most.

        Raises:
            LogGone: the log was deleted.
            LogError: the connection is lost.
        """

    async def read(self, start: int, *, limit_bytes: int, limit: int = 10_000) -> list[Stored]:
        """Return messages from an offset on, at least one if there is one.

        It uses other connections than ``tail``, at most ``MAX_READERS``, and waits for a free one.

        Args:
            limit_bytes: stop with the message that reaches this size.
            limit: maximum number of messages.

        Returns:
            The messages in order; none if there is no message at ``start`` or later.

        Raises:
            LogGone: the log was deleted.
            LogError: the server cannot be used.
        """

    async def delete(self) -> None:
        """Delete the log."""

    async def trim(self, before: int) -> None:
        """Remove the messages before an offset.

        Raises:
            LogError: the server cannot do that (RabbitMQ removes by age and size only).
        """


MAX_READERS = 4
"""How many reads of an engine run at the same time."""
