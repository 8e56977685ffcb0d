"""Direct transport: a subscription's bytes are written straight to the connection of its request.

Under our own server each connection offers a direct transport to the application, as an ASGI scope extension.
The application sends the head of the response in the ordinary way, attaches a subscription, and returns. From
then on the hub writes each batch with one call a connection: no task wakes up, and nothing is copied or
encoded again. The connection pauses the subscription while its buffer is full; the subscription keeps its
position in the history meanwhile. uvicorn's request is released.

The connections are in ``uvicorn_direct``. Under any other server the extension is missing, and
``stream_response`` and ``websocket`` send the subscription's bytes as ASGI messages.
"""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from starlette.types import Scope

from celery_gateway.stream.framing import NDJSON, SSE
from celery_gateway.stream.keepalive import KeepaliveTimer
from celery_gateway.stream.subscription import Subscription

EXTENSION = "celery_gateway.direct"


class DirectTransport(Protocol):
    """The connection of one HTTP request, able to write a subscription by itself."""

    @property
    def formats(self) -> Mapping[str, SSE | NDJSON]:
        """The framings that fit the connection, by the value of the ``format`` parameter."""

    def prepare(self) -> None:
        """Prepare the connection. Call it before the response starts."""

    def attach(self, subscription: Subscription, keepalive_timer: KeepaliveTimer) -> None:
        """Write the subscription's bytes as the body of the response until either side ends it.

        The subscription is closed at the end. Call it after the response has started.
        """


class DirectWebSocketTransport(Protocol):
    """The connection of one WebSocket, able to write a subscription by itself."""

    def attach(
        self,
        subscription: Subscription,
        keepalive_timer: KeepaliveTimer,
        on_text: Callable[[str | None], None],
    ) -> None:
        """Write the subscription's bytes until either side ends it, and then close it.

        A further call replaces the subscription: the one before is closed.

        Args:
            subscription: in the framing ``WEBSOCKET``.
            keepalive_timer: keeps it alive while it is silent.
            on_text: is called with each message of the client; with ``None`` for one that is not text.
        """


def direct_transport(scope: Scope) -> Any:
    """Return the direct transport of a request's connection; ``None`` if the server offers none.

    Returns:
        A ``DirectTransport``; a ``DirectWebSocketTransport`` in the scope of a WebSocket.
    """
    return scope.get("extensions", {}).get(EXTENSION)
