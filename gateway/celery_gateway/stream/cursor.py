"""A cursor: a place in the history, and what of it a filter and a framing make."""

from typing import Protocol

from gateway.control import Control, gap
from gateway.history import Entry, History
from gateway.index import Matcher


class Framing(Protocol):
    """Says how entries are written."""

    def event(self, id: bytes, json: bytes) -> bytes: ...
    def control(self, id: bytes, message: Control) -> bytes: ...
    def keepalive(self, id: bytes) -> bytes: ...
    def batch(self, frames: list[bytes]) -> bytes: ...


def frame(framing: Framing, entry: Entry) -> bytes:
    """Return an entry as a framing writes it."""
    if entry.control is None:
        return framing.event(entry.id, entry.json)
    return framing.control(entry.id, Control(entry.control, entry.json))


class Cursor:
    """Reads the history from ``position`` on, for one that is behind.

    Attributes:
        position: all entries up to here were read.
    """

    __slots__ = ("_history", "_filter", "_framing", "position")

    def __init__(self, history: History, filter: Matcher, framing: Framing, position: int) -> None:
        self._history = history
        self._filter = filter
        self._framing = framing
        self.position = position

    def read(self, up_to: int, limit_bytes: int, limit_entries: int) -> bytes:
        """Move on, and return the frames of the matching entries passed on the way.

        Stops at position ``up_to``, at the first frame with which ``limit_bytes`` are reached, or after
        ``limit_entries``. Entries that were evicted unread are told by a ``gateway-gap``.
        """
        frames: list[bytes] = []
        size_bytes = 0
        framing, matches = self._framing, self._filter.matches
        history = self._history
        if self.position < history.evicted:
            self.position = history.evicted
            id = history.id_of(self.position)
            # How many of the lost ones matched cannot be known any more.
            frames.append(framing.control(id, gap(id, "evicted", None)))
        # After a gap the position can be past ``up_to``: what was not flushed yet is evicted already.
        for entry in history.after(self.position, max(0, min(up_to - self.position, limit_entries))):
            self.position += 1
            if entry.control is None and not matches(entry.keys):
                continue
            written = frame(framing, entry)
            frames.append(written)
            size_bytes += len(written)
            if size_bytes >= limit_bytes:
                break
        return framing.batch(frames) if frames else b""
