"""A scan: all records that match, as of one moment, read a few at a time while events go on coming in.

It goes over the table in passes: the first gives what there is, each next one what has changed since the one
before began. A pass is shorter than the one before, since it takes less time; the one that is begun and ended
in a single call is the last, for nothing can have changed meanwhile. What was given before counts no more.
"""

from collections.abc import Sequence

from gateway.event import FILTER_FIELDS
from gateway.index import Matcher
from gateway.tasks import Record, Tasks

_ROOT_ID, _PARENT_ID = FILTER_FIELDS.index("root_id"), FILTER_FIELDS.index("parent_id")

PATIENCE_PASSES = 5
MAX_DOUBLINGS = 5


class Scan:
    """Reads a table's records.

    Args:
        filter: which tasks are wanted, by ``Task.keys``.
    """

    def __init__(self, tasks: Tasks, filter: Matcher) -> None:
        self._tasks = tasks
        self._filter = filter
        self._version = -1  # of the table, when the pass began
        self._pending: Sequence[str] = ()  # keys: a record that is evicted meanwhile is not held
        self._next = 0
        self._passes = 0
        self._given: set[str] = set()

    def take(self, limit: int) -> tuple[list[Record], bool]:
        """Look at some records more; return those that match, and whether that was all.

        When it was, every record that was given last, or not changed since, is as of this moment; the next
        call begins a pass over what has changed since then. A task that was given and matches no more is
        given again as it is now.
        """
        is_begun_here = self._next >= len(self._pending)
        if is_begun_here:
            self._pending, self._next = self._candidates(), 0
            self._version = self._tasks.version
            self._passes += 1
        # Who reads slowly has more to catch up with at each pass, and comes to an end with larger steps.
        limit <<= min(max(0, self._passes - PATIENCE_PASSES), MAX_DOUBLINGS)
        found = []
        for key in self._pending[self._next : self._next + limit]:
            record = self._tasks.get(key)
            if record is None:
                continue  # forgotten meanwhile
            if key in self._given or self._filter.matches(record.task.keys()):
                self._given.add(key)
                found.append(record)
        self._next += limit
        return found, is_begun_here and self._next >= len(self._pending)

    def _candidates(self) -> Sequence[str]:
        lookups = self._filter.lookups
        if self._version >= 0 or lookups is None or any(field == _PARENT_ID for field, _ in lookups):
            return self._tasks.changed_since(self._version)
        candidates: dict[str, None] = {}
        for field, value in lookups:
            if field != _ROOT_ID:
                candidates |= dict.fromkeys(self._tasks.keys(value))
            for root in self._tasks.roots(value) if field == _ROOT_ID else ():
                candidates |= dict.fromkeys(root.members)
        return tuple(candidates)
