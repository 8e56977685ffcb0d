"""A stream response: one client's subscription carried over HTTP.

This is the path for any ASGI server: sse-starlette's response for SSE (it passes ready bytes through), and
Starlette's for NDJSON. ``send`` waits while the client does not read, and so the subscription falls behind
by itself: nothing is queued here.
"""

import asyncio
import random
from collections.abc import AsyncIterator

import anyio
from sse_starlette import EventSourceResponse
from starlette.responses import Response, StreamingResponse

from gateway.frames import FRAMINGS
from gateway.subscription import Subscription

DRAIN_SECONDS = 3.0
_HEADERS = {
    "Cache-Control": "no-store",
    "X-Accel-Buffering": "no",  # nginx: do not buffer this response
}


def stream_response(subscription: Subscription, format: str, keepalive_seconds: float) -> Response:
    """Return the response that carries a subscription until either side ends it.

    Args:
        subscription: is closed at the end.
        format: a key of ``FRAMINGS``, the one the subscription was made with.
        keepalive_seconds: about how long the stream may be silent.
    """
    chunks = _chunks(subscription, keepalive_seconds)
    if format == "sse":
        # Its ping is ours; and at a shutdown we end streams ourselves, before it cuts them.
        return EventSourceResponse(
            chunks,
            ping=0,
            headers=_HEADERS,
            shutdown_event=anyio.Event(),
            shutdown_grace_period=DRAIN_SECONDS,
        )
    return StreamingResponse(chunks, media_type=FRAMINGS[format].media_type, headers=_HEADERS)


async def _chunks(subscription: Subscription, keepalive_seconds: float) -> AsyncIterator[bytes]:
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
                    yield subscription.keepalive()
    finally:
        subscription.close()
