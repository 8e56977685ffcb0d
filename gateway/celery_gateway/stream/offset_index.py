"""Where the batches of the log are: pairs of a position and an offset, thinned. Pure."""

from bisect import bisect_left, bisect_right

STEP_ENTRIES = 500
STEP_SECONDS = 30.0
"""A pair is kept for so many entries, or for so much time: there are messages without entries between."""
MAX_PAIRS = 20_000


class OffsetIndex:
    """The offsets of some batches, each with the position of its first entry, and when it was written."""

    def __init__(self) -> None:
        self._firsts: list[int] = []
        self._offsets: list[int] = []
        self._times: list[float] = []

    def __len__(self) -> int:
        return len(self._firsts)

    def add(self, first: int, offset: int, at: float) -> None:
        """Remember a batch, unless one close to it is known.

        Args:
            first: the position of its first entry.
            at: when it was written, in epoch seconds.
        """
        index = bisect_right(self._firsts, first)
        if index and not self._is_apart(index - 1, first, at):
            return
        if index < len(self._firsts) and not self._is_apart(index, first, at):
            return
        self._firsts.insert(index, first)
        self._offsets.insert(index, offset)
        self._times.insert(index, at)
        if len(self._firsts) > MAX_PAIRS:
            del self._firsts[1:-1:2], self._offsets[1:-1:2], self._times[1:-1:2]

    def before(self, position: int, within: int) -> int | None:
        """Return the offset of a batch that begins at a position or at most ``within`` entries before it."""
        index = bisect_right(self._firsts, position) - 1
        if index < 0 or position - self._firsts[index] > within:
            return None
        return self._offsets[index]

    def before_time(self, at: float, within: int) -> int | None:
        """Return the offset of a batch that was written before a time, if the next known one was not, and is
        at most ``within`` entries later."""
        index = bisect_left(self._times, at)
        if not 0 < index < len(self._times) or self._firsts[index] - self._firsts[index - 1] > within:
            return None
        return self._offsets[index - 1]

    def _is_apart(self, index: int, first: int, at: float) -> bool:
        return (
            abs(self._firsts[index] - first) >= STEP_ENTRIES or abs(self._times[index] - at) >= STEP_SECONDS
        )
