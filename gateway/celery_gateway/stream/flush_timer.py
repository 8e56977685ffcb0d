"""When the hub flushes.

Flushes are paced by their cost: at once when the hub is idle, and after a flush a pause of four times as long
as the flush took, 5 to 50 ms. So fan-out leaves most of the loop to ingest, and a costly flush has more
events.
"""

import asyncio
from collections.abc import Callable
from time import perf_counter

PAUSE_PER_FLUSH = 4
"""Measured at 500 clients × 1000 events/s, where a bare send() loop cost 0.48 µs a delivery: with 2, 0.87 µs
and a p99 of 44 ms; with 4, 0.53 µs and 52 ms; with 8, 0.43 µs and 69 ms."""
MIN_PAUSE_SECONDS = 0.005
"""A flush costs a system call for each client, and wakes it up: events that follow at once are sent
together."""
MAX_PAUSE_SECONDS = 0.05
"""A delay that people do not notice, whatever the number of clients."""


class FlushTimer:
    """Schedules flushes. All calls belong to one running event loop.

    Args:
        flush: is called when a flush is due; it calls ``start`` and ``stop``.
    """

    __slots__ = ("is_scheduled", "_flush", "_handle", "_not_before", "_started_at")

    def __init__(self, flush: Callable[[], None]) -> None:
        self.is_scheduled = False
        self._flush = flush
        self._handle: asyncio.Handle | None = None
        self._not_before = 0.0  # loop time of the end of the pause
        self._started_at = 0.0

    def schedule(self) -> None:
        """Schedule a flush, unless there is one."""
        if not self.is_scheduled:
            self.is_scheduled = True
            loop = asyncio.get_running_loop()
            if self._not_before > loop.time():
                self._handle = loop.call_at(self._not_before, self._flush)
            else:
                self._handle = loop.call_soon(self._flush)

    def start(self) -> None:
        """Begin a flush, instead of the one that is scheduled."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        self.is_scheduled = False
        self._started_at = perf_counter()

    def stop(self, now: float) -> None:
        """End the flush, and begin the pause after it.

        Args:
            now: loop time, in seconds.
        """
        took_seconds = perf_counter() - self._started_at
        self._not_before = now + max(
            MIN_PAUSE_SECONDS, min(PAUSE_PER_FLUSH * took_seconds, MAX_PAUSE_SECONDS)
        )
