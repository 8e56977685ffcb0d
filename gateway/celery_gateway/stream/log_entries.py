"""Entries that are older than the memory of a gateway, read from the shared log for any number of streams.

Rules:

- Entries are read in blocks, which all streams share, and which a cache of ``CACHE_BYTES`` keeps.
- At most ``MAX_READS`` blocks are read at the same time. Clients that wait take turns; those that wait for
  the same block get it with one read. After a block the next one is read ahead, if nobody waits.
- Where a position is in the log is remembered from what was read (``offset_index``); otherwise it is searched
  for, one search at a time.
- If the log cannot be read, the readers wait, and it is tried again. Entries that are not in it any more are
  gone for good: then ``next_position`` is behind them.
"""

import asyncio
import logging
import time
from collections.abc import Sequence
from typing import NamedTuple

from celery_gateway.log.engine import FIRST, Engine, LogError
from celery_gateway.log.search import find_position, find_time
from celery_gateway.stream.block_cache import Block, BlockCache
from celery_gateway.stream.block_reader import BLOCK_BYTES, BlockReader
from celery_gateway.stream.history import Entry, History
from celery_gateway.stream.offset_index import OffsetIndex
from celery_gateway.stream.older import Waiter
from celery_gateway.stream.round_robin import RoundRobin
from celery_gateway.stream.unexpected_errors import report

CACHE_BYTES = 32 << 20
MAX_READS = 4
NEAR_ENTRIES = 4_000
"""If a batch at most so many entries earlier is known, the log is read from there, without a search."""
SAME_ENTRIES = 100
"""Who waits for an entry so close behind one that is being read waits for the same block, probably."""
RETRY_SECONDS = 1.0
FIRST_SECONDS = 1.0
"""How long the position of the first entry is used before it is read again."""
PATIENT_READS = 100
MAX_HOLES = 1_000

log = logging.getLogger(__name__)


class LogEntriesStatistics(NamedTuple):
    """How much is waited for and cached now, and counts that only grow."""

    waiting: int
    cached_bytes: int
    reads: int
    searches: int
    errors: int


