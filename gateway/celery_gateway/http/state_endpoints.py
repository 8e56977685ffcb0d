"""Endpoints for state: tasks, workflows and workers as they are now, and single events of the history.

Rules: each response is JSON with an ``ETag`` (304 for what has not changed). Each but a single task, worker
or event has the stream's position as ``id``: ``/events?last_event_id=<id>`` continues from there.

Large requests run in slices of 1 ms and return one consistent state; a disconnect cancels them. Between
slices other clients have their turns (``fair_share``), and events are processed. The memory is charged to the
client (``json_response``). A task with few children is read at once.
"""

import asyncio
import time
from collections.abc import Callable

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from celery_gateway.errors import Evicted
from celery_gateway.events.event import encode, pick
from celery_gateway.http.access_control import AccessControl
from celery_gateway.http.id_path import id_path
from celery_gateway.http.page_tokens import PageTokens
from celery_gateway.http.query_params import client_of, query_parameters
from celery_gateway.http.state_query import (
    event_fields,
    task_count_query,
    task_list_query,
    task_query,
    worker_list_query,
    worker_query,
)
from celery_gateway.http.state_responses import (
    CHILDREN_PER_STEP,
    TaskView,
    ambiguous,
    event_evicted,
    event_pieces,
    event_unknown,
)
from celery_gateway.http.state_tasks import TaskPageReader
from celery_gateway.http.state_work import StateWork, until_disconnect
from celery_gateway.http.state_workflow import read_workflow
from celery_gateway.http.task_counts import TaskCounter
from celery_gateway.http.task_selection import REFERENCE_BYTES
from celery_gateway.http.workflow_list import WorkflowPageReader
from celery_gateway.http.workflow_query import workflow_list_query
from celery_gateway.state.worker import worker_keys
from celery_gateway.state.workflow import Workflow

LARGE_EVENT_BYTES = 64 << 10
"""Events above this size are projected within a share of time."""

_IDENTITY = frozenset({"id", "type"})
_WORKER_IDENTITY = frozenset({"hostname"})
_WORKFLOW_IDENTITY = frozenset({"root_id"})


