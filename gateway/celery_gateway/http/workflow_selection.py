"""Which workflows a request selects, and what a list shows of them, within the scope.

Rules: a filter and a text are compared with the root task. If that is not known, or not visible, only the id
of the root and the cluster are known of it. Without a scope the counts are those that the workflows keep.
With one, only visible tasks are counted, and a workflow without visible tasks does not exist.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

import msgspec

from celery_gateway.events.event import FILTER_FIELDS, ORIGIN_FIELDS, PARENT_ID_POSITIONS, ROOT_ID_POSITIONS
from celery_gateway.events.filter import Filter
from celery_gateway.http.fair_share import FairShare
from celery_gateway.http.visible import Visible
from celery_gateway.http.workflow_query import WorkflowListQuery
from celery_gateway.state.criteria import BEGUN_FIELDS, COMPARISONS, Criteria, contains
from celery_gateway.state.task import Task
from celery_gateway.state.task_graph import Root
from celery_gateway.state.task_order import ENDED_FIELDS
from celery_gateway.state.visible_workflow import VisibleWorkflow
from celery_gateway.state.workflow_counts import Tally

AnyWorkflow = Root | VisibleWorkflow

_NUMBERS: Final[dict[str, Callable[[AnyWorkflow], int]]] = {
    "total": lambda workflow: len(workflow.members),
    "ready": lambda workflow: len(workflow.members) - workflow.unready,
    "failed": lambda workflow: workflow.failed,
}


class WorkflowSelection:
    """The workflows that a request selects.

    Args:
        visible: what the client may see.

    Raises:
        Forbidden: the query reads a hidden field.
    """

    def __init__(self, visible: Visible, query: WorkflowListQuery) -> None:
        times = Criteria(since=query.since, before=query.before)
        numbers = [(each.field, each.field) for each in query.comparisons]
        visible.check_shown([*times.reads(), *numbers], "compared")
        self._visible = visible
        self._tasks = visible.pipeline.tasks
        self._query = query
        self._scope_filter = visible.restrict(Filter())
        self._restricted = visible.restrict(query.filter)  # for its lookups, and what it may read
        self._has_filter = query.filter != Filter()
        self._fits = Criteria(text=query.text).matcher(visible.hidden) if query.text else None
        self._only: list[Root] = []  # the workflows whose id is the text
        self._comparisons = [(_NUMBERS[each.field], each) for each in query.comparisons]
        hidden = visible.hidden
        self._shows_begun = hidden.isdisjoint(BEGUN_FIELDS)
        self._shows_ended = hidden.isdisjoint(ENDED_FIELDS)
        self._shows_progress = "progress" not in hidden

    async def candidates(self, share: FairShare) -> list[Root]:
        """Return the workflows that may be selected, the newest first.

        Args:
            share: the request's share of time.
        """
        if self._query.text:
            # A text that is the id of a visible workflow is taken for this id.
            found = self._visible.may_be_roots(self._query.text, None)
            self._only = [root for root in found if await self._visible.sees_any(root, share)]
        roots: Iterable[Root] | None = self._only or self._by_lookups()
        if roots is None:
            return list(self._tasks.workflows())
        return sorted({id(root): root for root in roots}.values(), key=lambda root: -root.number)

    def fits(self, workflow: AnyWorkflow) -> bool:
        """Return whether a workflow exists for the client, and is selected as it is now."""
        query = self._query
        if not workflow.members or (self._only and workflow.id != self._only[0].id):
            return False
        if query.states is not None and workflow.state not in query.states:
            return False
        for number_of, comparison in self._comparisons:
            if not COMPARISONS[comparison.operator](number_of(workflow), comparison.value):
                return False
        if not self._has_filter and self._fits is None and query.since is None and query.before is None:
            return True
        root = self._root_task(workflow)
        if self._has_filter and not query.filter.matches(_keys(workflow, root)):
            return False
        if self._fits is not None:
            is_found = contains(query.text, [workflow.id]) if root is None else self._fits(root)
            if not is_found:
                return False
        if query.since is None and query.before is None:
            return True
        begun = self._begun(workflow, root)
        return (
            begun is not None
            and (query.since is None or begun >= query.since)
            and (query.before is None or begun < query.before)
        )

    def view(self, workflow: AnyWorkflow) -> dict[str, Any]:
        """Return what a list shows of a workflow."""
        root = self._root_task(workflow)
        tally = workflow.tally or Tally(record.task for record in workflow.members.values())
        total = len(workflow.members)
        ready = total - workflow.unready
        progress = ready + (tally.unready_progress() if self._shows_progress else 0.0)
        view = {
            "root_id": workflow.id,
            "name": None if root is None else root.name,
            "state": workflow.state,
            "total": total,
            "ready": ready,
            "failed": workflow.failed,
            "counts": dict(sorted(tally.counts.items())),
            "progress": progress / total,
        }
        if self._shows_begun:
            view["begun"] = self._begun(workflow, root)
        if self._shows_ended:
            view["ended"] = None if workflow.unready else tally.ended
        cluster = _first(workflow).cluster
        return view if cluster is msgspec.UNSET else view | {"cluster": cluster}

    def _by_lookups(self) -> Iterator[Root] | None:
        """Yield the workflows that may be selected by the ids in the filter and in the scope."""
        lookups = self._restricted.lookups
        if lookups is None or any(position in PARENT_ID_POSITIONS for position, _ in lookups):
            lookups = self._scope_filter.lookups
        if lookups is None or any(position in PARENT_ID_POSITIONS for position, _ in lookups):
            return None
        return self._looked_up(lookups)

    def _looked_up(self, lookups: Iterable[tuple[int, str]]) -> Iterator[Root]:
        for position, value in lookups:
            yield from self._tasks.roots(value)  # also for a uuid: that of the root task
            if position not in ROOT_ID_POSITIONS:
                for record in self._tasks.find(value):
                    root = record.root
                    if root is not None:
                        yield root

    def _root_task(self, workflow: AnyWorkflow) -> Task | None:
        for key in self._tasks.keys(workflow.id):
            if key in workflow.members:
                return workflow.members[key].task
        return None

    def _begun(self, workflow: AnyWorkflow, root: Task | None) -> float | None:
        return (_first(workflow) if root is None else root).begun_at


def _first(workflow: AnyWorkflow) -> Task:
    return next(iter(workflow.members.values())).task


def _keys(workflow: AnyWorkflow, root: Task | None) -> tuple[str | None, ...]:
    """Return the values of a root task that filters compare."""
    if root is not None:
        return (*root.keys(), *(None,) * len(ORIGIN_FIELDS))
    cluster = _first(workflow).cluster
    known = {"root_id": workflow.id, "uuid": workflow.id}
    known |= {} if cluster is msgspec.UNSET else {"cluster": cluster}
    return (*[known.get(field) for field in FILTER_FIELDS], *(None,) * len(ORIGIN_FIELDS))
