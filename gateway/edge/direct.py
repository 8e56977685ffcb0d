"""The direct path: a subscription's bytes written straight to the connection's transport.

Under our own server each connection's protocol offers itself to the application as an ASGI scope extension.
The application answers the request in the ordinary way, then hands the protocol a subscription and waits for
the disconnect. From then on what the hub has made ready is written with one call a connection and a flush:
no task wakes up, nothing is copied or encoded again. The transport says when its buffer is full and when it
has drained; meanwhile the subscription keeps its place in the history.

Under any other server the extension is not there, and ``stream`` or ``websocket`` carry the subscription by
ASGI messages.
"""

import asyncio
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.http11 import Request

from gateway.control import CLOSE_CODES, CloseReason
from gateway.frames import LAST_CHUNK
from gateway.subscription import Subscription

EXTENSION = "celery_gateway.direct"
ROUNDS = 64
"""Parts of the keep-alive interval, in each of which one part of the connections has its turn."""
CLOSE_SECONDS = 5.0
"""How long a connection that was told to close may take to get rid of what is in its buffer."""


class Rounds:
    """Gives each pushed subscription its tick once in an interval, a part of them at a time.

    Args:
        keepalive_seconds: the interval.
        slow_seconds: how long a client may make no progress.
    """

    def __init__(self, keepalive_seconds: float, slow_seconds: float) -> None:
        self._keepalive_seconds = keepalive_seconds
        self._slow_seconds = slow_seconds
        self._parts: list[dict[Subscription, Callable[[], int]]] = [{} for _ in range(ROUNDS)]
        self._next = 0
        self._timer: asyncio.TimerHandle | None = None

    @contextmanager
    def turns(self, subscription: Subscription, buffered_bytes: Callable[[], int]) -> Iterator[None]:
        """Let a subscription have its turns within the block."""
        part = random.choice(self._parts)
        part[subscription] = buffered_bytes
        if self._timer is None:
            self._plan()
        try:
            yield
        finally:
            del part[subscription]

    def _plan(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._keepalive_seconds / ROUNDS, self._turn)

    def _turn(self) -> None:
        now = asyncio.get_running_loop().time()
        part = self._parts[self._next]
        self._next = (self._next + 1) % ROUNDS
        for subscription, buffered_bytes in tuple(part.items()):
            subscription.tick(now, self._keepalive_seconds, self._slow_seconds, buffered_bytes())
        self._timer = None
        if any(self._parts):
            self._plan()


class Carrier(Protocol):
    """A connection that carries a subscription by itself."""

    def carry(self, subscription: Subscription) -> None:
        """Write what the subscription gives, until either side ends it."""

    def buffered_bytes(self) -> int:
        """Return how much of it the network has not taken yet."""


def carrier(scope: Any) -> Carrier | None:
    """Return the connection behind a request, if it can carry a subscription by itself."""
    found: Carrier | None = scope.get("extensions", {}).get(EXTENSION)
    return found


class _Carrying:
    """What both kinds of connection do to carry a subscription; goes before uvicorn's protocol."""

    transport: asyncio.Transport
    _subscription: Subscription | None = None

    def carry(self, subscription: Subscription) -> None:
        self._subscription = subscription
        subscription.attach(self.transport.write, self._finish)

    def buffered_bytes(self) -> int:
        return self.transport.get_write_buffer_size()

    def pause_writing(self) -> None:
        super().pause_writing()  # type: ignore[misc]
        if self._subscription is not None:
            self._subscription.pause()

    def resume_writing(self) -> None:
        super().resume_writing()  # type: ignore[misc]
        if self._subscription is not None:
            self._subscription.resume()

    def connection_lost(self, exc: Exception | None) -> None:
        self._subscription = None
        super().connection_lost(exc)  # type: ignore[misc]

    def _finish(self, reason: CloseReason) -> None:
        raise NotImplementedError


class DirectHTTP(_Carrying, HttpToolsProtocol):
    """uvicorn's HTTP/1.1 connection, able to carry a subscription whose framing is chunked."""

    def on_message_begin(self) -> None:
        super().on_message_begin()
        scope: Any = self.scope
        scope["extensions"] = {EXTENSION: self}

    def _finish(self, reason: CloseReason) -> None:
        self.transport.write(LAST_CHUNK)
        self.transport.close()
        self.loop.call_later(CLOSE_SECONDS, self.transport.abort)


class DirectWebSocket(_Carrying, WebSocketsSansIOProtocol):
    """uvicorn's WebSocket connection, able to carry a subscription whose framing is WebSocket's."""

    def handle_connect(self, event: Request) -> None:
        super().handle_connect(event)
        if hasattr(self, "scope"):  # the handshake was good, and the application starts in the next turn
            scope: Any = self.scope
            scope["extensions"][EXTENSION] = self

    def _finish(self, reason: CloseReason) -> None:
        self.conn.send_close(CLOSE_CODES[reason], reason)
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        self.close_timer = self.loop.call_later(CLOSE_SECONDS, self.transport.abort)
