"""The gateway as a server of its own: uvicorn, with streams that end on shutdown.

Rules: SIGINT and SIGTERM end every stream with ``gateway-close``; connections that are still open after
``DRAIN_SECONDS`` are aborted, and a second signal aborts them at once. (uvicorn alone waits for open streams
without end.) The connections are those of ``uvicorn_direct`` if they work with the installed uvicorn.
"""

import asyncio
import gc
import logging
import re
import resource
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from importlib import metadata
from typing import Any, Protocol

import uvicorn
from starlette.types import Receive, Scope, Send
from uvicorn.server import ServerState

from celery_gateway.http.guard import ServerLimits
from celery_gateway.http.interrupt import exit_now, stop_signals_handled
from celery_gateway.http.listener import listen, url_of
from celery_gateway.http.metrics import report
from celery_gateway.http.metrics_sum import PEERS, Peers, Report
from celery_gateway.http.query_json import MAX_BYTES
from celery_gateway.http.tls import CHECK_SECONDS, Certificate
from celery_gateway.http.tls_transport import TlsTransport
from celery_gateway.http.uvicorn_direct.self_test import find_problem
from celery_gateway.pipeline.pipeline import Pipeline
from celery_gateway.settings import Settings
from celery_gateway.stream.limits import Limits

DRAIN_SECONDS = 4
"""Maximum time of a shutdown, in seconds."""
TICK_SECONDS = CHECK_SECONDS
"""Interval of updates of the Date header, and of looks at the certificate, in seconds."""
RESERVED_DESCRIPTORS = 64
"""File descriptors that clients do not get: for the brokers' connections, the log and files."""
MAX_CONNECTIONS = 1_000_000

log = logging.getLogger(__name__)


class Application(Protocol):
    """The interface of ``asgi.Gateway`` that this module uses."""

    @property
    def pipeline(self) -> Pipeline:
        """The current one: a restart of the tables replaces it."""

    @property
    def limits(self) -> Limits: ...

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None: ...


class Supervision(Peers, Protocol):
    """The supervisor of a gateway with several processes, as one of them uses it."""

    async def attach(self, shut_down: Callable[[], None], report: Callable[[], Report]) -> None:
        """Carry out the commands of the supervisor from now on, in this event loop.

        Args:
            shut_down: starts the shutdown; may be called more than once.
            report: returns the metrics of this process.
        """

    def started(self) -> None:
        """Report that this process accepts requests."""


class Server(uvicorn.Server):
    """uvicorn's server that ends its streams on a signal.

    Under a supervisor SIGINT has no effect, since a terminal sends it to all processes, and SIGTERM may be
    repeated: the supervisor has the signals, and ends a process that does not shut down.

    Attributes:
        ends_streams: for ``http.shutdown``, which ends the streams of other servers.
        is_interrupted: whether one of the signals was SIGINT.
    """

    ends_streams = True

    def __init__(
        self,
        config: uvicorn.Config,
        gateway: Application,
        on_started: Callable[[], None],
        certificate: Certificate | None = None,
        supervision: Supervision | None = None,
    ) -> None:
        super().__init__(config)
        self._supervision = supervision
        self._gateway = gateway
        self._on_started = on_started
        self._certificate = certificate
        self._exit_requested = asyncio.Event()
        self.is_interrupted = False

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        with stop_signals_handled(self._on_signal):
            yield

    def _on_signal(self, number: signal.Signals) -> None:
        if self._supervision is not None:
            if number == signal.SIGTERM:
                self._shut_down()
            return
        if not self.should_exit:
            log.info(
                "%s: shutting down; open streams (%d) are closed within %d s, or at once on a second signal",
                number.name,
                self._gateway.pipeline.hub.statistics().subscriptions,
                DRAIN_SECONDS,
            )
        elif number == signal.SIGINT:
            exit_now()
        self.is_interrupted |= number == signal.SIGINT
        self.force_exit = self.should_exit
        self._shut_down()

    def _shut_down(self) -> None:
        self.should_exit = True
        self._exit_requested.set()

    async def main_loop(self) -> None:
        """Update the Date header and the certificate until the exit.

        (uvicorn's own loop runs ten times a second.)
        """
        while not await self.on_tick(0):
            with suppress(TimeoutError):
                await asyncio.wait_for(self._exit_requested.wait(), TICK_SECONDS)
            if self._certificate is not None:
                self._certificate.reload()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        if self._supervision is not None:
            await self._supervision.attach(
                self._shut_down, lambda: report(self._gateway.pipeline.statistics())
            )
            self.lifespan.state[PEERS] = self._supervision
        await super().startup(sockets)
        if self.started:
            self._on_started()
            if self._supervision is not None:
                self._supervision.started()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for server in self.servers:
            server.close()
        self._gateway.pipeline.drain()
        await super().shutdown(sockets)


