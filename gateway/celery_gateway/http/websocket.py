"""The stream over WebSocket: the handshake, and the transport of a session (``websocket_session``).

Rules: under our own server the connection writes the stream itself (``direct_transport``); a message above
``query_json.MAX_BYTES`` ends it there unread (close code 1009). Under any other server two tasks send and
receive ASGI messages.
"""

import asyncio
from collections.abc import Sequence
from functools import partial

from starlette.websockets import WebSocket, WebSocketDisconnect

from celery_gateway.http.access_control import AccessControl
from celery_gateway.http.carriers import SUBPROTOCOL_PREFIX
from celery_gateway.http.direct_transport import DirectWebSocketTransport, direct_transport
from celery_gateway.http.query_json import MAX_BYTES
from celery_gateway.http.query_params import client_of
from celery_gateway.http.stream_query import StreamQuery
from celery_gateway.http.stream_response import pulled
from celery_gateway.http.subscribe import find_beginning
from celery_gateway.http.websocket_session import WebSocketSession
from celery_gateway.stream.framing import FORMATS, WEBSOCKET
from celery_gateway.stream.keepalive import KeepaliveTimer
from celery_gateway.stream.messages import CLOSE_CODES

SUBPROTOCOL = "celery-gateway"
MAX_SUBPROTOCOL_CHARACTERS = 64
MAX_PART_CHARACTERS = 15
"""Maximum length of the parts of a name with dots: those of a token (such as a JSON Web Token) are longer."""


async def serve_websocket(
    websocket: WebSocket,
    access: AccessControl,
    query: StreamQuery,
    keepalive_timer: KeepaliveTimer,
    keepalive_seconds: float,
    slow_seconds: float,
) -> None:
    """Serve a stream until either side ends it; under our own server, attach it to the connection.

    Args:
        access: has what is visible, and ends the stream in time.
        keepalive_timer: keeps streams alive that are attached to their connections.
        keepalive_seconds: about how long the stream may be silent, in seconds.
        slow_seconds: how long the client may take for one message, in seconds.

    Raises:
        Forbidden: the scope does not allow a parameter.
        OverLimit: the limits do not allow the stream now. The handshake is not answered yet.
    """
    client, subprotocol = client_of(websocket), _subprotocol(websocket.scope["subprotocols"])
    visible, on_subscribed = access.visible(websocket), partial(access.on_subscribed, websocket)
    since_position = await find_beginning(visible, query, client)
    transport: DirectWebSocketTransport | None = direct_transport(websocket.scope)
    if transport is not None:
        attach = partial(_attach, transport, keepalive_timer)
        session = WebSocketSession(
            visible, query, WEBSOCKET, on_subscribed, attach, client, since_position=since_position
        )
        try:
            await websocket.accept(subprotocol=subprotocol)
            attach(session)
        except BaseException:
            session.subscription.close()
            raise
        return
    session = WebSocketSession(
        visible,
        query,
        FORMATS["ndjson"],
        on_subscribed,
        lambda session: None,
        client,
        since_position=since_position,
    )
    try:
        await websocket.accept(subprotocol=subprotocol)
    except BaseException:
        session.subscription.close()
        raise
    await _send_pulled(websocket, session, keepalive_seconds, slow_seconds)


async def _send_pulled(
    websocket: WebSocket, session: WebSocketSession, keepalive_seconds: float, slow_seconds: float
) -> None:
    """Send what the session's subscription has, as ASGI messages, and receive the client's."""
    receiving = asyncio.create_task(_receive(websocket, session))
    subscription = None
    try:
        while subscription is not session.subscription:  # another was opened
            subscription = session.subscription
            async for lines in pulled(subscription, keepalive_seconds):
                for line in lines.splitlines():
                    async with asyncio.timeout(slow_seconds):
                        await websocket.send_text(line.decode())
        if subscription.closing is not None:
            await websocket.close(CLOSE_CODES[subscription.closing], subscription.closing)
    except WebSocketDisconnect:
        pass
    finally:
        session.subscription.close()
        receiving.cancel()


def _attach(
    transport: DirectWebSocketTransport, keepalive_timer: KeepaliveTimer, session: WebSocketSession
) -> None:
    """Attach the session's subscription to the connection. (No closure: that would refer to itself.)"""
    transport.attach(session.subscription, keepalive_timer, session.on_text)


async def _receive(websocket: WebSocket, session: WebSocketSession) -> None:
    """Pass the client's messages to the session until the client disconnects."""
    while (message := await websocket.receive())["type"] != "websocket.disconnect":
        session.on_text(message.get("text"))
        if session.subscription.unread_bytes > MAX_BYTES:  # responses accumulate: the client does not read
            session.subscription.end("slow")
            return
    session.subscription.close()


def _subprotocol(offered: Sequence[str]) -> str | None:
    """Return the subprotocol to accept: a browser that offers some closes if none is (RFC 6455 section 4.1).

    They all mean the same here. Clients that cannot send headers may offer tokens, which are not repeated.
    """
    if SUBPROTOCOL in offered:
        return SUBPROTOCOL
    return next((name for name in offered if name and not _may_be_token(name)), None)


def _may_be_token(name: str) -> bool:
    if name.startswith(SUBPROTOCOL_PREFIX):
        return True
    parts = name.split(".")
    return len(name) > MAX_SUBPROTOCOL_CHARACTERS or (
        len(parts) > 1 and any(len(part) > MAX_PART_CHARACTERS for part in parts)
    )
