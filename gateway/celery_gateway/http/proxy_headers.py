"""Take the client's address and scheme from the headers of trusted proxies (``access.proxies``).

Rules: this comes before everything that reads ``client`` or ``scheme`` of a request, so that shares, limits,
logs and the checks of origins see those of the client. Requests of other peers are passed on unchanged.
"""

from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

from celery_gateway.access.proxies import TrustedProxies

TRUSTED: Final = "celery_gateway.trusted_proxy"
"""The key in the scope of requests that a trusted proxy has passed on. Clients cannot set it."""
_NAMES: Final = (b"x-forwarded-for", b"x-forwarded-proto")


class ProxyHeaders:
    """Pass on requests with the client and the scheme that trusted proxies report."""

    def __init__(self, app: ASGIApp, proxies: TrustedProxies) -> None:
        self._app = app
        self._proxies = proxies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket") and self._proxies.trusts(_peer(scope)):
            scope = self._forwarded(scope)
        await self._app(scope, receive, send)

    def _forwarded(self, scope: Scope) -> Scope:
        """Return the scope of a request of a trusted proxy. It is a copy: others own the original."""
        headers: dict[str, list[str]] = {}
        for name, value in scope["headers"]:
            if name.lower() in _NAMES:
                headers.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1"))
        client, scheme = self._proxies.read(headers)
        forwarded = {**scope, TRUSTED: True}
        if client is not None:
            forwarded["client"] = client
        if scheme is not None:
            forwarded["scheme"] = scheme.replace("http", "ws") if scope["type"] == "websocket" else scheme
        return forwarded


def is_trusted(scope: Scope) -> bool:
    """Return whether a trusted proxy has passed on this request."""
    return scope.get(TRUSTED) is True


def _peer(scope: Scope) -> str | None:
    client = scope.get("client")
    return client[0] if client else None
