"""Response headers that protect browsers. Every response has them.

Rules: headers that an endpoint sets itself stay as they are, such as the policy of the dashboard.
``Cross-Origin-Resource-Policy`` concerns requests without CORS only (``<img>``, ``<script>``): pages of
allowed origins read responses with CORS, for which it has no effect (Fetch standard, section 3.7).
"""

from collections.abc import Iterable
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

Headers = list[tuple[bytes, bytes]]

DEFAULTS: Final = (
    (b"cache-control", b"no-store"),
    # Also for JSON: a browser shows it as a document (W3C, Content Security Policy Level 3).
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"referrer-policy", b"no-referrer"),  # a URL may hold a token
    (b"x-content-type-options", b"nosniff"),  # Fetch standard, section 3.6
)
_VARY: Final = b"Authorization, Cookie"
STARTS: Final = ("http.response.start", "websocket.http.response.start")
"""The ASGI messages that start a response; the second refuses the handshake of a WebSocket."""
RESPONDING_KEY: Final = "celery_gateway.responding"
"""The key of whether the response has started, in the ASGI scope of a request."""


class SafeHeaders:
    """Add the headers to the responses of an application, and record when each response starts.

    Args:
        hsts_seconds: ``max-age`` of ``Strict-Transport-Security`` on responses over HTTPS; 0: no header.
        varies_by_token: responses depend on the token of the request, unless they are ``public``.
    """

    def __init__(self, app: ASGIApp, *, hsts_seconds: int = 0, varies_by_token: bool = False) -> None:
        self._app = app
        self._hsts_seconds = hsts_seconds
        self._varies_by_token = varies_by_token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope[RESPONDING_KEY] = False
        hsts_seconds = self._hsts_seconds if scope.get("scheme") in ("https", "wss") else 0

        async def send_safely(message: Message) -> None:
            if message["type"] in STARTS:
                scope[RESPONDING_KEY] = True
                headers = with_safe_headers(message.get("headers", ()), hsts_seconds)
                if self._varies_by_token and not _is_public(headers):
                    headers = _with_vary(headers)
                message = {**message, "headers": headers}
            await send(message)

        await self._app(scope, receive, send_safely)


def _with_vary(headers: Headers) -> Headers:
    """Return headers with what a response depends on: one header, also if it depends on more."""
    given = [value for name, value in headers if name == b"vary"]
    others = [header for header in headers if header[0] != b"vary"]
    return [*others, (b"vary", b", ".join([*given, _VARY]))]


def _is_public(headers: Headers) -> bool:
    """Return whether a response is the same for all, such as a file of the dashboard."""
    return any(name == b"cache-control" and value.startswith(b"public") for name, value in headers)


def with_safe_headers(headers: Iterable[tuple[bytes, bytes]], hsts_seconds: int = 0) -> Headers:
    """Return the headers of a response, and those that it does not have.

    Args:
        headers: names in lower case, and values.
        hsts_seconds: ``max-age`` of ``Strict-Transport-Security`` (RFC 6797); 0: no header.
    """
    result = list(headers)
    present = dict(result)
    result += [header for header in DEFAULTS if header[0] not in present]
    if hsts_seconds:
        result.append((b"strict-transport-security", b"max-age=%d" % hsts_seconds))
    return result
