"""Subscriptions: one client's place in the stream each.

In step with its group a subscription is handed what the others get (see ``group``). There are no queues: one
that cannot take more leaves the step with a cursor into the history, reads by itself until it has caught up,
and then is in step again.

A subscription is carried in one of two ways. Pulled: ``read`` and ``wait``, for a transport that is awaited.
Pushed: ``attach`` a transport's ``write``, then ``pause`` and ``resume`` as its buffer fills and drains.
"""

import asyncio
import random
from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

from gateway.control import CloseReason, Control, Resume, closed, filtered, opened
from gateway.cursor import Cursor
from gateway.group import Group
from gateway.index import Matcher

CHUNK_BYTES = 64 << 10
"""What a subscription that catches up gets at a time."""
CHUNK_ENTRIES = 500
"""How far it looks at a time: under a millisecond of matching, unless the filter is all wildcards."""
READS_AT_ONCE = 4
"""How often a pushed one looks before it lets others run."""
KEEPALIVE_FROM = 0.75
"""From this part of the interval on a silent stream is kept alive."""
NO_RESUME = b"~"
"""Makes an id one of no log: a client that is cut off amid a prologue has to begin anew."""
_FINAL = frozenset({None, "ready", "lost", "unknown"})
RETRY_MS = (500, 5_000)
"""When clients of a gateway that goes away are asked to come back; each at another time."""


class Page(NamedTuple):
    """A message of a prologue and its id; with the last one, the position that the stream goes on from."""

    message: Control
    id: bytes
    position: int | None


class Prologue(Protocol):
    """What a stream begins with, read a page at a time; the stream then goes on from where it ends."""

    @property
    def reads(self) -> int:
        """How often it was read."""

    def read(self) -> Page | None:
        """Return the next page, if there is one already."""

    def refilter(self, filter: Matcher) -> None:
        """Take note of another filter; a page that was given as the last stays so."""


