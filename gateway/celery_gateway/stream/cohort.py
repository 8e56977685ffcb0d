"""Groups: subscriptions with an equal filter and the same framing, which get the same bytes.

At a flush a group frames its new entries once and hands the same bytes to each member that is in step.
"""

from collections.abc import Callable, Hashable

from gateway.cursor import Cursor, Framing, frame
from gateway.history import Entry, History
from gateway.index import Matcher


class Group:
    """Subscriptions that get the same bytes.

    Attributes:
        size: how many members it has.
        entries: what matches and is to be handed out at the next flush.
        written_at: when it handed something out last, on the event loop's clock.
        position: up to where members in step have been handed everything; the same for all groups of a hub,
            which moves it at each flush.
        in_step: for each member that is, what takes its bytes.
    """

    def __init__(
        self, history: History, filter: Matcher, framing: Framing, position: Callable[[], int]
    ) -> None:
        self.filter = filter
        self.framing = framing
        self.in_step: dict[Hashable, Callable[[bytes], None]] = {}
        self.size = 0
        self.entries: list[Entry] = []
        self.written_at = 0.0
        self._keepalive = -1, b""
        self._history = history
        self._position = position

    @property
    def position(self) -> int:
        return self._position()

    def flush(self, now: float) -> None:
        """Hand the new entries to the members in step."""
        framing = self.framing
        entries, self.entries = self.entries, []
        chunk = framing.batch([frame(framing, entry) for entry in entries])
        self.written_at = now
        for write in tuple(self.in_step.values()):
            write(chunk)

    def keepalive(self) -> bytes:
        """Return the keep-alive for members in step."""
        position = self._position()
        if self._keepalive[0] != position:
            framing = self.framing
            self._keepalive = position, framing.batch([framing.keepalive(self.id_of(position))])
        return self._keepalive[1]

    def cursor_at(self, position: int) -> Cursor:
        """Return a cursor for a member that is out of step."""
        return Cursor(self._history, self.filter, self.framing, position)

    def id_of(self, position: int) -> bytes:
        """Return a position as clients see it."""
        return self._history.id_of(position)
