"""Durations of one name by time: sketches of slots of time, which a window merges.

The slots are a tenth of the longest window of each kind: 1 min for windows of up to 10 minutes, 6 min for an
hour, 36 min for 6 hours, 144 min for a day. Slots that are over are merged into the longer ones, so that few
are kept. A window has the slots that it touches: it reaches back by up to one slot further than asked. Times
are epoch seconds. Pure.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from math import log
from typing import NamedTuple

from celery_gateway.state.lanes import counts_of, lanes
from celery_gateway.state.quantile_sketch import (
    MIN_SECONDS,
    OFFSET,
    SCALE,
    empty,
    pack,
    packed_lanes,
)

SLOT_SECONDS = (60, 360, 2_160, 8_640)
SLOTS = 10
"""How many slots of a level a window has, beside the current one."""
MAX_CACHED = 2
"""How many windows of a name are kept merged."""
SLOT_BYTES = 260
"""The size of a slot without its counts."""
OPEN_BYTES = 2 * (len(empty()) * 4 + 80) + 2_000
"""The size of a history without its slots that are over."""


class Durations(NamedTuple):
    """Durations of one kind: counts by bin (``quantile_sketch``) as ``lanes``; the longest one in seconds."""

    bins: int
    longest: float


class _Slot(NamedTuple):
    """A slot that is over: the packed counts and the longest duration, of each kind."""

    start: int
    packed: tuple[bytes, bytes]
    longest: tuple[float, float]

    @property
    def size_bytes(self) -> int:
        return SLOT_BYTES + len(self.packed[0]) + len(self.packed[1])


class DurationHistory:
    """The durations of the tasks of one name, of two kinds: their runtimes (0), and their waits (1).

    Attributes:
        size_bytes: the size of the slots that are over, by estimate.
    """

    __slots__ = ("size_bytes", "_current", "_longest", "_is_empty", "_levels", "_merged")

    def __init__(self) -> None:
        self.size_bytes = 0
        self._current = (empty(), empty())
        self._longest = [0.0, 0.0]
        self._is_empty = True
        self._levels: tuple[deque[_Slot], ...] = tuple(deque() for _ in SLOT_SECONDS)  # oldest first
        # By the begin of a window: its slots that are over.
        self._merged: dict[int, tuple[Durations, Durations]] = {}

    def add(self, kind: int, seconds: float) -> None:
        """Add a duration of 0 to ``MAX_SECONDS`` seconds to the current slot."""
        self._current[kind][0 if seconds < MIN_SECONDS else int(log(seconds) * SCALE + OFFSET)] += 1
        self._is_empty = False
        if seconds > self._longest[kind]:
            self._longest[kind] = seconds

    def close(self, start: int, now: int) -> None:
        """End the current slot.

        Args:
            start: when it began.
            now: when the next one begins, or a later one.
        """
        self._merged.clear()
        if not self._is_empty:
            packed = pack(self._current[0]), pack(self._current[1])
            self._append(0, _Slot(start, packed, (self._longest[0], self._longest[1])))
            self._current, self._longest, self._is_empty = (empty(), empty()), [0.0, 0.0], True
        for level in range(1, len(SLOT_SECONDS)):
            begin = _floor(start, level)
            if begin == _floor(now, level):
                break
            inner = [slot for slot in self._levels[level - 1] if slot.start >= begin]
            if inner:
                runtimes, waits = _merge(inner)
                packed = pack(counts_of(runtimes.bins)), pack(counts_of(waits.bins))
                self._append(level, _Slot(begin, packed, (runtimes.longest, waits.longest)))
        for level, slots in enumerate(self._levels):
            oldest = now - (SLOTS + 1) * SLOT_SECONDS[level]
            while slots and slots[0].start < oldest:
                self.size_bytes -= slots.popleft().size_bytes

    def drop_oldest(self) -> bool:
        """Drop the oldest slot of the longest ones; return whether there was one."""
        for slots in reversed(self._levels):
            if slots:
                self.size_bytes -= slots.popleft().size_bytes
                self._merged.clear()
                return True
        return False

    def read(self, level: int, first: int, current: int) -> tuple[Durations, Durations]:
        """Return the durations of a window, of each kind.

        Args:
            level: that of its slots.
            first: when the first of its slots begins.
            current: when the current slot of this history began; its durations count if that is not before
                ``first``.
        """
        merged = self._merged.get(first)
        if merged is None:
            if len(self._merged) >= MAX_CACHED:
                self._merged.clear()
            merged = self._merged[first] = _merge(self._slots(level, first, current))
        if current < first or self._is_empty:
            return merged
        runtimes, waits = (
            Durations(of_kind.bins + lanes(counts), max(of_kind.longest, longest))
            for of_kind, counts, longest in zip(merged, self._current, self._longest, strict=True)
        )
        return runtimes, waits

    def has_between(self, level: int, first: int, last: int) -> bool:
        """Return whether slots of a level, or within, have begun from ``first`` on and before ``last``."""
        return any(first <= slot.start < last for slots in self._levels[: level + 1] for slot in slots)

    def _slots(self, level: int, first: int, current: int) -> Iterator[_Slot]:
        """Yield the slots that are over, from a time on: the longer ones first, then those not merged yet."""
        begin = first
        for number in range(level, -1, -1):
            yield from (slot for slot in self._levels[number] if slot.start >= begin)
            begin = max(begin, _floor(current, number))

    def _append(self, level: int, slot: _Slot) -> None:
        self._levels[level].append(slot)
        self.size_bytes += slot.size_bytes


def _floor(time: int, level: int) -> int:
    """Return when the slot of a level begins that has this time."""
    return time // SLOT_SECONDS[level] * SLOT_SECONDS[level]


def _merge(slots: Iterable[_Slot]) -> tuple[Durations, Durations]:
    sums, longest = [0, 0], [0.0, 0.0]
    for slot in slots:
        for kind in (0, 1):
            sums[kind] += packed_lanes(slot.packed[kind])
            longest[kind] = max(longest[kind], slot.longest[kind])
    return Durations(sums[0], longest[0]), Durations(sums[1], longest[1])
