"""The stream over WebSocket, and what a client can say on it, as JSON in text messages:

- ``{"op": "filter", "any": [{"type": […], "name": […], …}, …]}`` replaces the filter;
- ``{"op": "open", …}`` begins another stream in place of this one (see ``json_query``);
- ``{"op": "ping"}`` is answered.

A message that cannot be followed is answered by ``gateway-error``, and the stream goes on; under our own
server one above ``json_query.MAX_BYTES`` ends it (close code 1009), unread.
"""

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
from starlette.websockets import WebSocket, WebSocketDisconnect

from gateway import control
from gateway.control import CLOSE_CODES
from gateway.edge.direct import CarryWebSocket, Rounds, offered
from gateway.edge.json_query import MAX_BYTES, alternatives, json_query
from gateway.edge.query import StreamQuery
from gateway.edge.stream import pulled
from gateway.edge.subscribe import subscribe
from gateway.errors import BadRequest
from gateway.frames import FORMATS, WEBSOCKET, Plain
from gateway.pipeline import Pipeline


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
    carry: CarryWebSocket | None = offered(websocket.scope)
    if carry is not None:
        dialogue = Dialogue(
            pipeline, query, WEBSOCKET, lambda: carry(dialogue.subscription, rounds, dialogue.hear)
        )
        carry(dialogue.subscription, rounds, dialogue.hear)
        return
    dialogue = Dialogue(pipeline, query, FORMATS["ndjson"], lambda: None)
    listening = asyncio.create_task(_listen(websocket, dialogue))
    subscription = None
    try:
        while subscription is not dialogue.subscription:  # another was opened
            subscription = dialogue.subscription
            async for lines in pulled(subscription, keepalive_seconds):
                for line in lines.splitlines():
                    async with asyncio.timeout(slow_seconds):
                        await websocket.send_text(line.decode())
        if subscription.closing is not None:
            await websocket.close(CLOSE_CODES[subscription.closing], subscription.closing)
    except (WebSocketDisconnect, TimeoutError):
        pass
    finally:
        dialogue.subscription.close()
        listening.cancel()


async def _listen(websocket: WebSocket, dialogue: "Dialogue") -> None:
    """Obey the client until it goes."""
    while (message := await websocket.receive())["type"] != "websocket.disconnect":
        dialogue.hear(message.get("text"))
        if dialogue.subscription.unread_bytes > MAX_BYTES:  # answers pile up: the client does not read
            dialogue.subscription.end("slow")
            return
    dialogue.subscription.close()


class Dialogue:
    """One client's subscription, and what it says of it.

    Args:
        query: what it asks for at first.
        on_replaced: called when ``subscription`` has become another one; then the one before is closed.
    """

    def __init__(
        self, pipeline: Pipeline, query: StreamQuery, framing: Plain, on_replaced: Callable[[], None]
    ) -> None:
        self._pipeline = pipeline
        self._framing = framing
        self._on_replaced = on_replaced
        self.subscription = subscribe(pipeline, query, framing)

    def hear(self, text: str | None) -> None:
        """Do what one message says, or say why not; ``None`` is one that is not text."""
        if self.subscription.closing is not None:
            return  # it has had its last message, or is about to
        try:
            self._follow(_message(text))
        except BadRequest as error:
            self.subscription.tell(
                control.refused(self.subscription.id, error.code, str(error), error.parameter)
            )

    def _follow(self, message: dict[str, Any]) -> None:
        operation = message.pop("op", None)
        if operation == "ping":
            self.subscription.tell(control.pong(self.subscription.id))
        elif operation == "filter":
            self._pipeline.hub.refilter(self.subscription, alternatives(message.get("any"), "any"))
        elif operation == "open":
            query = json_query(message, "ndjson")
            before, self.subscription = self.subscription, subscribe(self._pipeline, query, self._framing)
            self._on_replaced()
            before.close()
        else:
            raise _bad('the message needs an "op": "filter", "open" or "ping"', "op")


def _message(text: str | None) -> dict[str, Any]:
    if text is None:
        raise _bad("messages are JSON in text, this one is binary", "message")
    if len(text) > MAX_BYTES:  # our own server does not let it come so far
        raise _bad(f"the message is longer than {MAX_BYTES} bytes", "message")
    try:
        message = msgspec.json.decode(text)
    except (ValueError, RecursionError):
        raise _bad("the message is not JSON", "message") from None
    return message if isinstance(message, dict) else {}


def _bad(message: str, parameter: str) -> BadRequest:
    return BadRequest(message, code="bad-value", parameter=parameter)
