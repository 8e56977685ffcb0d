"""The history: one log of entries, bounded by bytes, that every subscription reads with a cursor.

Rules:

- Entries are numbered from 1: from the start of the process, or, with a shared log, from the first entry of
  that. A *position* is the number of the last entry that was read; 0 is before the first.
- Clients see a position as an *id* (``terms``). It is opaque to them, and valid in this log only: without a
  shared log, each start draws a new term.
- When the history is full, its oldest entries are evicted. A shared log may still have them (``older``).
- Entries have a monotonic time. The log records by how much the wall clock is ahead of that, and at which
  entries this changed (the clock was set, or the machine was suspended). So a time of the wall clock is found
  at each position that it stands for.

Pure. All times are in seconds.
"""

import secrets
import sys
from bisect import bisect_left
from collections.abc import Sequence

from celery_gateway.errors import Evicted
from celery_gateway.events.event import Keys
from celery_gateway.stream.older import OlderEntries
from celery_gateway.stream.terms import Terms

ENTRY_OVERHEAD_BYTES = 600
"""Memory of an entry beside its JSON, with ``USUAL_KEYS_CHARS``. (Measured; tests/state/test_sizes.py.)"""
USUAL_KEYS_CHARS = 150
USUAL_BYTES = 700
"""Up to this size of its JSON, an entry is counted as one with keys of ``USUAL_KEYS_CHARS``."""


class Moment(float):
    """A time of the wall clock in epoch seconds, such as 2026-11-21T08:31:00Z.

    A plain ``float`` of epoch seconds stands for an age, such as "10 minutes ago".
    """


class Entry:
    """One entry of the log: an event, or a control message that every subscriber gets.

    Attributes:
        id: the id of its position.
        keys: the values that filters match; empty for a control message, unless it is about one task
            (``audience``).
        control_type: the type of a control message; ``None`` for an event.
        json: the object as it is sent, encoded, with its ``id``.
        full_json: the same before it was truncated; ``json`` itself if it was not.
        appended_at: monotonic time of ``append``.
        size_bytes: memory that it takes, by estimate.
    """

    __slots__ = ("id", "keys", "control_type", "json", "full_json", "appended_at", "size_bytes")

    def __init__(
        self,
        id: bytes,
        keys: Keys,
        control_type: str | None,
        json: bytes,
        appended_at: float = 0.0,
        full_json: bytes | None = None,
    ) -> None:
        self.appended_at = appended_at
        self.id = id
        self.keys = keys
        self.control_type = control_type
        self.json = json
        self.full_json = json if full_json is None else full_json
        size_bytes = len(json)
        if size_bytes <= USUAL_BYTES and json.isascii() and full_json is None:
            self.size_bytes = size_bytes + ENTRY_OVERHEAD_BYTES
            return
        if full_json is not None:
            size_bytes += len(full_json)
        # Text that is not ASCII takes up to 8 bytes a character, its UTF-8 form included
        # (``state.text_size``).
        size_of = len if self.full_json.isascii() else sys.getsizeof
        keys_bytes = sum(map(size_of, filter(None, keys)))
        self.size_bytes = size_bytes + ENTRY_OVERHEAD_BYTES - USUAL_KEYS_CHARS + keys_bytes


_EVICTED = Entry(b"", (), None, b"")

MIN_STEP_SECONDS = 0.01
"""A smaller change of the wall clock against the monotonic clock is ignored."""
ROUNDING_SECONDS = 1e-6
"""Maximum rounding error of epoch seconds in a ``float``."""
MAX_READINGS = 1_000
READING_SECONDS = 24 * 3600.0
"""How long a reading of the wall clock is kept after its entries were evicted."""


class _Reading:
    """By how much the wall clock was ahead of the monotonic clock, from one entry on."""

    __slots__ = ("first", "ahead_seconds", "error_seconds", "last", "last_at")

    def __init__(self, first: int, ahead_seconds: float) -> None:
        self.first = first  # position of its first entry
        self.ahead_seconds = ahead_seconds
        self.error_seconds = ROUNDING_SECONDS  # the clock was ahead by at most so much more
        self.last = first  # position of its last entry, once there is a later reading
        self.last_at = 0.0  # monotonic time of that entry


