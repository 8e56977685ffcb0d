"""Reports of workers: ``gateway-worker`` for each worker, then for each one that is new or has changed.

Rules: all workers are compared once a second, while a stream reports them (``state.worker_changes``). A
stream that has the workers in its initial snapshot gets only the changes. All calls belong to one running
event loop.
"""

import asyncio
from collections.abc import Callable, Sequence

from celery_gateway.state.worker_changes import WorkerChanges
from celery_gateway.state.worker_roster import Roster
from celery_gateway.state.worker_status import WorkerKey
from celery_gateway.state.worker_table import WorkerTable
from celery_gateway.stream.messages import ControlMessage, worker_message
from celery_gateway.stream.reports import REPORTS_BYTES

LOOK_SECONDS = 1.0
READ_WORKERS = 500
"""How many workers are looked through in one read, visible or not."""

WorkerView = Callable[[WorkerKey, bytes], bytes | None]
"""Returns a worker, encoded, as a client may see it; ``None`` if it may not."""
Times = Callable[[], tuple[float, float]]
"""Returns the time on the clock of the table, and the same in epoch seconds."""


class WorkerWatch:
    """Compares all workers once a second, for all streams that report them.

    Args:
        roster: encodes the workers.
        times: the clocks.
        on_changes: is called when there are changes.
    """

    def __init__(
        self, workers: WorkerTable, roster: Roster, times: Times, on_changes: Callable[[], None]
    ) -> None:
        self.changes = WorkerChanges(workers, roster)
        self._roster = roster
        self._times = times
        self._on_changes = on_changes
        self._readers = 0
        self._number = 0  # of the newest change that was announced
        self._handle: asyncio.TimerHandle | None = None

    def enter(self) -> None:
        """Count a stream that begins."""
        self._readers += 1
        if self._handle is None:
            self._schedule(0.0)

    def leave(self) -> None:
        """Count a stream that has ended."""
        self._readers -= 1
        if not self._readers:
            self.changes.clear()
            if self._handle is not None:
                self._handle.cancel()
                self._handle = None

    def prepare(self) -> bool:
        """Encode some workers; return whether all are up to date, to be listed."""
        return self._roster.prepare(*self._times())

    def _schedule(self, seconds: float) -> None:
        self._handle = asyncio.get_running_loop().call_later(seconds, self._look)

    def _look(self) -> None:
        self.changes.begin()
        is_done = self.changes.step(*self._times())
        self._schedule(LOOK_SECONDS if is_done else 0.0)
        if is_done and self.changes.number != self._number:
            self._number = self.changes.number
            self._on_changes()


class WorkerReports:
    """The reports of workers of one stream.

    Args:
        view: what its client may see.
        has_workers: the client gets all workers in its initial snapshot.
    """

    def __init__(self, watch: WorkerWatch, view: WorkerView, *, has_workers: bool) -> None:
        self._watch = watch
        self._view = view
        # Without a complete look before, nothing shows what changes from now on.
        self._read_up_to = watch.changes.number if has_workers and watch.changes.is_complete else 0
        self._is_listed = self._read_up_to > 0
        self._is_closed = False
        watch.enter()

    @property
    def has_more(self) -> bool:
        changes = self._watch.changes
        return changes.is_complete and changes.number > self._read_up_to and not self._is_closed

    def tick(self) -> None:
        pass

    def read(self, id: bytes) -> Sequence[ControlMessage]:
        if not self._is_listed and not self._watch.prepare():
            return ()
        self._is_listed = True
        reports: list[ControlMessage] = []
        size_bytes = 0
        for count, (number, key, json) in enumerate(self._watch.changes.after(self._read_up_to)):
            if count == READ_WORKERS or size_bytes >= REPORTS_BYTES:
                return reports
            self._read_up_to = number
            if (worker := self._view(key, json)) is not None:
                reports.append(worker_message(id, worker))
                size_bytes += len(worker)
        self._read_up_to = self._watch.changes.number
        return reports

    def close(self) -> None:
        if not self._is_closed:
            self._is_closed = True
            self._watch.leave()
