"""Access control: who makes a request, and whether the request's endpoint is allowed.

Rules:

- A route is made by ``route`` or ``websocket_route``, with the kind of its endpoint (``scope.MAY``), or as
  public. ``check_routes`` refuses any other, so that none can be forgotten.
- The token is checked before any other work: before a parameter is parsed or a body is read.
- An endpoint receives what its principal may see (``visible``), and has no other access to the pipeline.
- A stream ends when its token expires or is revoked, when its session ends, and at a maximum age, if one is
  set.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final, Literal

from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.websockets import WebSocket

from celery_gateway.access.authenticator import Authenticator
from celery_gateway.access.principal import ANYONE, Principal
from celery_gateway.access.quota import Quota
from celery_gateway.errors import Forbidden, GatewayError, InvalidToken, QuotaExceeded
from celery_gateway.http.carriers import (
    PRINCIPAL_KEY,
    QUOTA_KEY,
    TRUSTS_COOKIES_KEY,
    Carried,
    carried_token,
    single_headers,
)
from celery_gateway.http.errors import error_of, respond
from celery_gateway.http.proxy_headers import is_trusted
from celery_gateway.http.sessions import Sessions
from celery_gateway.http.visible import Visible
from celery_gateway.pipeline.pipeline import Pipeline
from celery_gateway.stream.lifetimes import Lifetimes
from celery_gateway.stream.subscription import Subscription

Kind = Literal["events", "state", "workers", "metrics", "dashboard", "revoke", "public"]
_KIND_ATTRIBUTE: Final = "celery_gateway_kind"
_ANYONE: Final = ANYONE, ""
MAX_DELAYED: Final = 1_000
"""Maximum number of responses that wait because of invalid tokens: each takes memory."""
_ENDS_AT_KEY: Final = "celery_gateway.ends_at"
"""The key of when a connection reaches its maximum age (``time.monotonic``), in its ASGI scope."""
MIN_AGE_PART: Final = 0.9
"""A stream may end after this part of the maximum age, so that not all end at the same time."""


class AccessControl:
    """Authenticates requests, and gives endpoints what their principals may see.

    Args:
        authenticator: checks tokens; ``None``: there is no authentication, and everything is allowed.
        max_age_seconds: maximum duration of a stream; 0: no limit.
        sessions: those of browsers; by default none has ended.
        actions: see the attribute.

    Attributes:
        sessions: the same.
        actions: those that the gateway allows (``access.actions``).
    """

    def __init__(
        self,
        pipeline: Pipeline,
        authenticator: Authenticator | None = None,
        max_age_seconds: float = 0.0,
        sessions: Sessions | None = None,
        actions: Sequence[str] = (),
    ) -> None:
        self._pipeline = pipeline
        self._authenticator = authenticator
        self._max_age_seconds = max_age_seconds
        self._delayed = 0
        self._lifetimes: Lifetimes[Principal] = Lifetimes()
        self.sessions = sessions or Sessions()
        self.actions = tuple(actions)
        if authenticator is not None:
            authenticator.on_change = self._on_change
            pipeline.limits.quotas.set_general(authenticator.quota)

    @property
    def is_open(self) -> bool:
        """Whether there is no authentication."""
        return self._authenticator is None

    def route(
        self,
        path: str,
        endpoint: Callable[[Request], Awaitable[Response]],
        kind: Kind,
        methods: Sequence[str] | None = None,
        route_type: type[Route] = Route,
    ) -> Route:
        """Return a route whose requests are authenticated, unless it is public."""

        async def checked(request: Request) -> Response:
            await self.admit(request, kind)
            return await endpoint(request)

        route = route_type(path, endpoint if kind == "public" else checked, methods=methods)
        setattr(route, _KIND_ATTRIBUTE, kind)
        return route

    def websocket_route(
        self, path: str, endpoint: Callable[[WebSocket], Awaitable[None]], kind: Kind
    ) -> WebSocketRoute:
        """Return the same for a WebSocket; an error of the gateway is the response to the handshake."""

        async def checked(websocket: WebSocket) -> None:
            try:
                await self.admit(websocket, kind)
                await endpoint(websocket)
            except GatewayError as error:
                response = await self.response_to(websocket, error)
                await respond(response, websocket.scope, websocket.receive, websocket.send)

        route = WebSocketRoute(path, checked)
        setattr(route, _KIND_ATTRIBUTE, kind)
        return route

    async def response_to(self, connection: HTTPConnection, error: GatewayError) -> Response:
        """Return the response to an error that a request has raised.

        If there were too many invalid tokens from its address (``failures``), this takes a while.
        """
        if isinstance(error, InvalidToken) and not error.is_missing:
            address = connection.client.host if connection.client else ""
            delay_seconds = self._pipeline.limits.failures.delay_seconds(address)
            if delay_seconds and self._delayed >= MAX_DELAYED:
                message = "too many invalid tokens from this address; try again later"
                error = QuotaExceeded("invalid-tokens", message, delay_seconds)
            elif delay_seconds:
                self._delayed += 1
                try:
                    await asyncio.sleep(delay_seconds)
                finally:
                    self._delayed -= 1
        return error_of(error, self._pipeline.limits)

    async def authenticate(self, token: str) -> Principal:
        """Return the principal of a token; ``ANYONE`` without authentication.

        Raises:
            InvalidToken: the token is not valid.
            Forbidden: it has no scope.
        """
        return ANYONE if self._authenticator is None else await self._authenticator.authenticate(token)

    def actions_of(self, connection: HTTPConnection) -> tuple[str, ...]:
        """Return the actions that the gateway allows and the principal of a request may use.

        Returns:
            Nothing if the request was not admitted.
        """
        identity = connection.scope.get(PRINCIPAL_KEY)
        may = identity[0].scope.may if identity is not None else ()
        return tuple(action for action in self.actions if action in may)

    def visible(self, connection: HTTPConnection) -> Visible:
        """Return what the principal of a request may see; the request was admitted by its route."""
        return Visible(self._pipeline, connection.scope[PRINCIPAL_KEY][0])

    def on_subscribed(self, connection: HTTPConnection, subscription: Subscription) -> None:
        """End the stream of a request in time."""
        principal, session = connection.scope[PRINCIPAL_KEY]
        if principal.expires_at is not None:
            self._lifetimes.end_after(subscription, principal.expires_at - time.time(), "expired")
        if self._max_age_seconds:
            now, seconds = time.monotonic(), self._max_age_seconds * random.uniform(MIN_AGE_PART, 1.0)
            # A WebSocket may open other streams, which do not make it last longer.
            ends_at = connection.scope.setdefault(_ENDS_AT_KEY, now + seconds)
            self._lifetimes.end_after(subscription, ends_at - now, "drain")
        if principal.credential or session:
            self._lifetimes.own(subscription, principal, session)
            authenticator = self._authenticator
            # While the body of the request arrived, both may have ended.
            is_revoked = authenticator is not None and authenticator.is_revoked(principal)
            if is_revoked or self.sessions.has_ended(session):
                subscription.end("expired")

    def end_session(self, session: str) -> None:
        """End a session, and its streams."""
        self.sessions.end(session)
        self._lifetimes.end_session(session, "expired")

    def quota_of(self, principal: Principal) -> Quota:
        """Return the quota of a principal."""
        return self._pipeline.limits.quotas.of(principal)

    async def admit(self, connection: HTTPConnection, kind: Kind) -> None:
        """Authenticate a request, and check that its principal may use a kind of endpoint.

        Raises:
            InvalidToken: it has no valid token.
            Forbidden: the token has no scope that allows it, or the user of a proxy is not allowed.
        """
        if self._authenticator is None:
            connection.scope[PRINCIPAL_KEY] = _ANYONE
            return
        identity = await self._identify(connection, self._authenticator)
        connection.scope[PRINCIPAL_KEY] = identity
        connection.scope[QUOTA_KEY] = self.quota_of(identity[0])
        if kind not in identity[0].scope.may:
            path = connection.scope["path"]
            raise Forbidden(f"this token does not allow {path}: it requires {kind!r} in the scope's may")

    async def _identify(
        self, connection: HTTPConnection, authenticator: Authenticator
    ) -> tuple[Principal, str]:
        """Return the principal of a request, and the id of its session, or an empty text.

        Raises:
            InvalidToken: it has no valid token.
            Forbidden: the token has no scope, or the user of a proxy is not allowed.
        """
        # A foreign page sends the cookie of the proxy, too.
        if is_trusted(connection.scope) and connection.scope.get(TRUSTS_COOKIES_KEY, False):
            principal = authenticator.proxy_principal(single_headers(connection.scope))
            if principal is not None:
                return principal, ""
        carried: Carried = carried_token(connection.scope)
        if carried.session and self.sessions.has_ended(carried.session):
            raise InvalidToken("the session has ended: start another one with POST /session")
        return await authenticator.authenticate(carried.token), carried.session

    def _on_change(self) -> None:
        """Apply new quotas, and end the streams of revoked tokens."""
        authenticator = self._authenticator
        if authenticator is not None:
            self._pipeline.limits.quotas.set_general(authenticator.quota)
            self._lifetimes.end_owned(authenticator.is_revoked, "expired")


def check_routes(routes: Iterable[BaseRoute]) -> None:
    """Check that each route declares its kind.

    Raises:
        RuntimeError: a route does not.
    """
    for route in routes:
        if not hasattr(route, _KIND_ATTRIBUTE):
            raise RuntimeError(f"the route {route} declares no kind of endpoint: make it by AccessControl")


def kind_of(route: BaseRoute) -> Kind:
    """Return the kind of endpoint that a route declares."""
    kind: Kind = getattr(route, _KIND_ATTRIBUTE)
    return kind
