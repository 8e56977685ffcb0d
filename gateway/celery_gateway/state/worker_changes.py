"""Which workers have changed, for streams that report them.

A worker has changed if it is new, or if its ``status``, ``alive`` or ``sends_task_events`` is not that of the
last look. A look compares some workers at a time, so that a large table does not delay anything. It
finds a worker that was killed, too: no event reports that. Pure.
"""

from collections.abc import Iterator

from celery_gateway.state.numbered_changes import NumberedChanges
from celery_gateway.state.worker_roster import Roster
from celery_gateway.state.worker_status import WorkerKey
from celery_gateway.state.worker_table import WorkerTable

WORKERS_AT_ONCE = 100
"""How many workers a step of a look compares: about 0.3 ms of work, and a millisecond if all have changed."""

_Shown = tuple[str, bool, bool | None]


class WorkerChanges:
    """Compares the workers of a table with those of the last look.

    Args:
        roster: gets the workers that have changed, to encode them.

    Attributes:
        is_complete: all workers were compared at least once since ``clear``.
    """

    def __init__(self, workers: WorkerTable, roster: Roster) -> None:
        self.is_complete = False
        self._workers = workers
        self._roster = roster
        self._changes: NumberedChanges[WorkerKey, _Shown] = NumberedChanges()
        self._left: list[WorkerKey] = []  # to be compared in this look

    @property
    def number(self) -> int:
        """The number of the newest change."""
        return self._changes.number

    def begin(self) -> None:
        """Begin a look, unless one is under way."""
        if not self._left:
            keys = self._workers.keys()
            for gone in self._changes.known().difference(keys):
                self._changes.discard(gone)
            # By name at first: the order of the numbers is that in which a new stream gets them.
            self._left = keys if self.is_complete else sorted(keys, reverse=True)

    def step(self, now: float, time: float) -> bool:
        """Compare some workers; return whether the look is done.

        Args:
            now: on the clock of the table.
            time: epoch seconds of ``now``.
        """
        left = self._left
        for _ in range(min(len(left), WORKERS_AT_ONCE)):
            key = left.pop()
            worker = self._workers.get(key, now, time)
            if worker is None:
                continue
            shown = worker.status, worker.alive, worker.sends_task_events
            if shown != self._changes.get(key):
                self._changes.put(key, shown)
                self._roster.encode_again(key, now, time)
        self.is_complete |= not left
        return not left

    def after(self, number: int) -> Iterator[tuple[int, WorkerKey, bytes]]:
        """Yield the workers that have changed after a change: number, key, and the worker as JSON."""
        for at, key, _ in self._changes.after(number):
            json = self._roster.find(key)
            if json is not None:
                yield at, key, json

    def clear(self) -> None:
        """Forget everything: nobody needs it."""
        self._changes.clear()
        self._left = []
        self.is_complete = False
