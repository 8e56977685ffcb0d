"""The source for kombu's other transports: Redis, the in-memory broker, and the like.

kombu knows their envelopes, prefixes and patterns; its consumer blocks, so it runs in a thread of its own
and hands raw messages over to the event loop, in order. At most ``MAX_IN_FLIGHT_MESSAGES`` are on their way
at a time: a busy loop holds the thread back, not the other way round.

Pub/sub transports lose what is sent while we are away: after each reconnect the sink is told so.
"""

import asyncio
import logging
import os
import platform
import secrets
import socket
import threading
from collections.abc import Sequence
from contextlib import suppress
from itertools import cycle
from typing import Any

from celery.events.event import get_exchange
from kombu import Connection, Consumer, Queue

from gateway.broker import BY_URL, Access
from gateway.errors import SourceError
from gateway.message import Message
from gateway.source import Sink, Status
from gateway.source.attempts import Attempts
from gateway.source.failure import failure_of
from gateway.source.place import place_of

MAX_IN_FLIGHT_MESSAGES = 1_000
POLL_SECONDS = 0.5
STOP_SECONDS = 3.0
SUBSCRIBE_SECONDS = 0.05
# A peer that is silent for half a minute is dead (tcp(7)): Redis sends no heartbeats.
_REDIS_OPTIONS = {
    "socket_connect_timeout": 10,  # seconds
    "socket_timeout": 30,
    "socket_keepalive": True,
    "socket_keepalive_options": {
        getattr(socket, option): value
        for option, value in (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 4))
        if hasattr(socket, option)
    },
}
_TRANSPORT_OPTIONS: dict[str, dict[str, Any]] = {
    "memory": {"polling_interval": 0.05},  # seconds; kombu looks once a second by itself
    "redis": _REDIS_OPTIONS,
    "rediss": _REDIS_OPTIONS,
    "sentinel": _REDIS_OPTIONS,
}

log = logging.getLogger(__name__)


class VirtualSource:
    """Consumes a broker through kombu.

    Args:
        urls: what ``kombu.Connection`` takes, such as ``redis://localhost`` or ``memory://``; kombu tries
            one after the other.
        exchange: Celery's ``event_exchange``.
        name: the broker's, for the log.
        access: how to speak to it; its transport options go before ours.

    Raises:
        SourceError: the URL names no transport, or one whose package is not installed.
    """

    def __init__(
        self,
        urls: Sequence[str],
        *,
        exchange: str = "celeryev",
        name: str | None = None,
        access: Access = BY_URL,
    ) -> None:
        # Sentinels are all wanted at once; of others one is tried after the other.
        self._urls = [";".join(urls)] if urls[0].startswith("sentinel") else list(urls)
        self._exchange = exchange
        self._queue_prefix = access.queue_prefix
        self._name = name
        self._status = Status(False, "not connected yet")
        self._stopping = threading.Event()
        transport = urls[0].partition("://")[0]
        try:
            for url in self._urls:
                place_of(url.partition(";")[0])
            options = {**_TRANSPORT_OPTIONS.get(transport, {}), **access.transport_options}
            self._connections = [
                Connection(url, ssl=access.ssl, transport_options=options) for url in self._urls
            ]
        except ValueError as error:
            raise SourceError(f"the broker URL cannot be read: {error}") from None
        except (KeyError, ImportError, AttributeError):  # what kombu raises for these, by transport
            raise SourceError(
                f"{transport}:// is no broker that kombu knows, or its package is missing: "
                f"try pip install 'kombu[{transport}]'"
            ) from None

    @property
    def status(self) -> Status:
        return self._status

    async def run(self, sink: Sink) -> None:
        loop = asyncio.get_running_loop()
        ended = loop.create_future()

        def consume() -> None:
            try:
                self._run_thread(loop, sink)
            finally:
                loop.call_soon_threadsafe(ended.set_result, None)

        thread = threading.Thread(target=consume, name="celery-gateway-source", daemon=True)
        thread.start()
        try:
            await asyncio.shield(ended)
        finally:
            self._stopping.set()
            await asyncio.wait({ended}, timeout=STOP_SECONDS)  # the thread is a daemon

    def _run_thread(self, loop: asyncio.AbstractEventLoop, sink: Sink) -> None:
        attempts = Attempts(self._name, len(self._urls))
        has_failed = False
        for url, connection in cycle(zip(self._urls, self._connections, strict=True)):
            if self._stopping.is_set():
                return
            try:
                self._connect_and_consume(connection, loop, sink, attempts, has_failed)
                return
            except Exception as error:
                failure = failure_of(error, url.partition(";")[0], self._exchange, self._queue_prefix)
                if failure.code == "unexpected":
                    log.exception("broker: an error that was not foreseen; the source goes on")
            has_failed = True
            self._tell(loop, sink, Status(False, f"{failure.what}. {failure.remedy}"))
            self._stopping.wait(attempts.failed(failure))

    def _connect_and_consume(
        self,
        origin: Connection,
        loop: asyncio.AbstractEventLoop,
        sink: Sink,
        attempts: Attempts,
        has_failed: bool,
    ) -> None:
        """Consume until stopped; raises what else ended it."""
        credit = threading.BoundedSemaphore(MAX_IN_FLIGHT_MESSAGES)

        def take(message: Any) -> None:
            compression = message.headers.get("compression")
            taken = Message(
                message.body.encode() if isinstance(message.body, str) else bytes(message.body),
                _text(message.content_type),
                _text(message.content_encoding),
                None if compression is None else str(compression),
            )
            credit.acquire()
            loop.call_soon_threadsafe(hand_over, taken)

        def hand_over(message: Message) -> None:
            credit.release()
            sink.message(message)

        with origin.clone() as connection:
            connection.ensure_connection(max_retries=1, timeout=10)
            queue = Queue(
                f"{self._queue_prefix}.{platform.node()}.{os.getpid()}.{secrets.token_hex(4)}",
                exchange=get_exchange(connection, name=self._exchange),
                routing_key="#",
                auto_delete=True,
                durable=False,
            )
            with Consumer(connection, queues=[queue], no_ack=True, on_message=take):
                if has_failed:
                    loop.call_soon_threadsafe(sink.lost)
                with suppress(TimeoutError):  # what subscribes, on Redis
                    connection.drain_events(timeout=SUBSCRIBE_SECONDS)
                attempts.succeeded(f"consuming {self._exchange} of {connection.as_uri()}")
                self._tell(loop, sink, Status(True, f"consuming {self._exchange}"))
                while not self._stopping.is_set():
                    try:
                        connection.drain_events(timeout=POLL_SECONDS)
                    except TimeoutError:
                        connection.heartbeat_check()

    def _tell(self, loop: asyncio.AbstractEventLoop, sink: Sink, status: Status) -> None:
        self._status = status
        loop.call_soon_threadsafe(sink.status, status)


def _text(property: Any) -> str | None:
    """Return a message's property, which may be anything on brokers whose envelopes are JSON."""
    return property if property is None or isinstance(property, str) else "unreadable"
