"""The gateway as an ASGI application: to mount in one's own, or to run under any server.

In one's own Starlette or FastAPI application (whose lifespan has to run the gateway's):

    gateway = Gateway(Settings(broker="amqp://…"))
    app = Starlette(routes=[Mount("/celery", gateway)], lifespan=gateway.lifespan)

``celery-gateway serve`` runs it under uvicorn with connections that carry streams themselves (see
``edge.direct``); elsewhere the same streams go through ASGI messages, at a higher price a client.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from starlette.types import Receive, Scope, Send

from gateway.broker import Access, Broker, brokers
from gateway.edge.app import create_app
from gateway.hub import Hub
from gateway.pipeline import Feed, Pipeline
from gateway.remote import Remote
from gateway.settings import Settings
from gateway.source.choose import source_for
from gateway.tasks import Tasks
from gateway.until import Until
from gateway.workers import Workers


class Gateway:
    """A gateway put together from settings; an ASGI 3 application.

    Raises:
        SourceError: the broker's URL cannot be used.
    """

    def __init__(self, settings: Settings) -> None:
        access = Access(
            settings.tls, settings.login_method, settings.transport_options, settings.queue_prefix
        )
        named = brokers(settings.broker, access)
        clusters = [broker.name for broker in named if broker.name is not None]
        tasks = Tasks(max_tasks=settings.max_tasks, clusters=clusters)
        hub = Hub(history_bytes=settings.history_bytes)
        until = Until(
            tasks,
            hub,
            lost_grace_seconds=settings.lost_grace_seconds,
            wait_known_seconds=settings.wait_known_seconds,
        )
        self.pipeline = Pipeline(
            [
                Feed(
                    broker.name,
                    source_for(broker, exchange=settings.exchange, accept=settings.accept),
                    _remote(broker, settings) if settings.control else None,
                )
                for broker in named
            ],
            tasks,
            Workers(has_clusters=bool(clusters), gone_seconds=settings.worker_timeout_seconds),
            hub,
            until,
        )
        self._app = create_app(
            self.pipeline,
            keepalive_seconds=settings.keepalive_seconds,
            slow_seconds=settings.slow_seconds,
            root_path=settings.root_path,
            allow_origins=settings.allow_origins,
        )

    @asynccontextmanager
    async def lifespan(self, app: Any = None) -> AsyncIterator[None]:
        """Consume from the broker within the block. The application's own lifespan does the same."""
        await self.pipeline.start()
        try:
            yield
        finally:
            await self.pipeline.stop()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)


def _remote(broker: Broker, settings: Settings) -> Remote:
    return Remote(broker.urls, broker.name, access=broker.access, control_exchange=settings.control_exchange)
