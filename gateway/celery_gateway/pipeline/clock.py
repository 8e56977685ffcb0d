"""The clock of the state: the time at which the events that are processed arrived at a gateway.

Rules: it is the present, unless old events are read (from a shared log, or from a broker that has kept them
while no gateway ran). Then it is behind, and catches up with them; while it is behind, it never goes back.
"""

import asyncio
import time
from collections.abc import Callable


class Clock:
    """The clock of one pipeline, in its event loop.

    Args:
        wall: returns the present in epoch seconds.

    Attributes:
        wall: the same.
    """

    def __init__(self, wall: Callable[[], float] = time.time) -> None:
        self.wall = wall
        self._lag_seconds = 0.0
        self._last = float("-inf")

    def now(self) -> float:
        """Return the time on the clock of the event loop, in seconds."""
        now = asyncio.get_running_loop().time()
        if not self._lag_seconds:
            return now
        self._last = max(self._last, now - self._lag_seconds)
        return self._last

    def time(self) -> float:
        """Return the same in epoch seconds."""
        return self.wall() - self._lag_seconds

    def set_back_to(self, at: float) -> None:
        """Set the clock to the arrival of events that are processed now, in epoch seconds."""
        lag_seconds = self.wall() - at
        self._lag_seconds = lag_seconds if lag_seconds > MIN_LAG_SECONDS else 0.0

    def set_to_present(self) -> None:
        """Set the clock to the present."""
        self._lag_seconds = 0.0


MIN_LAG_SECONDS = 0.05
"""A smaller lag is none: the clock of the server that wrote the event is not so exact either."""
