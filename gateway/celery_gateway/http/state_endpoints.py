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
from starlette.routing import Route

from celery_gateway.errors import Evicted
from celery_gateway.events.event import FILTER_FIELDS, encode, pick
from celery_gateway.http.fair_share import FairShare, TurnQueue, while_connected
from celery_gateway.http.json_response import JSONBuilder
from celery_gateway.http.query_params import client_of, query_parameters
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
    not_found,
)
from celery_gateway.http.state_tasks import REFERENCE_BYTES, TaskPageReader
from celery_gateway.http.state_workflow import read_workflow
from celery_gateway.pipeline import Pipeline
from celery_gateway.state.worker import Worker

LARGE_EVENT_BYTES = 64 << 10
"""Events above this size are projected within a share of time."""


class _Work(NamedTuple):
    """What a large request works with: its share of time, and its response in the making."""

    share: FairShare
    builder: JSONBuilder


class StateEndpoints:
    """The endpoints, as ``routes``.

    Args:
        slow_seconds: how long a client may make no progress in reading a large response, in seconds.
    """

    def __init__(self, pipeline: Pipeline, slow_seconds: float) -> None:
        self._pipeline = pipeline
        self._slow_seconds = slow_seconds
        self._page_tokens = PageTokens()
        self._turns = TurnQueue()
        self.routes = [
            Route(path, _until_disconnect(endpoint))
            for path, endpoint in (
                ("/events/{id}", self.event),
                ("/tasks", self.tasks),
                ("/tasks/{uuid:path}", self.task),
                ("/workflows/{root_id:path}", self.workflow),
                ("/workers", self.workers),
            )
        ]

    async def event(self, request: Request) -> Response:
        """Return one event of the history, not truncated."""
        fields = event_fields(query_parameters(request))
        id: str = request.path_params["id"]
        try:
            json = self._pipeline.hub.event(id)
        except Evicted:
            return event_evicted(id)
        if json is None:
            return event_unknown(id)
        if fields is None or len(json) <= LARGE_EVENT_BYTES:
            builder = self._builder(request)
            builder.add_whole(json if fields is None else pick(json, fields | {"id", "type"}))
        else:
            async with self._work(request) as (_, builder):
                builder.reserve(2 * len(json))
                for piece in event_pieces(json, fields | {"id", "type"}):
                    builder.add_whole(piece)
        return builder.response(request, etag=f'"{id}"')  # an event never changes

    async def task(self, request: Request) -> Response:
        """Return one task."""
        uuid: str = request.path_params["uuid"]
        if not uuid:
            raise HTTPException(404)  # /tasks/ redirects to /tasks
        query = task_query(query_parameters(request))
        tasks = self._pipeline.tasks
        records = tasks.find(uuid, query.cluster)
        if not records:
            return not_found(tasks, "task", uuid, query.cluster)
        if len(records) > 1:
            return ambiguous("task", uuid, records)
        view = TaskView(records[0], query.fields, with_attempts=True)
        view.freeze_children()
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
        async with self._work(request) as (share, builder):
            page = await TaskPageReader(self._pipeline.tasks, query, share, builder).read()
            id = self._pipeline.hub.id  # at the same moment
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
        filter, fields = worker_list_query(query_parameters(request))
        async with self._work(request) as (share, builder):
            id = self._pipeline.hub.id  # before the workers are read, so that no later event is missed
            builder.add(b'{"workers":[')
            separator = b""
            for worker in self._pipeline.workers.iterate(_now(), time.time()):
                if filter.matches(_keys(worker)):
                    json = encode(worker)
                    builder.add(separator + (json if fields is None else pick(json, fields | {"hostname"})))
                    separator = b","
                await share.checkpoint()
            builder.add(b"]")
        return builder.response(request, id)

    async def workflow(self, request: Request) -> Response:
        """Return the tree of a workflow."""
        query = task_query(query_parameters(request))
        root_id: str = request.path_params["root_id"]
        tasks, hub = self._pipeline.tasks, self._pipeline.hub
        async with self._work(request) as (share, builder):
            roots = tasks.roots(root_id, query.cluster)
            if len(roots) > 1:
                members = [next(iter(root.members.values())) for root in roots]
                return ambiguous("workflow", root_id, members)
            id = None
            if roots:
                id = await read_workflow(
                    root_id, roots[0], query.fields, tasks, lambda: hub.id, share, builder
                )
            if id is None:  # unknown, or evicted meanwhile
                builder.release()
                return not_found(tasks, "workflow", root_id, query.cluster)
        return builder.response(request, id)

    def _builder(self, request: Request) -> JSONBuilder:
        return JSONBuilder(self._pipeline.limits, client_of(request), self._slow_seconds)

    @asynccontextmanager
    async def _work(self, request: Request) -> AsyncIterator[_Work]:
        """Run the block in turns, as long as the client is connected."""
        builder = self._builder(request)
        try:
            async with (
                while_connected(request.receive),
                FairShare(self._turns, client_of(request)) as share,
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


def _keys(worker: Worker) -> tuple[str | None, ...]:
    """Return the values that a filter on workers compares."""
    cluster = worker.cluster if type(worker.cluster) is str else None
    values = {"hostname": worker.hostname, "cluster": cluster}
    return tuple([values.get(field) for field in FILTER_FIELDS])


def _now() -> float:
    return asyncio.get_running_loop().time()
