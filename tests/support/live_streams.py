"""Streams of every kind: of the application in this event loop, or of our own server in front of it."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import httpx
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from tests.support.asgi_exchange import Exchange, Message
from tests.support.served_gateway import ServedGateway, until
from tests.support.state_gateway import StateGateway

KINDS = ("sse", "ndjson", "post", "websocket")
Headers = Sequence[tuple[str, str]]


def exchange(app: Any, path: str, method: str, headers: Headers, **options: Any) -> Exchange:
    """Begin a request, or with the method `WEBSOCKET` a handshake."""
    if method == "WEBSOCKET":
        return Exchange(app, path, headers=headers, subprotocols=options.pop("subprotocols", ()), **options)
    return Exchange(app, path, method=method, headers=headers, **options)


class Stream:
    """A stream of the application in this event loop, or of our own server.

    Args:
        kind: one of `KINDS`; the body of a `post` is an empty object.

    Attributes:
        messages: without keep-alives.
        close_code: of a WebSocket.
        ended_at: epoch seconds.
    """

    def __init__(self, kind: str, headers: Headers, last_event_id: str = "", query: str = "") -> None:
        self.kind = kind
        self.messages: list[Message] = []
        self.close_code: int | None = None
        self.ended_at = 0.0
        self._headers = headers
        self._query = f"last_event_id={last_event_id}&{query}" if last_event_id else query
        if kind == "ndjson":
            self._query += "&format=ndjson"
        self.task: asyncio.Task[None]

    async def open(self, app: Any, port: int = 0) -> "Stream":
        """Begin the stream, and wait for its first message."""
        self.task = asyncio.create_task(self._direct(port) if port else self._portable(app))
        await until(lambda: self.messages or self.task.done())
        return self

    async def _portable(self, app: Any) -> None:
        path, method = "/events", "GET"
        options: dict[str, Any] = {}
        if self.kind == "websocket":
            path, method = "/ws", "WEBSOCKET"
        elif self.kind == "post":
            method, options = "POST", {"body": b"{}"}
        opened = exchange(app, f"{path}?{self._query}", method, self._headers, **options)
        while True:
            await opened.until(
                lambda opened: len(opened.messages) > len(self.messages) if opened.status else 0
            )
            self.messages = opened.messages
            if opened.is_done:
                break
        self.close_code, self.ended_at = opened.close_code, time.time()

    async def _direct(self, port: int) -> None:
        if self.kind == "websocket":
            uri = f"ws://127.0.0.1:{port}/ws?{self._query}"
            async with connect(uri, additional_headers=list(self._headers)) as websocket:
                with suppress(ConnectionClosed):
                    while True:
                        self.messages.append(json.loads(await websocket.recv()))
            self.close_code, self.ended_at = websocket.close_code, time.time()
            return
        method, body = ("POST", b"{}") if self.kind == "post" else ("GET", None)
        async with (
            httpx.AsyncClient(timeout=30) as client,
            client.stream(
                method,
                f"http://127.0.0.1:{port}/events?{self._query}",
                headers=list(self._headers),
                content=body,
            ) as response,
        ):
            async for line in response.aiter_lines():
                text = line.removeprefix("data:").strip()
                if text.startswith("{"):
                    self.messages.append(json.loads(text))
        self.ended_at = time.time()

    @property
    def last_id(self) -> str:
        return str(self.messages[-1]["id"])

    @property
    def uuids(self) -> list[str]:
        return [message["uuid"] for message in self.messages if "uuid" in message]

    def assert_ended(self, reason: str, code: int) -> None:
        assert self.messages[-1]["type"] == "gateway-close", self.messages[-1]
        assert self.messages[-1]["reason"] == reason
        assert self.close_code == (code if self.kind == "websocket" else None)


@asynccontextmanager
async def served(state: StateGateway, path: str) -> AsyncIterator[int]:
    """The port of our own server; 0 for the application alone."""
    if path == "portable":
        yield 0
        return
    server = ServedGateway()
    server.app, server.pipeline = state.app, state.pipeline
    async with server.opened():
        yield server.port
