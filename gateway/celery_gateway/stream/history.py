"""The history: one log of entries, bounded by bytes, that every subscription reads with a cursor.

An entry's sequence number counts from 1 at the start of the process and never repeats. A *position* is the
sequence number of the last entry that was seen; 0 is before the first. Outside it is written as an id,
``<epoch>-<position>``: opaque to clients, and of this log alone, since each start draws a new epoch.
"""

import secrets
from bisect import bisect_left
from collections.abc import Sequence

from gateway.event import Keys

ENTRY_OVERHEAD_BYTES = 600
"""What an entry costs beside its JSON: the object, its keys and their strings. (Measured: 510.)"""


class Entry:
    """One line of the log: an event, or a control message that every subscriber gets.

    Attributes:
        id: its position, as clients see it.
        keys: what filters look at; empty for a control message.
        control: a control message's type; ``None`` for an event.
        json: the whole object, encoded, its ``id`` included.
        taken_at: when it was taken in, epoch seconds.
    """

    __slots__ = ("id", "keys", "control", "json", "taken_at")

    def __init__(
        self, id: bytes, keys: Keys, control: str | None, json: bytes, taken_at: float = 0.0
    ) -> None:
        self.taken_at = taken_at
        self.id = id
        self.keys = keys
        self.control = control
        self.json = json

    @property
    def size_bytes(self) -> int:
        """What it costs, by estimate."""
        return len(self.json) + ENTRY_OVERHEAD_BYTES


_EVICTED = Entry(b"", (), None, b"")


class History:
    """The log.

    Args:
        max_bytes: when it holds more, its oldest entries go; the newest always stays.
        epoch: names this log in ids; by default drawn at random.
    """

    def __init__(self, *, max_bytes: int, epoch: str | None = None) -> None:
        self.epoch = epoch or secrets.token_hex(4)
        self._id_prefix = self.epoch.encode() + b"-"
        self._max_bytes = max_bytes
        self._entries: list[Entry] = []
        self._first_index = 0  # in _entries: what lies before it is evicted, and cut off now and then
        self._evicted = 0
        self._bytes = 0

    @property
    def position(self) -> int:
        """The position of the newest entry; 0 while there is none."""
        return self._evicted + len(self._entries) - self._first_index

    @property
    def evicted(self) -> int:
        """The position of the newest entry that is gone: a cursor before it has lost entries."""
        return self._evicted

    @property
    def size_bytes(self) -> int:
        """What the entries take, by estimate."""
        return self._bytes

    def id_of(self, position: int) -> bytes:
        """Return a position as clients see it."""
        return b"%b%d" % (self._id_prefix, position)

    def position_of(self, id: str) -> int | None:
        """Return the position that an id names, evicted or not; ``None`` if it is none of this log's."""
        epoch, _, digits = id.partition("-")
        if epoch != self.epoch or not (digits.isascii() and digits.isdigit()) or len(digits) > 18:
            return None
        position = int(digits)
        return position if position <= self.position else None

    def position_at(self, time: float) -> int:
        """Return the position before the first entry that was taken in at this time or later."""
        index = bisect_left(self._entries, time, lo=self._first_index, key=lambda entry: entry.taken_at)
        return self._evicted + index - self._first_index

    def append(self, entry: Entry) -> None:
        """Add the newest entry; its id must be ``id_of(position + 1)``. May evict the oldest ones."""
        entries = self._entries
        entries.append(entry)
        self._bytes += entry.size_bytes
        while self._bytes > self._max_bytes and self._first_index < len(entries) - 1:
            self._bytes -= entries[self._first_index].size_bytes
            entries[self._first_index] = _EVICTED
            self._first_index += 1
            self._evicted += 1
        if self._first_index > 1000 and self._first_index * 2 > len(entries):
            del entries[: self._first_index]
            self._first_index = 0

    def after(self, position: int, limit: int) -> Sequence[Entry]:
        """Return the entries after a position that is not before ``evicted``, at most ``limit`` of them."""
        start = self._first_index + position - self._evicted
        return self._entries[start : start + limit]
