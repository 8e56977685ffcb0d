"""A client's session over WebSocket: its subscription, and the operations that its messages request.

Rules: a message is JSON in text, with an ``op``:

- ``{"op": "filter", "any": [{"type": […], "name": […], …}, …]}`` replaces the filter;
- ``{"op": "open", …}`` starts another stream in place of this one (``query_json``);
- ``{"op": "ping"}`` requests a ``gateway-pong``.

A message that is invalid or beyond a quota is answered with ``gateway-error``, and the stream continues. With
a shared log, a stream that begins in the past may take a moment to open; the next messages wait for it.
"""

import asyncio
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec

from celery_gateway.errors import BadRequest, Forbidden, OverLimit, QuotaExceeded
from celery_gateway.http.errors import RETRY_SECONDS
from celery_gateway.http.query_json import MAX_BYTES, alternatives, json_query
from celery_gateway.http.query_params import check_names
from celery_gateway.http.stream_query import StreamQuery, bad_value
from celery_gateway.http.subscribe import begins_at_once, find_beginning, subscribe
from celery_gateway.http.visible import Visible
from celery_gateway.log.engine import LogError
from celery_gateway.stream import messages
from celery_gateway.stream.framing import PlainFraming
from celery_gateway.stream.subscription import Subscription

_FIELDS: dict[str, tuple[str, ...]] = {"ping": (), "filter": ("any",)}
"""The fields of a message by its ``op``; ``json_query`` checks those of ``open``."""


class WebSocketSession:
    """One client's subscription, which its messages change.

    Args:
        query: what it subscribes to at first.
        framing: how its messages are encoded.
        on_subscribed: is called with each new subscription.
        on_replaced: is called with this session when ``subscription`` has become another one; the one before
            is closed afterwards.
        client: who is charged, see ``query_params.client_of``.
        since_position: the result of ``find_beginning`` for ``query``.

    Raises:
        Forbidden: the scope does not allow a parameter.
        OverLimit: the limits do not allow the subscription now.
    """

    def __init__(
        self,
        visible: Visible,
        query: StreamQuery,
        framing: PlainFraming,
        on_subscribed: Callable[[Subscription], None],
        on_replaced: Callable[["WebSocketSession"], None],
        client: str = "",
        since_position: int | None = None,
    ) -> None:
        self._visible = visible
        self._client = client
        self._quota = visible.pipeline.limits.quotas.find(client)
        self._framing = framing
        self._on_subscribed = on_subscribed
        self._on_replaced = on_replaced
        self._opening: asyncio.Task[None] | None = None
        self._deferred: list[str | None] = []  # messages that wait for it
        self.subscription = self._subscribe(query, since_position=since_position)

    def on_text(self, text: str | None) -> None:
        """Run the operation of one message, or send the error; ``None`` is a message that is not text."""
        if self.subscription.closing is not None:
            return  # its last message is sent, or about to be
        if self._opening is None:
            self._try(partial(self._take, text))
        elif sum(len(each or "") + 1 for each in (text, *self._deferred)) <= MAX_BYTES:
            self._deferred.append(text)
        else:
            self.subscription.end("limit")

    def _take(self, text: str | None) -> None:
        self._quota.take("operations_per_second")
        self._run(_message(text))

    def _try(self, call: Callable[[], None]) -> None:
        """Call a function; send its error."""
        try:
            call()
        except BadRequest as error:
            self.subscription.send(
                messages.error_message(self.subscription.id, error.code, str(error), error.parameter)
            )
        except Forbidden as error:
            message = messages.error_message(
                self.subscription.id, "forbidden", str(error), error.parameter or "op"
            )
            self.subscription.send(message)
        except OverLimit as error:
            self._visible.pipeline.limits.count_error(error, "a message over WebSocket")
            self.subscription.send(_over_limit(self.subscription.id, error))
        except Exception as error:
            self.subscription.fail(error)

    def _subscribe(
        self, query: StreamQuery, replaces: Subscription | None = None, since_position: int | None = None
    ) -> Subscription:
        subscription = subscribe(self._visible, query, self._framing, self._client, replaces, since_position)
        self._on_subscribed(subscription)
        return subscription

    def _open(self, query: StreamQuery, since_position: int | None = None) -> None:
        another = self._subscribe(query, self.subscription, since_position)
        before, self.subscription = self.subscription, another
        self._on_replaced(self)
        before.close()

    async def _open_later(self, query: StreamQuery) -> None:
        """Open a stream once it can begin, then run the messages that have arrived meanwhile."""
        try:
            since_position = await find_beginning(self._visible, query, self._client)
        except LogError as error:
            self.subscription.send(_log_unavailable(self.subscription.id, error))
        except Exception as error:
            self.subscription.fail(error)
        else:
            if not self.subscription.is_ended and self.subscription.closing is None:
                self._try(partial(self._open, query, since_position))
        self._opening = None
        deferred, self._deferred = self._deferred, []
        for text in deferred:
            self.on_text(text)

    def _run(self, message: dict[str, Any]) -> None:
        operation = message.pop("op", None)
        if isinstance(operation, str) and operation in _FIELDS:
            check_names(message, _FIELDS[operation])
        if operation == "ping":
            self.subscription.send(messages.pong_message(self.subscription.id))
        elif operation == "filter":
            filter = self._visible.restrict(alternatives(message.get("any"), "any"))
            self._visible.pipeline.hub.refilter(self.subscription, filter)
        elif operation == "open":
            self._quota.take("new_streams_per_second")
            query = json_query(message, "ndjson")
            if begins_at_once(self._visible, query):
                self._open(query)
            else:
                self._opening = asyncio.create_task(self._open_later(query))
        else:
            raise bad_value("op", 'invalid message: its "op" must be "filter", "open" or "ping"')


def _over_limit(id: bytes, error: OverLimit) -> messages.ControlMessage:
    """Return the answer to an operation that is refused now, with what the response to a request has."""
    if isinstance(error, QuotaExceeded):
        retry_ms = math.ceil(1_000 * error.retry_seconds)
        details = {"status": 429, "reason": error.reason, "limit": error.limit, "retry_ms": retry_ms}
        return messages.error_message(id, "quota", str(error), "op", details)
    details = {"status": 503, "reason": error.reason, "retry_ms": 1_000 * RETRY_SECONDS}
    return messages.error_message(id, "limit", str(error), "op", details)


def _log_unavailable(id: bytes, error: LogError) -> messages.ControlMessage:
    """Return the answer to an operation for which the shared log cannot be read now."""
    details = {"status": 503, "reason": "log-unavailable", "retry_ms": 1_000}
    return messages.error_message(id, "limit", f"{error}; try again", "op", details)


def _message(text: str | None) -> dict[str, Any]:
    if text is None:
        raise bad_value("message", "invalid message: it is binary; it must be JSON in a text message")
    if len(text) > MAX_BYTES:  # our own server rejects it earlier
        raise bad_value("message", f"message too long: at most {MAX_BYTES:,} bytes are allowed")
    try:
        message = msgspec.json.decode(text)
    except (ValueError, RecursionError):
        raise bad_value("message", 'invalid message: it must be JSON such as {"op": "ping"}') from None
    return message if isinstance(message, dict) else {}
