"""What the pipeline emits by itself: events whose wait for a name has ended, and the loss of tasks.

Rules: nothing is emitted between ``stop`` and the next call of another method. The checks run each second and
after each worker event; they take a few milliseconds at once at most.
"""

import asyncio
from collections.abc import Callable, Iterable

from celery_gateway.events.event import Event
from celery_gateway.pipeline.clock import Clock
from celery_gateway.state.task_table import TaskTable
from celery_gateway.state.worker_table import WorkerTable

TICK_SECONDS = 1.0
"""Interval of the checks for workers that are gone, in seconds."""
LOST_PAUSE_SECONDS = 0.01
"""Pause between parts of such a check, if there are many such workers, in seconds."""
STANDSTILL_SECONDS = 3.0
"""A longer time between two ticks, in seconds, means that the gateway itself did not run."""


class Timers:
    """The timers of one pipeline.

    Args:
        emit: emits joined events.
        on_tick: called each second.
    """

    def __init__(
        self,
        tasks: TaskTable,
        workers: WorkerTable,
        clock: Clock,
        emit: Callable[[Iterable[Event]], None],
        on_tick: Callable[[], None],
    ) -> None:
        self._tasks = tasks
        self._workers = workers
        self._clock = clock
        self._emit = emit
        self._on_tick = on_tick
        self._release_handle: asyncio.TimerHandle | None = None
        self._tick_handle: asyncio.TimerHandle | None = None
        self._lost_handle: asyncio.TimerHandle | None = None
        self._ticked_at = 0.0

    def start(self) -> None:
        """Start to tick."""
        self._ticked_at = asyncio.get_running_loop().time()
        self._schedule_tick()

    def stop(self) -> None:
        """Emit nothing until the next event."""
        for handle in (self._release_handle, self._lost_handle):
            if handle is not None:
                handle.cancel()
        self._release_handle = self._lost_handle = None

    def end(self) -> None:
        """Stop, and tick no more."""
        self.stop()
        if self._tick_handle is not None:
            self._tick_handle.cancel()

    def schedule_release(self) -> None:
        """Start the timer of the next event whose wait for its task ends."""
        deadline = self._tasks.next_deadline
        if deadline is not None and self._release_handle is None:
            seconds = max(0.0, deadline - self._clock.now())
            self._release_handle = asyncio.get_running_loop().call_later(seconds, self._release)

    def emit_lost(self) -> None:
        """Emit the loss of tasks whose processes are gone."""
        now, time = self._clock.now(), self._clock.time()
        for process, reason, successor in self._workers.find_gone(now):
            self._emit(self._tasks.mark_lost(process, reason, time, successor))
        self._emit(self._tasks.mark_lost_late(time))
        if self._lost_handle is None and self._workers.has_more(now):
            self._lost_handle = asyncio.get_running_loop().call_later(
                LOST_PAUSE_SECONDS, self._emit_more_lost
            )

    def _emit_more_lost(self) -> None:
        self._lost_handle = None
        self.emit_lost()

    def _schedule_tick(self) -> None:
        self._tick_handle = asyncio.get_running_loop().call_later(TICK_SECONDS, self._tick)

    def _tick(self) -> None:
        now = asyncio.get_running_loop().time()
        passed_seconds, self._ticked_at = now - self._ticked_at, now
        self._schedule_tick()
        if passed_seconds > STANDSTILL_SECONDS:  # messages of that time are still to be read
            self._workers.on_pause(passed_seconds)
        self._on_tick()

    def _release(self) -> None:
        self._release_handle = None
        self._emit(self._tasks.release(self._clock.now()))
        self.schedule_release()
