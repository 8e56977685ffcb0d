"""What a broker reports of a queue. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol


class QueueSize(NamedTuple):
    """The reply of a broker about one queue.

    Attributes:
        depth: messages that no consumer has got; ``None`` if it is not known.
        consumers: the number of consumers; ``None`` if the broker does not count them.
        priorities: messages by priority, where the broker has a list for each; ``None`` if none is in use.
        exists: the broker has the queue. (Redis has no queue without messages.)
        error: why there is no depth.
    """

    depth: int | None = None
    consumers: int | None = None
    priorities: Mapping[str, int] | None = None
    exists: bool = True
    error: str | None = None


class QueueReading(NamedTuple):
    """What is known of a queue, as clients see it.

    Attributes:
        unacknowledged: messages that consumers have got; ``None``: no broker reports it by queue.
        oldest: when the oldest message was sent; ``None``: no broker reports it.
        time: when it was read, in epoch seconds on the gateway's clock.
        error: why there is no depth, or why it is an old one.
        exists: the broker has it, or has had it in an earlier reading; not shown to clients.
    """

    name: str
    depth: int | None
    unacknowledged: int | None
    consumers: int | None
    oldest: float | None
    priorities: Mapping[str, int] | None
    time: float
    error: str | None
    exists: bool = False


class QueueBackend(Protocol):
    """Asks one broker for the sizes of queues. Blocks, so it belongs into a thread. One call at a time."""

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection, which may have ended."""

    def read(self, names: Sequence[str], deadline: float) -> Iterator[tuple[str, QueueSize]]:
        """Give the names and sizes of queues; it connects if necessary.

        Args:
            deadline: monotonic time after which no further queue is asked for.

        Raises:
            Exception: any error of the connection (see ``diagnose``).
        """

    def close(self) -> None:
        """Close the connection. May be called in any state."""
