"""What a principal may see: the endpoints read the pipeline through this, and through nothing else.

Rules: each method applies the principal's scope. What is not visible is treated as if it did not exist: the
same responses, without a word about evictions or about the tasks of others.
"""

from collections.abc import Callable, Sequence

from starlette.responses import Response

from celery_gateway.access.principal import ANYONE, Principal
from celery_gateway.access.scope import Scope
from celery_gateway.errors import Evicted, Forbidden
from celery_gateway.events.event import FILTER_FIELDS, pick
from celery_gateway.events.fields import Fields
from celery_gateway.events.matcher import Matcher
from celery_gateway.http.state_responses import not_found, unknown
from celery_gateway.pipeline.pipeline import Pipeline
from celery_gateway.state.current_records import VisibleRecords
from celery_gateway.state.task_graph import Root
from celery_gateway.state.task_record import Record
from celery_gateway.state.worker import WORKER_FIELDS
from celery_gateway.stream.completion import Target
from celery_gateway.stream.record_view import RecordOf

_UUID = FILTER_FIELDS.index("uuid")


class Visible:
    """A principal's view of a pipeline.

    Args:
        principal: who makes the request.

    Attributes:
        pipeline: for what is not about events, tasks or workers: limits, the stream's position, its status.
    """

    __slots__ = ("pipeline", "principal", "_scope")

    def __init__(self, pipeline: Pipeline, principal: Principal = ANYONE) -> None:
        self.pipeline = pipeline
        self.principal = principal
        self._scope: Scope = principal.scope

    @property
    def key(self) -> tuple[Matcher | None, frozenset[str], bool]:
        """Equal for principals that see the same."""
        return self.filter, self._scope.hide, self.sees_workers

    @property
    def is_restricted(self) -> bool:
        """Whether some events are not visible."""
        return self._scope.is_restricted

    @property
    def sees_workers(self) -> bool:
        """Whether workers are visible, if they pass the filter."""
        return "workers" in self._scope.may

    @property
    def filter(self) -> Matcher | None:
        """The filter of the scope; ``None`` if everything is visible."""
        return self._scope.filter if self._scope.is_restricted else None

    def require(self, kind: str, parameter: str) -> None:
        """Check that the principal may use a kind of endpoint for a parameter of a request.

        Raises:
            Forbidden: it may not.
        """
        if kind not in self._scope.may:
            raise Forbidden(
                f"{parameter} is not allowed: it requires {kind!r} in the scope", parameter=parameter
            )

    def restrict(self, filter: Matcher) -> Matcher:
        """Return what a filter passes within the scope; see ``Scope.restrict``."""
        return self._scope.restrict(filter)

    def fields(self, wanted: frozenset[str] | None) -> Fields:
        """Return the fields of a response, without hidden ones."""
        return self._scope.fields(wanted)

    async def event(self, id: str, client: str = "") -> bytes | None:
        """Return an event of the history, or of the log, encoded, with all its fields.

        Args:
            client: who asks.

        Returns:
            ``None`` if there is none with this id, or if it is not visible.

        Raises:
            Evicted: the event was evicted.
            LogError: the log cannot be read now.
        """
        try:
            entry = await self.pipeline.hub.find_entry(id, client)
        except Evicted:
            if self._scope.is_restricted:
                return None
            raise
        if entry is None or (self._scope.is_restricted and not self._scope.filter.matches(entry.keys)):
            return None
        return entry.full_json

    def sees(self, record: Record) -> bool:
        """Return whether a task is visible."""
        return not self._scope.is_restricted or self._scope.filter.matches(record.keys())

    @property
    def filter_of_records(self) -> Callable[[Record], bool] | None:
        """``sees`` if some tasks are not visible, else ``None``."""
        return self.sees if self._scope.is_restricted else None

    def tasks(self, uuid: str, cluster: str | None) -> list[Record]:
        """Return the visible records of a uuid; see ``TaskTable.find``."""
        return [record for record in self.pipeline.tasks.find(uuid, cluster) if self.sees(record)]

    def roots(self, root_id: str, cluster: str | None) -> list[Root]:
        """Return the workflows of a root id that may have visible tasks."""
        if not self._scope.may_see_workflow(root_id):
            return []
        tasks = self.pipeline.tasks
        roots = tasks.roots(root_id, cluster)
        lookups = self._scope.filter.lookups
        if lookups is not None and all(position == _UUID for position, _ in lookups):
            # Few tasks are visible, so the members are not read: the time would show their number.
            keys = [key for _, uuid in lookups for key in tasks.keys(uuid, cluster)]
            return [root for root in roots if any(key in root.members for key in keys)]
        if len(roots) < 2 or not self._scope.is_restricted:
            return roots
        return [root for root in roots if any(map(self.sees, root.members.values()))]

    def not_found(self, kind: str, id: str, cluster: str | None) -> Response:
        """Return the 404 for a task or a workflow; see ``state_responses.not_found``."""
        if self._scope.is_restricted:
            return unknown(kind, id, "none of its events was received, or this token does not show it")
        return not_found(self.pipeline.tasks, kind, id, cluster)

    @property
    def workers(self) -> Callable[[], Sequence[bytes]] | None:
        """A function that returns the workers for a snapshot; ``None``: all of them, with all fields."""
        if not self.sees_workers:
            return tuple
        if not self._scope.is_restricted and self._scope.hide.isdisjoint(WORKER_FIELDS):
            return None
        return self._view_workers

    def _view_workers(self) -> Sequence[bytes]:
        pipeline, fields = self.pipeline, self.fields(None)
        workers = (
            pipeline.view_visible_workers(self._scope.filter)
            if self._scope.is_restricted
            else pipeline.view_workers()
        )
        return [pick(worker, fields) for worker in workers] if fields.hidden else workers

    @property
    def record_of(self) -> RecordOf:
        """A function that returns the current record of a task, encoded."""
        records = self.pipeline.records
        return VisibleRecords(records, self._scope.filter) if self._scope.is_restricted else records.find

    def target(self, target: Target) -> Target:
        """Return what a stream waits for, within the scope.

        Raises:
            Forbidden: it is a workflow, and the scope does not contain all its tasks.
        """
        if not self._scope.is_restricted:
            return target
        if target.field == "root_id" and not self._scope.has_whole_workflow(target.value):
            raise Forbidden(
                "until=ready of a workflow requires a scope with its root_id and no other condition",
                parameter="until",
            )
        return target._replace(visible=self._scope.filter)