class LogEntries:
    """Implements ``OlderEntries`` with an engine. All calls belong to one running event loop.

    Args:
        engine: the log, open.
        history: that of the hub, which has begun in this log.
        keeps_origins: see ``lines.line_keys``.
        max_event_bytes: that of the hub.
        cache_bytes, block_bytes: how much is kept, and read at a time.
    """

    def __init__(
        self,
        engine: Engine,
        history: History,
        *,
        keeps_origins: bool,
        max_event_bytes: int = 0,
        cache_bytes: int = CACHE_BYTES,
        block_bytes: int = BLOCK_BYTES,
    ) -> None:
        self._engine = engine
        self._history = history
        self._index = OffsetIndex()
        self._reader = BlockReader(
            engine,
            history.terms,
            self._index.add,
            keeps_origins=keeps_origins,
            max_event_bytes=max_event_bytes,
            block_bytes=block_bytes,
        )
        self._cache = BlockCache(cache_bytes)
        self._first = 0
        self._first_at = float("-inf")  # monotonic time when it was read
        self._holes: dict[int, int] = {}  # where a reader goes on after a position
        self._queue: RoundRobin[Waiter] = RoundRobin()
        self._positions: dict[Waiter, int] = {}  # of those that wait, in the queue or with a read
        self._loading: dict[int, list[Waiter]] = {}  # those that wait for a read, by its position
        self._workers: set[asyncio.Task[None]] = set()
        self._search = asyncio.Lock()
        self._reads = self._searches = self._errors = 0

    def statistics(self) -> LogEntriesStatistics:
        """Return the counts."""
        return LogEntriesStatistics(
            len(self._positions), self._cache.size_bytes, self._reads, self._searches, self._errors
        )

    def remember(self, first: int, offset: int, at: float) -> None:
        """Remember where a batch is that was read from the log by others.

        Args:
            first: the position of its first entry.
            at: when it was written, in epoch seconds.
        """
        self._index.add(first, offset, at)

    def close(self) -> None:
        """Stop reading. May be called again."""
        for worker in self._workers:
            worker.cancel()

    @property
    def first_position(self) -> int:
        return max(self._first, self._history.terms.known_after)

    def next_position(self, position: int) -> int:
        if self._cache.find(position) is not None:
            return position
        return max(self._holes.get(position, position), self.first_position)

    def entries_after(self, position: int, limit: int) -> Sequence[Entry] | None:
        block = self._cache.find(position)
        if block is None:
            return None
        self._read_ahead(block)
        at = position - block.after
        return block.entries[at : at + limit]

    def request(self, position: int, waiter: Waiter) -> None:
        if self._positions.get(waiter) == position:
            return
        self.discard(waiter)
        self._positions[waiter] = position
        self._queue.add(waiter.client, waiter)
        self._start_worker()

    def discard(self, waiter: Waiter) -> None:
        if self._positions.pop(waiter, None) is not None:
            self._queue.discard(waiter)

    async def load(self, position: int, client: str = "") -> None:
        waiter = _Once(client)
        while not self._is_settled(position):
            errors = self._errors
            waiter.event.clear()
            self.request(position, waiter)
            try:
                await waiter.event.wait()
            finally:
                self.discard(waiter)
            if self._errors != errors and not self._is_settled(position):
                raise LogError("the log cannot be read now")

    async def find_first(self) -> int:
        async with self._search:
            await self._refresh_first()
        return self.first_position

    async def position_since(self, at: float) -> int:
        async with self._search:
            known = self._cache.since(at)
            if known is not None:
                return known
            await self._refresh_first()
            offset = self._index.before_time(at, NEAR_ENTRIES)
            if offset is None:
                self._searches += 1
                offset = await find_time(self._engine, at)
            position: int | None = None
            while position is None or position < self._history.evicted:
                block = await self._read(offset, position or 0)
                if block is None:
                    break
                offset = block.next_offset
                for first, written_at in block.batches:
                    if written_at >= at:
                        return first - 1
                if block.entries:
                    position = block.last
            return self._history.evicted

    # ---- reading

    def _is_settled(self, position: int) -> bool:
        """Return whether the entry after a position is in memory, or gone."""
        return (
            position >= self._history.evicted
            or self._cache.find(position) is not None
            or self.next_position(position) > position
        )

    def _start_worker(self) -> None:
        # One that has just ended is in the set until its callback runs.
        if sum(not worker.done() for worker in self._workers) < MAX_READS:
            worker = asyncio.create_task(self._work(), name="reading old entries")
            self._workers.add(worker)
            worker.add_done_callback(self._workers.discard)

    async def _work(self) -> None:
        """Read the blocks that are waited for, until none is."""
        while self._queue:
            waiter = self._queue.pop()
            position = self._positions[waiter]
            if self._is_settled(position):
                self._wake(waiter)
                continue
            loading = self._loading_near(position)
            if loading is not None:
                loading.append(waiter)
                continue
            waiters = self._loading[position] = [waiter]
            has_failed = False
            try:
                await self._load(position)
            except LogError as error:
                has_failed = True
                log.warning("log: old entries cannot be read now: %s", error)
            except Exception as error:
                has_failed = True
                report("old entries could not be read; this is tried again", error)
            finally:
                del self._loading[position]
            if has_failed:
                await self._retry_later(waiters)
                continue
            for each in waiters:
                wanted = self._positions.get(each, position)
                if wanted == position or self._is_settled(wanted):
                    self._wake(each)
                elif each in self._positions:
                    self._queue.add(each.client, each)

    async def _retry_later(self, waiters: list[Waiter]) -> None:
        self._errors += 1
        for waiter in waiters:
            if isinstance(waiter, _Once):
                self._wake(waiter)
        await asyncio.sleep(RETRY_SECONDS)
        for waiter in waiters:
            if waiter in self._positions:
                self._queue.add(waiter.client, waiter)

    def _loading_near(self, position: int) -> list[Waiter] | None:
        for loading, waiters in self._loading.items():
            if 0 <= position - loading < SAME_ENTRIES:
                return waiters
        return None

    def _wake(self, waiter: Waiter) -> None:
        if self._positions.pop(waiter, None) is not None:
            waiter.on_ready()

    async def _load(self, position: int) -> None:
        """Read the block with the entry after a position, or find out that the entry is gone."""
        offset = self._index.before(position + 1, NEAR_ENTRIES)
        if offset is not None and await self._load_from(offset, position) == position:
            return
        async with self._search:
            if self._is_settled(position):
                return
            await self._refresh_first()
            if self._is_settled(position):
                return
            self._searches += 1
            offset = await find_position(self._engine, position)
            if await self._load_from(offset, position) == position:
                return
            await self._read_first()  # retention may just have removed it
        if not self._is_settled(position):
            later = await self._load_from(offset, position, patience=PATIENT_READS)
            if later != position:
                self._add_hole(position, later)

    async def _load_from(self, offset: int, position: int, patience: int = 0) -> int | None:
        """Read on from an offset, until the entry after a position is found.

        Args:
            patience: how many more blocks are read after later entries were found: the batch may have been
                lost, and sent again.

        Returns:
            The position; a later one if the next entry that was found is that behind it; ``None`` if none
            was found.
        """
        later: int | None = None
        while (block := await self._read(offset, position)) is not None:
            if block.entries:
                if block.after <= position:
                    return position
                later = block.after if later is None else min(later, block.after)
                if patience <= 0:
                    break
                patience -= 1
            offset = block.next_offset
        return later

    def _add_hole(self, position: int, later: int | None) -> None:
        """Record that the entries after a position are not in the log, although earlier ones are."""
        end = self._history.evicted if later is None else min(later, self._history.evicted)
        while len(self._holes) >= MAX_HOLES:
            del self._holes[next(iter(self._holes))]
        self._holes[position] = end
        log.warning("log: the entries %d to %d are missing", position + 1, end)

    async def _read(self, offset: int, position: int) -> Block | None:
        self._reads += 1
        block = await self._reader.read(offset, position)
        if block is not None and block.entries:
            self._cache.add(block)
        return block

    async def _refresh_first(self) -> None:
        if time.monotonic() - self._first_at > FIRST_SECONDS:
            await self._read_first()

    async def _read_first(self) -> None:
        """Read the beginning of the log."""
        offset = FIRST
        while (block := await self._read(offset, 0)) is not None:
            if block.entries or block.after:
                self._first = max(self._first, block.after)
                break
            offset = block.next_offset
        self._first_at = time.monotonic()

    def _read_ahead(self, block: Block) -> None:
        if block.last < self._history.evicted and not self._positions and not self._is_settled(block.last):
            self.request(block.last, _READ_AHEAD)


class _Once:
    """Waits for one position, for a caller that awaits it, or for nobody. It is not tried again."""

    def __init__(self, client: str) -> None:
        self.client = client
        self.event = asyncio.Event()

    def on_ready(self) -> None:
        self.event.set()


_READ_AHEAD = _Once("")
