"""A page of workflows: selected, the newest or the oldest first, and consistent as of one moment.

Rules: the work is done in steps within the request's fair share of time. If the table changes meanwhile, what
has changed is read again, a pass each time; the last pass does not pause. With a scope, a task that is
evicted meanwhile may be counted.
"""

from bisect import bisect_right
from typing import Any, NamedTuple

from celery_gateway.http.fair_share import FairShare
from celery_gateway.http.json_response import JSONBuilder
from celery_gateway.http.state_responses import NUMBER_BYTES
from celery_gateway.http.state_tasks import MAX_PASSES
from celery_gateway.http.task_selection import RECORDS_PER_LOOK, REFERENCE_BYTES
from celery_gateway.http.visible import Visible
from celery_gateway.http.workflow_query import WorkflowListQuery
from celery_gateway.http.workflow_selection import WorkflowSelection
from celery_gateway.state.task_graph import Root
from celery_gateway.state.task_order import Rank
from celery_gateway.state.task_record import Record
from celery_gateway.state.visible_workflow import VisibleWorkflow

VIEW_BYTES = 1_500
"""Memory of a workflow on a page before it is encoded, about."""
MEMBER_BYTES = 3 * NUMBER_BYTES
"""Memory of a visible task of a workflow on a page, if not all tasks are visible."""


class WorkflowPage(NamedTuple):
    """The workflows of a page; ``last`` is the place of its last one if there are more pages."""

    views: list[dict[str, Any]]
    last: Rank | None


class WorkflowPageReader:
    """Reads one page.

    Args:
        visible: what the client may see.
        share: the request's share of time.
        builder: is charged for the memory that the work needs.

    Raises:
        Forbidden: the query reads a hidden field.
    """

    def __init__(
        self, visible: Visible, query: WorkflowListQuery, share: FairShare, builder: JSONBuilder
    ) -> None:
        self._selection = WorkflowSelection(visible, query)
        self._members = visible.members
        self._tasks = visible.pipeline.tasks
        self._sees = visible.filter_of_records
        self._query = query
        self._share = share
        self._builder = builder
        self._page: dict[Root, Root | VisibleWorkflow] = {}  # with what is visible of each
        self._last: Rank | None = None  # of the page, if there are more
        self._parts: dict[str, VisibleWorkflow] = {}  # by the key of each task that is counted in it

    async def read(self) -> WorkflowPage:
        """Return the page as of the moment when this returns.

        Raises:
            OverLimit: there is no memory for it.
        """
        version = self._tasks.version
        self._builder.charge_scratch(REFERENCE_BYTES * self._tasks.statistics().known)
        await self._find()
        passes = 0
        while True:
            passes += 1
            may_pause = passes < MAX_PASSES
            changed, version = self._tasks.changed_since(version), self._tasks.version
            await self._update(changed, may_pause=may_pause)
            fitting = [
                root for root, part in self._page.items() if root.members and self._selection.fits(part)
            ]
            fitting.sort(key=self._rank)
            views = []
            for root in fitting[: self._query.limit]:
                views.append(self._selection.view(self._page[root]))
                if may_pause:
                    await self._share.checkpoint()
            if self._tasks.version == version:
                break
        if len(fitting) > self._query.limit:
            self._last = self._rank(fitting[self._query.limit - 1])
        return WorkflowPage(views, self._last)

    def _rank(self, root: Root) -> Rank:
        return Rank(False, 0.0, root.number if self._query.is_oldest_first else -root.number)

    async def _find(self) -> None:
        """Find the workflows of the page, and set ``_last`` if there are more."""
        candidates = await self._selection.candidates(self._share)
        if self._query.is_oldest_first:
            candidates.reverse()
        after = self._query.after
        first = 0 if after is None else bisect_right(candidates, after, key=self._rank)
        last: Root | None = None
        for index in range(first, len(candidates)):
            root = candidates[index]
            part = root if self._sees is None else await self._visible_part(root, may_pause=True)
            if part is not None and self._selection.fits(part):
                if last is not None and len(self._page) == self._query.limit:
                    self._release(part)
                    self._last = self._rank(last)
                    return
                self._add(root, part)
                last = root
            else:
                self._release(part)
            if index % RECORDS_PER_LOOK == 0:
                await self._share.checkpoint()

    async def _visible_part(self, root: Root, *, may_pause: bool) -> VisibleWorkflow | None:
        """Return the visible part of a workflow; ``None`` if none of its tasks is visible."""
        part: VisibleWorkflow | None = None
        for index, record in enumerate(self._members(root)):
            if self._is_visible(record, root):
                part = part or VisibleWorkflow(root.id, root.number)
                part.set(record, True)
                self._builder.charge_scratch(MEMBER_BYTES)
            if may_pause and index % RECORDS_PER_LOOK == RECORDS_PER_LOOK - 1:
                await self._share.checkpoint()
        return part

    def _add(self, root: Root, part: Root | VisibleWorkflow) -> None:
        self._builder.charge_scratch(VIEW_BYTES)
        self._page[root] = part
        if isinstance(part, VisibleWorkflow):
            self._parts |= dict.fromkeys(part.members, part)

    def _release(self, part: Root | VisibleWorkflow | None) -> None:
        if isinstance(part, VisibleWorkflow):
            self._builder.charge_scratch(-MEMBER_BYTES * len(part.members))

    def _is_visible(self, record: Record, root: Root) -> bool:
        return root.members.get(record.key) is record and (self._sees is None or self._sees(record))

    async def _update(self, changed: list[str], *, may_pause: bool) -> None:
        """Apply what has changed meanwhile: tasks of the page, and workflows that have come to it.

        Args:
            changed: the keys of the tasks that have changed.
        """
        for index, key in enumerate(changed):
            record = self._tasks.get(key)
            if record is None:
                continue
            root = record.root
            self._move(record, root)
            if root is not None and root not in self._page and self._is_in_range(root):
                part = root if self._sees is None else await self._visible_part(root, may_pause=may_pause)
                if part is not None and self._selection.fits(part):
                    self._add(root, part)
                else:
                    self._release(part)
            if may_pause and index % RECORDS_PER_LOOK == 0:
                await self._share.checkpoint()

    def _move(self, record: Record, root: Root | None) -> None:
        """Count a task in the visible part of its workflow, if that is on the page."""
        before = self._parts.pop(record.key, None)
        part = None if root is None else self._page.get(root)
        if before is not None and before is not part:
            before.set(record, False)
        if root is not None and isinstance(part, VisibleWorkflow):
            is_visible = self._is_visible(record, root)
            part.set(record, is_visible)
            if is_visible:
                self._parts[record.key] = part

    def _is_in_range(self, root: Root) -> bool:
        rank, after = self._rank(root), self._query.after
        return (after is None or rank > after) and (self._last is None or rank <= self._last)
