"""A gateway without a broker, served in the test's own event loop, so that tests can look into it."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from celery_gateway.broker.source import Sink, Status
from celery_gateway.http.app import create_app
from celery_gateway.http.guard import ServerLimits
from celery_gateway.http.server import secured
from celery_gateway.http.tls import Certificate
from celery_gateway.http.uvicorn_direct.config import Config
from celery_gateway.http.uvicorn_direct.http_connection import DirectHTTP
from celery_gateway.http.uvicorn_direct.websocket_connection import DirectWebSocket
from celery_gateway.pipeline.feed import Feed
from celery_gateway.pipeline.pipeline import Pipeline
from celery_gateway.state.task_table import TaskTable
from celery_gateway.state.worker_table import WorkerTable
from celery_gateway.stream.hub import Hub

KEEPALIVE_SECONDS = 0.4
SLOW_SECONDS = 1.0


class QuietSource:
    """A source without messages."""

    status = Status(True, "consuming")

    async def run(self, sink: Sink) -> None:
        await asyncio.Event().wait()


class ServedGateway:
    """A gateway without a broker.

    Args:
        source: its source; by default one without messages.

    Attributes:
        send_buffer_bytes: the system's send buffer of each connection; 0: the default.
        server_limits: the limits that all connections share.
        certificate: with it, the gateway serves HTTPS. Set these three before ``opened``.
    """

    def __init__(self, source: QuietSource | None = None) -> None:
        self.hub = Hub()
        feed = Feed(None, source or QuietSource())
        self.pipeline = Pipeline([feed], TaskTable(max_tasks=100), WorkerTable(has_clusters=False), self.hub)
        self.app: ASGIApp = create_app(
            self.pipeline, keepalive_seconds=KEEPALIVE_SECONDS, slow_seconds=SLOW_SECONDS
        )
        self.port = 0
        self.server: uvicorn.Server
        self.config: uvicorn.Config
        self.send_buffer_bytes = 0
        self.server_limits = ServerLimits(self.pipeline.limits, 1_000, SLOW_SECONDS)
        self.certificate: Certificate | None = None

    @asynccontextmanager
    async def opened(self) -> AsyncIterator["ServedGateway"]:
        """Serve within the block."""
        listener = socket.create_server(("127.0.0.1", 0))
        if self.send_buffer_bytes:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self.send_buffer_bytes)
        self.port = listener.getsockname()[1]
        config = Config(
            self.app,
            self.server_limits,
            http=secured(DirectHTTP, self.certificate, self.server_limits)
            if self.certificate
            else DirectHTTP,
            ws=DirectWebSocket,
            ws_ping_interval=None,
            ws_per_message_deflate=False,
            lifespan="off",
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=1,
        )
        self.config = config
        self.server = uvicorn.Server(config)
        running = asyncio.create_task(self.server.serve([listener]))
        await self.pipeline.start()
        try:
            yield self
        finally:
            await self.pipeline.stop()
            self.server.should_exit = True
            await running

    async def connect(self, request: str) -> tuple[socket.socket, Any]:
        """Start a stream.

        Returns:
            The client's socket, which has a small receive buffer, and the server's connection object.
        """
        before = set(self.server.server_state.connections)
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(client, ("127.0.0.1", self.port))
        await loop.sock_sendall(client, request.encode())
        await until(lambda: self._streams(before))
        (connection,) = self._streams(before)
        return client, connection

    def _streams(self, before: set[Any]) -> list[Any]:
        new = self.server.server_state.connections - before
        return [each for each in new if getattr(each, "_subscription", None) is not None]


def websocket_request(query: str = "") -> str:
    """Return the request of a WebSocket's handshake."""
    return (
        f"GET /ws{query} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )


async def until(condition: Callable[[], Any], seconds: float = 30) -> None:
    """Wait until a condition holds.

    Raises:
        TimeoutError: it does not hold after some seconds.
    """
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)
