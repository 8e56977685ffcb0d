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
import os
import secrets
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

from starlette.responses import Response
from starlette.routing import Router
from starlette.types import ASGIApp, Receive, Scope, Send

from celery_gateway.access.authenticator import Authenticator
from celery_gateway.access.proxies import TrustedProxies
from celery_gateway.access.redaction import Redactor
from celery_gateway.broker.content_types import RestrictedSource
from celery_gateway.broker.factory import source_for
from celery_gateway.broker.raw_source import RawSource
from celery_gateway.broker.url_syntax import is_amqp
from celery_gateway.broker.urls import Access, Broker, brokers
from celery_gateway.broker.worker_control import WorkerControl
from celery_gateway.http.allowed_hosts import Policy
from celery_gateway.http.app import create_app
from celery_gateway.http.broker_access import BrokerAccess
from celery_gateway.http.errors import error_response, respond, shutting_down
from celery_gateway.http.headers import RESPONDING_KEY, SafeHeaders
from celery_gateway.http.origin import OriginCheck
from celery_gateway.http.proxy_headers import ProxyHeaders
from celery_gateway.http.query_secrets import hide_secrets
from celery_gateway.http.sessions import Sessions
from celery_gateway.http.shutdown import Requests, drained_on_shutdown
from celery_gateway.log.batch import Reached
from celery_gateway.log.engine import Engine
from celery_gateway.log.factory import engine_for
from celery_gateway.log.follower import Restart
from celery_gateway.pipeline.about import About
from celery_gateway.pipeline.clock import Clock
from celery_gateway.pipeline.feed import Feed
from celery_gateway.pipeline.pipeline import Pipeline
from celery_gateway.pipeline.replication import Replication
from celery_gateway.settings import Settings
from celery_gateway.state.replicated_table import ReplicatedTaskTable
from celery_gateway.state.task_table import TaskTable
from celery_gateway.state.worker_table import WorkerTable
from celery_gateway.stream.completion import Completions
from celery_gateway.stream.hub import Hub
from celery_gateway.stream.limits import Limits

RESTART_SECONDS = 5.0
"""Minimum time between two restarts of the pipeline."""
WARM_ENTRIES_PER_TASK = 5
"""How many entries of a shared log are read at the start at most, for each task that the table may have."""

log = logging.getLogger(__name__)


class Gateway:
    """A gateway built from settings; an ASGI 3 application.

    After its ``lifespan`` it can be started again, with an empty history and table.

    Args:
        settings: see ``Settings``.
        warm_seconds: how long a start waits until the tables were read from a shared log, at most.

    Attributes:
        limits: those of all clients.
        pipeline: the current pipeline; a restart makes another one.

    Raises:
        SourceError: the broker's URL cannot be used.
        GatewayError: the access file cannot be used.
        ValueError: a host, an origin, the public URL, a trusted proxy, a hidden field, a name of secrets, a
            queue or an action is malformed.
    """

    def __init__(self, settings: Settings, *, warm_seconds: float = 0.0) -> None:
        policy = Policy(
            bind=settings.host,
            public_url=settings.public_url,
            allow_hosts=settings.allow_hosts,
            allow_origins=settings.allow_origins,
        )
        self._settings = settings
        self._warm_seconds = warm_seconds
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
        self._restart: asyncio.Task[None] | None = None  # of the pipeline, with empty tables
        self._restarted_at = float("-inf")
        self._sessions = Sessions()
        self.limits = Limits(memory_bytes=settings.client_memory_bytes)
        self.pipeline = _pipeline(settings, self.limits)
        self._brokers = BrokerAccess.of(settings)
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
            queues=self._brokers.queues,
            actions=self._brokers.actions,
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
            if self.pipeline.replication is not None:
                await self.pipeline.replication.wait_until_warm(self._warm_seconds)
            with drained_on_shutdown(lambda: self.pipeline.drain(), self._requests):
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
                self._brokers = BrokerAccess.of(self._settings)
                self._app = self._create_app()
            self._loop, self._is_used = loop, True
            await self.pipeline.start(self._on_restart)
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
            if self._restart is not None:
                await self._restart
            await self._brokers.actions.finish()  # their lines of the log, and their messages
            await self.pipeline.stop()
            await self._brokers.queues.close()
        finally:
            if checks is not None:
                checks.cancel()
                with suppress(asyncio.CancelledError):
                    await checks

    def _on_restart(self, error: Restart) -> None:
        """Replace the pipeline: streams end, and their clients resume."""
        log.warning("the tables of this gateway are read from the log again: %s", error)
        old = self.pipeline
        old.drain()
        self.pipeline = _pipeline(self._settings, self.limits, error.reached)
        self._app = self._create_app()
        self._restart = asyncio.create_task(self._start_after(old), name="restart")

    async def _start_after(self, old: Pipeline) -> None:
        await old.stop()
        now = asyncio.get_running_loop().time()
        await asyncio.sleep(max(0.0, self._restarted_at + RESTART_SECONDS - now))
        self._restarted_at = asyncio.get_running_loop().time()
        if self._running:
            await self.pipeline.start(self._on_restart)

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
            if limit.expired() and scope["type"] == "http" and not scope[RESPONDING_KEY]:
                await respond(shutting_down(), scope, receive, send)
            elif self._requests.cut(scope):
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


