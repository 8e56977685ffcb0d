"""A page of tasks: found by a filter, newest first, and consistent as of one moment.

Rules: the work is done in steps within the request's fair share of time. Records that change meanwhile are
encoded again, a pass each time; the last pass does not pause, so that it ends however often they change.
"""

from bisect import bisect_right
from collections.abc import Iterable
from itertools import chain, islice
from typing import NamedTuple

from celery_gateway.events.event import PARENT_ID_POSITIONS, ROOT_ID_POSITIONS
from celery_gateway.http.fair_share import FairShare
from celery_gateway.http.json_response import JSONBuilder
from celery_gateway.http.state_query import TaskListQuery
from celery_gateway.http.state_responses import NUMBER_BYTES, TaskView
from celery_gateway.http.visible import Visible
from celery_gateway.state.task_record import Record

RECORDS_PER_STEP = 100
RECORDS_PER_LOOK = 10
"""How many records are matched between two looks at the clock: a costly filter takes 0.1 ms."""
MAX_PASSES = 5
"""Maximum number of passes over a page; the last one does not pause."""
MAX_PAGE_BYTES = 8 << 20
"""A page of tasks with very long texts is shorter than its limit."""
REFERENCE_BYTES = 8


class TaskPage(NamedTuple):
    """The views of a page; ``last_number`` is the number of its last task if there are more pages."""

    views: list[TaskView]
    last_number: int | None


class TaskPageReader:
    """Reads one page.

    Args:
        visible: what the client may see.
        share: the request's share of time.
        builder: is charged for the memory that the work needs.
    """

    def __init__(
        self, visible: Visible, query: TaskListQuery, share: FairShare, builder: JSONBuilder
    ) -> None:
        self._tasks = visible.pipeline.tasks
        self._filter = visible.restrict(query.filter)
        self._fields = visible.fields(query.fields)
        self._is_visible = visible.filter_of_records
        self._query = query
        self._share = share
        self._builder = builder

    async def read(self) -> TaskPage:
        """Return the page as of the moment when this returns.

        Raises:
            OverLimit: there is no memory for it.
        """
        records, has_more = await self._find()
        views = await self._views(records)
        # Nothing was awaited since the last of them was compared: the page is as of now.
        for view in views:
            view.freeze_children(self._is_visible)
            self._builder.charge_scratch(REFERENCE_BYTES * len(view.children))
        return TaskPage(views, records[-1].number if has_more else None)

    async def _find(self) -> tuple[list[Record], bool]:
        """Return the records of the page, and whether there are more."""
        found: list[Record] = []
        size_bytes = 0
        for index, record in enumerate(await self._candidates()):
            if self._matches(record):
                if len(found) == self._query.limit or size_bytes > MAX_PAGE_BYTES:
                    return found, True
                found.append(record)
                size_bytes += record.size_bytes
            if index % RECORDS_PER_LOOK == 0 and self._share.is_over:
                await self._share.pause()
        return found, False

    async def _candidates(self) -> Iterable[Record]:
        """Return all records that may match, in the order of the page."""
        tasks, before, lookups = self._tasks, self._query.before, self._filter.lookups
        if lookups is None or any(field in PARENT_ID_POSITIONS for field, _ in lookups):
            # (A parent that was evicted, or is not known yet, has no record with children.)
            self._builder.charge_scratch(REFERENCE_BYTES * tasks.statistics().known)
            newest = list(tasks.newest())
            if before is None:
                return newest
            start = bisect_right(newest, -before, key=lambda record: -record.number)
            return islice(newest, start, None)
        by_number: dict[int, Record] = {}
        for field, value in lookups:
            related: Iterable[Record] = ()
            if field in ROOT_ID_POSITIONS:
                related = chain.from_iterable(root.members.values() for root in tasks.roots(value))
            else:
                related = tasks.find(value)
            # Only visible ones are charged: an error must not show how many others there are.
            related = tuple(related if self._is_visible is None else filter(self._is_visible, related))
            self._builder.charge_scratch(NUMBER_BYTES * len(related))
            for index, each in enumerate(related):
                if before is None or each.number < before:
                    by_number[each.number] = each
                if index % RECORDS_PER_STEP == 0:
                    await self._share.checkpoint()
        # Nearly sorted already, so that it takes a millisecond.
        return (by_number[number] for number in sorted(by_number, reverse=True))

    async def _views(self, records: list[Record]) -> list[TaskView]:
        """Return the views of the records that match, all as of the moment when this returns."""
        views: list[TaskView | None] = [None] * len(records)
        versions = [-1] * len(records)
        passes = 0
        while True:
            passes += 1
            changed = [index for index, record in enumerate(records) if versions[index] != record.version]
            if not changed:
                break
            for index in changed:
                record, before = records[index], views[index]
                versions[index] = record.version
                view = TaskView(record, self._fields) if self._matches(record) else None
                views[index] = view
                self._builder.charge_scratch(
                    (view.size_bytes if view else 0) - (before.size_bytes if before else 0)
                )
                if len(changed) > RECORDS_PER_STEP and passes < MAX_PASSES and self._share.is_over:
                    await self._share.pause()
        get = self._tasks.get
        return [
            view
            for view, record in zip(views, records, strict=True)
            if view is not None and get(record.key) is record
        ]

    def _matches(self, record: Record) -> bool:
        return self._tasks.get(record.key) is record and self._filter.matches(record.keys())
