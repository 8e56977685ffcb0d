"""The line to kombu's other brokers: Redis and its like.

kombu blocks, so everything that touches the connection happens in one thread, which takes questions from a
queue between two looks at what has come.
"""

import asyncio
import os
import platform
import queue
import secrets
import threading
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from typing import Any

from celery.events.event import get_exchange
from kombu import Connection, Consumer, Exchange, Producer, Queue

from gateway.broker import without_password
from gateway.check.line import PIDBOX, Heard, answers, question
from gateway.check.network import failed
from gateway.check.step import Step, found, passed
from gateway.message import Message
from gateway.source.place import place_of

TIMEOUT_SECONDS = 5.0
POLL_SECONDS = 0.1
_TIMEOUTS = {"socket_timeout": TIMEOUT_SECONDS, "socket_connect_timeout": TIMEOUT_SECONDS}
_OPTIONS = {"redis": _TIMEOUTS, "rediss": _TIMEOUTS, "memory": {"polling_interval": 0.05}}


class VirtualLine:
    """See ``Line``.

    Raises:
        ImportError: the URL names no transport, or one whose package is not installed.
    """

    def __init__(self, url: str, exchange: str) -> None:
        self.heard: asyncio.Queue[Heard] = asyncio.Queue()
        self.listens = False
        self._url = url
        self._place = place_of(url)
        self._exchange = exchange
        self._name = f"celery-gateway.check.{platform.node()}.{os.getpid()}.{secrets.token_hex(4)}"
        self._questions: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._is_open: asyncio.Future[None] | None = None
        self._ended: asyncio.Future[None] | None = None
        try:
            self._connection = Connection(url, transport_options=_OPTIONS.get(self._place.scheme, {}))
            self._connection.connection_errors  # noqa: B018  (loads the transport)
        except (KeyError, AttributeError) as error:
            raise ImportError(str(error)) from None

    async def opening(self) -> AsyncIterator[Step]:
        loop = asyncio.get_running_loop()
        self._is_open, self._ended = loop.create_future(), loop.create_future()
        threading.Thread(target=self._run, args=[loop], name="celery-gateway-check", daemon=True).start()
        try:
            async with asyncio.timeout(2 * TIMEOUT_SECONDS):
                await self._is_open
        except TimeoutError:
            yield found(
                "login",
                "timeout",
                f"{without_password(self._url)} does not answer",
                "Look whether something else listens there, and whether the broker is overloaded.",
            )
        except Exception as error:
            step = failed("login", error, self._url, self._exchange)
            yield step._replace(name="vhost") if step.finding == "vhost-unknown" else step
        else:
            self.listens = True
            yield passed("login", "the broker lets us in")
            yield passed("queue", f"{self._exchange} can be read")

    async def listen(self) -> None:
        """It does from the beginning: the exchange is but a name here."""

    async def ask(self, name: str, arguments: Mapping[str, Any]) -> None:
        self._questions.put(question(name, arguments, f"{self._name}.answers"))

    async def close(self) -> None:
        self._stopping.set()
        if self._ended is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(2):
                    await asyncio.shield(self._ended)

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        def settle(future: "asyncio.Future[None] | None", error: BaseException | None = None) -> None:
            assert future is not None
            if not future.done():
                future.set_result(None) if error is None else future.set_exception(error)
            elif error is not None:
                self.heard.put_nowait(error)

        try:
            self._consume(loop, lambda: loop.call_soon_threadsafe(settle, self._is_open))
        except Exception as error:
            with suppress(RuntimeError):  # nobody waits any more
                loop.call_soon_threadsafe(settle, self._is_open, error)
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(settle, self._ended)

    def _consume(self, loop: asyncio.AbstractEventLoop, opened: Any) -> None:
        def hear(message: Any) -> None:
            body = message.body.encode() if isinstance(message.body, str) else bytes(message.body)
            if message.delivery_info.get("routing_key") == replies.name:
                for answer in answers(body, str(message.headers.get("ticket"))):
                    loop.call_soon_threadsafe(self.heard.put_nowait, answer)
                return
            compression = message.headers.get("compression")
            heard = Message(
                body,
                message.content_type,
                message.content_encoding,
                None if compression is None else str(compression),
            )
            loop.call_soon_threadsafe(self.heard.put_nowait, heard)

        with self._connection as connection:
            connection.ensure_connection(max_retries=1, interval_start=0, timeout=TIMEOUT_SECONDS)
            exchange = get_exchange(connection, name=self._exchange)
            events = Queue(self._name, exchange, routing_key="#", auto_delete=True, durable=False)
            replies = Queue(f"{self._name}.answers", auto_delete=True, durable=False)
            mailboxes = Exchange(PIDBOX, type="fanout", durable=False, delivery_mode="transient")
            with Consumer(connection, queues=[events, replies], no_ack=True, on_message=hear):
                producer = Producer(connection)
                opened()
                while not self._stopping.is_set():
                    with suppress(queue.Empty):
                        producer.publish(
                            self._questions.get_nowait(),
                            exchange=mailboxes,
                            declare=[mailboxes],  # to this connection only: kombu must know that it is fanout
                            serializer="json",
                            retry=False,
                        )
                    with suppress(TimeoutError):
                        connection.drain_events(timeout=POLL_SECONDS)
            connection.channel().queue_delete(replies.name)
