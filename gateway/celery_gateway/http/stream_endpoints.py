"""Endpoints of the stream: ``/events`` (SSE and NDJSON, GET and POST) and ``/ws`` (WebSocket).

Rules: the request is checked completely before anything is subscribed. Under our own server the connection
writes the stream itself (``direct_transport``); under any other, it is sent as ASGI messages.
"""

from functools import partial

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.websockets import WebSocket

from celery_gateway.http.access_control import AccessControl
from celery_gateway.http.direct_transport import direct_transport
from celery_gateway.http.errors import error_response
from celery_gateway.http.fair_share import StartLimiter
from celery_gateway.http.query_json import posted_query
from celery_gateway.http.query_params import client_of, quota_of, stream_query
from celery_gateway.http.stream_query import StreamQuery
from celery_gateway.http.stream_response import DirectResponse, head_response, portable_response
from celery_gateway.http.subscribe import find_beginning, is_complete, subscribe
from celery_gateway.http.websocket import serve_websocket
from celery_gateway.stream.framing import FORMATS
from celery_gateway.stream.keepalive import KeepaliveTimer
from celery_gateway.stream.limits import Limits


class StreamEndpoints:
    """The endpoints, as ``routes``.

    Args:
        access: authenticates, and has what is visible.
        limits: those of all clients.
        starts: the turns in which requests start, or continue after their body.
        keepalive_seconds: about how long a stream may be silent, in seconds.
        slow_seconds: how long a client may make no progress before its stream ends, in seconds.
    """

    def __init__(
        self,
        access: AccessControl,
        limits: Limits,
        starts: StartLimiter,
        keepalive_seconds: float,
        slow_seconds: float,
    ) -> None:
        self._access = access
        self._limits = limits
        self._starts = starts
        self._keepalive_seconds = keepalive_seconds
        self._slow_seconds = slow_seconds
        self._keepalive_timer = KeepaliveTimer(keepalive_seconds, slow_seconds)
        self.routes = [
            access.route("/events", self.events, "events", methods=["GET", "POST"]),
            access.websocket_route("/ws", self.websocket, "events"),
            access.route("/ws", self.not_upgraded, "public"),
        ]

    async def events(self, request: Request) -> Response:
        """Start a stream of SSE or NDJSON."""
        quota_of(request).take("new_streams_per_second")
        try:
            query = await self._query(request)
        except ClientDisconnect:
            return Response()  # it has no receiver
        media_type = FORMATS[query.format].media_type
        if request.method == "HEAD":
            return head_response(media_type)
        visible, client = self._access.visible(request), client_of(request)
        since_position = await find_beginning(visible, query, client)
        if is_complete(visible, query):
            return Response(status_code=204)  # stops an EventSource (WHATWG HTML section 9.2.3)
        transport = direct_transport(request.scope)
        framing = (FORMATS if transport is None else transport.formats)[query.format]
        subscription = subscribe(visible, query, framing, client, since_position=since_position)
        self._access.on_subscribed(request, subscription)
        if transport is None:
            return portable_response(subscription, query.format, self._keepalive_seconds, self._slow_seconds)
        return DirectResponse(subscription, transport, self._keepalive_timer, media_type)

    async def _query(self, request: Request) -> StreamQuery:
        if request.method != "POST":
            return stream_query(request)
        client = client_of(request)
        reserved = self._limits.memory.reserve(client)
        try:
            return await posted_query(request, reserved, partial(self._starts.wait, client))
        finally:
            reserved.release()

    async def websocket(self, websocket: WebSocket) -> None:
        """Start a stream over WebSocket."""
        quota_of(websocket).take("new_streams_per_second")
        await serve_websocket(
            websocket,
            self._access,
            stream_query(websocket),
            self._keepalive_timer,
            self._keepalive_seconds,
            self._slow_seconds,
        )

    async def not_upgraded(self, request: Request) -> Response:
        """Return 426 for a plain request for ``/ws``."""
        response = error_response(
            426,
            "upgrade-required",
            "not a WebSocket request: /ws requires the headers Upgrade and Connection; a proxy in front of "
            "the gateway has to pass them on",
        )
        if request.scope["http_version"].startswith("1"):  # HTTP/2 forbids them
            response.headers.update({"Upgrade": "websocket", "Connection": "Upgrade"})
        return response
