"""Lookups: the state of tasks, workflows and workers as it is now, asked for once.

Each answer is JSON with an ``ETag`` (what has not changed is answered by 304), and each but a single task has
the stream's position as ``id``: ``/events?last_event_id=<id>`` goes on from there.

Much may be asked for, so the reading is done in slices of ``SLICE_SECONDS``, for clients in turn, while
events go on coming in; what is answered is as of one moment all the same. A task is looked up at once.
"""

import asyncio
import secrets
import time
from bisect import bisect_right
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from hashlib import blake2b
from itertools import chain, islice
from time import perf_counter
from typing import NamedTuple, Self

from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send

from gateway.edge.query import ACCESS_TOKEN, check_names, only
from gateway.edge.query import fields as fields_query
from gateway.edge.refusal import refusal
from gateway.errors import BadRequest
from gateway.event import FILTER_FIELDS, encode, pick
from gateway.filter import Filter, build, escape, parse
from gateway.pipeline import Pipeline
from gateway.scan import Scan
from gateway.task import VIEW_FIELDS
from gateway.tasks import Record
from gateway.worker import WORKER_FIELDS, Worker
from gateway.workflow import Workflow

DEFAULT_LIMIT = 100
MAX_LIMIT = 1_000
SLICE_SECONDS = 0.001
"""How long others wait for their turn, at most a step longer."""
RECORDS_A_STEP = 100
RECORDS_A_LAST_STEP = 5_000
STEPS_TO_CATCH_UP = 100
"""So many more than a table at rest takes; after that the steps are large, so that it comes to an end."""
MAX_PAGE_BYTES = 8 << 20
"""A page of tasks with very long texts is shorter than its limit."""
LARGE_FROM = 2_000
MAX_LARGE_ANSWERS = 4
"""How many workflows of more tasks than that are in memory until they are sent; 50,000 tasks are 40 MB."""
SLOW_PERIODS = 5
"""How many times its patience all of an answer may take to be read: others may wait for the room."""
MAX_PIECE_BYTES = 64 << 10

TASKS_PARAMETERS = (*FILTER_FIELDS, "limit", "cursor", "fields", ACCESS_TOKEN)
TASK_PARAMETERS = ("cluster", "fields", ACCESS_TOKEN)
WORKERS_FILTERS = ("hostname", "cluster")
WORKERS_PARAMETERS = (*WORKERS_FILTERS, "fields", ACCESS_TOKEN)
_ROOT_ID, _PARENT_ID = FILTER_FIELDS.index("root_id"), FILTER_FIELDS.index("parent_id")


class TasksQuery(NamedTuple):
    """A checked request for a page of tasks; ``before`` is the number of the last one on the page before."""

    filter: Filter
    limit: int
    before: int | None
    fields: frozenset[str] | None


