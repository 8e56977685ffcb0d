"""A stream response: one client's subscription carried over HTTP.

``DirectResponse`` hands it to the connection (see ``direct``). ``portable_response`` is for any ASGI server:
sse-starlette's response for SSE (it passes ready bytes through), and Starlette's for NDJSON. There ``send``
waits while the client does not read, and so the subscription falls behind by itself: nothing is queued here.
"""

import asyncio
import random
from collections.abc import AsyncIterator
from typing import Any, cast

import anyio
from sse_starlette import EventSourceResponse
from starlette.responses import Response, StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from gateway.edge.direct import Carry, Rounds
from gateway.frames import FORMATS
from gateway.subscription import Subscription

DRAIN_SECONDS = 3.0
_HEADERS = {
    "Cache-Control": "no-store",
    "X-Accel-Buffering": "no",  # nginx: do not buffer this response
}


class DirectResponse(Response):
    """Answers the request, and leaves the subscription to the connection.

    Args:
        subscription: in one of ``DIRECT_FORMATS``.
        carry: what the connection of this request offers.
    """

    def __init__(self, subscription: Subscription, carry: Carry, rounds: Rounds, media_type: str) -> None:
        super().__init__(headers=_HEADERS, media_type=media_type)
        del self.headers["content-length"]
        self._subscription = subscription
        self._carry = carry
        self._rounds = rounds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        self._carry(self._subscription, self._rounds)


def portable_response(
    subscription: Subscription, format: str, keepalive_seconds: float, slow_seconds: float
) -> Response:
    """Return a response that carries a subscription by ASGI messages until either side ends it.

    Args:
        subscription: in one of ``FORMATS``; is closed at the end.
        format: which one.
        keepalive_seconds: about how long the stream may be silent.
        slow_seconds: how long the client may take for one chunk.
    """
    chunks = pulled(subscription, keepalive_seconds)
    if format != "ndjson":
        # Keep-alives are ours; and when uvicorn shuts down we end the stream, before it is cut.
        return _EventSource(
            subscription,
            chunks,
            ping=0,
            headers=_HEADERS,
            shutdown_event=cast(anyio.Event, _Drain(subscription)),
            shutdown_grace_period=DRAIN_SECONDS,
            send_timeout=slow_seconds,
        )
    return _TimedStream(
        chunks, subscription, slow_seconds, media_type=FORMATS[format].media_type, headers=_HEADERS
    )


class _EventSource(EventSourceResponse):
    """Closes its subscription in any case."""

    def __init__(self, subscription: Subscription, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._subscription = subscription

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._subscription.close()  # also if the iterator was never begun


class _TimedStream(StreamingResponse):
    """Breaks off when the client does not take a chunk in time, as sse-starlette's response does."""

    def __init__(
        self, chunks: AsyncIterator[bytes], subscription: Subscription, slow_seconds: float, **options: Any
    ) -> None:
        super().__init__(chunks, **options)
        self._subscription = subscription
        self._slow_seconds = slow_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_in_time(message: Message) -> None:
            async with asyncio.timeout(self._slow_seconds):
                await send(message)

        try:
            await super().__call__(scope, receive, send_in_time)
        finally:
            self._subscription.close()  # Starlette leaves an iterator that it breaks off to the collector


class _Drain:
    """What sse-starlette sets when its server shuts down."""

    def __init__(self, subscription: Subscription) -> None:
        self._subscription = subscription

    def set(self) -> None:
        self._subscription.end("drain")


async def pulled(subscription: Subscription, keepalive_seconds: float) -> AsyncIterator[bytes]:
    """Yield a subscription's bytes, and keep-alives, until it has ended; it is closed at the end."""
    try:
        while not subscription.is_ended:
            if chunk := subscription.read():
                yield chunk
            elif subscription.has_more:
                await asyncio.sleep(0)
            else:
                try:
                    # Jittered, so that thousands of clients are not kept alive in one instant.
                    async with asyncio.timeout(keepalive_seconds * random.uniform(0.8, 1.0)):
                        await subscription.wait()
                except TimeoutError:
                    if not subscription.unread_bytes and not subscription.has_more:
                        yield subscription.keepalive()
    finally:
        subscription.close()