def serve(
    gateway: Application,
    settings: Settings,
    on_started: Callable[[str], None],
    listener: socket.socket | None = None,
    supervision: Supervision | None = None,
) -> bool:
    """Run a gateway until SIGINT or SIGTERM, then drain.

    Args:
        gateway: the application, built from ``settings``.
        settings: those of the address and the limits are used.
        on_started: is called with the gateway's URL when it accepts requests.
        listener: a socket on the address; by default one is made.
        supervision: the supervisor, if the gateway has several processes.

    Returns:
        Whether the signal was SIGINT.

    Raises:
        UnprotectedAddress: other machines can reach the address, and there is no authentication.
        GatewayError: the server cannot listen on the address, or cannot use its certificate.
    """
    certificate = Certificate(settings.tls_cert, settings.tls_key) if settings.tls_cert else None
    listener = listener or listen(settings)
    http, websocket, make_config = _connections()
    limits = ServerLimits(gateway.limits, _max_connections(), settings.slow_seconds)
    if certificate is not None:
        http = secured(http, certificate, limits)
    config = make_config(
        gateway,
        limits,
        hsts_seconds=settings.hsts_seconds,
        log_config=None,
        log_level=logging.ERROR,  # no line for each bad request
        access_log=False,
        server_header=False,
        proxy_headers=False,  # see proxy_headers.py; uvicorn would trust all of this machine
        lifespan="on",
        http=http,
        ws=websocket,
        ws_max_size=MAX_BYTES,
        ws_per_message_deflate=False,
        ws_ping_interval=None,  # see listener.py
        timeout_graceful_shutdown=DRAIN_SECONDS,
    )
    _relax_collector()
    url = url_of(listener, settings.root_path, is_tls=certificate is not None)
    server = Server(config, gateway, lambda: on_started(url), certificate, supervision)
    server.run(sockets=[listener])
    return server.is_interrupted


def _connections() -> tuple[Any, Any, Callable[..., uvicorn.Config]]:
    """Return uvicorn's options ``http`` and ``ws``, and its configuration class: ours if they work."""
    try:
        from celery_gateway.http.uvicorn_direct.config import Config
        from celery_gateway.http.uvicorn_direct.http_connection import DirectHTTP
        from celery_gateway.http.uvicorn_direct.websocket_connection import DirectWebSocket
    except (ImportError, AttributeError) as error:  # a name or the base of a class does not exist
        problem: str | None = f"{type(error).__name__}: {error}"
    else:
        problem = find_problem(DirectHTTP, DirectWebSocket)
        if problem is None:
            return DirectHTTP, DirectWebSocket, Config
    log.warning(
        "uvicorn %s cannot carry streams directly (%s): streams work, but take several times the CPU, and "
        "connections have no limits. Install a supported version: pip install '%s'",
        uvicorn.__version__,
        problem,
        _requirement("uvicorn"),
    )
    return "auto", "auto", _plain_config


def _plain_config(app: Any, limits: ServerLimits, *, hsts_seconds: int, **options: Any) -> uvicorn.Config:
    return uvicorn.Config(app, **options)


def secured(http: Any, certificate: Certificate, limits: ServerLimits) -> Callable[..., Any]:
    """Return uvicorn's option ``http`` for connections over TLS.

    Args:
        http: the option for those without TLS.
    """
    make: Callable[..., Any] = http
    if http == "auto":
        from uvicorn.protocols.http.auto import AutoHTTPProtocol as make

    def accept(*, server_state: ServerState, **arguments: Any) -> TlsTransport:
        above = partial(make, server_state=server_state, **arguments)
        return TlsTransport(certificate.context, limits, above, server_state.connections)

    return accept


def _max_connections() -> int:
    """Raise the limit of file descriptors; return the maximum number of connections below it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
    if soft == resource.RLIM_INFINITY:
        return MAX_CONNECTIONS
    return max(1, min(MAX_CONNECTIONS, soft - RESERVED_DESCRIPTORS))


def _requirement(name: str) -> str:
    """Return the requirement of celery-gateway on a package, as an argument of pip."""
    with suppress(metadata.PackageNotFoundError):
        for requirement in metadata.requires("celery-gateway") or ():
            if re.match(rf"{name}\b", requirement):
                return requirement.partition(";")[0].strip()
    return name


def _relax_collector() -> None:
    """Run the garbage collector less often: almost nothing here is cyclic, and the history is large.

    Measured at 500 clients × 1000 events/s: 0.49 µs a delivery in place of 0.53.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 100)
