"""Stream responses: one client's subscription as the body of an HTTP response.

Rules: nothing is queued here. ``DirectResponse`` attaches the subscription to the connection (see
``direct_transport``). ``portable_response`` is for any ASGI server: sse-starlette's response for SSE (it
passes ready bytes through), and Starlette's for NDJSON. There ``send`` waits while the client does not read,
so the subscription falls behind.
"""

import asyncio
import random
from collections.abc import AsyncIterator
from typing import Any, cast

import anyio
from sse_starlette import EventSourceResponse
from starlette.responses import Response, StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from celery_gateway.http.direct_transport import DirectTransport
from celery_gateway.stream.framing import FORMATS
from celery_gateway.stream.keepalive import KeepaliveTimer
from celery_gateway.stream.subscription import Subscription

PORTABLE_DRAIN_SECONDS = 3.0
"""How long sse-starlette waits for the end of a stream at a shutdown of its server, in seconds."""
_HEADERS = {
    # no-transform: a proxy that compresses would hold events back (RFC 9111 section 5.2.2.6).
    "Cache-Control": "no-store, no-transform",
    "X-Accel-Buffering": "no",  # nginx: do not buffer this response
}
_MOUNTED_HEADERS = _HEADERS | {
    # Middleware of the application around us may compress responses without an encoding; Starlette's
    # GZipMiddleware would hold events back. The value means "none": the bytes are passed on unchanged.
    "Content-Encoding": "identity",
}


def head_response(media_type: str) -> Response:
    """Return the response to ``HEAD``: the headers of a stream, and no body."""
    response = Response(headers=_HEADERS, media_type=media_type)
    del response.headers["content-length"]
    return response


class DirectResponse(Response):
    """Sends the head of the response, and attaches the subscription to the connection.

    Args:
        subscription: in one of the formats of ``transport``.
        transport: the direct transport of the request's connection.
        keepalive_timer: keeps the stream alive while it is silent.
        media_type: the value of ``Content-Type``.
    """

    def __init__(
        self,
        subscription: Subscription,
        transport: DirectTransport,
        keepalive_timer: KeepaliveTimer,
        media_type: str,
    ) -> None:
        # The connection ends with the stream: a client that reconnects at once must not reuse it (RFC 9112
        # section 9.6).
        super().__init__(headers=_HEADERS | {"Connection": "close"}, media_type=media_type)
        del self.headers["content-length"]
        self._subscription = subscription
        self._transport = transport
        self._keepalive_timer = keepalive_timer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            self._transport.prepare()
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            self._transport.attach(self._subscription, self._keepalive_timer)
        except BaseException:
            self._subscription.close()  # it is attached to nothing yet
            raise


def portable_response(
    subscription: Subscription, format: str, keepalive_seconds: float, slow_seconds: float
) -> Response:
    """Return a response that sends a subscription as ASGI messages until either side ends it.

    Args:
        subscription: in one of ``FORMATS``; it is closed at the end.
        format: the key of that format.
        keepalive_seconds: about how long the stream may be silent, in seconds.
        slow_seconds: how long the client may take for one chunk, in seconds.
    """
    chunks = pulled(subscription, keepalive_seconds)
    if format != "ndjson":
        # We send the keep-alives; and when uvicorn shuts down we end the stream, before it is cut.
        return _EventSource(
            subscription,
            chunks,
            ping=0,
            headers=_MOUNTED_HEADERS,
            shutdown_event=cast(anyio.Event, _Drain(subscription)),
            shutdown_grace_period=PORTABLE_DRAIN_SECONDS,
            send_timeout=slow_seconds,
        )
    return _TimedStream(
        chunks, subscription, slow_seconds, media_type=FORMATS[format].media_type, headers=_MOUNTED_HEADERS
    )


class _EventSource(EventSourceResponse):
    """sse-starlette's response; its subscription is closed in any case."""

    def __init__(self, subscription: Subscription, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._subscription = subscription

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._subscription.close()  # also if the iterator never started


class _TimedStream(StreamingResponse):
    """Starlette's response with sse-starlette's timeout for each chunk."""

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
            self._subscription.close()  # Starlette leaves an unfinished iterator to the garbage collector


class _Drain:
    """The event that sse-starlette sets when its server shuts down."""

    def __init__(self, subscription: Subscription) -> None:
        self._subscription = subscription

    def set(self) -> None:
        self._subscription.end("drain")


async def pulled(subscription: Subscription, keepalive_seconds: float) -> AsyncIterator[bytes]:
    """Yield a subscription's bytes and keep-alives until it has ended; then close it."""
    try:
        while True:
            try:
                # With jitter, so that keep-alives for thousands of clients are not sent at once.
                async with asyncio.timeout(keepalive_seconds * random.uniform(0.8, 1.0)):
                    chunk = await subscription.pull()
            except TimeoutError:
                if not subscription.unread_bytes and not subscription.has_more:
                    yield subscription.keepalive()
                continue
            if not chunk:
                return
            yield chunk
    finally:
        subscription.close()
