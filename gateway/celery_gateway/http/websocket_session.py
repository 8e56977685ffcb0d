"""A client's session over WebSocket: its subscription, and the operations that its messages request.

Rules: a message is JSON in text, with an ``op``:

- ``{"op": "filter", "any": [{"type": […], "name": […], …}, …]}`` replaces the filter;
- ``{"op": "open", …}`` starts another stream in place of this one (``query_json``);
- ``{"op": "ping"}`` requests a ``gateway-pong``.

A message that is invalid or beyond a quota is answered with ``gateway-error``, and the stream continues.
"""

import math
from collections.abc import Callable
from typing import Any

import msgspec

from celery_gateway.errors import BadRequest, Forbidden, OverLimit, QuotaExceeded
from celery_gateway.http.errors import RETRY_SECONDS
from celery_gateway.http.query_json import MAX_BYTES, alternatives, json_query
from celery_gateway.http.query_params import check_names
from celery_gateway.http.stream_query import StreamQuery, bad_value
from celery_gateway.http.subscribe import subscribe
from celery_gateway.http.visible import Visible
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
    ) -> None:
        self._visible = visible
        self._client = client
        self._quota = visible.pipeline.limits.quotas.find(client)
        self._framing = framing
        self._on_subscribed = on_subscribed
        self._on_replaced = on_replaced
        self.subscription = self._subscribe(query)

    def on_text(self, text: str | None) -> None:
        """Run the operation of one message, or send the error; ``None`` is a message that is not text."""
        if self.subscription.closing is not None:
            return  # its last message is sent, or about to be
        try:
            self._quota.take("operations_per_second")
            self._run(_message(text))
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

    def _subscribe(self, query: StreamQuery, replaces: Subscription | None = None) -> Subscription:
        subscription = subscribe(self._visible, query, self._framing, self._client, replaces)
        self._on_subscribed(subscription)
        return subscription

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
            another = self._subscribe(query, self.subscription)
            before, self.subscription = self.subscription, another
            self._on_replaced(self)
            before.close()
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
