"""The log in the memory of one process, for tests and benchmarks.

It follows the rules of ``engine`` and nothing else: no other process can read it, and it ends with this one.
"""

import asyncio
from collections.abc import Callable

from celery_gateway.log.engine import FIRST, LogError, LogGone, Place, Stored

TURN_MESSAGES = 64
"""How many callbacks run in one turn of the event loop."""

_GONE = "the log was deleted, or created again"
_NONE = "there is no log"


class MemoryServer:
    """A log, and the engines that use it: ``engine()`` returns a new one.

    Args:
        max_bytes: the oldest messages are removed above this size.
    """

    def __init__(self, *, max_bytes: int = 1 << 30) -> None:
        self._max_bytes = max_bytes
        self._messages: list[Stored] | None = None  # None: there is no log
        self._size = 0
        self._next = FIRST + 1
        self._created = 0  # how many times
        self._engines: set[MemoryLog] = set()
        self._partitioned: set[MemoryLog] = set()

    def engine(self) -> "MemoryLog":
        """Return a new engine, which is not open."""
        return MemoryLog(self)

    def partition(self, engine: "MemoryLog") -> None:
        """Let the connections of an engine stall: its tails get nothing, everything else raises."""
        self._partitioned.add(engine)

    def heal(self, engine: "MemoryLog") -> None:
        """End what ``partition`` began: tails go on where they were."""
        self._partitioned.discard(engine)
        engine._wake()

    def disconnect(self, engine: "MemoryLog") -> None:
        """Cut the connections of an engine: its tails raise, and it has to be opened again."""
        engine._break(LogError("the connection was cut"))

    def skip(self, count: int) -> None:
        """Leave some offsets out, as an engine may do."""
        self._next += count

    # ---- for MemoryLog

    def _create(self) -> int:
        if self._messages is None:
            self._messages, self._size, self._next = [], 0, FIRST + 1
            self._created += 1
        return self._created

    def _delete(self) -> None:
        self._messages = None
        for engine in tuple(self._engines):
            engine._break(LogGone(_GONE))

    def _append(self, data: bytes) -> None:
        messages = self._messages
        assert messages is not None
        messages.append(Stored(self._next, data))
        self._next += 1
        self._size += len(data)
        removed = 0
        while self._size > self._max_bytes and removed < len(messages) - 1:
            self._size -= len(messages[removed].data)
            removed += 1
        del messages[:removed]
        for engine in self._engines:
            engine._wake()

    def _trim(self, before: int) -> None:
        if self._messages:
            index = self._index(before)
            self._size -= sum(len(each.data) for each in self._messages[:index])
            del self._messages[:index]

    def _from(self, start: int, limit: int) -> list[Stored]:
        index = self._index(start)
        return (self._messages or [])[index : index + limit]

    def _index(self, offset: int) -> int:
        low, high = 0, len(self._messages or ())
        while low < high:
            middle = (low + high) // 2
            assert self._messages is not None
            if self._messages[middle].offset < offset:
                low = middle + 1
            else:
                high = middle
        return low

    def _is_reachable(self, engine: "MemoryLog") -> bool:
        return engine not in self._partitioned


class MemoryLog:
    """An engine for a ``MemoryServer``, which makes it."""

    def __init__(self, server: MemoryServer) -> None:
        self._server = server
        self._created = 0  # the log that offsets are of
        self._opened = 0  # the log that is open
        self._error: LogError | None = LogError("the log is not open")
        self._changed = asyncio.Event()

    @property
    def place(self) -> Place:
        return Place("memory", "", "log")

    async def open(self, *, creates: bool = True) -> None:
        await asyncio.sleep(0)
        self._check_reachable()
        if not creates and self._server._messages is None:
            raise LogGone(_NONE)
        if self._error is not None:
            self._opened = self._server._create()
            self._created = self._created or self._opened
            self._error = None
            self._server._engines.add(self)

    async def close(self) -> None:
        self._break(LogError("the log is not open"))

    def append(self, data: bytes) -> None:
        self._check()
        self._check_reachable()
        self._server._append(data)

    async def tail(self, start: int, on_message: Callable[[Stored], None]) -> None:
        self._check_offset(start)
        while True:
            self._changed.clear()
            found = self._server._from(start, TURN_MESSAGES) if self._server._is_reachable(self) else []
            for each in found:
                on_message(each)
                start = each.offset + 1
            if found:
                await asyncio.sleep(0)
            else:
                await self._changed.wait()
            self._check()

    async def read(self, start: int, *, limit_bytes: int, limit: int = 10_000) -> list[Stored]:
        self._check_offset(start)
        await asyncio.sleep(0)
        self._check_offset(start)
        self._check_reachable()
        found, size = [], 0
        for each in self._server._from(start, limit):
            found.append(each)
            size += len(each.data)
            if size >= limit_bytes:
                break
        return found

    async def delete(self) -> None:
        self._check_reachable()
        self._server._delete()

    async def trim(self, before: int) -> None:
        self._check()
        self._check_reachable()
        self._server._trim(before)

    def _wake(self) -> None:
        self._changed.set()

    def _break(self, error: LogError) -> None:
        self._error = error
        self._server._engines.discard(self)
        self._wake()

    def _check(self) -> None:
        if self._error is not None:
            raise type(self._error)(str(self._error))

    def _check_offset(self, start: int) -> None:
        self._check()
        if start <= FIRST:
            self._created = self._opened
        elif self._created != self._opened:
            raise LogGone(_GONE)

    def _check_reachable(self) -> None:
        if not self._server._is_reachable(self):
            raise LogError("the log cannot be reached")
