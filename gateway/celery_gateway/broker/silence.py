"""Detecting a silent broker, by the time in which something could have been read.

- While other work holds the event loop, or the process is stopped (SIGSTOP), replies and heartbeats of the
  broker wait in the socket, and every deadline passes. So silence is counted in ticks of the event loop: a
  late tick counts as one tick, and between two ticks the loop reads what has arrived.
- Anything that is read ends the silence. A broker that is slow to answer is not silent.
- The same ticks send our heartbeats. aiormq's own heartbeats pass through two tasks, and need several turns.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

TICK_SECONDS = 0.5
MIN_TICKS = 10
"""A silence has at least so many ticks, and so many chances to read."""


class BrokerSilentError(Exception):
    """Nothing was read from the broker for too long, while the event loop ran."""


class SilenceMonitor:
    """Monitors one connection, from ``start`` to ``stop``.

    Args:
        reads: returns how often something was read.
        send_heartbeat: called at intervals.
        limit_seconds: how long the broker may be silent.
        heartbeat_seconds: the interval of the heartbeats; 0 for none.

    Attributes:
        ended: raises ``BrokerSilentError`` when the broker has been silent for too long.
    """

    def __init__(
        self,
        reads: Callable[[], int],
        send_heartbeat: Callable[[], None],
        limit_seconds: float,
        heartbeat_seconds: float,
    ) -> None:
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._reads = reads
        self._send_heartbeat = send_heartbeat
        self._limit_seconds = limit_seconds
        self._heartbeat_seconds = heartbeat_seconds
        self._tick_seconds = min(TICK_SECONDS, limit_seconds / MIN_TICKS, heartbeat_seconds or TICK_SECONDS)
        self._last_reads = reads()
        self._silent_seconds = 0.0
        self._sent_at = self._ticked_at = 0.0  # loop time
        self._handle: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin to monitor."""
        self._sent_at = self._ticked_at = asyncio.get_running_loop().time()
        self._schedule()

    def stop(self) -> None:
        """Stop monitoring. May be called again."""
        self._cancel()
        self.ended.cancel()

    def _schedule(self) -> None:
        self._handle = asyncio.get_running_loop().call_later(self._tick_seconds, self._tick)

    def _cancel(self) -> None:
        if self._handle is not None:
            self._handle.cancel()

    def _tick(self) -> None:
        self._schedule()  # first, so that the ticks continue after an unexpected error
        now = asyncio.get_running_loop().time()
        passed_seconds, self._ticked_at = now - self._ticked_at, now
        reads = self._reads()
        if reads != self._last_reads:
            self._last_reads, self._silent_seconds = reads, 0.0
        else:
            self._silent_seconds += min(passed_seconds, self._tick_seconds)
        if self._silent_seconds >= self._limit_seconds:
            self._cancel()
            if not self.ended.done():
                self.ended.set_exception(BrokerSilentError(f"nothing was read for {self._limit_seconds:g} s"))
            return
        if self._heartbeat_seconds and now - self._sent_at >= self._heartbeat_seconds:
            self._sent_at = now
            self._send_heartbeat()


@asynccontextmanager
async def running_timeout(seconds: float) -> AsyncIterator[None]:
    """Limit the block to some seconds in which the event loop runs.

    Raises:
        TimeoutError: the seconds have passed.
    """
    loop = asyncio.get_running_loop()
    tick_seconds = min(TICK_SECONDS, seconds / MIN_TICKS)
    left_seconds, ticked_at = seconds, loop.time()
    handle: asyncio.TimerHandle

    def tick() -> None:
        nonlocal left_seconds, ticked_at, handle
        now = loop.time()
        left_seconds -= min(now - ticked_at, tick_seconds)
        ticked_at = now
        if left_seconds > 0:
            handle = loop.call_later(tick_seconds, tick)
        else:
            limit.reschedule(now)

    async with asyncio.timeout(None) as limit:
        handle = loop.call_later(tick_seconds, tick)
        try:
            yield
        finally:
            handle.cancel()
