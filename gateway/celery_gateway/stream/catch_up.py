"""Catch-up: subscriptions that lag read in turn, a few milliseconds at a time.

Rules:

- Replays, snapshots and slow subscribers can have much to read. Each asks for one turn at a time.
- Turns run in slices of ``SLICE_SECONDS`` or ``SLICE_BYTES``. Between two slices the event loop runs
  everything else, above all the delivery of new events.
- Turns go round among the clients' addresses, and among the subscriptions of each address (``round_robin``).
- Subscriptions that are almost live go first, with at most half of the time and half of the bytes: they need
  little, and do not wait for a thousand replays. At least one other subscription has a turn in each slice.
"""

import asyncio
from time import perf_counter
from typing import Protocol

from celery_gateway.stream.round_robin import RoundRobin

SLICE_SECONDS = 0.003
SLICE_BYTES = 1 << 20
"""Maximum number of bytes in a slice, exceeded by at most one read: transports write them after the slice."""
SHORT_ENTRIES = 100
"""Maximum number of unread entries of a subscription that is almost live."""


class LaggingReader(Protocol):
    """A subscription that lags, as the scheduler uses it."""

    @property
    def client(self) -> str:
        """The address of its client."""

    @property
    def backlog(self) -> int:
        """How many entries it may have to read."""

    def catch_up(self) -> int:
        """Read once and return the number of bytes; ask for another turn if there is more. Never raises."""


class CatchUpScheduler:
    """Schedules the turns of lagging readers. All calls belong to one running event loop."""

    def __init__(self) -> None:
        self._short: RoundRobin[LaggingReader] = RoundRobin()
        self._long: RoundRobin[LaggingReader] = RoundRobin()
        self._handle: asyncio.Handle | None = None

    def __len__(self) -> int:
        """Return the number of waiting readers."""
        return len(self._short) + len(self._long)

    def add(self, reader: LaggingReader) -> None:
        """Give a reader one turn, soon. A reader that waits already keeps its place."""
        if reader in self._short or reader in self._long:
            return
        queue = self._short if reader.backlog <= SHORT_ENTRIES else self._long
        queue.add(reader.client, reader)
        self._schedule()

    def discard(self, reader: LaggingReader) -> None:
        """Cancel the turn of a reader, if it waits for one."""
        self._short.discard(reader)
        self._long.discard(reader)

    def _schedule(self) -> None:
        if self._handle is None:
            self._handle = asyncio.get_running_loop().call_soon(self._run_slice)

    def _run_slice(self) -> None:
        self._handle = None
        started = perf_counter()
        half = SLICE_BYTES // 2
        bytes_left = half + _serve(self._short, started + SLICE_SECONDS / 2, half)
        bytes_left = _serve(self._long, started + SLICE_SECONDS, bytes_left)
        if not self._long:
            _serve(self._short, started + SLICE_SECONDS, bytes_left, min_turns=0)
        if len(self):
            self._schedule()


def _serve(queue: RoundRobin[LaggingReader], deadline: float, bytes_left: int, min_turns: int = 1) -> int:
    """Give waiting readers their turns.

    Args:
        deadline: a time of ``perf_counter``; no turn begins after it.
        bytes_left: how many bytes they may read; the last read may exceed it.
        min_turns: how many turns there are in any case, if so many readers wait.

    Returns:
        How many bytes are left; negative if the last read exceeded the limit.
    """
    while queue and (min_turns > 0 or (bytes_left > 0 and perf_counter() < deadline)):
        min_turns -= 1
        bytes_left -= queue.pop().catch_up()
    return bytes_left
