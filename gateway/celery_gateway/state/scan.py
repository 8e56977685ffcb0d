"""A scan: all records that match, as of one moment, read in steps while events go on arriving.

It reads the table in passes. The first pass returns the records that match; each next pass returns those
that have changed since the pass before began. Each pass is shorter than the one before, since it takes less
time. A pass that begins and ends in a single call is the last one: nothing can have changed meanwhile. Of a
record that is returned several times, the last one counts. Pure.
"""

from collections.abc import Callable, Sequence

from celery_gateway.events.event import PARENT_ID_POSITIONS, ROOT_ID_POSITIONS
from celery_gateway.events.matcher import Matcher
from celery_gateway.state.task_record import Record
from celery_gateway.state.task_table import TaskTable

PATIENCE_PASSES = 5
"""After so many passes, each further pass doubles the size of a step, ``MAX_DOUBLINGS`` times."""
MAX_DOUBLINGS = 5


class Scan:
    """Reads a table's records.

    Args:
        filter: selects tasks, by ``Record.keys``.
        version: of the table; records that have not changed since then were read before. -1: none were.
        was_returned: returns whether a record that was read before was returned.
        visible: the filter of a scope: a record that does not pass it is never returned. ``None``: all pass.
    """

    def __init__(
        self,
        tasks: TaskTable,
        filter: Matcher,
        *,
        version: int = -1,
        was_returned: Callable[[Record], bool] = lambda record: False,
        visible: Matcher | None = None,
    ) -> None:
        self._visible = visible
        self._tasks = tasks
        self._filter = filter
        self._was_returned = was_returned
        self._version = version  # of the table, when the pass began
        self._pending: Sequence[str] = ()  # keys, so that evicted records are not kept in memory
        self._next = 0
        self._passes = 0
        self._returned: set[str] = set()

    @property
    def key_count(self) -> int:
        """How many keys it has in memory."""
        return len(self._pending) + len(self._returned)

    def read(self, limit: int) -> tuple[list[Record], bool]:
        """Read the next records, at most ``limit``, or more after ``PATIENCE_PASSES``.

        Returns:
            The records that match, and whether the scan is complete: all records that were returned last, or
            have not changed since, are as of this moment. The next call begins a pass over what has changed
            since then. A task that was returned, and no longer matches, is returned again.
        """
        begins_here = self._next >= len(self._pending)
        if begins_here:
            self._pending, self._next = self._candidates(), 0
            self._version = self._tasks.version
            self._passes += 1
        # A slow reader has more changes to read in each pass: it completes with larger steps.
        limit <<= min(max(0, self._passes - PATIENCE_PASSES), MAX_DOUBLINGS)
        found = []
        for key in self._pending[self._next : self._next + limit]:
            record = self._tasks.get(key)
            if record is None:
                continue  # evicted meanwhile
            keys = record.keys()
            if self._visible is not None and not self._visible.matches(keys):
                continue
            is_match = key in self._returned or self._filter.matches(keys)
            if is_match or self._was_returned(record):
                self._returned.add(key)
                found.append(record)
        self._next += limit
        return found, begins_here and self._next >= len(self._pending)

    def _candidates(self) -> Sequence[str]:
        lookups = self._filter.lookups
        if self._version >= 0 or lookups is None or any(field in PARENT_ID_POSITIONS for field, _ in lookups):
            return self._tasks.changed_since(self._version)
        candidates: dict[str, None] = {}
        for field, value in lookups:
            if field not in ROOT_ID_POSITIONS:
                candidates |= dict.fromkeys(self._tasks.keys(value))
                continue
            for root in self._tasks.roots(value):
                candidates |= dict.fromkeys(root.members)
        return tuple(candidates)
