"""Blocks of old entries, as they were read from the log, and a cache of them. Pure."""

from bisect import bisect_right, insort
from collections import OrderedDict
from collections.abc import Sequence

from celery_gateway.stream.history import Entry

MIN_BLOCKS = 8
"""More than are read at the same time: who has waited for a block finds it."""


class Block:
    """Entries that follow on each other.

    Attributes:
        after: the position before its first entry.
        entries: at least one, unless the log ends there.
        batches: the position of the first entry of each batch, and when it was written, in epoch seconds.
        next_offset: the offset of the message after it.
        size_bytes: memory that it takes, by estimate.
    """

    __slots__ = ("after", "entries", "batches", "next_offset", "size_bytes")

    def __init__(
        self, after: int, entries: Sequence[Entry], batches: Sequence[tuple[int, float]], next_offset: int
    ) -> None:
        self.after = after
        self.entries = entries
        self.batches = batches
        self.next_offset = next_offset
        self.size_bytes = sum([entry.size_bytes for entry in entries])

    @property
    def last(self) -> int:
        """The position of its last entry."""
        return self.after + len(self.entries)


class BlockCache:
    """The blocks that were used last.

    Args:
        max_bytes: the blocks that were not used for longest are removed when they take more; ``MIN_BLOCKS``
            always stay.
    """

    def __init__(self, max_bytes: int) -> None:
        self.size_bytes = 0
        self._max_bytes = max_bytes
        self._blocks: OrderedDict[int, Block] = OrderedDict()  # by ``after``; the one used last at the end
        self._order: list[int] = []

    def __len__(self) -> int:
        return len(self._blocks)

    def find(self, position: int) -> Block | None:
        """Return a block with the entry after a position."""
        at = bisect_right(self._order, position) - 1
        if at < 0:
            return None
        block = self._blocks[self._order[at]]
        if position >= block.last:
            return None
        self._blocks.move_to_end(block.after)
        return block

    def since(self, at: float) -> int | None:
        """Return the position before the first batch that was written at a time or later.

        Returns:
            ``None`` if no block has that batch and the one before it.
        """
        for block in self._blocks.values():
            if block.batches and block.batches[0][1] < at <= block.batches[-1][1]:
                return next(first - 1 for first, written_at in block.batches if written_at >= at)
        return None

    def add(self, block: Block) -> None:
        """Add a block; remove others if there are too many bytes."""
        old = self._blocks.pop(block.after, None)
        if old is None:
            insort(self._order, block.after)
        else:
            self.size_bytes -= old.size_bytes
        self._blocks[block.after] = block
        self.size_bytes += block.size_bytes
        while self.size_bytes > self._max_bytes and len(self._blocks) > MIN_BLOCKS:
            after, removed = self._blocks.popitem(last=False)
            self.size_bytes -= removed.size_bytes
            del self._order[bisect_right(self._order, after) - 1]
