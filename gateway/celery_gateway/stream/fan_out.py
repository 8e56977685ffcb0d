"""Fan-out: entries in, bytes for the live subscriptions out.

Rules:

- Every entry is appended once to the history, and to the entries of each cohort whose filter matches it.
- A flush writes the entries of those cohorts for their live members. Other cohorts cost nothing.
- Flushes are paced by their cost (``flush_timer``).
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence

from celery_gateway.events.matcher import Matcher
from celery_gateway.stream.audience import is_for
from celery_gateway.stream.cohort import Cohort
from celery_gateway.stream.cursor import Framing
from celery_gateway.stream.filter_index import FilterIndex
from celery_gateway.stream.flush_timer import FlushTimer
from celery_gateway.stream.flushed import Flushed
from celery_gateway.stream.history import Entry, History
from celery_gateway.stream.limits import Limits


class FanOut:
    """The history, and the cohorts that get its entries. All calls belong to one running event loop.

    Args:
        history_bytes: how much of the stream is kept for subscriptions that lag or resume.
        limits: what filters are charged to.

    Attributes:
        history: the newest entries.
        limits: the same.
        written: the position of the newest entry that is in the tables, though it was not read back from a
            shared log yet; 0 without one. The leader sets it. A position of the state may be ahead of the
            history by so much.
    """

    def __init__(self, history_bytes: int, limits: Limits) -> None:
        self.limits = limits
        self.history = History(max_bytes=history_bytes)
        self.written = 0
        self._cohorts: dict[tuple[Matcher, Framing, bool], Cohort] = {}
        self._index: FilterIndex[Cohort] = FilterIndex()
        self._dirty: dict[Cohort, None] = {}  # with new entries, in the order of the first
        self._flushed = Flushed()
        self._unflushed_bytes = 0
        self._max_unflushed_bytes = history_bytes // 4
        self._timer = FlushTimer(self._flush)
        self._is_closed = False

    @property
    def position(self) -> int:
        """The position of the last flush."""
        return self._flushed.position

    @property
    def id(self) -> bytes:
        """The id of the newest entry, or of ``written``."""
        return self.history.id_of(max(self.written, self.history.position))

    def id_of(self, position: int) -> bytes:
        """Return the id of a position."""
        return self.history.id_of(position)

    def position_of(self, id: str) -> int | None:
        """Return the position of an id; ``None`` if the id is not one of this log."""
        return self.history.position_of(id)

    def flush(self) -> int:
        """Write all entries for the live subscriptions now.

        Returns:
            The position of the state: that of the newest entry, or ``written``.
        """
        self._flush()
        return max(self.written, self._flushed.position)

    def after_flush(self, call: Callable[[], None]) -> None:
        """Call a function once everything up to the newest entry, and to ``written``, has been flushed."""
        self._flushed.after(max(self.written, self.history.position), call)
        self._timer.schedule()

    def _begin(self, position: int, terms: Sequence[tuple[str, int]]) -> None:
        """Begin again, empty, after a position; see ``History.begin``."""
        for cohort in self._dirty:
            cohort.entries.clear()
        self._dirty.clear()
        self._unflushed_bytes = 0
        self.history.begin(position, terms)
        self.written = 0
        self._flushed.position = position

    def _cohort(self, filter: Matcher, framing: Framing, client: str, *, is_rated: bool) -> Cohort:
        key = filter, framing, is_rated
        cohort = self._cohorts.get(key)
        if cohort is None:
            # Charged to the first client as long as the cohort exists, even after that client has left: the
            # other clients share its work and add nothing to the cost.
            cost = self.limits.filters.reserve(client)
            cost.grow(filter.cost + framing.cost)
            cohort = Cohort(self.history, filter, framing, self._flushed, cost, is_rated=is_rated)
            self._cohorts[key] = cohort
            self._index.add(filter, cohort)
            begin = max(self._flushed.position, self.history.evicted)
            for entry in self.history.after(begin, self.history.position - begin):
                if is_for(entry, filter):
                    cohort.entries.append(entry)
                    self._dirty[cohort] = None
        return cohort

    def _remove_if_empty(self, cohort: Cohort) -> None:
        key = cohort.filter, cohort.framing, cohort.is_rated
        if not cohort.size and self._cohorts.get(key) is cohort:
            del self._cohorts[key]
            self._index.remove(cohort.filter, cohort)
            self._dirty.pop(cohort, None)
            cohort.cost.release()

    def _append(self, entry: Entry, cohorts: Iterable[Cohort], wall: float) -> None:
        self.history.append(entry, wall)
        if self._is_closed:
            return
        for cohort in cohorts:
            cohort.entries.append(entry)
            self._dirty[cohort] = None
        self._unflushed_bytes += entry.size_bytes
        if self._unflushed_bytes > self._max_unflushed_bytes:
            self._flush()  # before entries are evicted that were not written yet
        elif not self._timer.is_scheduled:
            self._timer.schedule()

    def _flush(self) -> None:
        self._timer.start()
        loop = asyncio.get_running_loop()
        self._flushed.position = self.history.position
        self._unflushed_bytes = 0
        dirty, self._dirty = self._dirty, {}
        for cohort in dirty:
            cohort.flush(loop.time())
        if self._flushed.waiting:
            for call in self._flushed.due():
                loop.call_soon(call)  # not at once: the caller of this flush is not done
        self._timer.stop(loop.time())
