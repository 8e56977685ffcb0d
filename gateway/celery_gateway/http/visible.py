"""What a principal may see: the endpoints read the pipeline through this, and through nothing else.

Rules: each method applies the principal's scope. What is not visible is treated as if it did not exist: the
same responses, without a word about evictions or about the tasks of others.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any

from starlette.responses import Response

from celery_gateway.access.principal import ANYONE, Principal
from celery_gateway.access.scope import Scope
from celery_gateway.errors import Evicted, Forbidden
from celery_gateway.events.event import FILTER_FIELDS, pick
from celery_gateway.events.fields import Fields
from celery_gateway.events.filter import Filter
from celery_gateway.events.matcher import Matcher
from celery_gateway.http.fair_share import FairShare
from celery_gateway.http.state_responses import not_found, unknown
from celery_gateway.pipeline.pipeline import Pipeline
from celery_gateway.state.activity_report import ActivityReader
from celery_gateway.state.current_records import VisibleRecords
from celery_gateway.state.failure_report import FailureQuery, read_failures
from celery_gateway.state.task_graph import Root
from celery_gateway.state.task_record import Record
from celery_gateway.state.worker import WORKER_FIELDS, Worker, worker_keys
from celery_gateway.state.worker_status import WorkerKey
from celery_gateway.stream.completion import Target
from celery_gateway.stream.record_view import RecordOf

_UUID = FILTER_FIELDS.index("uuid")
_pick_worker = lru_cache(maxsize=1_000)(pick)
"""Pick the fields of a worker, once for all streams with equal scopes. A result has about 500 bytes."""


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

    @property
    def hidden(self) -> frozenset[str]:
        """The names of the hidden fields."""
        return self._scope.hide

    def check_shown(self, reads: Iterable[tuple[str, str]], use: str) -> None:
        """Check that a request reads no hidden fields.

        Args:
            reads: fields, each with the parameter that reads it.
            use: what the parameter does with the field: ``compared``, ``sorted``, ``counted``, ``requested``,
                ``reported``.

        Raises:
            Forbidden: a field is hidden.
        """
        for field, parameter in reads:
            if field in self._scope.hide:
                message = f"the field {field!r} is hidden from this token: it cannot be {use}"
                raise Forbidden(message, parameter=parameter)

    def activity(self, window_seconds: float, filter: Filter) -> ActivityReader:
        """Return a reader of the statistics that a filter passes within the scope."""
        return ActivityReader(
            self.pipeline.tasks.activity,
            window_seconds,
            visible=self._filter_of_names(filter),
            hidden=self._scope.hide,
        )

    def failures(self, filter: Filter, since: float) -> Iterator[dict[str, Any] | None]:
        """Yield the failures that a filter passes within the scope; see ``read_failures``."""
        query = FailureQuery(self._filter_of_names(filter), self._scope.hide, since)
        return read_failures(self.pipeline.tasks.activity.failures, query)

    def _filter_of_names(self, filter: Filter) -> Matcher | None:
        """Return what a filter passes within the scope; ``None`` if that is everything."""
        if not filter.clauses and not self._scope.is_restricted:
            return None
        return self._scope.restrict(filter)

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

    def may_see_workflow(self, root_id: str) -> bool:
        """Return whether some tasks of a workflow may be visible, by its id."""
        return self._scope.may_see_workflow(root_id)

    @property
    def only_uuids(self) -> frozenset[str] | None:
        """The uuids of all tasks that may be visible; ``None`` if the scope does not list them."""
        lookups = self._scope.filter.lookups if self._scope.is_restricted else None
        if lookups is None or any(position != _UUID for position, _ in lookups):
            return None
        return frozenset([uuid for _, uuid in lookups])

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

    def may_be_roots(self, root_id: str, cluster: str | None) -> list[Root]:
        """Return the workflows of a root id that may have visible tasks. No task is read."""
        if not self._scope.may_see_workflow(root_id):
            return []
        tasks = self.pipeline.tasks
        roots = tasks.roots(root_id, cluster)
        if (uuids := self.only_uuids) is not None:
            # Few tasks are visible, so the members are not read: the time would show their number.
            keys = [key for uuid in uuids for key in tasks.keys(uuid, cluster)]
            return [root for root in roots if any(key in root.members for key in keys)]
        return roots

    async def roots(self, root_id: str, cluster: str | None, share: FairShare) -> list[Root]:
        """Return the workflows of a root id: if there are several, only those that have visible tasks.

        A single one may have none. Each has tasks.

        Args:
            share: the request's share of time.
        """
        roots = self.may_be_roots(root_id, cluster)
        if len(roots) < 2 or not self._scope.is_restricted:
            return roots
        visible = [root for root in roots if await self.sees_any(root, share)]
        return [root for root in visible if root.members]  # others were evicted meanwhile

    async def sees_any(self, root: Root, share: FairShare) -> bool:
        """Return whether a task of a workflow is visible."""
        for record in self.members(root):
            if self.sees(record):
                return True
            await share.checkpoint()
        return False

    def member_keys(self, root: Root) -> Sequence[str]:
        """Return the keys of the tasks of a workflow that may be visible."""
        if not self.may_see_workflow(root.id):
            return ()
        uuids = self.only_uuids
        if uuids is None:
            return tuple(root.members)
        # Few tasks are visible, so the others are not read: the time would show their number.
        keys = [key for uuid in uuids for key in self.pipeline.tasks.keys(uuid)]
        return [key for key in keys if key in root.members]

    def members(self, root: Root) -> Iterator[Record]:
        """Iterate over the tasks of a workflow that may be visible; it may change meanwhile."""
        members = root.members
        return (record for key in self.member_keys(root) if (record := members.get(key)) is not None)

    def workers_named(self, hostname: str, cluster: str | None, now: float, time: float) -> list[Worker]:
        """Return the visible workers with a node name: at most one for each cluster.

        Args:
            cluster: the name of the broker; ``None``: any.
            now: on the clock of the event loop.
            time: epoch seconds.
        """
        workers, filter = self.pipeline.workers, self._scope.filter
        found = [workers.get(key, now, time) for key in sorted(workers.keys()) if key[1] == hostname]
        return [
            worker
            for worker in found
            if worker is not None
            and (cluster is None or worker.cluster == cluster)
            and filter.matches(worker_keys(worker.hostname, worker.cluster))
        ]

    def worker_not_found(self, hostname: str) -> Response:
        """Return the 404 for a worker."""
        if self._scope.is_restricted:
            reason = "none of its events was received lately, or this token does not show it"
            return unknown("worker", hostname, reason)
        return unknown("worker", hostname, "none of its events was received in the last hour")

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

    def view_worker(self, key: WorkerKey, worker: bytes) -> bytes | None:
        """Return a worker, encoded, without hidden fields; ``None`` if it is not visible."""
        cluster, hostname = key
        if self._scope.is_restricted and not self._scope.filter.matches(worker_keys(hostname, cluster)):
            return None
        if self._scope.hide.isdisjoint(WORKER_FIELDS):
            return worker
        return _pick_worker(worker, self.fields(None))

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
