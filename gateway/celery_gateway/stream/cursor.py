"""Cursors: positions in the stream, from which matching entries are read and framed.

Entries that the history has evicted are read from the log, if there is one (``older``). Pure.
"""

from collections.abc import Sequence
from math import inf
from time import perf_counter
from typing import Protocol

from celery_gateway.events.matcher import Matcher
from celery_gateway.stream.audience import is_for
from celery_gateway.stream.history import Entry, History
from celery_gateway.stream.messages import ControlMessage, gap_message
from celery_gateway.stream.older import OlderEntries

CLOCK_ENTRIES = 8
"""The time limit of a read is checked after so many entries: to match one can take long."""
CLOCK_BYTES = 10_000
"""It is also checked after an entry of this size: to frame one can take long."""


class Framing(Protocol):
    """How entries are written on a stream.

    Attributes:
        cost: of the framing, beside that of the filter, in units of ``Filter.cost``.
    """

    @property
    def cost(self) -> int: ...
    def event(self, id: bytes, json: bytes) -> bytes: ...
    def control(self, id: bytes, message: ControlMessage) -> bytes: ...
    def keepalive(self, id: bytes) -> bytes: ...
    def batch(self, frames: list[bytes]) -> bytes: ...


def frame(framing: Framing, entry: Entry) -> bytes:
    """Return an entry as it is written on a stream."""
    if entry.control_type is None:
        return framing.event(entry.id, entry.json)
    return framing.control(entry.id, ControlMessage(entry.control_type, entry.json))


class Cursor:
    """Reads the matching entries of the history, and of the log before it.

    Attributes:
        position: all entries up to here were read.
        is_blocked: the last ``read`` has found that the next entries must be read from the log first.
    """

    __slots__ = ("_history", "_filter", "_framing", "position", "is_blocked")

    def __init__(self, history: History, filter: Matcher, framing: Framing, position: int) -> None:
        self._history = history
        self._filter = filter
        self._framing = framing
        self.position = position
        self.is_blocked = False

    def read(self, up_to: int, limit_bytes: int, limit_entries: int, limit_seconds: float = inf) -> bytes:
        """Read on, and return the frames of the matching entries.

        Entries that are gone before they were read are reported by a ``gateway-gap``.

        Args:
            up_to: the position to stop at.
            limit_bytes: stop with the frame that reaches this size.
            limit_entries: stop after so many entries, matching or not.
            limit_seconds: stop some entries after this time.
        """
        deadline = perf_counter() + limit_seconds
        frames: list[bytes] = []
        size_bytes = 0
        framing, matches = self._framing, self._filter.matches
        if (gap := self._gap()) is not None:
            frames.append(frame(framing, gap))
        for entry in self._next(up_to, limit_entries):
            self.position += 1
            if matches(entry.keys) if entry.control_type is None else is_for(entry, self._filter):
                framed = frame(framing, entry)
                frames.append(framed)
                size_bytes += len(framed)
                if size_bytes >= limit_bytes:
                    break
            is_due = not self.position % CLOCK_ENTRIES or len(entry.json) >= CLOCK_BYTES
            if is_due and perf_counter() >= deadline:
                break
        return framing.batch(frames) if frames else b""

    def read_entries(
        self, up_to: int, limit_bytes: int, limit_entries: int, limit_seconds: float = inf
    ) -> list[tuple[int, Entry]]:
        """Read on, and return the matching entries, each with its position; a gap is one of them.

        Args:
            up_to, limit_entries, limit_seconds: see ``read``.
            limit_bytes: stop with the entry whose JSON reaches this size in all.
        """
        deadline = perf_counter() + limit_seconds
        found: list[tuple[int, Entry]] = []
        size_bytes = 0
        if (gap := self._gap()) is not None:
            found.append((self.position, gap))
        for entry in self._next(up_to, limit_entries):
            self.position += 1
            if is_for(entry, self._filter):
                found.append((self.position, entry))
                size_bytes += len(entry.json)
            is_due = not self.position % CLOCK_ENTRIES or len(entry.json) >= CLOCK_BYTES
            if size_bytes >= limit_bytes or (is_due and perf_counter() >= deadline):
                break
        return found

    def _gap(self) -> Entry | None:
        """Return the gap in place of entries that are gone, and move behind it; ``None`` if none are."""
        history = self._history
        if self.position >= history.evicted:
            return None
        older = history.older
        position = history.evicted if older is None else older.next_position(self.position)
        if position <= self.position:
            return None
        self.position = position = min(position, history.evicted)
        id = history.id_of(position)
        # It is unknown how many of the entries that are gone matched.
        return Entry(id, (), "gateway-gap", gap_message(id, "evicted", None).json)

    def _next(self, up_to: int, limit_entries: int) -> Sequence[Entry]:
        """Return the next entries, matching or not; none if they must be read from the log first."""
        history = self._history
        self.is_blocked = False
        # After a gap the position can be past ``up_to``: entries can be evicted before they are flushed.
        limit = max(0, min(up_to - self.position, limit_entries))
        if self.position >= history.evicted or history.older is None:
            return history.after(self.position, limit)
        return self._after(history.older, limit)

    def _after(self, older: OlderEntries, limit: int) -> Sequence[Entry]:
        """Return the next entries from the log, or none if they are not in memory."""
        entries = older.entries_after(self.position, limit) if limit else ()
        self.is_blocked = entries is None
        return entries or ()