class History:
    """The log.

    Args:
        max_bytes: the oldest entries are evicted when the log is larger; the newest entry always stays.
        epoch: the term of its ids; drawn at random by default.

    Attributes:
        terms: the ids of its positions.
        older: has the entries that are evicted; ``None``: they are gone.
    """

    def __init__(self, *, max_bytes: int, epoch: str | None = None) -> None:
        self.terms = Terms([(epoch or secrets.token_hex(4), 1)])
        self.set_terms(self.terms.known)
        self.older: OlderEntries | None = None
        self._max_bytes = max_bytes
        self._entries: list[Entry] = []
        self._first_index = 0  # in _entries: those before it are evicted, and deleted now and then
        self._evicted = 0
        self._bytes = 0
        self._readings: list[_Reading] = []

    def begin(self, position: int, terms: Sequence[tuple[str, int]]) -> None:
        """Begin again, empty, after a position of a shared log: everything up to it is evicted.

        Args:
            terms: see ``Terms``.
        """
        self.set_terms(terms)
        self._entries, self._first_index, self._readings = [], 0, []
        self._evicted, self._bytes = position, 0

    def begin_term(self, term: str) -> None:
        """Begin a term with the next entry."""
        self.terms.begin(term, self.position + 1)
        self.set_terms(self.terms.known)

    def set_terms(self, terms: Sequence[tuple[str, int]]) -> None:
        """Replace all terms; see ``Terms``."""
        self.terms.set(terms)
        # ``id_of`` is called for each entry.
        self._id_prefix, self._newest_from = self.terms.newest.encode() + b"-", self.terms.newest_from

    def id_of(self, position: int) -> bytes:
        """Return the id of a position, which may be that of an entry to come."""
        if position >= self._newest_from:
            return b"%b%d" % (self._id_prefix, position)
        return self.terms.id_of(position)

    @property
    def epoch(self) -> str:
        """The newest term."""
        return self.terms.newest

    @property
    def position(self) -> int:
        """The position of the newest entry; 0 while there is none."""
        return self._evicted + len(self._entries) - self._first_index

    @property
    def evicted(self) -> int:
        """The position of the newest evicted entry: a cursor before it has lost entries."""
        return self._evicted

    @property
    def size_bytes(self) -> int:
        """Memory that the entries take, by estimate."""
        return self._bytes

    def position_of(self, id: str) -> int | None:
        """Return the position of an id, evicted or not; ``None`` if the id is not one of this log."""
        position = self.terms.position_of(id)
        return position if position is not None and position <= self.position else None

    def entry(self, position: int) -> Entry:
        """Return the entry at a position from 1 to ``position``.

        Raises:
            Evicted: it was evicted.
        """
        if position <= self._evicted:
            raise Evicted(f"the entry at position {position} was evicted")
        return self._entries[self._first_index + position - self._evicted - 1]

    def position_at(self, time: float) -> int:
        """Return the position before the first entry that was appended at a monotonic time or later."""
        index = bisect_left(self._entries, time, lo=self._first_index, key=lambda entry: entry.appended_at)
        return self._evicted + index - self._first_index

    def position_since(self, since: float, monotonic: float, wall: float) -> int:
        """Return the position before the first entry that was appended at a time or later.

        Where the wall clock was set, a ``Moment`` may stand for several positions. The result is the first of
        them, so that nothing is missed. If the entry was evicted, the result is ``evicted``.

        Args:
            since: epoch seconds: a ``Moment``, or a plain ``float`` for an age.
            monotonic: the monotonic time now.
            wall: the wall time now, in epoch seconds.
        """
        position = self.position_at(monotonic - (wall - since))  # by the present reading of the clock
        if not isinstance(since, Moment):
            return position
        for reading in self._readings:
            if reading is self._readings[-1]:
                last, last_at = self.position, self._entries[-1].appended_at
            else:
                last, last_at = reading.last, reading.last_at
            at = since - reading.ahead_seconds - reading.error_seconds
            if at > last_at:
                continue
            offset = self._first_index - self._evicted - 1  # from a position to an index
            index = bisect_left(
                self._entries,
                at,
                lo=max(reading.first, self._evicted + 1) + offset,
                hi=max(last, self._evicted) + offset + 1,
                key=lambda entry: entry.appended_at,
            )
            position = min(position, index - offset - 1)
        return position

    def append(self, entry: Entry, wall: float | None = None) -> None:
        """Add the newest entry, and evict the oldest entries if the log is full.

        Args:
            entry: its id must be ``id_of(position + 1)``.
            wall: wall time of ``appended_at`` in epoch seconds, for ``position_since``.
        """
        entries = self._entries
        if wall is not None:
            ahead_seconds = wall - entry.appended_at
            reading = self._readings[-1] if self._readings else None
            if reading is None or abs(ahead_seconds - reading.ahead_seconds) > MIN_STEP_SECONDS:
                self._read_clock(ahead_seconds, entry.appended_at)
            elif ahead_seconds - reading.ahead_seconds > reading.error_seconds:
                reading.error_seconds = ahead_seconds - reading.ahead_seconds
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

    def _read_clock(self, ahead_seconds: float, now: float) -> None:
        """Record a new reading of the wall clock, from the next entry on."""
        readings = self._readings
        if readings:
            readings[-1].last, readings[-1].last_at = self.position, self._entries[-1].appended_at
        readings.append(_Reading(self.position + 1, ahead_seconds))
        self._readings = readings = [
            reading
            for reading in readings
            if reading is readings[-1]
            or reading.last > self._evicted
            or now - reading.last_at <= READING_SECONDS
        ]
        if len(readings) > MAX_READINGS:  # merge the two oldest, so that no time is missed
            oldest = readings.pop(0)
            readings[0].first = oldest.first
            readings[0].ahead_seconds = max(oldest.ahead_seconds, readings[0].ahead_seconds)
            readings[0].error_seconds = max(oldest.error_seconds, readings[0].error_seconds)

    def after(self, position: int, limit: int) -> Sequence[Entry]:
        """Return at most ``limit`` entries after a position, which must not be before ``evicted``."""
        start = self._first_index + position - self._evicted
        return self._entries[start : start + limit]
