"""Requests to an ASGI application in the test's own event loop: streams and WebSockets, too. No server."""

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from itertools import count
from typing import Any, Self
from urllib.parse import quote, unquote

from starlette.types import ASGIApp

Message = dict[str, Any]

_clients = count(1)
"""Each request comes from an address of its own: too many invalid tokens from one are answered later."""


class Exchange:
    """A request, and the response as far as it has come.

    Args:
        target: the path and the query, as in the first line of a request.
        headers: names in lower case, and values; `host` is `gateway` unless it is given.
        subprotocols: with them (also with none: `()`) it is the handshake of a WebSocket.
        body: `None` leaves the body of the request open until `send_body`.

    Attributes:
        close_code: of the WebSocket, once it is closed.
    """

    def __init__(
        self,
        app: ASGIApp,
        target: str,
        *,
        method: str = "GET",
        headers: Mapping[str, str] | Sequence[tuple[str, str]] = (),
        body: bytes | None = b"",
        subprotocols: tuple[str, ...] | None = None,
    ) -> None:
        number = next(_clients)
        path, _, query = target.partition("?")
        is_websocket = subprotocols is not None
        named = list(headers.items()) if isinstance(headers, Mapping) else list(headers)
        if all(name != "host" for name, _ in named):
            named.append(("host", "gateway"))
        self.scope: dict[str, Any] = {
            "type": "websocket" if is_websocket else "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "scheme": "ws" if is_websocket else "http",
            "path": unquote(path),
            "raw_path": quote(path, safe="/%").encode(),
            "root_path": "",
            "query_string": query.encode(),
            "headers": [(name.encode(), value.encode("latin-1")) for name, value in named],
            "server": ("gateway", 80),
            "client": (f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}", 1),
            "extensions": {"websocket.http.response": {}},
        }
        if is_websocket:
            self.scope["subprotocols"] = list(subprotocols or ())
        else:
            self.scope["method"] = method
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body = b""
        self.texts: list[str] = []
        self.subprotocol: str | None = None
        self.close_code: int | None = None
        self._incoming: asyncio.Queue[Message] = asyncio.Queue()
        if is_websocket:
            self._incoming.put_nowait({"type": "websocket.connect"})
        elif body is not None:
            self.send_body(body)
        self.task = asyncio.create_task(app(self.scope, self._incoming.get, self._send))  # type: ignore[arg-type]

    @property
    def is_done(self) -> bool:
        return self.task.done()

    def send_body(self, data: bytes, *, is_last: bool = True) -> None:
        self._incoming.put_nowait({"type": "http.request", "body": data, "more_body": not is_last})

    def send_json(self, message: object) -> None:
        """Send a message over the WebSocket."""
        self._incoming.put_nowait({"type": "websocket.receive", "text": json.dumps(message)})

    def disconnect(self) -> None:
        self._incoming.put_nowait({"type": f"{self.scope['type']}.disconnect", "code": 1006})

    async def until(self, condition: Callable[[Self], Any], seconds: float = 30) -> Self:
        """Wait until a condition holds, or the response has ended."""
        async with asyncio.timeout(seconds):
            while not condition(self) and not self.is_done:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
        return self

    async def begun(self) -> Self:
        """Wait for the first message of a stream, or for the end of another response."""
        return await self.until(lambda self: self.body or self.texts)

    async def done(self, seconds: float = 30) -> Self:
        """Wait for the end of the response."""
        async with asyncio.timeout(seconds):
            await asyncio.wait([self.task])
        self.task.result()
        return self

    @property
    def messages(self) -> list[Message]:
        """The messages of a stream, in whatever format it is."""
        if self.scope["type"] == "websocket":
            return [json.loads(text) for text in self.texts]
        if self.headers["content-type"].startswith("text/event-stream"):
            frames = self.body.decode().split("\n\n")
            lines = [line for frame in frames for line in frame.split("\n") if line.startswith("data:")]
            return [json.loads(line.removeprefix("data:")) for line in lines]
        return [json.loads(line) for line in self.body.decode().split("\n") if line]

    async def _send(self, message: Any) -> None:
        kind = message["type"]
        if kind in ("http.response.start", "websocket.http.response.start"):
            self.status = message["status"]
            self.headers = {name.decode(): value.decode("latin-1") for name, value in message["headers"]}
        elif kind in ("http.response.body", "websocket.http.response.body"):
            self.body += message.get("body", b"")
        elif kind == "websocket.accept":
            self.status, self.subprotocol = 101, message.get("subprotocol")
        elif kind == "websocket.send":
            self.texts.append(message["text"])
        elif kind == "websocket.close":
            self.close_code = message.get("code", 1000)
