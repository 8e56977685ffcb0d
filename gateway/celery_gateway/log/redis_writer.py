"""What one gateway appends to the log in Redis, and the retention of the log.

Redis does not remove old entries by itself: whoever appends removes them.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

from celery_gateway.log.engine import LogError, LogGone
from celery_gateway.log.redis_clients import RedisClients
from celery_gateway.log.redis_entries import (
    ENTRY_BYTES,
    Entry,
    entries_of,
    fields,
    id_of,
    offset_at,
    offset_of,
)

CHUNK_MESSAGES = 128
CHUNK_BYTES = 1 << 20
"""Of one request to Redis, about."""
MAX_QUEUE_BYTES = 64 << 20
"""A server that takes messages so slowly that more wait here is treated as away."""
RETENTION_SECONDS = 5.0
CHECKS = 64
"""Retention is checked after each such part of the maximum size, too."""
REMOVED_PART = 16
"""A log that is too large loses this part of its maximum size at once, so that the search is rare."""
MAX_PROBES = 60


class RedisWriter:
    """A queue, and the task that sends it in order.

    Args:
        clients: what connects.
        key: of the stream.
        written: how many bytes the log has had; see ``redis_entries``.
        on_error: called once, when nothing is sent any more.

    Attributes:
        written: how many bytes the log has had, with everything that waits.
    """

    def __init__(
        self,
        clients: RedisClients,
        key: str,
        written: int,
        on_error: Callable[[LogError], None],
        *,
        age_seconds: float,
        max_bytes: int,
    ) -> None:
        self.written = written
        self._clients, self._key, self._on_error = clients, key, on_error
        self._age_seconds, self._max_bytes = age_seconds, max_bytes
        self._client = clients.client()
        self._queue: deque[bytes] = deque()
        self._queue_bytes = 0
        self._wake, self._idle = asyncio.Event(), asyncio.Event()
        self._idle.set()
        # Not at the first append: a gateway reads the end of an old log first.
        self._retained_at = asyncio.get_running_loop().time()
        self._unretained_bytes = max_bytes  # so that the first append checks
        self._task = asyncio.create_task(self._run())

    def append(self, data: bytes) -> None:
        """Send a message.

        Raises:
            LogError: too much waits.
        """
        self._queue.append(data)
        self._queue_bytes += len(data)
        if self._queue_bytes > MAX_QUEUE_BYTES:
            self._fail(LogError(f"{self._clients.address.host_and_port} takes messages too slowly"))
            self._task.cancel()
            raise LogError("too many messages wait for the log")
        self._idle.clear()
        self._wake.set()

    async def close(self, flush_seconds: float) -> None:
        """Send what waits, if that takes no longer than a time, and close the connection."""
        idle = asyncio.create_task(self._idle.wait())
        try:
            waiters: set[asyncio.Future[Any]] = {self._task, idle}
            await asyncio.wait(waiters, timeout=flush_seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            idle.cancel()
            self._task.cancel()
            await asyncio.wait({self._task})

    async def _run(self) -> None:
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                while self._queue:
                    last_id = await self._send(self._take())
                    if not self._queue:
                        self._idle.set()
                    await self._retain_if_due(last_id)
        except LogError as error:
            self._fail(error)
        finally:
            await self._clients.close(self._client)

    def _fail(self, error: LogError) -> None:
        self._queue.clear()
        self._queue_bytes = 0
        self._idle.set()
        self._on_error(error)

    def _take(self) -> list[bytes]:
        chunk = [self._queue.popleft()]
        size = len(chunk[0])
        while self._queue and len(chunk) < CHUNK_MESSAGES and size + len(self._queue[0]) <= CHUNK_BYTES:
            chunk.append(self._queue.popleft())
            size += len(chunk[-1])
        self._queue_bytes -= size
        return chunk

    async def _send(self, chunk: list[bytes]) -> bytes:
        """Append some messages, all or none; return the id of the last one."""
        pipeline = self._client.pipeline(transaction=len(chunk) > 1)
        for data in chunk:
            size = len(data) + ENTRY_BYTES
            self.written += size
            self._unretained_bytes += size
            # NOMKSTREAM: a deleted log is not created by an append.
            pipeline.execute_command("XADD", self._key, "NOMKSTREAM", "*", *fields(data, self.written))
        ids = await self._clients.run(pipeline.execute())
        if None in ids:
            raise LogGone("the log was deleted")
        last_id: bytes = ids[-1]
        return last_id

    # ---- retention

    async def _retain_if_due(self, last_id: bytes) -> None:
        now = asyncio.get_running_loop().time()
        is_due = now - self._retained_at >= RETENTION_SECONDS
        if is_due or self._unretained_bytes * CHECKS >= self._max_bytes:
            self._retained_at, self._unretained_bytes = now, 0
            await self._retain(offset_of(last_id))

    async def _retain(self, last: int) -> None:
        oldest = max(0, last - offset_at(self._age_seconds))
        await self._ask("XTRIM", self._key, "MINID", "~", id_of(oldest))
        first = await self._entry_at(0)
        if first is not None and self.written - first.written > self._max_bytes:
            target = self.written - self._max_bytes + self._max_bytes // REMOVED_PART
            await self._ask(
                "XTRIM", self._key, "MINID", id_of(await self._search(first.offset, last, target))
            )

    async def _search(self, low: int, high: int, target: int) -> int:
        """Return the offset of an entry that was written when the log had had so many bytes, about."""
        for _ in range(MAX_PROBES):
            middle = (low + high) // 2
            entry = await self._entry_at(middle) if low < middle else None
            if entry is None:
                break
            if entry.offset >= high:
                high = middle
            elif abs(entry.written - target) < self._max_bytes // CHECKS:
                return entry.offset
            elif entry.written < target:
                low = entry.offset
            else:
                high = entry.offset
        return low

    async def _entry_at(self, offset: int) -> Entry | None:
        found = entries_of(await self._ask("XRANGE", self._key, id_of(offset), "+", "COUNT", 1))
        return found[0] if found else None

    async def _ask(self, *command: Any) -> Any:
        return await self._clients.run(self._client.execute_command(*command))
