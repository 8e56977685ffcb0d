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
import threading
from collections.abc import Sequence
from typing import Any

from celery.events.event import get_exchange
from kombu import Connection, Consumer, Queue

from gateway.errors import SourceError
from gateway.message import Message
from gateway.source import Sink, Status
from gateway.source.attempts import Attempts
from gateway.source.failure import failure_of

MAX_IN_FLIGHT_MESSAGES = 1_000
POLL_SECONDS = 0.5
_TRANSPORT_OPTIONS = {"memory": {"polling_interval": 0.05}}  # seconds; kombu looks once a second by itself

log = logging.getLogger(__name__)


class VirtualSource:
    """Consumes a broker through kombu.

    Args:
        urls: what ``kombu.Connection`` takes, such as ``redis://localhost`` or ``memory://``; kombu tries
            one after the other.
        exchange: Celery's ``event_exchange``.
        name: the broker's, for the log.

    Raises:
        SourceError: the URL names no transport, or one whose package is not installed.
    """

    def __init__(self, urls: Sequence[str], *, exchange: str = "celeryev", name: str | None = None) -> None:
        self._url = ";".join(urls)
        self._exchange = exchange
        self._name = name
        self._status = Status(False, "not connected yet")
        self._stopping = threading.Event()
        transport = self._url.partition("://")[0]
        try:
            self._connection = Connection(self._url, transport_options=_TRANSPORT_OPTIONS.get(transport, {}))
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
            await ended

    def _run_thread(self, loop: asyncio.AbstractEventLoop, sink: Sink) -> None:
        attempts = Attempts(self._name)
        has_failed = False
        while not self._stopping.is_set():
            try:
                self._connect_and_consume(loop, sink, attempts, has_failed)
                return
            except Exception as error:
                failure = failure_of(error, self._url.partition(";")[0], self._exchange)
                if failure.code == "unexpected":
                    log.exception("broker: an error that was not foreseen; the source goes on")
            has_failed = True
            self._status = Status(False, f"{failure.what}. {failure.remedy}")
            self._stopping.wait(attempts.failed(failure))

    def _connect_and_consume(
        self, loop: asyncio.AbstractEventLoop, sink: Sink, attempts: Attempts, has_failed: bool
    ) -> None:
        """Consume until stopped; raises what else ended it."""
        credit = threading.BoundedSemaphore(MAX_IN_FLIGHT_MESSAGES)

        def take(message: Any) -> None:
            compression = message.headers.get("compression")
            taken = Message(
                message.body.encode() if isinstance(message.body, str) else bytes(message.body),
                message.content_type,
                message.content_encoding,
                None if compression is None else str(compression),
            )
            credit.acquire()
            loop.call_soon_threadsafe(hand_over, taken)

        def hand_over(message: Message) -> None:
            credit.release()
            sink.message(message)

        with self._connection.clone() as connection:
            connection.ensure_connection(max_retries=1, timeout=10)
            queue = Queue(
                f"celery-gateway.{platform.node()}.{os.getpid()}.{secrets.token_hex(4)}",
                exchange=get_exchange(connection, name=self._exchange),
                routing_key="#",
                auto_delete=True,
                durable=False,
            )
            with Consumer(connection, queues=[queue], no_ack=True, on_message=take):
                if has_failed:
                    loop.call_soon_threadsafe(sink.lost)
                attempts.succeeded(f"consuming {self._exchange} of {connection.as_uri()}")
                self._status = Status(True, f"consuming {self._exchange}")
                loop.call_soon_threadsafe(sink.consuming)
                while not self._stopping.is_set():
                    try:
                        connection.drain_events(timeout=POLL_SECONDS)
                    except TimeoutError:
                        connection.heartbeat_check()
