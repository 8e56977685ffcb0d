"""Subscriptions, and the groups in which they share what they get.

Subscriptions with an equal filter and the same framing form a group. The group reads the history once a
flush, and hands the same bytes to each member that is in step. A member that has not taken what it was
handed before falls out of step: it goes on with a cursor of its own until it has caught up. There are no
queues: a member holds at most one chunk, which it shares with its group.
"""

import asyncio
import sys
from collections.abc import Callable

from gateway.control import CloseReason, Control, GapReason, Resume, closed, gap, opened
from gateway.cursor import Cursor, Framing, Matcher
from gateway.history import History

CHUNK_BYTES = 64 << 10
"""What a subscription that catches up gets at a time."""
CHUNK_ENTRIES = 2_000
"""How far it looks at a time: about a millisecond of matching."""


class Group:
    """Subscriptions that get the same bytes."""

    def __init__(self, history: History, filter: Matcher, framing: Framing, position: int) -> None:
        self._history = history
        self._filter = filter
        self._cursor = Cursor(history, filter, framing, position)
        self.framing = framing
        self.members: set[Subscription] = set()

    @property
    def position(self) -> int:
        """Up to where the group has read; members in step have been handed all of it."""
        return self._cursor.position

    def flush(self, up_to: int) -> None:
        """Read on, and hand what matches to the members in step."""
        before = self._cursor.position
        chunk = self._cursor.read(up_to, sys.maxsize, sys.maxsize)
        if chunk:
            for member in self.members:
                member.offer(chunk, before)

    def cursor_at(self, position: int) -> Cursor:
        """Return a cursor of its own for a member that is out of step."""
        return Cursor(self._history, self._filter, self.framing, position)

    def id_of(self, position: int) -> bytes:
        """Return a position as clients see it."""
        return self._history.id_of(position)


class Subscription:
    """One client's place in the stream. Made by ``Hub.subscribe``; ``close`` it when the client is gone.

    Order and completeness: ``read`` gives ``gateway-open``, then every matching entry once, in the log's
    order, with a ``gateway-gap`` wherever some were evicted before they were read.
    """

    def __init__(
        self, group: Group, on_close: Callable[["Subscription"], None], resume: Resume, cursor: Cursor | None
    ) -> None:
        self._group = group
        self._on_close = on_close
        self._cursor = cursor  # None: in step with the group
        self._chunk = self._control(opened(self.id, resume))
        self._closing: CloseReason | None = None
        self._woken: asyncio.Future[None] | None = None
        self.is_ended = False

    @property
    def has_more(self) -> bool:
        """True if there is more to read at once, even after ``read`` gave nothing."""
        return self._cursor is not None or self._closing is not None

    @property
    def id(self) -> bytes:
        """The position up to which everything was handed out by ``read``, as clients see it."""
        return self._group.id_of((self._cursor or self._group).position)

    def offer(self, chunk: bytes, position_before: int) -> None:
        """Take the group's next chunk, which begins after ``position_before``; the group calls this."""
        if self._cursor is not None:
            return
        if self._chunk:
            self._cursor = self._group.cursor_at(position_before)
        else:
            self._chunk = chunk
        self._wake()

    def read(self) -> bytes:
        """Return the next bytes for the client, or nothing when there are none for now.

        After the last ones (``gateway-close``) ``is_ended`` is true.
        """
        if self._chunk:
            chunk, self._chunk = self._chunk, b""
            return chunk
        if self._closing is not None:
            chunk = self._control(closed(self.id, self._closing))
            self.close()
            return chunk
        if self._cursor is None:
            return b""
        chunk = self._cursor.read(self._group.position, CHUNK_BYTES, CHUNK_ENTRIES)
        if self._cursor.position == self._group.position:
            self._cursor = None
        return chunk

    def lose(self, reason: GapReason) -> None:
        """Tell the client, next, that events may be missing before ``id``."""
        self._chunk += self._control(gap(self.id, reason, None))

    def keepalive(self) -> bytes:
        """Return a keep-alive that moves the client's position; for when ``read`` gives nothing."""
        return self._group.framing.keepalive(self.id)

    def end(self, reason: CloseReason) -> None:
        """Let the stream end with ``gateway-close`` after what was already handed out."""
        self._closing = reason
        self._wake()

    def close(self) -> None:
        """Leave the group. May be called again."""
        if not self.is_ended:
            self.is_ended = True
            self._on_close(self)
            self._wake()

    async def wait(self) -> None:
        """Return when ``read`` has something again. For one caller at a time."""
        if self._chunk or self.has_more or self.is_ended:
            return
        self._woken = asyncio.get_running_loop().create_future()
        try:
            await self._woken
        finally:
            self._woken = None

    def _wake(self) -> None:
        if self._woken is not None and not self._woken.done():
            self._woken.set_result(None)

    def _control(self, message: Control) -> bytes:
        return self._group.framing.control(self.id, message)
