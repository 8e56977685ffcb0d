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
from typing import Any

from celery.events.event import get_exchange
from kombu import Connection, Consumer, Queue
from kombu.exceptions import KombuError

from gateway.errors import SourceError
from gateway.message import Message
from gateway.source import Sink, Status
from gateway.source.backoff import Backoff

MAX_IN_FLIGHT_MESSAGES = 1_000
POLL_SECONDS = 0.5
_TRANSPORT_OPTIONS = {"memory": {"polling_interval": 0.05}}  # seconds; kombu looks once a second by itself

log = logging.getLogger(__name__)


class VirtualSource:
    """Consumes a broker through kombu.

    Args:
        url: what ``kombu.Connection`` takes, such as ``redis://localhost`` or ``memory://``.
        exchange: Celery's ``event_exchange``.

    Raises:
        SourceError: the URL names no transport, or one whose package is not installed.
    """

    def __init__(self, url: str, *, exchange: str = "celeryev") -> None:
        self._exchange = exchange
        self._status = Status(False, "not connected yet")
        self._stopping = threading.Event()
        transport = url.partition("://")[0]
        try:
            self._connection = Connection(url, transport_options=_TRANSPORT_OPTIONS.get(transport, {}))
            self._errors = (OSError, KombuError, *self._connection.connection_errors)
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
        backoff = Backoff()
        was_consuming = False
        while not self._stopping.is_set():
            try:
                self._connect_and_consume(loop, sink, backoff, was_consuming)
                return
            except self._errors as error:
                reason = f"{type(error).__name__}: {error}"
            except Exception as error:
                log.exception("broker: an error that was not foreseen; the source goes on")
                reason = f"{type(error).__name__}: {error}"
            was_consuming = was_consuming or self._status.is_consuming
            self._status = Status(False, reason)
            self._stopping.wait(backoff.after(reason))

    def _connect_and_consume(
        self, loop: asyncio.AbstractEventLoop, sink: Sink, backoff: Backoff, was_consuming: bool
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
                if was_consuming:
                    loop.call_soon_threadsafe(sink.lost)
                backoff.reset()
                self._status = Status(True, f"consuming {self._exchange}")
                loop.call_soon_threadsafe(sink.consuming)
                log.info("broker: consuming %s through the queue %s", self._exchange, queue.name)
                while not self._stopping.is_set():
                    try:
                        connection.drain_events(timeout=POLL_SECONDS)
                    except TimeoutError:
                        connection.heartbeat_check()
