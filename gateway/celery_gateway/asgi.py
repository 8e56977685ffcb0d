"""The gateway as an ASGI application: to mount in another application, or to run under any server.

Rules: the gateway serves while its ``lifespan`` runs. A Starlette or FastAPI application that mounts it has
to run that lifespan (docs/mounting.md):

    gateway = Gateway(Settings(broker="amqp://…"))
    app = Starlette(routes=[Mount("/celery", gateway)], lifespan=gateway.lifespan)

``celery-gateway serve`` runs it under uvicorn with connections that write streams directly
(``http.uvicorn_direct``); under any other server the same streams are sent as ASGI messages, which takes more
CPU time a client.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from starlette.responses import Response
from starlette.routing import Router
from starlette.types import ASGIApp, Receive, Scope, Send

from celery_gateway.access.authenticator import Authenticator
from celery_gateway.access.proxies import TrustedProxies
from celery_gateway.access.redaction import Redactor
from celery_gateway.broker.factory import source_for
from celery_gateway.broker.urls import Access, Broker, brokers
from celery_gateway.broker.worker_control import WorkerControl
from celery_gateway.feed import Feed
from celery_gateway.http.allowed_hosts import Policy
from celery_gateway.http.app import create_app
from celery_gateway.http.errors import error_response, respond
from celery_gateway.http.headers import SafeHeaders
from celery_gateway.http.origin import OriginCheck
from celery_gateway.http.proxy_headers import ProxyHeaders
from celery_gateway.http.query_secrets import hide_secrets
from celery_gateway.http.sessions import Sessions
from celery_gateway.http.shutdown import Requests, drained_on_shutdown
from celery_gateway.pipeline import Pipeline
from celery_gateway.settings import Settings
from celery_gateway.state.task_table import TaskTable
from celery_gateway.state.worker_table import WorkerTable
from celery_gateway.stream.completion import Completions
from celery_gateway.stream.hub import Hub
from celery_gateway.stream.limits import Limits

log = logging.getLogger(__name__)


class Gateway:
    """A gateway built from settings; an ASGI 3 application.

    After its ``lifespan`` it can be started again, with an empty history and table.

    Args:
        settings: see ``Settings``.

    Attributes:
        limits: those of all clients.
        pipeline: the current pipeline; a restart makes another one.

    Raises:
        SourceError: the broker's URL cannot be used.
        GatewayError: the access file cannot be used.
        ValueError: a host, an origin, the public URL, a trusted proxy, a hidden field or a name of secrets
            is malformed.
    """

    def __init__(self, settings: Settings) -> None:
        policy = Policy(
            bind=settings.host,
            public_url=settings.public_url,
            allow_hosts=settings.allow_hosts,
            allow_origins=settings.allow_origins,
        )
        self._settings = settings
        safe = SafeHeaders(
            OriginCheck(self._respond, policy),
            hsts_seconds=settings.hsts_seconds,
            varies_by_token=bool(settings.auth),
        )
        proxies = TrustedProxies(settings.trusted_proxies)
        self._checked: ASGIApp = ProxyHeaders(safe, proxies) if proxies else safe
        self._requests = Requests()
        self._own_lifespan = Router(lifespan=self.lifespan)
        self._is_used = self._has_logged = False
        self._running = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._authenticator = Authenticator(settings.auth) if settings.auth else None
        if self._authenticator is not None and self._authenticator.has_proxy and not settings.trusted_proxies:
            log.warning("[proxy] in the file of --auth has no effect: name the proxy with --trusted-proxies")
        self._checks: asyncio.Task[None] | None = None  # of the access file
        self._sessions = Sessions()
        self.limits = Limits(memory_bytes=settings.client_memory_bytes)
        self.pipeline = _pipeline(settings, self.limits)
        self._app = self._create_app()

    def _create_app(self) -> ASGIApp:
        settings = self._settings
        return create_app(
            self.pipeline,
            self._authenticator,
            keepalive_seconds=settings.keepalive_seconds,
            slow_seconds=settings.slow_seconds,
            root_path=settings.root_path,
            max_connection_age_seconds=settings.max_connection_age_seconds,
            sessions=self._sessions,
        )

    @asynccontextmanager
    async def lifespan(self, app: Any = None) -> AsyncIterator[None]:
        """Consume from the broker within the block.

        A server whose application is the gateway itself runs it. Streams end with the block, or when the
        server around it starts to shut down.

        Args:
            app: the application that runs it; unused.

        Raises:
            RuntimeError: the gateway is running in another event loop.
        """
        await self._start()
        try:
            with drained_on_shutdown(self.pipeline.drain, self._requests):
                yield
        finally:
            await self._stop()

    async def _start(self) -> None:
        loop = asyncio.get_running_loop()
        if self._running:  # two servers with one application
            if loop is not self._loop:
                raise RuntimeError(
                    "this gateway is running in another event loop: create one Gateway for each event loop"
                )
        else:
            if self._is_used:
                self.pipeline = _pipeline(self._settings, self.limits)
                self._app = self._create_app()
            self._loop, self._is_used = loop, True
            await self.pipeline.start()
            if self._authenticator is not None:
                self._checks = asyncio.create_task(
                    self._authenticator.run(), name="checks of the access file"
                )
        self._running += 1

    async def _stop(self) -> None:
        self._running -= 1
        if self._running:
            return
        checks, self._checks = self._checks, None
        try:
            await self.pipeline.stop()
        finally:
            if checks is not None:
                checks.cancel()
                with suppress(asyncio.CancelledError):
                    await checks

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._own_lifespan(scope, receive, send)
        else:
            hide_secrets(scope)
            await self._checked(scope, receive, send)

    async def _respond(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not self._running:
            await respond(self._not_running(), scope, receive, send)
            return
        try:
            async with asyncio.timeout(None) as limit:
                with self._requests.tracked(scope, limit):
                    await self._app(scope, receive, send)
        except TimeoutError:  # the client does not read, or a drain takes too long
            if self._requests.cut(scope):
                await asyncio.sleep(0)  # let the server process the lost connection
            elif scope["type"] == "http" and not limit.expired() and not self._requests.cutters:
                raise  # the server aborts it; with cutters, the connection is lost already

    def _not_running(self) -> Response:
        if self._is_used:
            return error_response(
                503,
                "not-running",
                "the gateway is not running: its lifespan has ended, and so it has stopped",
            )
        message = (
            "the gateway is not running: its lifespan was not started. Give your application "
            "lifespan=gateway.lifespan, or, if it has a lifespan of its own, write `async with "
            "gateway.lifespan(app):` around its yield (docs/mounting.md). "
            "The server or test client has to run lifespans"
        )
        if not self._has_logged:
            self._has_logged = True
            log.error("%s", message)
        return error_response(503, "not-running", message)


def _pipeline(settings: Settings, limits: Limits) -> Pipeline:
    access = Access(settings.tls, settings.login_method, settings.transport_options, settings.queue_prefix)
    named = brokers(settings.broker, access)
    clusters = [broker.name for broker in named if broker.name is not None]
    tasks = TaskTable(max_tasks=settings.max_tasks, clusters=clusters, keeps_origins=bool(settings.auth))
    hub = Hub(history_bytes=settings.history_bytes, max_event_bytes=settings.max_event_bytes, limits=limits)
    completions = Completions(
        tasks,
        hub,
        lost_grace_seconds=settings.lost_grace_seconds,
        wait_known_seconds=settings.wait_known_seconds,
    )
    return Pipeline(
        [
            Feed(
                broker.name,
                source_for(broker, exchange=settings.exchange, accept=settings.accept),
                _remote(broker, settings) if settings.control else None,
            )
            for broker in named
        ],
        tasks,
        WorkerTable(has_clusters=bool(clusters), gone_seconds=settings.worker_timeout_seconds),
        hub,
        completions,
        limits,
        verbose_health=settings.verbose_health,
        redact=_redactor(settings),
    )


def _redactor(settings: Settings) -> Redactor | None:
    redactor = Redactor(settings.hide, settings.redact, settings.redact_keys)
    return redactor if redactor.is_needed else None


def _remote(broker: Broker, settings: Settings) -> WorkerControl:
    return WorkerControl(
        broker.urls, broker.name, access=broker.access, control_exchange=settings.control_exchange
    )