class Lookups:
    """The endpoints of ``routes``.

    Args:
        slow_seconds: how long a client may make no progress in reading a large answer.
    """

    def __init__(self, pipeline: Pipeline, slow_seconds: float) -> None:
        self._pipeline = pipeline
        self._slow_seconds = slow_seconds
        self._epoch = secrets.token_hex(4)  # cursors count tasks, and those of another start were others
        self._turn = asyncio.Lock()
        self._room = asyncio.Semaphore(MAX_LARGE_ANSWERS)
        self.routes = [
            Route("/tasks", self.tasks),
            Route("/tasks/{uuid:path}", self.task),
            Route("/workflows/{root_id:path}", self.workflow),
            Route("/workers", self.workers),
        ]

    async def task(self, request: Request) -> Response:
        """Answer with one task."""
        check_names(request.query_params, TASK_PARAMETERS)
        fields = _fields(request.query_params, VIEW_FIELDS)
        uuid: str = request.path_params["uuid"]
        cluster = only(request.query_params, "cluster")
        records = self._pipeline.tasks.find(uuid, cluster)
        if len(records) != 1:
            return _ambiguous("task", uuid, records) if records else self._not_known("task", uuid, cluster)
        body = _Body()
        body.add(self._pipeline.view(records[0], fields, has_tries=fields is None))
        return body.answer(request)

    async def tasks(self, request: Request) -> Response:
        """Answer with a page of tasks, those that became known last first."""
        query = self._tasks_query(request.query_params)
        body = _Body()
        async with _Pace(self._turn) as pace:
            page, has_more = await self._find(query, pace)
            views = await self._views(page, query.fields, pace)
            # Nothing was awaited since the last of them was found to be as it is: this is the moment.
            is_wanted = [self._is_wanted(record, query.filter) for record in page]
            id = self._pipeline.hub.id
            cursor = f"{self._epoch}-{page[-1].number}" if has_more else None
            body.add(b'{"tasks":[')
            separator = b""
            for view, is_shown in zip(views, is_wanted, strict=True):
                if is_shown:
                    body.add(separator + view)
                    separator = b","
                    await pace.rest_if_due()
            body.add(b'],"cursor":%b' % encode(cursor))
        return body.answer(request, id)

    async def workers(self, request: Request) -> Response:
        """Answer with the workers, alive or not."""
        parameters = request.query_params
        check_names(parameters, WORKERS_PARAMETERS)
        filter = parse({field: parameters.getlist(field) for field in WORKERS_FILTERS})
        fields = _fields(parameters, WORKER_FIELDS)
        body = _Body()
        async with _Pace(self._turn) as pace:
            id = self._pipeline.hub.id  # of before, so that what comes after has all that is missing
            body.add(b'{"workers":[')
            separator = b""
            for worker in self._pipeline.workers.all(_now(), time.time()):
                if filter.matches(_keys(worker)):
                    json = encode(worker)
                    body.add(separator + (json if fields is None else pick(json, fields | {"hostname"})))
                    separator = b","
                await pace.rest_if_due()
            body.add(b"]")
        return body.answer(request, id)

    async def workflow(self, request: Request) -> Response:
        """Answer with the tree of a workflow."""
        check_names(request.query_params, TASK_PARAMETERS)
        fields = _fields(request.query_params, VIEW_FIELDS)
        root_id: str = request.path_params["root_id"]
        cluster = only(request.query_params, "cluster")
        roots = self._pipeline.tasks.roots(root_id, cluster)
        if not roots:
            return self._not_known("workflow", root_id, cluster)
        if len(roots) > 1:
            members = [next(iter(root.members.values())) for root in roots]
            return _ambiguous("workflow", root_id, members)
        if len(roots[0].members) < LARGE_FROM:
            return await self._tree(request, root_id, cluster, fields)
        return _Held(self._room, lambda: self._tree(request, root_id, cluster, fields), self._slow_seconds)

    async def _tree(
        self, request: Request, root_id: str, cluster: str | None, fields: frozenset[str] | None
    ) -> Response:
        """Read a workflow and return it as an answer."""
        root = next(iter(self._pipeline.tasks.roots(root_id, cluster)), None)
        workflow = Workflow(root_id, fields)
        wanted = {"root_id": [escape(root_id)]} | ({} if cluster is None else {"cluster": [escape(cluster)]})
        scan = Scan(self._pipeline.tasks, build(wanted))
        body = _Body()
        async with _Pace(self._turn) as pace:
            small_steps = STEPS_TO_CATCH_UP + (len(root.members) // RECORDS_A_STEP if root else 0)
            done = False
            while not done:
                await pace.rest_if_due()
                small_steps -= 1
                records, done = scan.take(RECORDS_A_STEP if small_steps > 0 else RECORDS_A_LAST_STEP)
                for record in records:
                    workflow.take(record)
            id = self._pipeline.hub.id
            if not workflow.total:
                return self._not_known("workflow", root_id, cluster)  # forgotten meanwhile
            for piece in workflow.pieces():
                body.add(piece)
                await pace.rest_if_due()
        return body.answer(request, id)

    async def _find(self, query: TasksQuery, pace: "_Pace") -> tuple[list[Record], bool]:
        """Return the records of a page, and whether there are more."""
        found: list[Record] = []
        size_bytes = 0
        for index, record in enumerate(await self._candidates(query, pace)):
            if self._is_wanted(record, query.filter):
                if len(found) == query.limit or size_bytes > MAX_PAGE_BYTES:
                    return found, True
                found.append(record)
                size_bytes += record.size_bytes
            if index % RECORDS_A_STEP == 0:
                await pace.rest_if_due()
        return found, False

    async def _candidates(self, query: TasksQuery, pace: "_Pace") -> Iterable[Record]:
        """Return all records that may match, in the order of the page."""
        tasks, before, lookups = self._pipeline.tasks, query.before, query.filter.lookups
        if lookups is None or any(field == _PARENT_ID for field, _ in lookups):
            # (A parent that is forgotten, or not known yet, has no record with children.)
            newest = list(tasks.newest())
            if before is None:
                return newest
            begin = bisect_right(newest, -before, key=lambda record: -record.number)
            return islice(newest, begin, None)
        by_number: dict[int, Record] = {}
        for field, value in lookups:
            related: Iterable[Record] = ()
            if field == _ROOT_ID:
                related = chain.from_iterable(root.members.values() for root in tasks.roots(value))
            else:
                related = tasks.find(value)
            for index, each in enumerate(tuple(related)):
                if before is None or each.number < before:
                    by_number[each.number] = each
                if index % RECORDS_A_STEP == 0:
                    await pace.rest_if_due()
        # Nearly sorted as they are, so that it takes a millisecond.
        return (by_number[number] for number in sorted(by_number, reverse=True))

    async def _views(self, page: list[Record], fields: frozenset[str] | None, pace: "_Pace") -> list[bytes]:
        """Return the records encoded, all of them as they are when this returns."""
        views = [b""] * len(page)
        seen = [(-1, 0)] * len(page)
        while True:
            news = [
                (index, now)
                for index, record in enumerate(page)
                if seen[index] != (now := (record.version, len(record.children or ())))
            ]
            if not news:
                return views
            for index, _ in news:
                record = page[index]
                seen[index] = (record.version, len(record.children or ()))
                views[index] = self._pipeline.view(record, fields)
                await pace.rest_if_due()

    def _is_wanted(self, record: Record, filter: Filter) -> bool:
        return self._pipeline.tasks.get(record.key) is record and filter.matches(record.task.keys())

    def _tasks_query(self, parameters: QueryParams) -> TasksQuery:
        check_names(parameters, TASKS_PARAMETERS)
        return TasksQuery(
            filter=parse({field: parameters.getlist(field) for field in FILTER_FIELDS}),
            limit=_limit(only(parameters, "limit")),
            before=self._before(only(parameters, "cursor")),
            fields=_fields(parameters, VIEW_FIELDS),
        )

    def _before(self, cursor: str | None) -> int | None:
        if cursor is None:
            return None
        epoch, _, digits = cursor.partition("-")
        if not (digits.isascii() and digits.isdigit()) or len(digits) > 18:
            raise BadRequest(
                f"cursor={cursor!r}: give what a page before had as its cursor",
                code="bad-value",
                parameter="cursor",
            )
        if epoch != self._epoch:
            raise BadRequest(
                f"cursor={cursor!r} is of another gateway, or of before a restart: begin at the first page",
                code="cursor-expired",
                parameter="cursor",
            )
        return int(digits)

    def _not_known(self, kind: str, id: str, cluster: str | None) -> Response:
        """Return the 404 that says why."""
        tasks = self._pipeline.tasks
        if tasks.was_evicted(id, cluster):
            return refusal(404, f"{kind}-evicted", f"the {kind} {id!r} was evicted (the table is full)")
        for record in tasks.find(id, cluster):  # and a workflow was asked for
            root_id = record.task.root_id
            message = f"the task {id!r} is not the root of a workflow"
            if root_id is not None:
                message = f"the task {id!r} belongs to the root {root_id!r}"
            return refusal(404, f"{kind}-unknown", message, root_id=root_id)
        return refusal(404, f"{kind}-unknown", f"no event of the {kind} {id!r} has been seen")


class _Pace:
    """Works while it has the turn, and lets others have theirs when ``SLICE_SECONDS`` were used.

    The turn goes round among those that read; between any two of them the loop sees to everything else.
    """

    def __init__(self, turn: asyncio.Lock) -> None:
        self._turn = turn
        self._has_turn = False
        self._until = 0.0

    async def __aenter__(self) -> Self:
        await self._turn.acquire()
        self._has_turn = True
        self._until = perf_counter() + SLICE_SECONDS
        return self

    async def __aexit__(self, *error: object) -> None:
        if self._has_turn:
            self._turn.release()

    async def rest_if_due(self) -> None:
        """Wait for the next turn if this one is over. Anything may have changed when this returns."""
        if perf_counter() < self._until:
            return
        await asyncio.sleep(0)  # with the turn, or the next would begin before the loop has seen to the rest
        self._turn.release()
        self._has_turn = False
        await self.__aenter__()


class _Body:
    """An answer as it grows: pieces of JSON, and their digest."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._digest = blake2b(digest_size=12)

    def add(self, piece: bytes) -> None:
        self._pieces.append(piece)
        self._digest.update(piece)

    def answer(self, request: Request, id: bytes | None = None) -> Response:
        """Return it all; with a position as its last field, which leaves the ETag as it is."""
        etag = f'"{self._digest.hexdigest()}"'
        if id is not None:
            etag = "W/" + etag
            self._pieces.append(b',"id":"%b"}' % id)
        headers = {"ETag": etag, "Cache-Control": "no-cache"}  # which means: ask again each time
        if _is_known(request, etag):
            return Response(status_code=304, headers=headers)
        return _Pieces(self._pieces, headers)


class _Pieces(Response):
    """A response with a body in pieces, which are let go of as they are sent."""

    def __init__(self, pieces: list[bytes], headers: dict[str, str]) -> None:
        super().__init__(headers=headers, media_type="application/json")
        self._pieces = deque(pieces)
        self.headers["content-length"] = str(sum(map(len, pieces)))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        while self._pieces:
            joined: list[bytes] = []
            size_bytes = 0
            while self._pieces and size_bytes < MAX_PIECE_BYTES:
                joined.append(self._pieces.popleft())
                size_bytes += len(joined[-1])
            more = bool(self._pieces)
            await send({"type": "http.response.body", "body": b"".join(joined), "more_body": more})


class _Held(Response):
    """A response that takes much memory: made when there is room, and given up where nobody reads it."""

    def __init__(
        self, room: asyncio.Semaphore, make: Callable[[], Awaitable[Response]], slow_seconds: float
    ) -> None:
        super().__init__()
        self._room = room
        self._make = make
        self._slow_seconds = slow_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_in_time(message: Message) -> None:
            async with asyncio.timeout(self._slow_seconds):
                await send(message)
            await asyncio.sleep(0)  # to send may take no waiting, and there is much

        async with self._room:
            response = await self._make()
            with suppress(TimeoutError):  # the server sees that it is not whole, and ends the connection
                async with asyncio.timeout(SLOW_PERIODS * self._slow_seconds):
                    await response(scope, receive, send_in_time)


def _ambiguous(kind: str, id: str, records: Iterable[Record]) -> Response:
    """Return the 409 for an id that several brokers have."""
    clusters = [record.task.cluster for record in records]
    return refusal(
        409,
        "ambiguous",
        f"the {kind} {id!r} is known from several brokers: choose one with cluster=, of {clusters}",
        parameter="cluster",
        allowed=clusters,
    )


def _is_known(request: Request, etag: str) -> bool:
    """Tell whether the client has this already: If-None-Match, RFC 9110 section 13.1.2."""
    given = request.headers.get("if-none-match", "")
    tags = {tag.strip().removeprefix("W/") for tag in given.split(",")}
    return etag.removeprefix("W/") in tags or "*" in tags


def _fields(parameters: QueryParams, allowed: tuple[str, ...]) -> frozenset[str] | None:
    fields = fields_query(parameters)
    if unknown := sorted((fields or frozenset()).difference(allowed)):
        raise BadRequest(
            f"fields={unknown[0]!r} is not a field of these",
            code="bad-value",
            parameter="fields",
            allowed=allowed,
        )
    return fields


def _limit(text: str | None) -> int:
    if text is None:
        return DEFAULT_LIMIT
    if text.isascii() and text.isdigit() and len(text) <= 9 and 1 <= int(text) <= MAX_LIMIT:
        return int(text)
    raise BadRequest(
        f"limit={text!r}: give a number from 1 to {MAX_LIMIT}",
        code="bad-value",
        parameter="limit",
        allowed=("1", str(MAX_LIMIT)),
    )


def _keys(worker: Worker) -> tuple[str | None, ...]:
    """Return what a filter on workers looks at."""
    cluster = worker.cluster if type(worker.cluster) is str else None
    values = {"hostname": worker.hostname, "cluster": cluster}
    return tuple([values.get(field) for field in FILTER_FIELDS])


def _now() -> float:
    return asyncio.get_running_loop().time()
