"""The stream over WebSocket, and what a client can say on it.

From the client, as JSON in text messages: ``{"op": "filter", "any": [{"type": […], "name": […], …}, …]}``
replaces the filter, and ``{"op": "ping"}`` is answered. A message that cannot be followed is answered by
``gateway-error``, and the stream goes on; under our own server one above ``MAX_MESSAGE_BYTES`` ends it (close
code 1009), unread.
"""

import asyncio
from functools import partial
from typing import Any

import msgspec
from starlette.websockets import WebSocket, WebSocketDisconnect

from gateway import control
from gateway.control import CLOSE_CODES
from gateway.edge.direct import CarryWebSocket, Rounds, offered
from gateway.edge.query import StreamQuery
from gateway.edge.stream import pulled
from gateway.edge.subscribe import subscribe
from gateway.errors import BadRequest
from gateway.event import FILTER_FIELDS
from gateway.filter import MAX_GLOBS, MAX_PATTERNS, AnyOf, Filter, build, is_glob
from gateway.frames import FORMATS, WEBSOCKET
from gateway.hub import Hub
from gateway.pipeline import Pipeline
from gateway.subscription import Subscription

MAX_MESSAGE_BYTES = 256 << 10
"""The longest message that a client may send: a filter of a thousand ids and to spare."""
MAX_ALTERNATIVES = 100


async def serve_websocket(
    websocket: WebSocket,
    pipeline: Pipeline,
    query: StreamQuery,
    rounds: Rounds,
    keepalive_seconds: float,
    slow_seconds: float,
) -> None:
    """Carry a stream until either side ends it; under our own server, hand it to the connection."""
    await websocket.accept()
    hub = pipeline.hub
    carry: CarryWebSocket | None = offered(websocket.scope)
    if carry is not None:
        subscription = subscribe(pipeline, query, WEBSOCKET)
        carry(subscription, rounds, partial(_obey, hub, subscription))
        return
    subscription = subscribe(pipeline, query, FORMATS["ndjson"])
    listening = asyncio.create_task(_listen(websocket, hub, subscription))
    try:
        async for lines in pulled(subscription, keepalive_seconds):
            for line in lines.splitlines():
                async with asyncio.timeout(slow_seconds):
                    await websocket.send_text(line.decode())
        if subscription.closing is not None:
            await websocket.close(CLOSE_CODES[subscription.closing], subscription.closing)
    except (WebSocketDisconnect, TimeoutError):
        pass
    finally:
        subscription.close()
        listening.cancel()


async def _listen(websocket: WebSocket, hub: Hub, subscription: Subscription) -> None:
    """Obey the client until it goes."""
    while (message := await websocket.receive())["type"] != "websocket.disconnect":
        _obey(hub, subscription, message.get("text"))
        if subscription.unread_bytes > MAX_MESSAGE_BYTES:  # answers pile up: the client does not read
            subscription.end("slow")
            return
    subscription.close()


def _obey(hub: Hub, subscription: Subscription, text: str | None) -> None:
    """Do what one message says, or say why not."""
    try:
        _follow(text, hub, subscription)
    except BadRequest as error:
        subscription.tell(control.refused(subscription.id, error.code, str(error), error.parameter))


def _follow(text: str | None, hub: Hub, subscription: Subscription) -> None:
    """Do what one message says.

    Raises:
        BadRequest: it is not understood.
    """
    if text is None:
        raise _bad("messages are JSON in text, this one is binary", "message")
    if len(text) > MAX_MESSAGE_BYTES:  # our own server does not let it come so far
        raise _bad(f"the message is longer than {MAX_MESSAGE_BYTES} bytes", "message")
    try:
        message = msgspec.json.decode(text)
    except (ValueError, RecursionError):
        raise _bad("the message is not JSON", "message") from None
    operation = message.get("op") if isinstance(message, dict) else None
    if operation == "ping":
        subscription.tell(control.pong(subscription.id))
    elif operation == "filter":
        hub.refilter(subscription, _filter(message.get("any")))
    else:
        raise _bad('the message needs an "op": "filter" or "ping"', "op")


def _filter(alternatives: Any) -> AnyOf | Filter:
    if not isinstance(alternatives, list) or len(alternatives) > MAX_ALTERNATIVES:
        raise _bad(f'"any" must be a list of at most {MAX_ALTERNATIVES} objects', "any")
    filters = [build(_patterns(alternative)) for alternative in alternatives]
    if sum(len(c.wanted) + len(c.unwanted) for f in filters for c in f.clauses) > MAX_PATTERNS:
        raise _bad(f"more than {MAX_PATTERNS} values to filter by", "any")
    if sum(is_glob(text) for f in filters for c in f.clauses for text in c.wanted | c.unwanted) > MAX_GLOBS:
        raise _bad(f"more than {MAX_GLOBS} values with wildcards to filter by", "any")
    return filters[0] if len(filters) == 1 else AnyOf(frozenset(filters))


def _patterns(alternative: Any) -> dict[str, list[str]]:
    if not isinstance(alternative, dict):
        raise _bad('"any" must hold objects such as {"name": ["shop.*"]}', "any")
    patterns: dict[str, list[str]] = {}
    for name, values in alternative.items():
        if name not in FILTER_FIELDS:
            raise BadRequest(
                f"unknown field {name!r}; there are {', '.join(FILTER_FIELDS)}",
                code="unknown-parameter",
                parameter=name,
            )
        texts = [values] if isinstance(values, str) else values
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise _bad(f"{name!r} must be a list of texts", name)
        patterns[name] = texts
    return patterns


def _bad(message: str, parameter: str) -> BadRequest:
    return BadRequest(message, code="bad-value", parameter=parameter)