class Subscription:
    """One client's place in the stream. Made by ``Hub.subscribe``; ``close`` it when the client is gone.

    Order and completeness: it gives ``gateway-open``, then every matching entry once, in the log's order,
    with a ``gateway-gap`` wherever some were evicted before they were read. A prologue goes before the
    entries, or, where the stream was resumed, its last page stands in its place among them.
    """

    __slots__ = (
        "group",
        "is_ended",
        "_cursor",
        "_prologue",
        "_last_page",
        "_catches_up",
        "_chunk",
        "_take",
        "_on_close",
        "_on_end",
        "closing",
        "_close_details",
        "is_paused",
        "_progress",
        "_woken",
        "__weakref__",
    )

    def __init__(
        self,
        group: Group,
        on_close: Callable[["Subscription"], None],
        resume: Resume,
        position: int,
        prologue: "Prologue | None" = None,
        *,
        catches_up: bool = False,
    ) -> None:
        self.group = group
        self._on_close = on_close
        self.is_ended = False
        self._cursor: Cursor | None = group.cursor_at(position)  # None: in step
        self._prologue = prologue
        self._last_page: Page | None = None  # of the prologue, when events have to come before it
        self._catches_up = catches_up
        self._chunk = b""  # handed to it, not yet read
        self._take: Callable[[bytes], None] = self._hold
        self._on_end: Callable[[CloseReason], None] | None = None
        self.closing: CloseReason | None = None
        self._close_details: Mapping[str, object] | None = None
        self.is_paused = False
        self._progress: tuple[float, object] = (0.0, None)
        self._woken: asyncio.Future[None] | None = None
        group.size += 1
        self.tell(opened(self.id, resume))

    @property
    def unread_bytes(self) -> int:
        """How much waits to be read, when pulled."""
        return len(self._chunk)

    @property
    def has_more(self) -> bool:
        """True if there is more to read at once, even after ``read`` gave nothing."""
        return self.closing is not None or self._cursor is not None

    @property
    def position(self) -> int:
        """Up to where everything was handed out."""
        return self.group.position if self._cursor is None else self._cursor.position

    @property
    def id(self) -> bytes:
        """The position as clients see it; to be resumed from only after what goes before the stream."""
        id = self.group.id_of(self.position)
        return id if self._prologue is None or self._catches_up else id + NO_RESUME

    def tell(self, message: Control) -> None:
        """Say something to this client alone, before whatever it has not been handed yet."""
        if self.is_ended or self.closing is not None:
            return
        framing = self.group.framing
        told = framing.batch([framing.control(self.id, message)])
        if self._on_end is None:
            self._chunk += told
            self._wake()
        else:
            self._take(told)

    def read(self) -> bytes:
        """Return the next bytes for the client, or nothing when there are none for now.

        After the last ones (``gateway-close``) ``is_ended`` is true.
        """
        if self._chunk:
            chunk, self._chunk = self._chunk, b""
            return chunk
        if self.is_ended:
            return b""
        if self.closing is not None and (self._cursor is None or self.is_paused):
            framing = self.group.framing
            message = closed(self.id, self.closing, random.randint(*RETRY_MS), self._close_details)
            chunk = framing.batch([framing.control(self.id, message)])
            self.close()
            return chunk
        if self._prologue is not None:
            return self._read_prologue(self._prologue)
        if self._cursor is None:
            return b""
        chunk = self._cursor.read(self.group.position, CHUNK_BYTES, CHUNK_ENTRIES)
        if self._cursor.position == self.group.position:
            self._cursor = None
            self.group.in_step[self] = self._take
        return chunk

    def _read_prologue(self, prologue: "Prologue") -> bytes:
        page = self._last_page or prologue.read()
        if page is None:
            return b""
        framing = self.group.framing
        said = framing.batch([framing.control(page.id, page.message)])
        if page.position is None:
            return said
        if not self._catches_up or self._cursor is None:
            self._cursor = self.group.cursor_at(page.position)
            self._prologue = None
            return said
        events = self._cursor.read(page.position, CHUNK_BYTES, CHUNK_ENTRIES)
        if self._cursor.position < page.position:
            self._last_page = page
            return events
        self._prologue = self._last_page = None
        # Beyond the page there is a gap and nothing else: what was lost came after what the page tells.
        return events + said if self._cursor.position == page.position else said + events

    async def wait(self) -> None:
        """Return when ``read`` has something again. For one caller at a time."""
        if self._chunk or self.has_more or self.is_ended:
            return
        self._woken = asyncio.get_running_loop().create_future()
        try:
            await self._woken
        finally:
            self._woken = None

    def attach(
        self,
        write: Callable[[bytes], None],
        on_end: Callable[[CloseReason], None],
        *,
        is_paused: bool = False,
    ) -> None:
        """Push from now on: call ``write`` with bytes as they come, until ``pause``.

        Args:
            on_end: is called when the stream has been ended from here, after the last bytes.
            is_paused: the transport can take nothing for now but how the stream begins.
        """
        self._take, self._on_end = write, on_end
        self._progress = asyncio.get_running_loop().time(), None
        self.is_paused = is_paused
        chunk, self._chunk = self._chunk, b""
        write(chunk)
        # Not at once: a client may replace it with the next of many messages that it sent together.
        asyncio.get_running_loop().call_soon(self._go_on)

    def keepalive(self) -> bytes:
        """Return what moves the position of a client to which there is nothing to say. When in step."""
        return self.group.keepalive()

    def pause(self) -> None:
        """Take no more bytes for now: the transport's buffer is full."""
        self.is_paused = True
        self._leave_step()

    def resume(self) -> None:
        """Take bytes again, at first those that were missed."""
        self.is_paused = False
        if self.is_ended:
            return
        for _ in range(READS_AT_ONCE):
            chunk = self.read()
            if chunk:
                self._take(chunk)
            elif self._cursor is None and self.closing is None:
                return
            if self._is_done():
                return
        asyncio.get_running_loop().call_soon(self._go_on)

    def tick(self, now: float, keepalive_seconds: float, slow_seconds: float, buffered_bytes: int) -> None:
        """Keep an idle stream alive, and end one that makes no progress. For a pushed one, now and then.

        Args:
            now: on the event loop's clock.
            keepalive_seconds: how long it may be silent; call this four times as often.
            slow_seconds: how long it may make no progress.
            buffered_bytes: what the transport has not got rid of yet.
        """
        if self._cursor is None:
            if now - max(self.group.written_at, self._progress[0]) >= keepalive_seconds * KEEPALIVE_FROM:
                self._progress = now, None
                self._take(self.keepalive())
            return
        reads = 0 if self._prologue is None else self._prologue.reads
        progress = self._cursor.position, buffered_bytes, reads
        if progress != self._progress[1]:
            self._progress = now, progress
        elif now - self._progress[0] >= slow_seconds:
            self.end("slow")

    def move(self, group: Group) -> None:
        """Go over to another group, at the place where it is, and tell the client so; the hub calls this."""
        self._leave_step()
        self.group.size -= 1
        if self._prologue is not None:
            self._prologue.refilter(group.filter)
        self._cursor = group.cursor_at(self.position)
        self.group = group
        group.size += 1
        self.tell(filtered(self.id))
        if self._on_end is not None:
            asyncio.get_running_loop().call_soon(self._go_on)  # for the same reason

    def end(self, reason: CloseReason, details: Mapping[str, object] | None = None) -> None:
        """Let the stream end with ``gateway-close``, after what there is for it.

        One whose transport is full now is cut off, to resume later; not if what it waits for has come to an
        end, for that would come to the same each time.

        Args:
            details: more fields of that message.
        """
        if self.is_ended:
            return
        self.closing, self._close_details = reason, details
        if self._on_end is None:
            self._wake()
        elif self.is_paused:
            self._is_done()
        else:
            self.resume()

    def close(self) -> None:
        """Leave; nothing more is handed out. May be called again."""
        if not self.is_ended:
            self.is_ended = True
            self._leave_step()
            self.group.size -= 1
            self._on_close(self)
            self._wake()

    def _hold(self, chunk: bytes) -> None:
        """Take a chunk when pulled: one at a time; what comes before it is read is read from the history."""
        self._chunk += chunk
        self._leave_step()
        self._wake()

    def _leave_step(self) -> None:
        if self._cursor is None:
            self._cursor = self.group.cursor_at(self.group.position)
            del self.group.in_step[self]

    def _is_done(self) -> bool:
        """Tell whether a pushed one is to take no more, and if it has just been ended, say so."""
        if self.is_paused and self.closing not in _FINAL and not self.is_ended:
            # What it has missed would not get through: say where to resume, and go.
            self._take(self.read())
        if self.is_ended and self.closing is not None and self._on_end is not None:
            self._on_end(self.closing)
        return self.is_ended or self.is_paused

    def _go_on(self) -> None:
        if not self.is_paused and not self.is_ended:
            self.resume()

    def _wake(self) -> None:
        if self._woken is not None and not self._woken.done():
            self._woken.set_result(None)
