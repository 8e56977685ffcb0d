"""Endpoints of the dashboard: its page at the addresses of its views, and its files below ``/assets``.

A view has the address of the endpoint with its data, as ``/tasks``: ``views`` decides by the header Accept
which of them a request gets. Responses at these addresses have ``Vary: Accept``.
"""

import hashlib
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Match, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from celery_gateway.errors import Forbidden, InvalidToken
from celery_gateway.http.access_control import AccessControl
from celery_gateway.http.carriers import PRINCIPAL_KEY
from celery_gateway.http.dashboard import PAGE_HEADERS, Asset, PageAccess, load
from celery_gateway.http.views import base_href, view_path, wants_page

ASSETS_PATH: Final = "/assets/"
ASSET_CACHE: Final = "public, max-age=31536000, immutable"
"""A year (RFC 9111), and never revalidated (RFC 8246): another version has another URL."""
KINDS: Final = ("events", "state", "workers")
"""The kinds of endpoints that the views read."""


class PageRoute(Route):
    """The route of all views; it matches requests that get the page."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Return whether the request gets the page; at ``/`` there is no other endpoint."""
        if wants_page(scope):
            return Match.FULL, {"endpoint": self.endpoint, "path_params": {}}
        match, child_scope = super().matches(scope)
        return (match, child_scope) if match is Match.PARTIAL else (Match.NONE, {})


class DashboardEndpoints:
    """The endpoints, as ``routes``: to be tried before the endpoints with the same addresses."""

    def __init__(self, access: AccessControl) -> None:
        self._access = access
        self._dashboard = load()
        self.routes = [
            access.route("/", self.page, "public", route_type=PageRoute),
            access.route(ASSETS_PATH + "{hash}/{name}", self.asset, "public"),
        ]

    async def page(self, request: Request) -> Response:
        """Return the page; or with its form for a token, if the request has none that allows it."""
        access, refused = await self._access_of(request)
        base, actions = base_href(request.scope), self._access.actions_of(request)
        content = self._dashboard.page(access, base, _may(request, access), actions)
        etag = f'"{hashlib.sha256(content.encode()).hexdigest()[:32]}"'
        if refused is not None:
            headers = PAGE_HEADERS | {"WWW-Authenticate": refused.headers["WWW-Authenticate"]}
            return HTMLResponse(content, refused.status_code, headers | {"Cache-Control": "no-store"})
        headers = PAGE_HEADERS | {"ETag": etag}
        if has_etag(request.headers, etag):
            return Response(status_code=304, headers=headers)
        return HTMLResponse(content, headers=headers)

    async def _access_of(self, request: Request) -> tuple[PageAccess, Response | None]:
        """Return how the request is authenticated, and the response if it is refused.

        Raises:
            InvalidToken, Forbidden: it is refused, and is not of a browser.
        """
        try:
            await self._access.admit(request, "dashboard")
        except (InvalidToken, Forbidden) as error:
            if "text/html" not in request.headers.get("accept", ""):
                raise
            access: PageAccess = "login" if isinstance(error, InvalidToken) else "forbidden"
            return access, await self._access.response_to(request, error)
        if self._access.is_open:
            return "open", None
        return "session" if request.scope[PRINCIPAL_KEY][1] else "token", None

    async def asset(self, request: Request) -> Response:
        """Return a file of the page. That of another version is unknown: 404."""
        asset = self._dashboard.assets.get(request.path_params["name"])
        if asset is None or request.path_params["hash"] != self._dashboard.hash:
            raise HTTPException(404)
        return asset_response(asset, request.headers)


def _may(request: Request, access: PageAccess) -> list[str]:
    """Return the kinds of endpoints that the page may read for a user who may open it."""
    if access in ("login", "forbidden"):
        return []
    may = request.scope[PRINCIPAL_KEY][0].scope.may
    return [kind for kind in KINDS if kind in may]


class VaryByAccept:
    """Add ``Vary: Accept`` to the responses at the addresses of views (RFC 9110 section 12.5.5)."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or view_path(scope) is None:
            await self._app(scope, receive, send)
            return

        async def send_varying(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(raw=list(message.get("headers", ())))
                headers.add_vary_header("Accept")
                message = {**message, "headers": headers.raw}
            await send(message)

        await self._app(scope, receive, send_varying)


def asset_response(asset: Asset, request: Headers) -> Response:
    """Return the response with a file, compressed if the request accepts that; or 304."""
    is_gzipped = accepts_gzip(request.get("accept-encoding", "")) and len(asset.gzipped) < len(asset.body)
    etag = f'"{asset.etag}-gzip"' if is_gzipped else f'"{asset.etag}"'
    headers = {"Cache-Control": ASSET_CACHE, "ETag": etag, "Vary": "Accept-Encoding"}
    if has_etag(request, etag):
        return Response(status_code=304, headers=headers)
    if is_gzipped:
        headers["Content-Encoding"] = "gzip"
    headers["Content-Type"] = asset.media_type
    return Response(asset.gzipped if is_gzipped else asset.body, headers=headers)


def accepts_gzip(accept_encoding: str) -> bool:
    """Return whether the header Accept-Encoding has gzip, and not with ``q=0`` (RFC 9110 section 12.5.3)."""
    weights = {}
    for part in accept_encoding.lower().split(","):
        coding, *parameters = (each.strip() for each in part.split(";"))
        weights[coding] = next((each[2:].strip() for each in parameters if each.startswith("q=")), "1")
    weight = weights.get("gzip", weights.get("*", "0"))  # ``*``: each coding without a weight of its own
    return weight.strip("0.") != ""


def has_etag(request: Headers, etag: str) -> bool:
    """Return whether If-None-Match has the ETag (RFC 9110 section 13.1.2)."""
    given = request.get("if-none-match", "")
    return etag in given or given.strip() == "*"
