"""Pages of tasks that equal snapshots share, encoded and framed once.

Rules:

- A page has the matching tasks after a *number*: tasks are numbered in the order in which they became known.
- Snapshots with an equal filter, framing, view and page size share a page set. The first of them that needs a
  page makes it. While a set has one reader, nothing is cached.
- A page may be older than the snapshot that uses it. It has the version of the table at that time, so the
  snapshot can read what has changed since.
- The cache is bounded, and charged to the budget of all clients.
"""

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Hashable
from math import inf
from time import perf_counter
from typing import NamedTuple

from celery_gateway.events.filter import Filter
from celery_gateway.events.matcher import Matcher
from celery_gateway.state.task_record import Record
from celery_gateway.state.task_table import TaskTable
from celery_gateway.stream.cursor import Framing
from celery_gateway.stream.hub import Hub
from celery_gateway.stream.limits import Limits
from celery_gateway.stream.page_writer import PageWriter

PAGE_TASKS = 100
"""Maximum number of tasks in a page: about a millisecond of work."""
READ_TASKS = 500
"""Maximum number of tasks that are matched for a page."""
READ_SECONDS = 0.001
RELIST_SECONDS = 0.5
"""Minimum time between two lists of all tasks."""
MAX_CHANGES = 1_000
"""A page is made again after so many changes of the table, or an eighth as many as there are tasks."""
CACHE_PART = 8
"""The pages take at most this part of the memory for clients."""
PAGE_OVERHEAD_BYTES = 500
"""Memory of a cached page beside its bytes, by estimate."""
MAX_SPAN = 4_096
"""Maximum difference between the numbers of two tasks in a page."""

TaskBits = tuple[int, int]
"""Which tasks are in a page: the number of its first task, and a bit for each number from there on."""

_EVERYTHING = Filter()


class TaskPage(NamedTuple):
    """The matching tasks from a number on.

    ``chunk``: a page, framed; empty if nothing matched. ``end``: the number of the last task that was read;
    infinite at the end of the list. ``tasks``: which tasks the page has; ``None``: none, or all that were
    read. ``version`` and ``evicted``: those of the table at that time. At the end of the list ``version`` is
    that of the list: a task that is not in the list yet has a later version.
    """

    chunk: bytes
    end: float
    tasks: TaskBits | None
    version: int
    evicted: int


class PageSet:
    """The pages that equal snapshots share, by the number that they begin after."""

    __slots__ = ("key", "filter", "view", "writer", "readers", "pages")

    def __init__(
        self, key: Hashable, filter: Matcher, view: Callable[[Record], bytes], writer: PageWriter
    ) -> None:
        self.key = key
        self.filter = filter
        self.view = view
        self.writer = writer
        self.readers = 0
        self.pages: dict[float, TaskPage] = {}


