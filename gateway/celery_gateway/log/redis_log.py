"""The log in Redis: a stream (``redis_entries``) in one Redis, or in the master that sentinels name.

- Redis 6.2 or later. Whether an appended message survives a failure of Redis is up to its persistence and
  replication. If a failover loses messages that a gateway has read, that gateway gets ``LogGone``.
- Offsets are valid for one stream. One that was created again is detected within a second.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from celery_gateway.broker.amqp_consumer import is_being_cancelled
from celery_gateway.broker.redis_channels import key_prefix
from celery_gateway.broker.urls import Access
from celery_gateway.log.engine import FIRST, MAX_READERS, LogError, LogGone, Place, Stored
from celery_gateway.log.redis_clients import RedisClients
from celery_gateway.log.redis_entries import (
    Entry,
    entries_of,
    entries_of_streams,
    id_of,
    identities_of,
    new_identity,
)
from celery_gateway.log.redis_writer import CHUNK_BYTES, CHUNK_MESSAGES, RedisWriter

CHECK_SECONDS = 1.0
"""How often a tail checks that the stream is still the same."""
TURN_SECONDS = 0.004
"""How long callbacks run in one turn of the event loop, about."""
FLUSH_SECONDS = 1.0

_GONE = "the log was deleted, or created again"


class RedisLog:
    """An engine for Redis.

    Args:
        urls: as ``urls.brokers`` returns them; one is used at a time.
        access: how the gateway connects.
        name: of the stream, without the ``global_keyprefix``.
        age_seconds: how long an entry is kept, about.
        max_bytes: how large the log gets, about.

    Raises:
        SourceError: a URL cannot be read, or the package for Redis is not installed.
    """

    def __init__(
        self, urls: Sequence[str], *, access: Access, name: str, age_seconds: float, max_bytes: int
    ) -> None:
        self._key = f"{key_prefix(access.transport_options)}{name}"
        self._servers = [RedisClients(url, access, self._key) for url in urls]
        self._current = 0
        self._age_seconds, self._max_bytes = age_seconds, max_bytes
        self._session: _Session | None = None
        self._reads = asyncio.Semaphore(MAX_READERS)
        self._identity = ""  # of the stream that offsets are of
        self._tailed = -1  # the offset of the last message that ``tail`` has passed on

    @property
    def place(self) -> Place:
        return Place("redis", self._servers[self._current].address.host_and_port, self._key)

    async def open(self, *, creates: bool = True) -> None:
        if self._session is not None and not self._session.broken.done():
            return
        await self.close()
        for attempt in range(1, len(self._servers) + 1):
            try:
                self._session = await self._connect(self._servers[self._current], creates=creates)
                break
            except LogError as error:
                if attempt == len(self._servers) or (isinstance(error, LogGone) and not creates):
                    raise
                self._current = (self._current + 1) % len(self._servers)
        self._identity = self._identity or self._session.identity  # type: ignore[union-attr]

    async def close(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def append(self, data: bytes) -> None:
        self._opened().writer.append(data)

    async def tail(self, start: int, on_message: Callable[[Stored], None]) -> None:
        session = self._opened()
        self._check_offset(session, start)
        following = asyncio.create_task(self._follow(session, start, on_message))
        try:
            waiters: set[asyncio.Future[Any]] = {following, session.broken}
            await asyncio.wait(waiters, return_when=asyncio.FIRST_COMPLETED)
            if following.done():
                error = None if following.cancelled() else following.exception()
                if error is not None and not isinstance(error, LogError):
                    raise error
                session.fail(error or LogError("reading the log was interrupted"))
            session.check()
        finally:
            following.cancel()
            await asyncio.wait({following})

    async def read(self, start: int, *, limit_bytes: int, limit: int = 10_000) -> list[Stored]:
        self._check_offset(self._opened(), start)
        async with self._reads:
            session = self._opened()  # it may have been closed, or another one, while this read waited
            self._check_offset(session, start)
            client = session.readers.pop() if session.readers else session.clients.client()
            try:
                found = await _read(session, client, start, limit_bytes, limit)
            except BaseException:
                await session.clients.close(client)
                raise
            if session.is_closed:
                await session.clients.close(client)
            else:
                session.readers.append(client)
            return found

    async def delete(self) -> None:
        await self._command("UNLINK", self._key)
        if self._session is not None:
            self._session.fail(LogGone("the log was deleted"))

    async def trim(self, before: int) -> None:
        self._opened()
        await self._command("XTRIM", self._key, "MINID", id_of(before))

    async def _command(self, *command: Any) -> None:
        clients = self._servers[self._current]
        client = clients.client()
        try:
            await clients.run(client.execute_command(*command))
        finally:
            await clients.close(client)

    def _opened(self) -> "_Session":
        if self._session is None:
            raise LogError("the log is not open")
        self._session.check()
        return self._session

    def _check_offset(self, session: "_Session", start: int) -> None:
        """Check that an offset is one of the current stream; a start at its beginning always is."""
        if start <= FIRST:
            self._identity = session.identity
        elif self._identity != session.identity:
            raise LogGone(_GONE)

    async def _connect(self, clients: RedisClients, *, creates: bool) -> "_Session":
        client = clients.client()
        try:
            identities = await _identities(clients, client, self._key)
            if not creates:
                if not identities:
                    raise LogGone(f"there is no stream {self._key}")
            elif identities:
                # It removes nothing, but a replica and a Redis before 6.2 refuse it.
                await clients.run(client.execute_command("XTRIM", self._key, "MINID", "0"))
            else:
                await clients.run(
                    client.execute_command("XGROUP CREATE", self._key, new_identity(), "0", "MKSTREAM")
                )
                identities = await _identities(clients, client, self._key)
            if not identities:
                raise LogGone(_GONE)
            last = entries_of(
                await clients.run(client.execute_command("XREVRANGE", self._key, "+", "-", "COUNT", 1))
            )
        except BaseException:
            await clients.close(client)
            raise
        # Two gateways may have created it at the same time: either identity lasts as long as the stream.
        identity = self._identity if self._identity in identities else min(identities)
        session = _Session(clients, self._key, identity, client)
        session.writer = RedisWriter(
            clients,
            self._key,
            last[0].written if last else 0,
            session.fail,
            age_seconds=self._age_seconds,
            max_bytes=self._max_bytes,
        )
        return session

    async def _follow(self, session: "_Session", start: int, on_message: Callable[[Stored], None]) -> None:
        clients, loop = session.clients, asyncio.get_running_loop()
        client = clients.client(reconnects=False)
        last, count = max(start, 1) - 1, CHUNK_MESSAGES // 4
        try:
            await self._check_last(session, client, start)
            checked_at = loop.time()
            while not is_being_cancelled():
                command = ("XREAD", "COUNT", count, "BLOCK", clients.block_ms)
                reply = await clients.run(client.execute_command(*command, "STREAMS", self._key, id_of(last)))
                entries = entries_of_streams(reply)
                if not entries or loop.time() - checked_at >= CHECK_SECONDS:
                    await session.check_identity(client)
                    checked_at = loop.time()
                if entries:
                    session.writer.written = max(session.writer.written, entries[-1].written)
                    await self._pass_on(entries, on_message)
                    last, count = entries[-1].offset, _count_for(entries)
        finally:
            await clients.close(client)

    async def _pass_on(self, entries: list[Entry], on_message: Callable[[Stored], None]) -> None:
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + TURN_SECONDS
        for entry in entries:
            if loop.time() > ends_at:
                await asyncio.sleep(0)
                ends_at = loop.time() + TURN_SECONDS
            self._tailed = entry.offset
            on_message(entry.stored)

    async def _check_last(self, session: "_Session", client: Any, start: int) -> None:
        """Check that the last message that was passed on, behind which a tail begins, is still in the log.

        Raises:
            LogGone: a failover has lost it, so that later messages may have smaller offsets.
        """
        if start <= FIRST or start != self._tailed + 1:
            return
        run, key, at = session.clients.run, self._key, id_of(self._tailed)
        if entries_of(await run(client.execute_command("XRANGE", key, at, at))):
            return
        first = entries_of(await run(client.execute_command("XRANGE", key, "-", "+", "COUNT", 1)))
        if not first or first[0].offset < self._tailed:
            raise LogGone("messages of the log are lost, for example by a failover of Redis")


class _Session:
    """What is connected between ``open`` and an error or ``close``.

    Attributes:
        broken: has the error that ended it.
        identity: of the stream.
        readers: clients that no read uses now.
    """

    writer: RedisWriter

    def __init__(self, clients: RedisClients, key: str, identity: str, client: Any) -> None:
        self.clients, self.key, self.identity = clients, key, identity
        self.readers: list[Any] = [client]
        self.broken: asyncio.Future[LogError] = asyncio.get_running_loop().create_future()
        self.is_closed = False

    def fail(self, error: LogError) -> None:
        if not self.broken.done():
            self.broken.set_result(error)

    def check(self) -> None:
        """Raise the error that ended it, if any has."""
        if self.broken.done():
            error = self.broken.result()
            raise type(error)(str(error))

    async def check_identity(self, client: Any) -> None:
        """Raise ``LogGone`` if the stream is not the same any more."""
        if self.identity not in await _identities(self.clients, client, self.key):
            raise LogGone(_GONE)

    async def close(self) -> None:
        self.is_closed = True
        is_broken = self.broken.done()
        try:
            await self.writer.close(0 if is_broken else FLUSH_SECONDS)
        finally:
            self.fail(LogError("the log was closed"))
            readers, self.readers = self.readers, []
            await self.clients.close(*readers)


async def _identities(clients: RedisClients, client: Any, key: str) -> set[str]:
    async def ask() -> set[str]:
        try:
            return identities_of(await client.execute_command("XINFO GROUPS", key))
        except clients.reply_error as error:
            if clients.is_missing_key(error):
                return set()
            raise

    return await clients.run(ask())


async def _read(session: _Session, client: Any, start: int, limit_bytes: int, limit: int) -> list[Stored]:
    found: list[Stored] = []
    size, count = 0, max(1, min(CHUNK_MESSAGES // 4, limit_bytes // 1_024))
    while size < limit_bytes and len(found) < limit:
        count = min(count, limit - len(found))
        pipeline = client.pipeline(transaction=False)
        pipeline.execute_command("XRANGE", session.key, id_of(start), "+", "COUNT", count)
        pipeline.execute_command("XINFO GROUPS", session.key)
        reply, groups = await session.clients.run(pipeline.execute(raise_on_error=False))
        if session.clients.is_missing_key(groups):
            raise LogGone(_GONE)
        for each in (reply, groups):
            if isinstance(each, Exception):
                raise session.clients.error(each)
        if session.identity not in identities_of(groups):
            raise LogGone(_GONE)
        entries = entries_of(reply)
        for entry in entries:
            found.append(entry.stored)
            size += len(entry.data)
            if size >= limit_bytes:
                return found
        if len(reply) < count:
            break
        start, count = (entries[-1].offset if entries else start) + 1, _count_for(entries)
    return found


def _count_for(entries: list[Entry]) -> int:
    """Return how many entries like these are about one chunk."""
    size = sum(len(entry.data) for entry in entries)
    return max(1, min(CHUNK_MESSAGES, CHUNK_BYTES * len(entries) // (size or 1)))
