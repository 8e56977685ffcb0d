"""The WebSocket connection: uvicorn's (sans-I/O), with a direct transport, limits, and deadlines.

Rules: the client's messages are parsed in turn, and not while its handshake is unanswered or its buffer is
full: responses would accumulate. An incomplete message has the deadline of a request. uvicorn would close the
connection when the application returns; a timer that never runs prevents it.
"""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame
from websockets.http11 import Request, Response
from websockets.protocol import State
from websockets.server import ServerProtocol

from celery_gateway.http.direct_transport import EXTENSION
from celery_gateway.http.guard import FRAGMENT_BYTES, FREE_INPUT_BYTES
from celery_gateway.http.headers import with_safe_headers
from celery_gateway.http.request_limits import invalid_handshake
from celery_gateway.http.uvicorn_direct.connection import CLOSE_SECONDS, LINGER_SECONDS, DirectConnection
from celery_gateway.stream.keepalive import KeepaliveTimer
from celery_gateway.stream.messages import CLOSE_CODES, CloseReason
from celery_gateway.stream.subscription import Subscription

HEAD_END = b"\r\n\r\n"


class DirectWebSocket(DirectConnection, WebSocketsSansIOProtocol):
    """uvicorn's WebSocket connection, and the direct transport of its application."""

    _on_text: Callable[[str | None], None]
    _fragment_bytes = 0
    """Memory that the fragments of the incomplete message take."""

    # ---- input

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._is_rejected = not self._admit()

    def _may_parse(self) -> bool:
        if self.read_paused or (self.handshake_initiated and not self.handshake_complete):
            return False  # until the application has answered the handshake; see attach
        # The responses to a client that does not read would accumulate; see resume_writing.
        return super()._may_parse() and not (self._subscription is not None and self._subscription.is_paused)

    def _part_bytes(self, unread: bytes) -> int:
        if self.handshake_initiated:
            return super()._part_bytes(unread)
        # The whole head and no frame: a frame behind a handshake that is refused belongs to nothing.
        return unread.find(HEAD_END) + len(HEAD_END)

    def _resume_reading(self) -> None:
        if self._may_parse():
            self.transport.resume_reading()

    def _parse(self, part: bytes) -> None:
        WebSocketsSansIOProtocol.data_received(self, part)

    def _process_input(self) -> float:
        used_seconds = super()._process_input()
        if not (self.frames or self.conn.reader.buffer):
            self._guard.request_received()
        elif self._may_parse():
            self._guard.expect_request(partial(self._end_flood, "slow-request"))
        return used_seconds

    def _end_flood(self, reason: str) -> None:
        if self._is_rejected or self.transport.is_closing():
            return
        self._is_rejected = True
        self._guard.count(reason)
        self.transport.pause_reading()
        if self._subscription is not None and not self.close_sent:
            self._subscription.end("limit")
        asyncio.get_running_loop().call_later(LINGER_SECONDS, self.transport.abort)

    def _charge(self) -> bool:
        held = len(self._unread)
        partial_bytes = len(self.conn.reader.buffer) + self._fragment_bytes
        for size_bytes in (partial_bytes, 0 if self._subscription else self._unwritten_bytes()):
            held += size_bytes if size_bytes > FREE_INPUT_BYTES else 0
        return self._guard.charge(held)

    # ---- the handshake

    def handle_connect(self, event: Request) -> None:
        self.conn.reject = self._safe_rejection  # type: ignore[method-assign]
        try:
            super().handle_connect(event)
        finally:
            del self.conn.reject  # it refers to this object
        if hasattr(self, "scope"):  # the handshake was good, and the application starts in the next turn
            scope: Any = self.scope
            scope["extensions"][EXTENSION] = self

    def _safe_rejection(self, status: int, text: str) -> Response:
        """Return the response of websockets to a bad handshake, with the headers of every response."""
        response = ServerProtocol.reject(self.conn, status, text)
        for name, value in with_safe_headers((), self._hsts_seconds()):
            response.headers[name.decode()] = value.decode()
        return response

    async def send(self, message: Any) -> None:
        """Send a message of the application, before a subscription is attached."""
        await super().send(message)
        if self.initial_response is not None and self.close_sent:
            self.handshake_complete = True  # by a response; uvicorn would log that it is not

    def handle_parser_exception(self) -> None:
        if not self.handshake_initiated:
            self.handshake_complete = self._is_rejected = True
            self._reject(invalid_handshake(self.conn.parser_exc))
            return
        self._detach()
        super().handle_parser_exception()

    # ---- the stream

    def attach(
        self,
        subscription: Subscription,
        keepalive_timer: KeepaliveTimer,
        on_text: Callable[[str | None], None],
    ) -> None:
        """Write a subscription from now on; see ``DirectWebSocketTransport``."""
        self._on_text = on_text
        if self.transport.is_closing():
            self.handshake_complete = True  # or uvicorn logs that the application has not completed it
        self._attach(subscription, keepalive_timer)
        this: Any = self
        this.scope = this.request = this.response = None
        # A client may have sent messages before its handshake was answered.
        while not self.queue.empty():
            message = self.queue.get_nowait()
            if message["type"] == "websocket.receive":
                on_text(message.get("text"))
        self.read_paused = False
        if not (self.transport.is_closing() or subscription.is_paused):
            self.transport.resume_reading()
        if self._unread:
            self.loop.call_soon(self._process_waiting)
        # The application's return closes a connection, unless it is being closed already.
        this.close_timer = _NEVER

    def _end_stream(self, reason: CloseReason) -> None:
        if self.conn.state is not State.OPEN:  # the client's Close is being handled
            self._detach()
            return
        self.conn.send_close(CLOSE_CODES[reason], reason)
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        self.close_timer = self.loop.call_later(CLOSE_SECONDS, self.transport.abort)

    def handle_close(self, event: Frame) -> None:
        """Answer the client's Close, which may arrive while the buffer still drains."""
        if not self.close_sent:
            self._detach()
        super().handle_close(event)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._on_text = _ignore  # the one before refers to this object

    # ---- the client's messages

    def handle_text(self, event: Frame) -> None:
        self._count_fragment(event)
        super().handle_text(event)

    def handle_bytes(self, event: Frame) -> None:
        self._count_fragment(event)
        super().handle_bytes(event)

    def handle_cont(self, event: Frame) -> None:
        self._count_fragment(event)
        super().handle_cont(event)

    def _count_fragment(self, event: Frame) -> None:
        if not event.fin:
            self._fragment_bytes += len(event.data) + FRAGMENT_BYTES

    def send_receive_event_to_app(self) -> None:
        self._fragment_bytes = 0
        if self._subscription is None:
            super().send_receive_event_to_app()
            return
        data, self.frames = b"".join(self.frames), []
        text = data.decode("utf-8", "replace") if self.curr_msg_data_type == "text" else None
        self._on_text(text)


def _ignore(text: str | None) -> None: ...


class _Never:
    """A timer that never runs."""

    def cancel(self) -> None: ...


_NEVER = _Never()