class SnapshotPages:
    """Makes and caches pages of tasks.

    Args:
        tasks: the table of tasks.
        hub: the hub of the streams.
        limits: what the cache is charged to.
    """

    def __init__(self, tasks: TaskTable, hub: Hub, limits: Limits) -> None:
        self._tasks = tasks
        self._hub = hub
        self._limits = limits
        self._memory = limits.memory.reserve(None)
        self._sets: dict[Hashable, PageSet] = {}
        self._records: list[Record] = []  # by number; some may be evicted
        self._records_version = -1
        self._listed_at = -inf
        self._recent: OrderedDict[tuple[PageSet, float], int] = OrderedDict()  # size in bytes of cached pages
        self._cached_bytes = 0

    @property
    def size_bytes(self) -> int:
        """Memory of the pages, and of the list of tasks, by estimate."""
        return self._cached_bytes + 8 * len(self._records)

    @property
    def evicted(self) -> int:
        """How many tasks the table has evicted so far."""
        statistics = self._tasks.statistics()
        return statistics.evicted_finished + statistics.evicted_unfinished

    def enter(
        self,
        filter: Matcher,
        framing: Framing,
        view: Callable[[Record], bytes],
        view_key: Hashable,
        page_bytes: int,
    ) -> PageSet:
        """Return the pages for one more snapshot, until ``leave``.

        Args:
            view: encodes a record.
            view_key: equal for all functions that encode a record the same.
            page_bytes: see ``PageWriter``.
        """
        key = filter, framing, view_key, page_bytes
        pages = self._sets.get(key)
        if pages is None:
            pages = self._sets[key] = PageSet(key, filter, view, PageWriter(framing, page_bytes))
        pages.readers += 1
        return pages

    def leave(self, pages: PageSet) -> None:
        """Release the pages for one snapshot; the last one frees them."""
        pages.readers -= 1
        if not pages.readers:
            for after in tuple(pages.pages):
                self._drop(pages, after)
            del self._sets[pages.key]
            if not self._sets:
                self._records, self._records_version, self._listed_at = [], -1, -inf
            self._memory.resize(self.size_bytes)

    def list_tasks(self) -> tuple[int, int]:
        """Return the extent of a new snapshot: the version of the table, and the number of its last task.

        Raises:
            OverLimit: there is no memory for a list of the tasks.
        """
        self._update_list()
        return self._records_version, self._records[-1].number if self._records else -1

    def read(self, pages: PageSet, after: float) -> TaskPage:
        """Return the page after a number.

        Raises:
            OverLimit: there is no memory for a list of the tasks.
        """
        page = pages.pages.get(after)
        if page is not None:
            if self._tasks.version - page.version <= max(MAX_CHANGES, len(self._records) // 8):
                self._recent.move_to_end((pages, after))
                return page
            self._drop(pages, after)
        page = self._make(pages, after)
        if pages.readers > 1:
            self._cache(pages, after, page)
        return page

    def _update_list(self) -> None:
        now = perf_counter()
        if self._records_version != self._tasks.version and now - self._listed_at >= RELIST_SECONDS:
            records = list(self._tasks.newest())
            records.reverse()
            size_bytes = self.size_bytes + 8 * (len(records) - len(self._records))
            if not self._memory.resize(size_bytes):
                raise self._memory.over_limit(size_bytes)
            self._records = records
            self._records_version, self._listed_at = self._tasks.version, now

    def _make(self, pages: PageSet, after: float) -> TaskPage:
        self._update_list()
        version, evicted = self._tasks.version, self.evicted
        begin = bisect_right(self._records, after, key=lambda record: record.number)
        records = self._records[begin : begin + READ_TASKS]
        is_end = begin + READ_TASKS >= len(self._records)
        get, matches, view, page_bytes = (
            self._tasks.get,
            pages.filter.matches,
            pages.view,
            pages.writer.page_bytes,
        )
        deadline = perf_counter() + READ_SECONDS
        encoded_tasks: list[bytes] = []
        size_bytes = first = bits = 0
        end = after
        for count, record in enumerate(records, 1):
            if get(record.key) is record and matches(record.keys()):
                encoded = view(record)
                if not encoded_tasks:
                    first = record.number
                elif size_bytes + len(encoded) > page_bytes or record.number - first >= MAX_SPAN:
                    break
                encoded_tasks.append(encoded)
                size_bytes += len(encoded) + 1
                bits |= 1 << (record.number - first)
            end = record.number
            if len(encoded_tasks) >= PAGE_TASKS or (not count % 8 and perf_counter() >= deadline):
                break
        else:
            if is_end:
                end, version = inf, self._records_version
        if not encoded_tasks:
            return TaskPage(b"", end, None, version, evicted)
        chunk = pages.writer.write(self._hub.id, encoded_tasks).chunk
        return TaskPage(chunk, end, None if pages.filter == _EVERYTHING else (first, bits), version, evicted)

    def _cache(self, pages: PageSet, after: float, page: TaskPage) -> None:
        size_bytes = len(page.chunk) + PAGE_OVERHEAD_BYTES
        limit_bytes = self._limits.memory.limit // CACHE_PART
        while self._recent and self._cached_bytes + size_bytes > limit_bytes:
            self._drop(*next(iter(self._recent)))
        if size_bytes <= limit_bytes and self._memory.resize(self.size_bytes + size_bytes):
            pages.pages[after] = page
            self._recent[pages, after] = size_bytes
            self._cached_bytes += size_bytes

    def _drop(self, pages: PageSet, after: float) -> None:
        del pages.pages[after]
        self._cached_bytes -= self._recent.pop((pages, after))
