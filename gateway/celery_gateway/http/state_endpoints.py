"""Endpoints for state: tasks, workflows and workers as they are now, and single events of the history.

Rules: each response is JSON with an ``ETag`` (304 for what has not changed). Each but a single task or event
has the stream's position as ``id``: ``/events?last_event_id=<id>`` continues from there.

Large requests run in slices of 1 ms and return one consistent state; a disconnect cancels them. Between
slices other clients have their turns (``fair_share``), and events are processed. The memory is charged to the
client (``json_response``). A task with few children is read at once.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import NamedTuple

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from celery_gateway.errors import Evicted
from celery_gateway.events.event import encode, pick
from celery_gateway.http.access_control import AccessControl
from celery_gateway.http.fair_share import FairShare, TurnQueue, while_connected
from celery_gateway.http.json_response import JSONBuilder
from celery_gateway.http.query_params import client_of, query_parameters, quota_of
from celery_gateway.http.state_query import (
    PageTokens,
    event_fields,
    task_list_query,
    task_query,
    worker_list_query,
)
from celery_gateway.http.state_responses import (
    CHILDREN_PER_STEP,
    TaskView,
    ambiguous,
    event_evicted,
    event_pieces,
    event_unknown,
)
from celery_gateway.http.state_tasks import REFERENCE_BYTES, TaskPageReader
from celery_gateway.http.state_workflow import read_workflow
from celery_gateway.state.worker import worker_keys
from celery_gateway.state.workflow import Workflow
from celery_gateway.stream.limits import Limits

LARGE_EVENT_BYTES = 64 << 10
"""Events above this size are projected within a share of time."""

_IDENTITY = frozenset({"id", "type"})
_WORKER_IDENTITY = frozenset({"hostname"})


class _Work(NamedTuple):
    """What a large request works with: its share of time, and its response in the making."""

    share: FairShare
    builder: JSONBuilder


class StateEndpoints:
    """The endpoints, as ``routes``.

    Args:
        access: authenticates, and has what is visible.
        limits: those of all clients.
        slow_seconds: how long a client may make no progress in reading a large response, in seconds.
        page_secret: see ``PageTokens``.
    """

    def __init__(
        self,
        access: AccessControl,
        limits: Limits,
        slow_seconds: float,
        page_secret: Callable[[], str] = str,
    ) -> None:
        self._access = access
        self._limits = limits
        self._slow_seconds = slow_seconds
        self._page_tokens = PageTokens(page_secret)
        self._turns = TurnQueue()
        self.routes = [
            access.route("/events/{id}", _until_disconnect(self.event), "events"),
            access.route("/tasks", _until_disconnect(self.tasks), "state"),
            access.route("/tasks/{uuid:path}", _until_disconnect(self.task), "state"),
            access.route("/workflows/{root_id:path}", _until_disconnect(self.workflow), "state"),
            access.route("/workers", _until_disconnect(self.workers), "workers"),
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
            builder = self._builder(request)
            builder.add_whole(json if fields.are_all else pick(json, fields))
        else:
            async with self._work(request) as (_, builder):
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
            return ambiguous("task", uuid, records)
        view = TaskView(records[0], visible.fields(query.fields), with_attempts=True)
        view.freeze_children(visible.filter_of_records)
        if len(view.children) <= CHILDREN_PER_STEP:
            builder = self._builder(request)
            builder.add(b"".join(view.pieces()))
        else:
            async with self._work(request) as (share, builder):
                builder.charge_scratch(REFERENCE_BYTES * len(view.children))
                for piece in view.pieces():
                    builder.add(piece)
                    await share.checkpoint()
        return builder.response(request)

    async def tasks(self, request: Request) -> Response:
        """Return a page of tasks, newest first."""
        query = task_list_query(query_parameters(request), self._page_tokens)
        visible = self._access.visible(request)
        async with self._work(request) as (share, builder):
            page = await TaskPageReader(visible, query, share, builder).read()
            id = visible.pipeline.hub.id  # at the same moment
            token = None if page.last_number is None else self._page_tokens.token(page.last_number)
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

    async def workers(self, request: Request) -> Response:
        """Return the workers, alive or not."""
        query = worker_list_query(query_parameters(request))
        visible = self._access.visible(request)
        filter = visible.restrict(query.filter)
        fields = visible.fields(query.fields).including(_WORKER_IDENTITY)
        pipeline = visible.pipeline
        async with self._work(request) as (share, builder):
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

    async def workflow(self, request: Request) -> Response:
        """Return the tree of a workflow."""
        query = task_query(query_parameters(request))
        root_id: str = request.path_params["root_id"]
        visible = self._access.visible(request)
        pipeline = visible.pipeline
        async with self._work(request) as (share, builder):
            roots = visible.roots(root_id, query.cluster)
            if len(roots) > 1:
                members = [next(iter(root.members.values())) for root in roots]
                return ambiguous("workflow", root_id, members)
            id = None
            if roots:
                workflow = Workflow(root_id, visible.fields(query.fields), visible.filter_of_records)
                id = await read_workflow(
                    workflow, roots[0], pipeline.tasks, lambda: pipeline.hub.id, share, builder
                )
            if id is None:  # unknown, not visible, or evicted meanwhile
                builder.release()
                return visible.not_found("workflow", root_id, query.cluster)
        return builder.response(request, id)

    def _builder(self, request: Request) -> JSONBuilder:
        return JSONBuilder(self._limits, client_of(request), self._slow_seconds)

    @asynccontextmanager
    async def _work(self, request: Request) -> AsyncIterator[_Work]:
        """Run the block in turns, as long as the client is connected."""
        builder = self._builder(request)
        try:
            async with (
                while_connected(request.receive),
                FairShare(self._turns, client_of(request), quota_of(request)) as share,
            ):
                yield _Work(share, builder)
        except BaseException:
            builder.release()
            raise


def _until_disconnect(
    endpoint: Callable[[Request], Awaitable[Response]],
) -> Callable[[Request], Awaitable[Response]]:
    """Return an endpoint that ends quietly when its client disconnects."""

    async def respond(request: Request) -> Response:
        try:
            return await endpoint(request)
        except ClientDisconnect:
            return Response()  # it has no receiver

    return respond


def _now() -> float:
    return asyncio.get_running_loop().time()
