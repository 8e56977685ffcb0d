"""A page of tasks: selected, sorted, and consistent as of one moment.

Rules: the work is done in steps within the request's fair share of time. Tasks that change meanwhile are
compared and encoded again, a pass each time; the last pass does not pause, so that it ends however often they
change.
"""

from bisect import bisect_right
from heapq import heappush, heappushpop
from typing import NamedTuple

from celery_gateway.http.fair_share import FairShare
from celery_gateway.http.json_response import JSONBuilder
from celery_gateway.http.state_query import TaskListQuery
from celery_gateway.http.state_responses import NUMBER_BYTES, TaskView
from celery_gateway.http.task_selection import (
    RECORDS_PER_LOOK,
    RECORDS_PER_STEP,
    REFERENCE_BYTES,
    SEARCHED_BYTES_PER_LOOK,
    TaskSelection,
)
from celery_gateway.http.visible import Visible
from celery_gateway.state.task_order import Rank
from celery_gateway.state.task_record import Record

MAX_PASSES = 5
"""Maximum number of passes over a page; the last one does not pause."""
MAX_PAGE_BYTES = 8 << 20
"""A page of tasks with very long texts is shorter than its limit."""


class TaskPage(NamedTuple):
    """The views of a page; ``last`` is the place of its last task if there are more pages."""

    views: list[TaskView]
    last: Rank | None


class _Entry:
    """A task of a page, and its view as of a version of its record; ``None`` if it is not on the page."""

    __slots__ = ("record", "version", "view")

    def __init__(self, record: Record) -> None:
        self.record = record
        self.version = -1
        self.view: TaskView | None = None


class TaskPageReader:
    """Reads one page.

    Args:
        visible: what the client may see.
        share: the request's share of time.
        builder: is charged for the memory that the work needs.

    Raises:
        Forbidden: the query reads a hidden field.
    """

    def __init__(
        self, visible: Visible, query: TaskListQuery, share: FairShare, builder: JSONBuilder
    ) -> None:
        visible.check_shown([(field, "sort") for field in query.order.reads], "sorted")
        self._tasks = visible.pipeline.tasks
        self._selection = TaskSelection(visible, query.filter, query.criteria)
        self._fields = visible.fields(query.fields)
        self._is_visible = visible.filter_of_records
        self._query = query
        self._order = query.order
        self._share = share
        self._builder = builder
        self._last: Rank | None = None  # of the page, if there are more

    async def read(self) -> TaskPage:
        """Return the page as of the moment when this returns.

        Raises:
            OverLimit: there is no memory for it.
        """
        version = self._tasks.version
        candidates = await self._selection.candidates(self._share, self._builder)
        if self._order.is_by_number:
            if self._order.is_ascending:
                candidates.reverse()
            records = await self._walk(candidates)
        else:
            records = await self._sort(candidates)
        del candidates
        entries = {record.key: _Entry(record) for record in records}
        passes = 0
        while True:
            passes += 1
            changed, version = self._tasks.changed_since(version), self._tasks.version
            await self._encode(entries, changed, may_pause=passes < MAX_PASSES)
            if self._tasks.version == version:
                break
        # Nothing was awaited since the last of them was compared: the page is as of now.
        kept = [entry for entry in entries.values() if entry.view and self._is_on_page(entry.record)]
        kept.sort(key=lambda entry: self._order.rank(entry.record))
        if len(kept) > self._query.limit:
            del kept[self._query.limit :]
            self._last = self._order.rank(kept[-1].record)
        views = [entry.view for entry in kept if entry.view is not None]
        for view in views:
            view.freeze_children(self._is_visible)
            self._builder.charge_scratch(REFERENCE_BYTES * len(view.children))
        return TaskPage(views, self._last)

    async def _walk(self, candidates: list[Record]) -> list[Record]:
        """Return the first records that are selected, and set ``_last`` if there are more.

        Args:
            candidates: in the order of the page.
        """
        found: list[Record] = []
        size_bytes = look_bytes = 0
        rank, after = self._order.rank, self._query.after
        first = 0 if after is None else bisect_right(candidates, after, key=rank)
        for index in range(first, len(candidates)):
            record = candidates[index]
            if self._selection.matches(record):
                if len(found) == self._query.limit or size_bytes > MAX_PAGE_BYTES:
                    self._last = rank(found[-1])
                    return found
                found.append(record)
                size_bytes += record.size_bytes
            look_bytes += self._selection.look_bytes(record)
            if look_bytes >= SEARCHED_BYTES_PER_LOOK:
                look_bytes = 0
                await self._share.checkpoint()
        return found

    async def _sort(self, candidates: list[Record]) -> list[Record]:
        """Do the same with candidates in any order."""
        limit, after, rank = self._query.limit, self._query.after, self._order.rank
        self._builder.charge_scratch(2 * NUMBER_BYTES * (min(limit, len(candidates)) + 1))
        heap: list[tuple[tuple[bool | float, ...], Record]] = []  # the last of the page, and one more, first
        look_bytes = 0
        limit_rank: Rank | None = None  # those behind it are not on the page
        for record in candidates:
            if (
                self._selection.matches(record)
                and (limit_rank is None or rank(record) < limit_rank)
                and (after is None or rank(record) > after)
            ):
                item = tuple([-part for part in rank(record)]), record
                if len(heap) <= limit:
                    heappush(heap, item)
                else:
                    heappushpop(heap, item)
                    limit_rank = _rank_of(heap[0])
            look_bytes += self._selection.look_bytes(record)
            if look_bytes >= SEARCHED_BYTES_PER_LOOK:
                look_bytes = 0
                await self._share.checkpoint()
        heap.sort(reverse=True)
        size_bytes = 0
        for index, (_, record) in enumerate(heap):
            if index == limit or size_bytes > MAX_PAGE_BYTES:
                self._last = _rank_of(heap[index - 1])
                return [record for _, record in heap[:index]]
            size_bytes += record.size_bytes
        return [record for _, record in heap]

    async def _encode(self, entries: dict[str, _Entry], changed: list[str], *, may_pause: bool) -> None:
        """Add the tasks that have come to the page meanwhile, and encode those that have changed.

        Args:
            entries: those of the page by key. They may become more than the limit.
            changed: the keys of the tasks that have changed.
        """
        for index, key in enumerate(changed):
            record = self._tasks.get(key)
            if record is not None and self._is_on_page(record):
                known = entries.get(key)
                if known is None or known.record is not record:
                    entries[key] = _Entry(record)
            if may_pause and index % RECORDS_PER_LOOK == 0:
                await self._share.checkpoint()
        for entry in tuple(entries.values()):
            record = entry.record
            if entry.version == record.version:
                continue
            entry.version = record.version
            before, entry.view = entry.view, None
            if self._is_on_page(record):
                entry.view = TaskView(record, self._fields)
            size_bytes = entry.view.size_bytes if entry.view else 0
            self._builder.charge_scratch(size_bytes - (before.size_bytes if before else 0))
            if may_pause and len(entries) > RECORDS_PER_STEP and self._share.is_over:
                await self._share.pause()

    def _is_on_page(self, record: Record) -> bool:
        if not self._selection.matches(record):
            return False
        rank, after, last = self._order.rank(record), self._query.after, self._last
        return (after is None or rank > after) and (last is None or rank <= last)


def _rank_of(item: tuple[tuple[bool | float, ...], Record]) -> Rank:
    """Return the place of an item of the heap, which has it with negative parts."""
    is_missing, value, number = item[0]
    return Rank(bool(is_missing), -value, -int(number))
