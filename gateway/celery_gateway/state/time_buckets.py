"""Counts of events by time: for each kind of event, how many there were in each bucket of time.

A window of up to 10 minutes has buckets of 10 s, one of up to an hour of 1 min, of up to 6 hours of 6 min,
and of up to a day of 24 min. So there are 60 buckets at most, in four rings, and a fixed size for each name.
A bucket begins at a multiple of its length. Times are epoch seconds. Pure.
"""

from array import array
from collections.abc import Sequence
from math import ceil

BUCKETS = 60
BUCKET_SECONDS = (10, 60, 360, 1_440)
"""The length of a bucket in each ring."""
MIN_WINDOW_SECONDS, MAX_WINDOW_SECONDS = 60.0, 86_400.0
UNIT_SECONDS = BUCKET_SECONDS[0]


def level_of(window_seconds: float) -> int:
    """Return the number of the ring whose buckets a window has."""
    return next(
        (level for level, seconds in enumerate(BUCKET_SECONDS) if window_seconds <= seconds * BUCKETS),
        len(BUCKET_SECONDS) - 1,
    )


def bucket_count(window_seconds: float) -> int:
    """Return how many buckets a window has. The last one is the current one, which is not over."""
    return min(BUCKETS, max(1, ceil(window_seconds / BUCKET_SECONDS[level_of(window_seconds)])))


class TimeBuckets:
    """The rings of one name.

    Args:
        kinds: how many kinds of events are counted.
    """

    __slots__ = ("_kinds", "_rings", "_last")

    def __init__(self, kinds: int) -> None:
        self._kinds = kinds
        self._rings = [array("I", bytes(4 * BUCKETS * kinds)) for _ in BUCKET_SECONDS]
        self._last: list[int | None] = [None] * len(BUCKET_SECONDS)  # the last bucket that is valid

    def add(self, start: int, counts: Sequence[int]) -> None:
        """Add counts, by kind.

        Args:
            start: when the 10 s of these counts began; not before those of an earlier call.
        """
        for level, seconds in enumerate(BUCKET_SECONDS):
            ring, bucket = self._rings[level], start // seconds
            self._advance(level, bucket)
            at = bucket % BUCKETS * self._kinds
            for kind, count in enumerate(counts, at):
                if count:
                    ring[kind] += count

    def read(self, level: int, first: int, last: int) -> "array[int]":
        """Return the counts of buckets, oldest first, and of each bucket by kind.

        Args:
            first, last: the numbers of buckets of this ring: their start divided by their length. At most
                ``BUCKETS`` of them.
        """
        kinds, newest = self._kinds, self._last[level]
        found = array("I", bytes(4 * kinds * (last - first + 1)))
        if newest is not None:
            ring, start, end = self._rings[level], max(first, newest - BUCKETS + 1), min(last, newest) + 1
            while start < end:  # in two pieces at most
                count = min(end - start, BUCKETS - start % BUCKETS)
                at, place = start % BUCKETS * kinds, (start - first) * kinds
                found[place : place + count * kinds] = ring[at : at + count * kinds]
                start += count
        return found

    def _advance(self, level: int, bucket: int) -> None:
        last = self._last[level]
        if last is None or bucket > last:
            ring, empty = self._rings[level], array("I", bytes(4 * self._kinds))
            for number in range(bucket if last is None else max(last + 1, bucket - BUCKETS + 1), bucket + 1):
                at = number % BUCKETS * self._kinds
                ring[at : at + self._kinds] = empty
            self._last[level] = bucket


def size_bytes(kinds: int) -> int:
    """Return the size of the rings of one name."""
    return len(BUCKET_SECONDS) * (BUCKETS * kinds * 4 + 100) + 250
