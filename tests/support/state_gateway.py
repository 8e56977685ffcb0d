"""A gateway without a broker, and a client of its endpoints for state, in the test's own event loop."""

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from typing import Any

import httpx
import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

from celery_gateway.access.authenticator import Authenticator
from celery_gateway.broker.queues import Queues
from celery_gateway.broker.source import Source
from celery_gateway.events.message import Message
from celery_gateway.http.action_endpoints import Actions
from celery_gateway.http.allowed_hosts import Policy
from celery_gateway.http.app import create_app
from celery_gateway.http.origin import OriginCheck
from celery_gateway.http.query_secrets import hide_secrets
from celery_gateway.http.uvicorn_direct.http_connection import DirectHTTP
from celery_gateway.pipeline.feed import Feed
from celery_gateway.pipeline.pipeline import Pipeline
from celery_gateway.state.task_table import TaskTable
from celery_gateway.state.worker_table import WorkerTable
from celery_gateway.stream.completion import Completions
from celery_gateway.stream.hub import Hub
from celery_gateway.stream.limits import DEFAULT_MEMORY_BYTES, Limits
from tests.support.publisher import received, task_event
from tests.support.served_gateway import QuietSource

Event = dict[str, Any]

clock = count(1)
"""The timestamps of events, in seconds."""


class StateGateway:
    """A gateway without a broker, and an HTTP client of it; tests pass messages to its pipeline.

    With an `authenticator`, requests need a token: a `Gateway` has the same parts in the same order.
    """

    def __init__(
        self,
        *,
        max_tasks: int = 100_000,
        root_path: str = "",
        slow_seconds: float = 60.0,
        clusters: tuple[str, ...] = (),
        source: Source | None = None,
        memory_bytes: int = DEFAULT_MEMORY_BYTES,
        authenticator: Authenticator | None = None,
        wait_known_seconds: float = 30.0,
        max_event_bytes: int = 0,
        max_connection_age_seconds: float = 0.0,
        queues: Queues | None = None,
        actions: Actions | None = None,
        **options: Any,
    ) -> None:
        self.feeds = {name: Feed(name, source or QuietSource()) for name in clusters or (None,)}
        tasks = TaskTable(max_tasks=max_tasks, clusters=clusters, keeps_origins=authenticator is not None)
        hub = Hub(max_event_bytes=max_event_bytes)
        self.pipeline = Pipeline(
            self.feeds.values(),
            tasks,
            WorkerTable(has_clusters=bool(clusters)),
            hub,
            Completions(tasks, hub, wait_known_seconds=wait_known_seconds),
            limits=Limits(memory_bytes=memory_bytes),
            **options,
        )
        app = create_app(
            self.pipeline,
            authenticator,
            slow_seconds=slow_seconds,
            root_path=root_path,
            max_connection_age_seconds=max_connection_age_seconds,
            queues=queues,
            actions=actions,
        )
        policy = Policy(allow_hosts=["gateway"], allow_origins=["https://shop.example"])
        self.app = _WithoutSecrets(OriginCheck(app, policy))
        self._client = httpx.AsyncClient(
            transport=httpx.ASGITransport(app=self.app), base_url="http://gateway"
        )

    def put(self, *events: Event, cluster: str | None = None) -> None:
        """Process events as one message of a broker."""
        for _ in self.pipeline.on_message(Message(json.dumps(events).encode()), self.feeds[cluster]) or ():
            pass

    async def request(
        self, path: str, *, method: str = "GET", body: bytes = b"", **headers: str
    ) -> httpx.Response:
        """Send a request; underscores in the names of headers become hyphens."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self._client.request(method, path, headers=named, content=body)

    async def get(self, path: str) -> Any:
        """Return the JSON of a response with status 200."""
        response = await self.request(path)
        assert response.status_code == 200, response.text
        return response.json()

    async def get_error(self, path: str, status_code: int) -> dict[str, Any]:
        """Return the error of a response with another status."""
        response = await self.request(path)
        assert response.status_code == status_code, response.text
        error: dict[str, Any] = response.json()["error"]
        assert error["message"]
        return error


class _WithoutSecrets:
    """An application whose requests have no secrets in their queries."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        hide_secrets(scope)
        await self._app(scope, receive, send)


def known(uid: str, root_id: str | None = None, **fields: Any) -> Event:
    """Return a ``task-received``, each a second later than the one before."""
    about = {"name": "shop.pay", "timestamp": float(next(clock))} | fields
    return received(uid, about.pop("name"), root_id) | about


def step(subject: str, uid: str, **fields: Any) -> Event:
    return task_event(f"task-{subject}", uid, timestamp=float(next(clock)), **fields)


def heartbeat(hostname: str = "w1@host", **fields: Any) -> Event:
    return {"type": "worker-heartbeat", "hostname": hostname, "timestamp": time.time(), "pid": 1} | fields


def uuids(page: dict[str, Any]) -> list[str]:
    return [task["uuid"] for task in page["tasks"]]


@asynccontextmanager
async def served(
    gateway: StateGateway, send_buffer_bytes: int | None = None, http: Any = DirectHTTP
) -> AsyncIterator[int]:
    """Serve a gateway in this event loop; the block gets the port."""
    listener = socket.create_server(("127.0.0.1", 0))  # earlier clients wait
    if send_buffer_bytes is not None:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer_bytes)
    config = uvicorn.Config(
        gateway.app,
        http=http,
        lifespan="off",
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=1,
    )
    server = uvicorn.Server(config)
    running = asyncio.create_task(server.serve([listener]))
    try:
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        await running


async def fetch(port: int, path: str) -> list[bytes]:
    """Return a response in pieces: joining them here would take time of the event loop that is measured."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    chunks: list[bytes] = []
    while chunk := await reader.read(1 << 18):
        chunks.append(chunk)
    writer.close()
    return chunks


def content(chunks: list[bytes]) -> Any:
    """Return the JSON of a response."""
    head, _, body = b"".join(chunks).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200"), head
    return json.loads(body)