class StateEndpoints:
    """The endpoints, as ``routes``.

    Args:
        access: authenticates, and has what is visible.
        work: shared by all endpoints with large responses, which take turns.
        page_secret: see ``PageTokens``.
    """

    def __init__(
        self,
        access: AccessControl,
        work: StateWork,
        page_secret: Callable[[], str] = str,
    ) -> None:
        self._access = access
        self._work = work
        self._page_tokens = PageTokens(page_secret)
        self.routes = [
            access.route("/events/{id}", until_disconnect(self.event), "events"),
            access.route("/tasks", until_disconnect(self.tasks), "state"),
            access.route("/tasks/counts", until_disconnect(self.task_counts), "state"),
            access.route("/tasks/" + id_path("uuid"), until_disconnect(self.task), "state"),
            access.route("/workflows", until_disconnect(self.workflows), "state"),
            access.route("/workflows/" + id_path("root_id"), until_disconnect(self.workflow), "state"),
            access.route("/workers", until_disconnect(self.workers), "workers"),
            access.route("/workers/" + id_path("hostname"), until_disconnect(self.worker), "workers"),
        ]

    async def event(self, request: Request) -> Response:
        """Return one event of the history, or of the log, not truncated."""
        visible = self._access.visible(request)
        fields = visible.fields(event_fields(query_parameters(request))).including(_IDENTITY)
        id: str = request.path_params["id"]
        try:
            json = await visible.event(id, client_of(request))
        except Evicted:
            return event_evicted(id)
        if json is None:
            return event_unknown(id)
        if fields.are_all or len(json) <= LARGE_EVENT_BYTES:
            builder = self._work.builder(request)
            builder.add_whole(json if fields.are_all else pick(json, fields))
        else:
            async with self._work.begin(request) as (_, builder):
                builder.reserve(2 * len(json))
                for piece in event_pieces(json, fields):
                    builder.add_whole(piece)
        return builder.response(request, etag=f'"{id}"')  # an event never changes

    async def task(self, request: Request) -> Response:
        """Return one task."""
        uuid: str = request.path_params["uuid"]
        if not uuid:
            raise HTTPException(404)  # /tasks/ redirects to /tasks
        query = task_query(query_parameters(request))
        visible = self._access.visible(request)
        records = visible.tasks(uuid, query.cluster)
        if not records:
            return visible.not_found("task", uuid, query.cluster)
        if len(records) > 1:
            return ambiguous("task", uuid, [record.task.cluster for record in records])
        view = TaskView(records[0], visible.fields(query.fields), with_attempts=True)
        view.freeze_children(visible.filter_of_records)
        if len(view.children) <= CHILDREN_PER_STEP:
            builder = self._work.builder(request)
            builder.add(b"".join(view.pieces()))
        else:
            async with self._work.begin(request) as (share, builder):
                builder.charge_scratch(REFERENCE_BYTES * len(view.children))
                for piece in view.pieces():
                    builder.add(piece)
                    await share.checkpoint()
        return builder.response(request)

    async def tasks(self, request: Request) -> Response:
        """Return a page of tasks."""
        query = task_list_query(query_parameters(request), self._page_tokens)
        visible = self._access.visible(request)
        async with self._work.begin(request) as (share, builder):
            page = await TaskPageReader(visible, query, share, builder).read()
            id = visible.pipeline.hub.id  # at the same moment
            token = None if page.last is None else self._page_tokens.token(page.last, query.digest)
            builder.add(b'{"tasks":[')
            separator = b""
            for view in page.views:
                builder.charge_scratch(-view.size_bytes)
                builder.add(separator)
                for piece in view.pieces():
                    builder.add(piece)
                    await share.checkpoint()
                separator = b","
            builder.add(b'],"cursor":%b' % encode(token))
        return builder.response(request, id)

    async def task_counts(self, request: Request) -> Response:
        """Return numbers of tasks by field."""
        query = task_count_query(query_parameters(request))
        visible = self._access.visible(request)
        async with self._work.begin(request) as (share, builder):
            counts, id = await TaskCounter(visible, query, share, builder).count()
            builder.add(encode(counts)[:-1])
        return builder.response(request, id)

    async def worker(self, request: Request) -> Response:
        """Return one worker."""
        hostname: str = request.path_params["hostname"]
        if not hostname:
            raise HTTPException(404)  # /workers/ redirects to /workers
        query = worker_query(query_parameters(request))
        visible = self._access.visible(request)
        visible.check_shown([("hostname", "hostname")], "requested")
        found = visible.workers_named(hostname, query.cluster, _now(), time.time())
        if not found:
            return visible.worker_not_found(hostname)
        if len(found) > 1:
            return ambiguous("worker", hostname, [worker.cluster for worker in found])
        fields = visible.fields(query.fields).including(_WORKER_IDENTITY)
        json = encode(found[0])
        builder = self._work.builder(request)
        builder.add(json if fields.are_all else pick(json, fields))
        return builder.response(request)

    async def workers(self, request: Request) -> Response:
        """Return the workers, alive or not."""
        query = worker_list_query(query_parameters(request))
        visible = self._access.visible(request)
        filter = visible.restrict(query.filter)
        fields = visible.fields(query.fields).including(_WORKER_IDENTITY)
        pipeline = visible.pipeline
        async with self._work.begin(request) as (share, builder):
            id = pipeline.hub.id  # before the workers are read, so that no later event is missed
            builder.add(b'{"workers":[')
            separator = b""
            for worker in pipeline.workers.iterate(_now(), time.time()):
                if filter.matches(worker_keys(worker.hostname, worker.cluster)):
                    json = encode(worker)
                    builder.add(separator + (json if fields.are_all else pick(json, fields)))
                    separator = b","
                await share.checkpoint()
            builder.add(b"]")
        return builder.response(request, id)

    async def workflows(self, request: Request) -> Response:
        """Return a page of workflows."""
        query = workflow_list_query(query_parameters(request), self._page_tokens)
        visible = self._access.visible(request)
        fields = visible.fields(query.fields).including(_WORKFLOW_IDENTITY)
        async with self._work.begin(request) as (share, builder):
            page = await WorkflowPageReader(visible, query, share, builder).read()
            id = visible.pipeline.hub.id  # at the same moment
            token = None if page.last is None else self._page_tokens.token(page.last, query.digest)
            builder.add(b'{"workflows":[')
            separator = b""
            for view in page.views:
                shown = {name: value for name, value in view.items() if name in fields}
                builder.add(separator + encode(shown))
                separator = b","
                await share.checkpoint()
            builder.add(b'],"cursor":%b' % encode(token))
        return builder.response(request, id)

    async def workflow(self, request: Request) -> Response:
        """Return the tree of a workflow."""
        root_id: str = request.path_params["root_id"]
        if not root_id:
            raise HTTPException(404)  # /workflows/ redirects to /workflows
        query = task_query(query_parameters(request))
        visible = self._access.visible(request)
        async with self._work.begin(request) as (share, builder):
            roots = await visible.roots(root_id, query.cluster, share)
            if len(roots) > 1:
                members = [next(iter(root.members.values())) for root in roots]
                return ambiguous("workflow", root_id, [member.task.cluster for member in members])
            id = None
            if roots:
                workflow = Workflow(root_id, visible.fields(query.fields), visible.filter_of_records)
                id = await read_workflow(workflow, roots[0], visible, share, builder)
            if id is None:  # unknown, not visible, or evicted meanwhile
                builder.release()
                return visible.not_found("workflow", root_id, query.cluster)
        return builder.response(request, id)


def _now() -> float:
    return asyncio.get_running_loop().time()
