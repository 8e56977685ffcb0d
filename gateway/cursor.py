"""A cursor: a place in the history, and what of it a filter and a framing make.

Live delivery and catching up are this one path: a group of subscriptions reads with one cursor, and a
subscription that fell behind its group with one of its own.
"""

from typing import Protocol

from gateway.control import Control, gap
from gateway.event import Keys
from gateway.history import History


class Matcher(Protocol):
    """Says which events are wanted."""

    def matches(self, keys: Keys) -> bool: ...


class Framing(Protocol):
    """Says how entries are written."""

    def event(self, id: bytes, json: bytes) -> bytes: ...
    def control(self, id: bytes, message: Control) -> bytes: ...
    def keepalive(self, id: bytes) -> bytes: ...


class Cursor:
    """Reads the history from ``position`` on.

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
        for entry in history.after(self.position, min(up_to - self.position, limit_entries)):
            self.position += 1
            if entry.control is not None:
                frame = framing.control(entry.id, Control(entry.control, entry.json))
            elif matches(entry.keys):
                frame = framing.event(entry.id, entry.json)
            else:
                continue
            frames.append(frame)
            size_bytes += len(frame)
            if size_bytes >= limit_bytes:
                break
        return b"".join(frames)
