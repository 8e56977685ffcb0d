"""The log in a RabbitMQ stream.

- One connection appends and tails; others read, and are closed when they are idle (``rabbitmq_connection``).
- Age and size of the retention are arguments of the stream. The broker removes whole segments (about a tenth
  of the size) when it begins a new one: with little traffic, messages become older than the limit.
- The broker does not confirm messages: readers detect one that is missing.
- A tail that is slower than retention skips messages without an error.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from celery_gateway import __version__
from celery_gateway.broker.address import address_of, amqp_url
from celery_gateway.broker.rabbitmq_stream import StreamConsumer, difference_warning, stream_arguments
from celery_gateway.broker.tls import TLS
from celery_gateway.broker.urls import BY_URL, Access
from celery_gateway.errors import SourceError
from celery_gateway.events.message import Message
from celery_gateway.log.engine import MAX_READERS, LogError, LogGone, Place, Stored
from celery_gateway.log.rabbitmq_connection import HEARTBEAT_SECONDS, LogConnection, Target

TAIL_PREFETCH = 256
READ_PREFETCH = 64
"""How many messages the broker sends before it waits for an acknowledgement."""
END_SECONDS = 0.3
"""A read is at the end of the stream when the broker has sent nothing for so long."""
IDLE_SECONDS = 10.0
"""How long a connection that read is kept."""

log = logging.getLogger(__name__)


class RabbitMQLog:
    """An ``Engine`` for RabbitMQ.

    Args:
        urls: as Celery takes them; after a failure the next one is tried.
        access: how to log in, and the options of TLS for an ``amqps://`` URL.
        name: of the stream, and of the exchange through which messages are appended.
        age_seconds, max_bytes: the retention, if the stream does not exist yet.
        exchange: Celery's ``event_exchange``, for the permissions that error messages recommend.

    Raises:
        SourceError: a URL is malformed, or a requirement of TLS is missing.
    """

    def __init__(
        self,
        urls: Sequence[str],
        *,
        access: Access = BY_URL,
        name: str,
        age_seconds: float,
        max_bytes: int,
        exchange: str = "celeryev",
    ) -> None:
        tls = TLS(access.tls) if access.tls else None
        try:
            self._targets = [
                Target(
                    url,
                    amqp_url(
                        url,
                        heartbeat_seconds=HEARTBEAT_SECONDS,
                        name=f"celery-gateway {__version__} log",
                        login_method=access.login_method,
                    ).update_query(heartbeat=HEARTBEAT_SECONDS),
                    tls,
                    access,
                    name,
                    exchange,
                )
                for url in urls
            ]
        except ValueError as error:
            raise SourceError(f"the URL of the log cannot be read: {error}") from None
        self._arguments = stream_arguments(age_seconds, max_bytes)
        self._name = name
        self._main: LogConnection | None = None
        self._tails = 0
        self._last: Stored | None = None  # of the tails
        self._idle: list[LogConnection] = []
        self._idle_timers: dict[LogConnection, asyncio.TimerHandle] = {}
        self._free_readers = asyncio.Semaphore(MAX_READERS)
        self._closing: set[asyncio.Task[None]] = set()
        self._is_difference_logged = False

    @property
    def place(self) -> Place:
        address = address_of(self._targets[0].url)
        return Place("rabbitmq", f"{address.host_and_port}, vhost {address.vhost}", self._name)

    async def open(self, *, creates: bool = True) -> None:
        await self._close_main()
        connection = await self._connect()
        try:
            difference = await connection.declare(self._arguments) if creates else await connection.find()
        except LogError:
            await connection.close()
            raise
        except BaseException:
            connection.abort()
            raise
        self._main = connection
        if difference and not self._is_difference_logged:
            self._is_difference_logged = True
            log.warning("log: %s", difference_warning(self._name, difference))

    async def close(self) -> None:
        try:
            await self._close_main()
            for connection in list(self._idle):
                self._close_idle(connection)
            if self._closing:
                await asyncio.wait(self._closing)
        finally:
            for connection in self._idle:
                connection.abort()
            for task in self._closing:
                task.cancel()

    def append(self, data: bytes) -> None:
        self._open_main().publish(data)

    async def tail(self, start: int, on_message: Callable[[Stored], None]) -> None:
        connection = self._open_main()

        def on_each(message: Message) -> None:
            assert message.offset is not None
            self._last = stored = Stored(message.offset, message.body)
            on_message(stored)

        last = self._last
        cancelled = asyncio.Event()
        consumer = StreamConsumer(
            self._name,
            start,
            on_each,
            prefetch=TAIL_PREFETCH,
            on_cancel=cancelled.set,
            before=last.data if last is not None and last.offset == start - 1 else None,
        )
        waiting = asyncio.create_task(cancelled.wait())
        waiters: set[asyncio.Future[Any]] = {waiting, connection.ended}
        self._tails += 1
        try:
            await connection.begin(consumer, is_checked=True)
            await asyncio.wait(waiters, return_when=asyncio.FIRST_COMPLETED)
            raise await connection.cancelled_error() if cancelled.is_set() else connection.ended.result()
        finally:
            self._tails -= 1
            waiting.cancel()
            connection.stop(consumer)

    async def read(self, start: int, *, limit_bytes: int, limit: int = 10_000) -> list[Stored]:
        async with self._free_readers:
            while True:
                is_new = not self._idle
                connection = await self._connect() if is_new else self._take_idle()
                try:
                    found = await self._read(connection, start, limit_bytes, limit)
                except LogError as error:
                    connection.abort()
                    if is_new or isinstance(error, LogGone):
                        raise
                    continue  # a connection that was idle may have ended
                except BaseException:
                    connection.abort()
                    raise
                self._keep_idle(connection)
                return found

    async def delete(self) -> None:
        async with self._any_connection() as connection:
            await connection.delete()

    async def trim(self, before: int) -> None:
        raise LogError(
            "RabbitMQ removes the messages of a stream by age and size only. To remove all of them, delete "
            "the log; to keep less, set a policy for the stream (max-age, max-length-bytes)"
        )

    async def _read(
        self, connection: LogConnection, start: int, limit_bytes: int, limit: int
    ) -> list[Stored]:
        found: list[Stored] = []
        wakened = asyncio.Event()
        last_offset = self._last.offset if self._tails and self._last is not None else None
        left_bytes = limit_bytes
        is_cancelled = False

        def on_each(message: Message) -> None:
            nonlocal left_bytes
            if wakened.is_set():
                return
            assert message.offset is not None
            found.append(Stored(message.offset, message.body))
            left_bytes -= len(message.body)
            if left_bytes <= 0 or len(found) >= limit or message.offset == last_offset:
                wakened.set()

        def on_cancel() -> None:
            nonlocal is_cancelled
            is_cancelled = True
            wakened.set()

        consumer = StreamConsumer(
            self._name, start, on_each, prefetch=min(limit, READ_PREFETCH), on_cancel=on_cancel
        )
        waiting = asyncio.create_task(wakened.wait())
        waiters: set[asyncio.Future[Any]] = {waiting, connection.ended}
        try:
            await connection.begin(consumer, is_checked=False)
            while not waiting.done():
                count = len(found)
                await asyncio.wait(waiters, timeout=END_SECONDS, return_when=asyncio.FIRST_COMPLETED)
                if connection.ended.done():
                    raise connection.ended.result()
                if len(found) == count and not wakened.is_set():
                    await connection.wait_until_sent(consumer)
                    if len(found) == count:
                        break
            if is_cancelled:
                raise await connection.cancelled_error()
            return found
        finally:
            waiting.cancel()
            connection.stop(consumer)

    def _open_main(self) -> LogConnection:
        if self._main is None:
            raise LogError("the log is not open")
        return self._main

    async def _close_main(self) -> None:
        connection, self._main = self._main, None
        if connection is not None:
            await connection.close()

    async def _connect(self) -> LogConnection:
        """Return a connection to the first URL that can be used, which comes first from then on."""
        for index, target in enumerate(self._targets):
            connection = LogConnection(target)
            try:
                await connection.open()
            except LogError as error:
                failure = error
                continue
            self._targets = self._targets[index:] + self._targets[:index]
            return connection
        raise failure

    @asynccontextmanager
    async def _any_connection(self) -> AsyncIterator[LogConnection]:
        if self._main is not None and self._main.is_usable:
            yield self._main
            return
        connection = await self._connect()
        try:
            yield connection
        finally:
            await connection.close()

    def _take_idle(self) -> LogConnection:
        connection = self._idle.pop()
        self._idle_timers.pop(connection).cancel()
        return connection

    def _keep_idle(self, connection: LogConnection) -> None:
        self._idle.append(connection)
        self._idle_timers[connection] = asyncio.get_running_loop().call_later(
            IDLE_SECONDS, self._close_idle, connection
        )

    def _close_idle(self, connection: LogConnection) -> None:
        self._idle.remove(connection)
        self._idle_timers.pop(connection).cancel()
        task = asyncio.create_task(connection.close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)
