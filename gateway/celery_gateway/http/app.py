"""The ASGI application: routes, and errors turned into answers."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from importlib.resources import files

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp
from starlette.websockets import WebSocket

from gateway.edge.direct import Rounds, offered
from gateway.edge.json_query import posted_query
from gateway.edge.lookup import Lookups
from gateway.edge.metrics import CONTENT_TYPE, Metrics
from gateway.edge.query import stream_query
from gateway.edge.refusal import bad_request, refusal
from gateway.edge.root_path import RootPath
from gateway.edge.stream import DirectResponse, portable_response
from gateway.edge.subscribe import is_over, subscribe
from gateway.edge.websocket import serve_websocket
from gateway.errors import BadRequest
from gateway.frames import DIRECT_FORMATS, FORMATS
from gateway.pipeline import Pipeline


def create_app(
    pipeline: Pipeline,
    *,
    keepalive_seconds: float = 15.0,
    slow_seconds: float = 60.0,
    root_path: str = "",
    allow_origins: Sequence[str] = (),
) -> ASGIApp:
    """Return the application; its lifespan starts and stops the pipeline.

    Args:
        keepalive_seconds: about how long a stream may be silent.
        slow_seconds: how long a client may make no progress before its stream is ended.
        root_path: the sub-path it is served under, such as ``/celery``.
        allow_origins: other web sites whose pages may read from here (CORS); ``*`` for all.
    """
    rounds = Rounds(keepalive_seconds, slow_seconds)
    metrics = Metrics(pipeline.statistics)
    lookups = Lookups(pipeline, slow_seconds)
    dashboard = files("gateway.edge").joinpath("dashboard.html").read_text(encoding="utf-8")

    async def events(request: Request) -> Response:
        try:
            query = await posted_query(request) if request.method == "POST" else stream_query(request)
        except ClientDisconnect:
            return Response()  # which nobody gets
        media_type = FORMATS[query.format].media_type
        if request.method == "HEAD":
            return Response(media_type=media_type)
        if is_over(pipeline, query):
            return Response(status_code=204)  # stops an EventSource (WHATWG HTML section 9.2.3)
        carry = offered(request.scope)
        subscription = subscribe(
            pipeline, query, (FORMATS if carry is None else DIRECT_FORMATS)[query.format]
        )
        if carry is None:
            return portable_response(subscription, query.format, keepalive_seconds, slow_seconds)
        return DirectResponse(subscription, carry, rounds, media_type)

    async def websocket(websocket: WebSocket) -> None:
        try:
            query = stream_query(websocket)
        except BadRequest as error:
            await websocket.send_denial_response(bad_request(error))
            return
        await serve_websocket(websocket, pipeline, query, rounds, keepalive_seconds, slow_seconds)

    async def index(request: Request) -> Response:
        return HTMLResponse(dashboard)

    async def healthz(request: Request) -> Response:
        return JSONResponse({"status": "alive"})

    async def readyz(request: Request) -> Response:
        statuses = pipeline.statuses
        # One broker of several is worth serving: without this every replica would be taken out for it.
        is_ready = any(status.is_consuming for status in statuses.values())
        body: dict[str, object] = {
            "status": "ready" if is_ready else "not ready",
            "reason": "; ".join(
                f"{cluster}: {status.reason}" if cluster else status.reason
                for cluster, status in statuses.items()
            ),
        }
        if None not in statuses:
            body["clusters"] = {str(cluster): status._asdict() for cluster, status in statuses.items()}
        return JSONResponse(body, status_code=200 if is_ready else 503)

    async def metrics_text(request: Request) -> Response:
        return Response(metrics.text(), media_type=CONTENT_TYPE)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        await pipeline.start()
        try:
            yield
        finally:
            await pipeline.stop()

    cors = Middleware(
        CORSMiddleware,
        allow_origins=allow_origins,
        allow_methods=["GET", "POST"],
        allow_headers=["Authorization", "Content-Type", "If-None-Match", "Last-Event-ID"],
        expose_headers=["ETag"],
    )
    app: ASGIApp = Starlette(
        routes=[
            Route("/", index),
            Route("/events", events, methods=["GET", "POST"]),
            WebSocketRoute("/ws", websocket),
            *lookups.routes,
            Route("/healthz", healthz),
            Route("/readyz", readyz),
            Route("/metrics", metrics_text),
        ],
        middleware=[cors] if allow_origins else [],
        exception_handlers={BadRequest: _bad_request, HTTPException: _http_error, Exception: _own_error},
        lifespan=lifespan,
    )
    return RootPath(app, root_path) if root_path else app


async def _bad_request(request: Request, error: Exception) -> Response:
    assert isinstance(error, BadRequest)
    return bad_request(error)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = error.detail.lower().replace(" ", "-")
    answer = refusal(error.status_code, code, f"{request.method} {request.url.path}: {error.detail}")
    answer.headers.update(error.headers or {})
    return answer


async def _own_error(request: Request, error: Exception) -> Response:
    """Answer for a fault of ours; Starlette then raises it, for the server to log."""
    return refusal(
        500, "internal-error", f"{request.method} {request.url.path}: a fault of the gateway's own"
    )
