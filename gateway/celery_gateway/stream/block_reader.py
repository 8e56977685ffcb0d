"""Reads blocks of old entries from the log.

Rules:

- A batch counts if its term is that of its positions, and if it follows on the batch before (``log.order``).
- The event loop is not held for longer than ``SLICE_SECONDS`` while a block is decoded, and one block is
  decoded at a time.
"""

import asyncio
from collections.abc import Callable
from time import perf_counter

from celery_gateway.events.event import decode_object
from celery_gateway.log.batch import Batch, Line, decode
from celery_gateway.log.engine import Engine, Stored
from celery_gateway.stream.block_cache import Block
from celery_gateway.stream.history import Entry
from celery_gateway.stream.lines import committed_entry, control_type, line_keys
from celery_gateway.stream.terms import Terms

BLOCK_BYTES = 128 << 10
"""How much is read from the log at a time, in bytes; the last message may exceed it."""
SLICE_SECONDS = 0.002


class BlockReader:
    """Reads blocks.

    Args:
        engine: the log.
        terms: the terms that count.
        on_batch: is called with the first position, the offset and the time of each batch with entries.
        keeps_origins: see ``lines.line_keys``.
        max_event_bytes: see ``lines.committed_entry``.
        block_bytes: see ``BLOCK_BYTES``.
    """

    def __init__(
        self,
        engine: Engine,
        terms: Terms,
        on_batch: Callable[[int, int, float], None],
        *,
        keeps_origins: bool,
        max_event_bytes: int,
        block_bytes: int = BLOCK_BYTES,
    ) -> None:
        self._engine = engine
        self._terms = terms
        self._on_batch = on_batch
        self._keeps_origins = keeps_origins
        self._max_event_bytes = max_event_bytes
        self._block_bytes = block_bytes
        self._decoding = asyncio.Lock()

    async def read(self, offset: int, position: int) -> Block | None:
        """Return the entries after a position, from messages at an offset or later.

        Returns:
            A block with the first batch that counts and has an entry after the position; it may begin before
            the position, and does so after it if the entries between are not there. A block without entries
            shows how far the messages went. ``None`` at the end of the log.

        Raises:
            LogError: the log cannot be read now.
        """
        messages = await self._engine.read(offset, limit_bytes=self._block_bytes)
        if not messages:
            return None
        async with self._decoding:
            return await self._decode(messages, position)

    async def _decode(self, messages: list[Stored], position: int) -> Block:
        deadline = perf_counter() + SLICE_SECONDS
        found: list[Batch] = []
        for message in messages:
            batch = self._batch(message)
            if batch is not None:
                found.append(batch)
            if perf_counter() >= deadline:
                await asyncio.sleep(0)
                deadline = perf_counter() + SLICE_SECONDS
        start = _start(found, position)
        entries: list[Entry] = []
        batches: list[tuple[int, float]] = []
        after = position if start is None else found[start].head.first - 1
        for batch in found[start:] if start is not None else ():
            first, at = batch.head.first, batch.head.at
            if first != after + len(entries) + 1:
                continue  # it is there twice, or follows one that was lost and sent again
            if batch.lines:
                batches.append((first, at))
            for number, line in enumerate(batch.lines, first):
                entries.append(self._entry(number, line, at))
                if perf_counter() >= deadline:
                    await asyncio.sleep(0)
                    deadline = perf_counter() + SLICE_SECONDS
        return Block(after, entries, batches, messages[-1].offset + 1)

    def _entry(self, position: int, line: Line, at: float) -> Entry:
        event = decode_object(line.json)
        keys = line_keys(line, event, keeps_origins=self._keeps_origins)
        kind = control_type(line, event)
        return committed_entry(self._terms.id_of(position), line.json, keys, kind, at, self._max_event_bytes)

    def _batch(self, message: Stored) -> Batch | None:
        """Return a batch that counts, if the message is one."""
        try:
            batch = decode(message.data)
        except ValueError:
            return None  # of a later version: its entries are reported as lost
        head = batch.head
        if head.kind != "batch" or self._terms.term_of(head.first) != head.term:
            return None
        if batch.lines:
            self._on_batch(head.first, message.offset, head.at)
        return batch


def _start(batches: list[Batch], position: int) -> int | None:
    """Return the index of the batch with the entry after a position, or else of the first later one."""
    later = None
    for index, batch in enumerate(batches):
        first = batch.head.first
        if first <= position + 1 < first + len(batch.lines):
            return index
        if later is None and first > position + 1:
            later = index
    return later
