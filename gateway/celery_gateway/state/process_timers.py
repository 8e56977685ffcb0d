"""When the processes of workers are checked next: whether they are gone.

Each process has one timer at most. A heap has the times of all timers; those that were set again or cancelled
stay in it until they expire, or until there are too many of them. Pure.
"""

from collections.abc import Iterator
from heapq import heapify, heappop, heappush

from celery_gateway.state.process import Process

_SPARE_TIMERS = 1_000
"""The maximum number of outdated timers in the heap, besides one for each timer that is not."""


class ProcessTimers:
    """The timers, on the clock of ``now``."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int]] = []  # time, number of the timer
        self._processes: dict[int, Process] = {}  # by the number of the timer, without those outdated
        self._number = 0

    def set(self, process: Process, at: float) -> None:
        """Check a process at a time, or earlier if its timer is set so."""
        timer = process.timer
        if timer is not None:
            if timer[0] <= at:
                return
            del self._processes[timer[1]]
        self._number += 1
        process.timer = timer = (at, self._number)
        self._processes[self._number] = process
        heappush(self._heap, timer)
        self.tidy()

    def cancel(self, process: Process) -> None:
        """Remove the timer of a process. After many of them, call ``tidy``."""
        if process.timer is not None:
            del self._processes[process.timer[1]]
            process.timer = None

    def tidy(self) -> None:
        """Remove the outdated timers from the heap, if they are many."""
        if len(self._heap) > 2 * len(self._processes) + _SPARE_TIMERS:
            self._heap = [timer for timer in self._heap if timer[1] in self._processes]
            heapify(self._heap)

    def has_expired(self, now: float) -> bool:
        """Return whether a timer has expired; it may be outdated."""
        return bool(self._heap) and self._heap[0][0] <= now

    def expire(self, now: float, limit: int) -> Iterator[Process]:
        """Remove expired timers, at most ``limit``; yield their processes. New ones may be set meanwhile."""
        while limit and self.has_expired(now):
            limit -= 1
            _, number = heappop(self._heap)
            process = self._processes.pop(number, None)
            if process is not None:
                process.timer = None
                yield process
