"""CPU time for the input of connections: how much in a turn of the event loop, in which order, and in all.

Rules: addresses take turns, whatever their number of connections. A connection whose input takes more than
``INPUT_SHARE`` of a core for long is exhausted; its owner ends it.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Final

from celery_gateway.stream.round_robin import RoundRobin
from celery_gateway.stream.unexpected_errors import report

INPUT_SECONDS_PER_TURN: Final = 0.002
"""CPU time that one connection's input may take in one turn of the event loop."""
MAX_INPUT_SECONDS: Final = 0.25
"""CPU time that a connection's input may take at once, beyond ``INPUT_SHARE``."""
INPUT_SHARE: Final = 0.05
"""The share of a core that a connection's input may take for long."""
TURN_SECONDS: Final = 0.004
"""CPU time for the input of all connections in one turn of the event loop."""


class InputScheduler:
    """Processes input for some milliseconds in each turn of the event loop, round-robin by address."""

    def __init__(self) -> None:
        self._left_seconds = TURN_SECONDS
        self._is_scheduled = False
        self._queue: RoundRobin[Callable[[], float]] = RoundRobin()

    def add(self, client: str, process: Callable[[], float], *, is_more: bool = False) -> None:
        """Call ``process`` now or in one of the next turns.

        Args:
            client: the address of the connection.
            process: processes some input; returns the CPU time that it took, in seconds.
            is_more: it was called in this turn already, so it is queued.
        """
        if not self._is_scheduled:
            self._is_scheduled = True
            asyncio.get_running_loop().call_soon(self._run_turn)
        if self._left_seconds > 0 and not self._queue and not is_more:
            self._left_seconds -= _seconds_of(process)
        else:
            self._queue.add(client, process)

    def _run_turn(self) -> None:
        self._left_seconds = TURN_SECONDS
        for _ in range(len(self._queue)):  # not those that are added meanwhile
            if self._left_seconds <= 0:
                break
            self._left_seconds -= _seconds_of(self._queue.pop())
        self._is_scheduled = bool(self._queue)
        if self._is_scheduled:
            asyncio.get_running_loop().call_soon(self._run_turn)


def _seconds_of(process: Callable[[], float]) -> float:
    """Call a function and return its result; an unexpected error does not end the turns of others."""
    try:
        return process()
    except Exception as error:
        report("a connection's input could not be processed", error)
        return 0.0


class InputMeter:
    """Measures the CPU time of one connection's input, and whether it is too much."""

    __slots__ = ("_left_seconds", "_filled_at", "_started_at")

    def __init__(self) -> None:
        self._left_seconds = MAX_INPUT_SECONDS
        self._filled_at = time.monotonic()
        self._started_at = 0.0

    def start(self) -> None:
        """Start a turn."""
        self._started_at = time.thread_time()

    def refill(self) -> None:
        """Restore the whole allowance, as after a complete request."""
        self._left_seconds = MAX_INPUT_SECONDS

    def is_over(self) -> bool:
        """Return whether the turn has taken its time."""
        return time.thread_time() - self._started_at >= INPUT_SECONDS_PER_TURN

    def stop(self) -> float:
        """End a turn; return its CPU time in seconds."""
        now = time.monotonic()
        gained = (now - self._filled_at) * INPUT_SHARE
        self._filled_at = now
        used = time.thread_time() - self._started_at
        self._left_seconds = min(MAX_INPUT_SECONDS, self._left_seconds + gained) - used
        return used

    @property
    def is_exhausted(self) -> bool:
        """Whether the input has taken more CPU time than the allowance."""
        return self._left_seconds < 0
