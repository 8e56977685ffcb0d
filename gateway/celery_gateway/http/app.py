"""The ASGI application: all endpoints, and the responses for errors that they raise.

Rules: every error has one shape (``errors``), and every request starts in turn (``StartLimiter``).
"""

from functools import partial

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from celery_gateway.access.authenticator import Authenticator
from celery_gateway.broker.queues import Queues
from celery_gateway.errors import GatewayError
from celery_gateway.http.access_control import AccessControl, check_routes
from celery_gateway.http.action_endpoints import ActionEndpoints, Actions
from celery_gateway.http.carriers import ACCESS_TOKEN_KEY
from celery_gateway.http.dashboard_endpoints import ASSETS_PATH, DashboardEndpoints, VaryByAccept
from celery_gateway.http.errors import error_response, respond
from celery_gateway.http.fair_share import StartLimiter
from celery_gateway.http.queue_endpoints import QueueEndpoints
from celery_gateway.http.root_path import RootPath
from celery_gateway.http.service_endpoints import ServiceEndpoints
from celery_gateway.http.session_endpoints import SessionEndpoints
from celery_gateway.http.sessions import Sessions
from celery_gateway.http.state_endpoints import StateEndpoints
from celery_gateway.http.state_work import StateWork
from celery_gateway.http.statistics_endpoints import StatisticsEndpoints
from celery_gateway.http.stream_endpoints import StreamEndpoints
from celery_gateway.http.views import wants_page
from celery_gateway.pipeline.pipeline import Pipeline
from celery_gateway.pipeline.replication import Replication

ALWAYS_OPEN = frozenset({"/", "/healthz", "/readyz", "/metrics", "/session"})
"""The paths that need neither the stream nor the tables; beside the dashboard's page and its files."""


def create_app(
    pipeline: Pipeline,
    authenticator: Authenticator | None = None,
    *,
    keepalive_seconds: float = 15.0,
    slow_seconds: float = 60.0,
    root_path: str = "",
    max_connection_age_seconds: float = 0.0,
    sessions: Sessions | None = None,
    queues: Queues | None = None,
    actions: Actions | None = None,
) -> ASGIApp:
    """Return the application for a pipeline; the caller starts and stops the pipeline.

    Args:
        authenticator: checks the tokens of requests; ``None``: there is no authentication.
        keepalive_seconds: about how long a stream may be silent, in seconds.
        slow_seconds: how long a client may make no progress before its stream ends, in seconds.
        root_path: the sub-path that the application is served under, such as ``/celery``.
        max_connection_age_seconds: maximum duration of a stream, in seconds; 0: no limit.
        sessions: those of browsers; by default none has ended.
        queues: those of the brokers.
        actions: what clients may do; by default nothing.
    """
    starts, limits = StartLimiter(), pipeline.limits
    work = StateWork(limits, slow_seconds)
    page_secret = str if pipeline.replication is None else pipeline.replication.page_secret
    actions = actions or Actions()
    access = AccessControl(pipeline, authenticator, max_connection_age_seconds, sessions, actions.allowed)
    routes = [  # they are tried one by one
        *DashboardEndpoints(access).routes,
        *StreamEndpoints(access, limits, starts, keepalive_seconds, slow_seconds).routes,
        *ActionEndpoints(access, work, actions).routes,
        *StateEndpoints(access, work, page_secret).routes,
        *StatisticsEndpoints(access, work).routes,
        *QueueEndpoints(access, queues, work).routes,
        *ServiceEndpoints(access, pipeline).routes,
        *SessionEndpoints(access).routes,
    ]
    check_routes(routes)
    starlette = Starlette(
        routes=routes,
        exception_handlers={
            GatewayError: partial(_gateway_error, access),
            HTTPException: _http_error,
            Exception: _internal_error,
        },
    )
    starlette.router.redirect_slashes = False  # its redirects follow the Host header; see _http_error
    app: ASGIApp = StartsInTurn(starlette, starts)
    if pipeline.replication is not None:
        app = WarmGate(app, pipeline.replication)
    app = VaryByAccept(app)
    return RootPath(app, root_path) if root_path else app


class WarmGate:
    """Refuse requests for streams and state until the tables were read from the shared log."""

    def __init__(self, app: ASGIApp, replication: Replication) -> None:
        self._app = app
        self._replication = replication

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"].removeprefix(scope.get("root_path", "")) or "/"
        is_open = path in ALWAYS_OPEN or path.startswith(ASSETS_PATH) or wants_page(scope)
        if self._replication.is_warm or is_open:
            await self._app(scope, receive, send)
            return
        message = "this gateway is not ready: it reads the shared log first (/readyz has how far)"
        response = error_response(503, "log-warming", message)
        response.headers["Retry-After"] = "1"
        await respond(response, scope, receive, send)


class StartsInTurn:
    """Start requests and WebSockets in turn, by the address of their client."""

    def __init__(self, app: ASGIApp, starts: StartLimiter) -> None:
        self._app = app
        self._starts = starts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket"):
            await self._starts.wait((scope.get("client") or ("",))[0])
        await self._app(scope, receive, send)


async def _gateway_error(access: AccessControl, request: Request, error: Exception) -> Response:
    assert isinstance(error, GatewayError)
    return await access.response_to(request, error)


async def _http_error(request: Request, error: Exception) -> Response:
    """Return the response for an unknown path or method, and the redirect for a path with a final slash."""
    assert isinstance(error, HTTPException)
    if error.status_code == 405:
        methods = {*(error.headers or {}).get("Allow", "").split(", "), "OPTIONS"} - {""}
        allow = {"Allow": ", ".join(sorted(methods))}
        if request.method == "OPTIONS":
            return Response(status_code=204, headers=allow)
        error.headers = allow
    if request.method == "OPTIONS" and request.scope.get("raw_path") == b"*":  # of the whole server
        return Response(status_code=204, headers={"Allow": "DELETE, GET, HEAD, OPTIONS, POST"})
    if error.status_code == 404 and (target := _without_slash(request)) is not None:
        return Response(status_code=307, headers={"Location": target})
    code = error.detail.lower().replace(" ", "-")
    message = f"{request.method} {request.url.path}: {error.detail}"
    if error.status_code == 405:
        message += f"; allowed methods: {error.headers['Allow']}" if error.headers else ""
    response = error_response(error.status_code, code, message)
    response.headers.update(error.headers or {})
    return response


def _without_slash(request: Request) -> str | None:
    """Return the target of ``/events/`` and the like without the slash, relative to the request's own URL.

    Not for a URL with a token: the target could not repeat it (``query_secrets``).
    """
    if ACCESS_TOKEN_KEY in request.scope:
        return None
    path = request.scope["path"].removeprefix(request.scope.get("root_path", ""))
    name = path.strip("/")
    if path != f"/{name}/" or not any(route.path == f"/{name}" for route in request.app.routes):
        return None
    query = request.url.query
    return f"../{name}?{query}" if query else f"../{name}"


async def _internal_error(request: Request, error: Exception) -> Response:
    """Return the response for an unexpected error; Starlette then raises it, for the server to log."""
    message = f"{request.method} {request.url.path}: unexpected error in the gateway; its log has the details"
    return error_response(500, "internal-error", message)
