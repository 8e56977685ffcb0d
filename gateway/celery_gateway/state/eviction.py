"""Which task is evicted next, and which ones were.

In this order:

1. unfinished tasks without an event for ``MAX_IDLE_SECONDS``: Celery does not report the end of every task;
2. finished tasks, the one without a change for longest first;
3. unfinished tasks, the one without a change for longest first.

Pure.
"""

from collections import OrderedDict
from itertools import takewhile

from celery_gateway.state.task_record import Record
from celery_gateway.state.transitions import READY_STATES

MAX_IDLE_SECONDS = 24 * 3600.0
MAX_EVICTED = 100_000
"""The maximum number of evicted tasks whose keys are remembered; at least half as many are."""


class EvictionOrder:
    """The records in the order of their last change, finished and unfinished tasks apart.

    Attributes:
        version: counts the changes of all records.
        evicted_finished, evicted_unfinished: how many tasks were evicted.
    """

    def __init__(self) -> None:
        # A record is in one of the two. (Not dicts: the first key of a dict is costly to find once many
        # keys before it were deleted.)
        self._unfinished: OrderedDict[str, Record] = OrderedDict()
        self._finished: OrderedDict[str, Record] = OrderedDict()
        self._evicted: set[int] = set()  # hashes of keys
        self._evicted_before: set[int] = set()
        self.version = 0
        self.evicted_finished = 0
        self.evicted_unfinished = 0

    def add(self, record: Record) -> None:
        """Add the record of a task that has not ended."""
        self._unfinished[record.key] = record

    def touch(self, record: Record) -> None:
        """Count a change of a record, and move it to the end of its order."""
        self.version += 1
        record.version = self.version
        is_finished = record.task.state in READY_STATES
        (self._finished if is_finished else self._unfinished).move_to_end(record.key)

    def set_finished(self, record: Record, is_finished: bool) -> None:
        """Move a record to the finished tasks, or back, after its task has changed so."""
        before, after = self._unfinished, self._finished
        if not is_finished:
            before, after = after, before
        del before[record.key]
        after[record.key] = record

    def changed_since(self, version: int) -> list[str]:
        """Return the keys of the records that have changed after this version; all for -1."""
        if version < 0:
            return [*self._finished, *self._unfinished]
        return [
            record.key
            for records in (self._finished, self._unfinished)
            for record in takewhile(lambda record: record.version > version, reversed(records.values()))
        ]

    def pop(self, now: float) -> Record:
        """Remove the record that is to be evicted next, and return it. There must be one."""
        oldest = next(iter(self._unfinished.values()), None)
        if self._finished and (oldest is None or now - oldest.last_event_at < MAX_IDLE_SECONDS):
            key, record = self._finished.popitem(last=False)
            self.evicted_finished += 1
        else:
            key, record = self._unfinished.popitem(last=False)
            self.evicted_unfinished += 1
        self._evicted.add(hash(key))
        if len(self._evicted) >= MAX_EVICTED // 2:
            self._evicted, self._evicted_before = set(), self._evicted
        return record

    def has_evicted(self, key: str) -> bool:
        """Return whether a task with this key was evicted lately, whether it is known again or not."""
        hashed = hash(key)
        return hashed in self._evicted or hashed in self._evicted_before
