"""Numbers of tasks by field, consistent as of one moment.

Rules: without a filter and without a scope the statistics may have the numbers. Otherwise the tasks are
counted in steps within the request's fair share of time. Tasks that change meanwhile are counted again, a
pass each time; the last pass does not pause. A task that is evicted meanwhile may be counted. The values with
the most tasks are then selected in steps, too.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from heapq import heappush, heappushpop
from typing import Any, Final

from celery_gateway.http.fair_share import FairShare
from celery_gateway.http.json_response import JSONBuilder
from celery_gateway.http.state_query import TaskCountQuery
from celery_gateway.http.state_responses import NUMBER_BYTES
from celery_gateway.http.state_tasks import MAX_PASSES
from celery_gateway.http.task_selection import SEARCHED_BYTES_PER_LOOK, TaskSelection
from celery_gateway.http.visible import Visible
from celery_gateway.state.task import Task
from celery_gateway.state.task_record import Record

MAX_VALUES: Final = 1_000
"""How many values of a field are listed: those with the most tasks."""
VALUES_PER_STEP: Final = 100
COUNTED_BYTES: Final = 2 * NUMBER_BYTES
"""Memory of a task that is counted."""
_VALUES: Final[dict[str, Callable[[Task], str | None]]] = {
    "state": lambda task: task.state,
    "name": lambda task: task.name,
    "queue": lambda task: task.queue,
    "hostname": lambda task: task.worker or task.client,
}


class TaskCounter:
    """Counts the tasks that a request selects.

    Args:
        visible: what the client may see.
        share: the request's share of time.
        builder: is charged for the memory that the work needs.

    Raises:
        Forbidden: the query reads a hidden field.
    """

    def __init__(
        self, visible: Visible, query: TaskCountQuery, share: FairShare, builder: JSONBuilder
    ) -> None:
        visible.check_shown([(field, "by") for field in query.by], "counted")
        self._selection = TaskSelection(visible, query.filter, query.criteria)
        self._tasks = visible.pipeline.tasks
        self._hub = visible.pipeline.hub
        self._by = query.by
        self._values = [_VALUES[field] for field in query.by]
        self._share = share
        self._builder = builder
        self._shared: dict[tuple[str, ...], tuple[str, ...]] = {}  # one copy of equal values
        self._counted: dict[str, tuple[str, ...]] = {}  # the values of each task that is counted, by key
        self._counts: list[dict[str, int]] = [{} for _ in query.by]

    async def count(self) -> tuple[dict[str, Any], bytes]:
        """Return the numbers as of one moment: ``total``, ``counts`` and ``other``.

        Returns:
            Also the stream's position at that moment.

        Raises:
            OverLimit: there is no memory for it.
        """
        if self._selection.is_everything:
            kept = [self._tasks.activity.counts(field) for field in self._by]
            if None not in kept:
                counts = [each for each in kept if each is not None]
                return await self._result(self._tasks.statistics().known, counts)
        version = self._tasks.version
        await self._add(await self._selection.candidates(self._share, self._builder), may_pause=True)
        passes = 1
        while self._tasks.version != version:
            passes += 1
            changed, version = self._tasks.changed_since(version), self._tasks.version
            records = [record for key in changed if (record := self._tasks.get(key)) is not None]
            await self._add(records, may_pause=passes < MAX_PASSES)
        return await self._result(len(self._counted), self._counts)

    async def _add(self, records: Iterable[Record], *, may_pause: bool) -> None:
        """Count tasks as they are now, in place of what was counted of them before."""
        selection, counted, shared, look_bytes = self._selection, self._counted, self._shared, 0
        charged = len(counted)
        is_first = not counted
        for record in records:
            before = None if is_first else counted.pop(record.key, None)
            if before is not None:
                for counts, value in zip(self._counts, before, strict=True):
                    counts[value] -= 1
            if selection.matches(record):
                task = record.task
                values = tuple([value_of(task) or "" for value_of in self._values])
                values = counted[record.key] = shared.setdefault(values, values)
                for counts, value in zip(self._counts, values, strict=True):
                    counts[value] = counts.get(value, 0) + 1
            look_bytes += selection.look_bytes(record)
            if look_bytes >= SEARCHED_BYTES_PER_LOOK and may_pause:
                look_bytes = 0
                self._builder.charge_scratch(COUNTED_BYTES * (len(counted) - charged))
                charged = len(counted)
                await self._share.checkpoint()
        self._builder.charge_scratch(COUNTED_BYTES * (len(counted) - charged))

    async def _result(self, total: int, counts: Sequence[Mapping[str, int]]) -> tuple[dict[str, Any], bytes]:
        """Return the result for numbers that do not change any more, and the position as of now."""
        id = self._hub.id
        listed, other = {}, {}
        for field, each in zip(self._by, counts, strict=True):
            rest = 0
            most: list[tuple[int, str]] = []  # a heap
            for index, (value, number) in enumerate(each.items()):
                if number and len(most) < MAX_VALUES:
                    heappush(most, (number, value))
                elif number:
                    rest += heappushpop(most, (number, value))[0]
                if not index % VALUES_PER_STEP:
                    await self._share.checkpoint()
            most.sort(key=lambda item: (-item[0], item[1]))
            listed[field] = {value: number for number, value in most}
            if rest:
                other[field] = rest
        return {"total": total, "counts": listed, "other": other}, id
