"""The direct path: a subscription's bytes written straight to the connection's transport.

Under our own server each connection's protocol offers itself to the application as an ASGI scope extension.
The application answers the request in the ordinary way, hands the protocol a subscription, and returns. From
then on what the hub has made ready is written with one call a connection and a flush: there is no task that
wakes up, and nothing is copied or encoded again. The transport says when its buffer is full and when it has
drained; meanwhile the subscription keeps its place in the history. uvicorn's request is let go.

Under any other server the extension is not there, and ``stream`` and ``websocket`` carry the subscription by
ASGI messages.
"""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from starlette.types import Scope
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.http11 import Request

from gateway.control import CLOSE_CODES, CloseReason
from gateway.frames import LAST_CHUNK
from gateway.subscription import Subscription

EXTENSION = "celery_gateway.direct"
ROUNDS = 64
"""Into how many parts the connections are divided; one has its turn at a time."""
ROUNDS_PER_KEEPALIVE = 4
CLOSE_SECONDS = 5.0
"""How long a connection that was told to close may take to get rid of what is in its buffer."""


class Rounds:
    """Gives each pushed subscription its ticks, a part of them at a time.

    Args:
        keepalive_seconds: about how long a stream may be silent; in that time each has four.
        slow_seconds: how long a client may make no progress.
    """

    def __init__(self, keepalive_seconds: float, slow_seconds: float) -> None:
        self._keepalive_seconds = keepalive_seconds
        self._slow_seconds = slow_seconds
        self._parts: list[dict[Subscription, Callable[[], int]]] = [{} for _ in range(ROUNDS)]
        self._next = 0
        self._timer: asyncio.TimerHandle | None = None

    def add(self, subscription: Subscription, buffered_bytes: Callable[[], int]) -> None:
        """Let a subscription have its turns from now on."""
        self._part(subscription)[subscription] = buffered_bytes
        if self._timer is None:
            self._plan()

    def remove(self, subscription: Subscription) -> None:
        """Let it have no more."""
        self._part(subscription).pop(subscription, None)

    def _part(self, subscription: Subscription) -> dict[Subscription, Callable[[], int]]:
        return self._parts[hash(subscription) % ROUNDS]

    def _plan(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(
            self._keepalive_seconds / ROUNDS_PER_KEEPALIVE / ROUNDS, self._turn
        )

    def _turn(self) -> None:
        now = asyncio.get_running_loop().time()
        part = self._parts[self._next]
        self._next = (self._next + 1) % ROUNDS
        for subscription, buffered_bytes in tuple(part.items()):
            subscription.tick(now, self._keepalive_seconds, self._slow_seconds, buffered_bytes())
        self._timer = None
        if any(self._parts):
            self._plan()


class Carry(Protocol):
    """What a request's connection offers: to carry a subscription by itself."""

    def __call__(self, subscription: Subscription, rounds: Rounds) -> None:
        """Write what the subscription gives until either side ends it, and then close it."""


class CarryWebSocket(Protocol):
    """The same of a WebSocket, whose client can say something, too."""

    def __call__(
        self, subscription: Subscription, rounds: Rounds, on_text: Callable[[str | None], None]
    ) -> None:
        """``on_text`` is given each message from the client; ``None`` for one that is not text.

        May be called again, with another subscription: that takes the place of the one before, which ends.
        """


def offered(scope: Scope) -> Any:
    """Return what the connection behind a request offers, or ``None``.

    It is a ``Carry``, or a ``CarryWebSocket`` in the scope of a WebSocket.
    """
    return scope.get("extensions", {}).get(EXTENSION)


class _Carrying:
    """What both kinds of connection do to carry a subscription; goes before uvicorn's protocol."""

    transport: asyncio.Transport
    _subscription: Subscription | None = None
    _rounds: Rounds

    def _carry(self, subscription: Subscription, rounds: Rounds) -> None:
        if self.transport.is_closing():
            subscription.close()
            return
        before, self._subscription = self._subscription, subscription
        is_paused = before is not None and before.is_paused
        if before is not None:
            rounds.remove(before)
            before.close()  # now: a flush on behalf of the new one would go to this one, too
        self._rounds = rounds
        rounds.add(subscription, self.transport.get_write_buffer_size)
        subscription.attach(self.transport.write, self._finish, is_paused=is_paused)

    def pause_writing(self) -> None:
        if self._subscription is None:
            super().pause_writing()  # type: ignore[misc]
        else:
            # Who does not read is not listened to either: answers would pile up.
            if not self.transport.is_closing():
                self.transport.pause_reading()
            self._subscription.pause()

    def resume_writing(self) -> None:
        if self._subscription is None:
            super().resume_writing()  # type: ignore[misc]
        else:
            if not self.transport.is_closing():
                self.transport.resume_reading()
            self._subscription.resume()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._subscription is not None:
            self._rounds.remove(self._subscription)
            self._subscription.close()
            self._subscription = None
        super().connection_lost(exc)  # type: ignore[misc]

    def _finish(self, reason: CloseReason) -> None:
        raise NotImplementedError


class DirectHTTP(_Carrying, HttpToolsProtocol):
    """uvicorn's HTTP/1.1 connection, able to carry a subscription whose framing is chunked."""

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        scope: Any = self.scope
        scope["extensions"] = {EXTENSION: partial(self._carry_response, self.cycle)}

    def _carry_response(
        self, cycle: RequestResponseCycle, subscription: Subscription, rounds: Rounds
    ) -> None:
        self._carry(subscription, rounds)
        cycle.response_complete = True  # as far as uvicorn is concerned
        self.pipeline.clear()  # nothing that comes with or after the request of a stream is answered
        if not self.transport.is_closing():
            self.flow.resume_reading()  # but the end of the connection is to be noticed
        this: Any = self
        this.cycle = this.scope = this.headers = this.flow = this.parser = None

    def data_received(self, data: bytes) -> None:
        if self._subscription is None:
            super().data_received(data)

    def _finish(self, reason: CloseReason) -> None:
        self.transport.write(LAST_CHUNK)
        self.transport.close()
        self.loop.call_later(CLOSE_SECONDS, self.transport.abort)


class DirectWebSocket(_Carrying, WebSocketsSansIOProtocol):
    """uvicorn's WebSocket connection, able to carry a subscription whose framing is WebSocket's."""

    _on_text: Callable[[str | None], None]

    def handle_connect(self, event: Request) -> None:
        super().handle_connect(event)
        if hasattr(self, "scope"):  # the handshake was good, and the application starts in the next turn
            scope: Any = self.scope
            scope["extensions"][EXTENSION] = self._carry_websocket

    def _carry_websocket(
        self, subscription: Subscription, rounds: Rounds, on_text: Callable[[str | None], None]
    ) -> None:
        self._on_text = on_text
        self._carry(subscription, rounds)
        this: Any = self
        this.scope = this.request = this.response = None
        # The application's return closes a connection, unless it is being closed already.
        this.close_timer = _NEVER

    def send_receive_event_to_app(self) -> None:
        if self._subscription is None:
            super().send_receive_event_to_app()
            return
        data, self.frames = b"".join(self.frames), []
        text = data.decode("utf-8", "replace") if self.curr_msg_data_type == "text" else None
        self._on_text(text)

    def _finish(self, reason: CloseReason) -> None:
        self.conn.send_close(CLOSE_CODES[reason], reason)
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        self.close_timer = self.loop.call_later(CLOSE_SECONDS, self.transport.abort)


class _Never:
    """A timer that is not running."""

    def cancel(self) -> None: ...


_NEVER = _Never()