def _pipeline(settings: Settings, limits: Limits, reached: dict[str, Reached] | None = None) -> Pipeline:
    access = Access(settings.tls, settings.login_method, settings.transport_options, settings.queue_prefix)
    named = brokers(settings.broker, access)
    clusters = [broker.name for broker in named if broker.name is not None]
    is_shared = settings.log != "memory"
    tasks = (ReplicatedTaskTable if is_shared else TaskTable)(
        max_tasks=settings.max_tasks, clusters=clusters, keeps_origins=bool(settings.auth) or is_shared
    )
    engine = _engine(settings, named) if is_shared else None
    workers = WorkerTable(has_clusters=bool(clusters), gone_seconds=settings.worker_timeout_seconds)
    hub = Hub(history_bytes=settings.history_bytes, max_event_bytes=settings.max_event_bytes, limits=limits)
    completions = Completions(
        tasks,
        hub,
        lost_grace_seconds=settings.lost_grace_seconds,
        wait_known_seconds=settings.wait_known_seconds,
    )
    clock = Clock()
    replication = None
    if engine is not None and isinstance(tasks, ReplicatedTaskTable):
        keeps_all = len(named) == 1 and is_amqp(named[0].urls[0])
        name = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(3)}"
        replication = Replication(
            engine,
            name,
            tasks,
            workers,
            hub,
            completions,
            clock,
            uncounted=[] if keeps_all else [broker.name for broker in named],
            reached=reached,
            warm_entries=WARM_ENTRIES_PER_TASK * settings.max_tasks,
        )
    return Pipeline(
        [_feed(broker, settings, replication) for broker in named],
        tasks,
        workers,
        hub,
        completions,
        limits,
        verbose_health=settings.verbose_health,
        about=About(control=settings.control, actions=settings.allow),
        redact=_redactor(settings),
        replication=replication,
        clock=clock,
    )


def _engine(settings: Settings, named: Sequence[Broker]) -> Engine:
    return engine_for(
        settings.log,
        named,
        prefix=settings.queue_prefix,
        age_seconds=settings.log_age_seconds,
        max_bytes=settings.log_bytes,
        exchange=settings.exchange,
    )


def _feed(broker: Broker, settings: Settings, replication: Replication | None) -> Feed:
    """Return the feed of a broker; with a shared log from what the broker keeps, if it can keep messages."""
    remote = _remote(broker, settings) if settings.control else None
    if replication is None or not is_amqp(broker.urls[0]):
        source = source_for(broker, exchange=settings.exchange, accept=settings.accept)
        return Feed(broker.name, source, remote)
    kept = RawSource(
        broker.urls,
        exchange=settings.exchange,
        name=broker.name,
        access=broker.access,
        age_seconds=settings.log_age_seconds,
        max_bytes=settings.log_bytes,
        may_continue=lambda: not replication.is_full,
        is_reported=replication.read_back,
    )
    accept = settings.accept
    return Feed(broker.name, kept if accept is None else RestrictedSource(kept, accept), remote, kept)


def _redactor(settings: Settings) -> Redactor | None:
    redactor = Redactor(settings.hide, settings.redact, settings.redact_keys)
    return redactor if redactor.is_needed else None


def _remote(broker: Broker, settings: Settings) -> WorkerControl:
    return WorkerControl(
        broker.urls, broker.name, access=broker.access, control_exchange=settings.control_exchange
    )
