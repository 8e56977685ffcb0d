"""The engines of the log at real servers: all of them follow the rules of ``log.engine``."""

import asyncio
import random
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress

import pytest

from celery_gateway.log.engine import FIRST, MAX_READERS, Engine, LogError, LogGone, Stored
from tests.log.engines import ENGINES, Server

DEADLINE_SECONDS = 30
MANY = 1 << 30


@pytest.fixture(scope="module", params=ENGINES)
def server(request: pytest.FixtureRequest) -> Server:
    return ENGINES[request.param](request)


@pytest.fixture
def name() -> str:
    """The name of a log that no other test has."""
    return uuid.uuid4().hex


@asynccontextmanager
async def opened(engine: Engine) -> AsyncIterator[Engine]:
    """Open an engine for the block."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        await engine.open()
        try:
            yield engine
        finally:
            await engine.close()


class Tail:
    """A running ``tail``, and what it got."""

    def __init__(self, engine: Engine, start: int = FIRST) -> None:
        self.got: list[Stored] = []
        self.task = asyncio.create_task(engine.tail(start, self.got.append))

    @property
    def data(self) -> list[bytes]:
        return [each.data for each in self.got]

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(DEADLINE_SECONDS):
            while not condition():
                if self.task.done():
                    self.task.result()
                    raise AssertionError("the tail ended")
                await asyncio.sleep(0.005)

    async def count(self, count: int) -> list[Stored]:
        """Wait for so many messages."""
        await self.until(lambda: len(self.got) >= count)
        return self.got

    async def error(self) -> Exception:
        """Wait until it raises."""
        with suppress(LogError):
            async with asyncio.timeout(DEADLINE_SECONDS):
                await self.task
        error = self.task.exception()
        assert isinstance(error, LogError)
        return error

    async def stop(self) -> None:
        self.task.cancel()
        with suppress(asyncio.CancelledError, LogError):
            await self.task


@asynccontextmanager
async def tailing(engine: Engine, start: int = FIRST) -> AsyncIterator[Tail]:
    tail = Tail(engine, start)
    try:
        yield tail
    finally:
        await tail.stop()


def numbers(first: int, end: int) -> list[bytes]:
    return [b"%d" % number for number in range(first, end)]


async def append_all(engine: Engine, messages: list[bytes]) -> list[Stored]:
    """Append messages, and wait until they are in the log; return them as stored."""
    async with tailing(engine) as tail:
        for each in messages:
            engine.append(each)
        await tail.until(lambda: not messages or messages[-1] in tail.data)
        return [each for each in tail.got if each.data in messages]


async def test_messages_keep_their_order(server: Server, name: str) -> None:
    async with opened(server.engine(name)) as engine, tailing(engine) as tail:
        sent = numbers(0, 3_000)
        for each in sent:
            engine.append(each)
        got = await tail.count(3_000)
        assert tail.data == sent
        offsets = [each.offset for each in got]
        assert offsets == sorted(set(offsets)) and offsets[0] >= FIRST


async def test_two_engines_see_the_same_log(server: Server, name: str) -> None:
    async with opened(server.engine(name)) as one, opened(server.engine(name)) as two:
        assert one.place == two.place
        async with tailing(one) as first, tailing(two) as second:
            for number in range(100):
                (one, two)[number % 2].append(b"%d" % number)
                if not number % 10:
                    await asyncio.sleep(0)
            await first.count(100)
            await second.count(100)
        assert first.got == second.got
        assert [int(data) for data in first.data if int(data) % 2] == list(range(1, 100, 2))
        assert [int(data) for data in first.data if not int(data) % 2] == list(range(0, 100, 2))


async def test_a_tail_begins_at_an_offset(server: Server, name: str) -> None:
    async with opened(server.engine(name)) as engine:
        stored = await append_all(engine, numbers(0, 500))
        for index in (0, 1, 250, 499):
            async with tailing(engine, stored[index].offset) as tail:
                await tail.count(500 - index)
                assert tail.got == stored[index:]


async def test_a_tail_that_begins_behind_the_last_message_waits(server: Server, name: str) -> None:
    async with opened(server.engine(name)) as engine:
        stored = await append_all(engine, numbers(0, 20))
        async with tailing(engine, stored[-1].offset + 1) as tail:
            await asyncio.sleep(0.2)
            assert tail.got == []
            engine.append(b"new")
            await tail.count(1)
            assert tail.data == [b"new"]


async def test_a_tail_of_an_empty_log_waits(server: Server, name: str) -> None:
    async with opened(server.engine(name)) as engine, tailing(engine) as tail:
        await asyncio.sleep(0.1)
        assert tail.got == [] and not tail.task.done()
        engine.append(b"first")
        assert (await tail.count(1))[0].data == b"first"


async def test_a_read_stops_at_its_limits(server: Server, name: str) -> None:
    async with opened(server.engine(name)) as engine:
        stored = await append_all(engine, [b"%05d" % number for number in range(1_000)])
        assert await engine.read(FIRST, limit_bytes=MANY, limit=3) == stored[:3]
        assert await engine.read(stored[500].offset, limit_bytes=MANY, limit=400) == stored[500:900]
        assert await engine.read(stored[7].offset, limit_bytes=11) == stored[7:10]
        assert await engine.read(stored[7].offset, limit_bytes=1) == stored[7:8]
        assert await engine.read(stored[990].offset, limit_bytes=MANY) == stored[990:]
        assert await engine.read(stored[-1].offset + 1, limit_bytes=MANY) == []


async def test_a_read_without_a_tail_gets_everything(server: Server, name: str) -> None:
    async with opened(server.engine(name)) as engine, opened(server.engine(name)) as reader:
        assert await reader.read(FIRST, limit_bytes=MANY) == []
        stored = await append_all(engine, numbers(0, 1_500))
        assert await reader.read(FIRST, limit_bytes=MANY) == stored


async def test_more_reads_than_connections(server: Server, name: str) -> None:
    async with opened(server.engine(name)) as engine:
        stored = await append_all(engine, numbers(0, 200))
        starts = [random.Random(number).randrange(100) for number in range(3 * MAX_READERS)]
        found = await asyncio.gather(
            *(engine.read(stored[start].offset, limit_bytes=MANY, limit=100) for start in starts)
        )
        assert found == [stored[start : start + 100] for start in starts]


async def test_large_messages(server: Server, name: str) -> None:
    sizes = [1, 131_063, 131_064, 131_065, 300_000, 2_000_000, 7]
    bodies = [random.Random(size).randbytes(size) for size in sizes]
    async with opened(server.engine(name)) as engine:
        stored = await append_all(engine, bodies)
        assert [each.data for each in stored] == bodies
        assert await engine.read(FIRST, limit_bytes=MANY, limit=len(sizes)) == stored


async def test_a_deleted_log_ends_the_tails(server: Server, name: str) -> None:
    async with opened(server.engine(name)) as engine, opened(server.engine(name)) as other:
        await append_all(engine, numbers(0, 10))
        async with tailing(engine) as first, tailing(other) as second:
            await first.count(10)
            await second.count(10)
            await other.delete()
            assert isinstance(await first.error(), LogGone)
            assert isinstance(await second.error(), LogGone)
        with pytest.raises(LogGone):
            await engine.read(FIRST, limit_bytes=MANY)
        await other.delete()  # nothing to delete is no error


@pytest.mark.parametrize("refilled", [0, 5, 30])
async def test_a_log_that_was_created_anew_is_gone(server: Server, name: str, refilled: int) -> None:
    async with opened(server.engine(name)) as engine, opened(server.engine(name)) as other:
        stored = await append_all(engine, numbers(0, 20))
        async with tailing(engine, stored[5].offset) as tail:
            await tail.count(15)
            await other.delete()
            await other.open()
            assert isinstance(await tail.error(), LogError)
        await append_all(other, numbers(100, 100 + refilled))
        await engine.open()
        async with tailing(engine, stored[-1].offset + 1) as tail:
            assert isinstance(await tail.error(), LogGone)
        fresh = await append_all(engine, [b"fresh"])
        assert fresh[0].data == b"fresh"


async def test_append_needs_a_connection(server: Server, name: str) -> None:
    engine = server.engine(name)
    with pytest.raises(LogError):
        engine.append(b"x")
    async with opened(engine):
        engine.append(b"x")
    with pytest.raises(LogError):
        engine.append(b"x")
    await engine.close()


async def test_retention_removes_the_oldest(server: Server, name: str) -> None:
    async with opened(server.engine(name, max_bytes=1 << 20)) as engine:
        async with tailing(engine) as tail:
            for number in range(1, 101):
                for _ in range(5):
                    engine.append(bytes(10_000))
                await tail.count(5 * number)
            async with asyncio.timeout(30):  # Redis removes a little later
                while True:
                    first = (await engine.read(FIRST, limit_bytes=1))[0].offset
                    left = [each for each in tail.got if each.offset >= first]
                    if sum(len(each.data) for each in left) < 2_500_000:
                        break
            assert tail.got[0].offset < first < tail.got[-1].offset
            assert sum(len(each.data) for each in left) > 500_000
        async with tailing(engine, tail.got[1].offset) as again:
            await again.until(lambda: bool(again.got) and again.got[-1].offset == tail.got[-1].offset)
            offsets = [each.offset for each in again.got]
            assert offsets[0] >= first and offsets == [each.offset for each in tail.got[-len(offsets) :]]


async def test_trim(server: Server, name: str) -> None:
    async with opened(server.engine(name)) as engine:
        stored = await append_all(engine, numbers(0, 50))
        if not server.can_trim:
            with pytest.raises(LogError, match="age and size"):
                await engine.trim(stored[20].offset)
            return
        await engine.trim(stored[20].offset)
        assert await engine.read(FIRST, limit_bytes=MANY) == stored[20:]


@pytest.mark.parametrize("turns", [0, 1, 2, 3, 5, 8, 13, 21, 34, 55, 89])
async def test_everything_can_be_cancelled_at_any_moment(server: Server, name: str, turns: int) -> None:
    async def use(engine: Engine) -> None:
        try:
            await engine.open()
            engine.append(b"x")
            async with asyncio.TaskGroup() as group:
                group.create_task(engine.tail(FIRST, lambda _: None))
                group.create_task(engine.read(FIRST, limit_bytes=MANY))
        finally:
            await engine.close()

    before = asyncio.all_tasks()
    task = asyncio.create_task(use(server.engine(name)))
    for _ in range(turns):
        await asyncio.sleep(0)
        if turns > 10:
            await asyncio.sleep(0.001)
    task.cancel()
    async with asyncio.timeout(DEADLINE_SECONDS):
        with pytest.raises(asyncio.CancelledError):
            await task
        while asyncio.all_tasks() - before:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def open_again(engine: Engine) -> None:
    """Open an engine whose server has just started; its log may need a moment."""
    while True:
        try:
            return await engine.open()
        except LogError as error:
            assert not isinstance(error, LogGone)
            await asyncio.sleep(0.1)


RESTARTED = [kind for kind in ENGINES if kind != "memory"]


@pytest.fixture(params=RESTARTED)
def own_server(request: pytest.FixtureRequest) -> Iterator[Server]:
    yield ENGINES[request.param](request, is_own=True)


async def test_a_restarted_server_keeps_the_log(own_server: Server, name: str) -> None:
    if not own_server.can_restart:
        pytest.skip("it cannot be restarted")
    engine = own_server.engine(name)
    try:
        async with asyncio.timeout(2 * DEADLINE_SECONDS):
            await engine.open()
            async with tailing(engine) as tail:
                for number in range(200):
                    engine.append(b"%d" % number)
                got = list(await tail.count(200))
                await asyncio.to_thread(own_server.restart)
                error = await tail.error()
                assert not isinstance(error, LogGone)
            with pytest.raises(LogError):
                engine.append(b"lost")
            await open_again(engine)
            engine.append(b"after")
            async with tailing(engine, got[-1].offset + 1) as tail:
                await tail.count(1)
                assert tail.data == [b"after"]
            assert (await engine.read(FIRST, limit_bytes=MANY))[:200] == got
    finally:
        await engine.close()
