"""The self-test at the start: whether the installed uvicorn can carry streams directly.

Rules: one stream of each kind (SSE and WebSocket) runs from request to end, over a pair of sockets within the
process, in an event loop of its own. It takes a few milliseconds. What it covers: see the folder's docstring.
"""

import asyncio
import logging
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import uvicorn
from starlette.types import Receive, Scope, Send
from uvicorn.server import ServerState

from celery_gateway.events.filter import Filter
from celery_gateway.events.filter_parser import build
from celery_gateway.http.direct_transport import (
    DirectTransport,
    DirectWebSocketTransport,
    direct_transport,
)
from celery_gateway.http.guard import ServerLimits
from celery_gateway.http.stream_response import DirectResponse
from celery_gateway.stream.framing import FORMATS, WEBSOCKET
from celery_gateway.stream.hub import Hub
from celery_gateway.stream.keepalive import KeepaliveTimer
from celery_gateway.stream.limits import Limits

TIMEOUT_SECONDS = 5.0
"""Maximum time for one stream, also on a busy machine."""

_EVENT = "self-test"
_HTTP_REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
_WEBSOCKET_REQUEST = (
    b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)
_MASKED_TEXT = b"\x81\x84\x00\x00\x00\x00ping"
_MASKED_CLOSE = b"\x88\x82\x00\x00\x00\x00\x03\xe8"


def find_problem(http: type[asyncio.Protocol], websocket: type[asyncio.Protocol]) -> str | None:
    """Try two classes of connections. Call it outside of an event loop.

    Args:
        http: uvicorn's ``http``.
        websocket: uvicorn's ``ws``.

    Returns:
        The kind of the stream that failed and its error; ``None`` if both streams passed.
    """
    loggers = [logging.getLogger("uvicorn.error"), logging.getLogger("asyncio")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL + 1)  # the result contains the error
    try:
        return asyncio.run(_find_problem(http, websocket))
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


async def _find_problem(http: type[asyncio.Protocol], websocket: type[asyncio.Protocol]) -> str | None:
    kinds = (("SSE", _HTTP_REQUEST, http), ("WebSocket", _WEBSOCKET_REQUEST, websocket))
    for kind, request, connection in kinds:
        trial = _Trial(connection)
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                await trial.run(request)
        except Exception as error:  # internals that have changed raise anything
            cause = trial.error or error
            return f"{kind}: {type(cause).__name__}: {cause}".rstrip(": ")
    return None


class _Trial:
    """One stream, from its request to its end."""

    def __init__(self, connection: type[asyncio.Protocol]) -> None:
        self.error: BaseException | None = None
        self._connection = connection
        self._hub = Hub()
        self._filter: Filter = build({"type": [_EVENT]})
        self._keepalive_timer = KeepaliveTimer(keepalive_seconds=60.0, slow_seconds=60.0)
        self._texts: list[str | None] = []
        self._has_text = asyncio.Event()
        self._has_returned = asyncio.Event()

    async def run(self, request: bytes) -> None:
        """Run the stream.

        Raises:
            Exception: something is not as it should be.
        """
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(self._on_loop_error)
        config = uvicorn.Config(
            self._app,
            interface="asgi3",
            log_config=None,
            access_log=False,
            lifespan="off",
            ws_ping_interval=None,
        )
        limits = ServerLimits(Limits(), 2, slow_seconds=60.0, on_error=self._on_error)
        config.server_limits = limits  # type: ignore[attr-defined]
        config.load()
        near, far = socket.socketpair()
        make: Callable[..., Any] = self._connection
        await loop.connect_accepted_socket(lambda: make(config, ServerState(), {}, loop), near)
        reader, writer = await asyncio.open_connection(sock=far)
        try:
            writer.write(request)
            await _read_until(reader, b"gateway-open")
            await self._has_returned.wait()
            await asyncio.sleep(0)  # the application's task has ended
            self._hub.append({"type": _EVENT, "hostname": "", "timestamp": 0.0})
            await _read_until(reader, _EVENT.encode())
            if request is _WEBSOCKET_REQUEST:
                writer.write(_MASKED_TEXT)
                await self._has_text.wait()
                if self._texts != ["ping"]:
                    raise RuntimeError(f"the text 'ping' arrived as {self._texts[0]!r}")
            self._hub.close()
            await _read_until(reader, b"gateway-close")
            if request is _WEBSOCKET_REQUEST:
                writer.write(_MASKED_CLOSE)
            await reader.read()  # until the connection is closed
            if self.error is not None:
                raise RuntimeError("an error in the event loop")
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    async def _app(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            transport: Any = direct_transport(scope)
            if transport is None:
                raise RuntimeError("the connection offers no direct transport")
            if scope["type"] == "http":
                await self._respond(transport, scope, receive, send)
            else:
                await receive()
                await send({"type": "websocket.accept"})
                self._attach(transport)
        except Exception as error:
            self.error = error
            raise
        finally:
            self._has_returned.set()

    async def _respond(self, transport: DirectTransport, scope: Scope, receive: Receive, send: Send) -> None:
        subscription = self._hub.subscribe(self._filter, transport.formats["sse"])
        response = DirectResponse(subscription, transport, self._keepalive_timer, FORMATS["sse"].media_type)
        await response(scope, receive, send)

    def _attach(self, transport: DirectWebSocketTransport) -> None:
        subscription = self._hub.subscribe(self._filter, WEBSOCKET)
        transport.attach(subscription, self._keepalive_timer, self._on_text)

    def _on_text(self, text: str | None) -> None:
        self._texts.append(text)
        self._has_text.set()

    def _on_loop_error(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self._on_error(context.get("exception"))

    def _on_error(self, error: BaseException | None) -> None:
        self.error = self.error or error


async def _read_until(reader: asyncio.StreamReader, expected: bytes) -> None:
    try:
        await reader.readuntil(expected)
    except asyncio.IncompleteReadError:
        raise ConnectionError(f"the connection was closed before {expected.decode()}") from None
