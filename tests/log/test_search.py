"""Finding batches by position and time, in logs of random shape, and where a log is by its settings."""

import asyncio
import random
from collections.abc import Callable
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from celery_gateway.broker.urls import Access, brokers
from celery_gateway.errors import SourceError
from celery_gateway.log.batch import Batch, Head, Line, decode, encode
from celery_gateway.log.engine import FIRST, Engine, LogError, LogGone, Stored
from celery_gateway.log.factory import engine_for
from celery_gateway.log.memory_log import MemoryLog, MemoryServer
from celery_gateway.log.order import Order
from celery_gateway.log.search import LOOK_MESSAGES, MARGIN_SECONDS, bounds, find_position, find_time

pytestmark = pytest.mark.unit


class Written(NamedTuple):
    """A log, and what is true about it: the messages, and by offset the entries that count."""

    engine: MemoryLog
    messages: list[Stored]
    valid: list[tuple[int, Batch]]


class _Leader:
    """Writes a log of random shape: terms, stale batches, gaps in the offsets."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)
        self.server = MemoryServer()
        self.engine = self.server.engine()
        self.at, self.position, self.terms, self.bytes = 1_000.0, self.dice.choice([0, 5_000]), 0, 0

    def append(self, head: Head, count: int = 0) -> None:
        if self.dice.random() < 0.3:
            self.server.skip(self.dice.choice([1, 10, 1 << 20, 1 << 36]))
        self.engine.append(encode(head, [Line(b'{"n":%d}' % n, 1) for n in range(count)]))

    def head(self, kind: str, first: int = 0, term: int | None = None) -> Head:
        term = self.terms if term is None else term
        return Head(kind, f"t{term}", f"g{term}", self.at, first=first, written_bytes=self.bytes)

    def batches(self, number: int) -> None:
        for _ in range(number):
            self.at += self.dice.choice([0.001, 0.05, 1.0])
            if self.dice.random() < 0.2:
                self.append(self.head("seen", self.position))
            count = self.dice.choice([0, 0, 1, 3, 40])
            self.bytes += 100 + count
            self.append(self.head("batch", self.position + 1), count)
            self.position += count

    def claim(self) -> None:
        """Begin a term; the leader of before was frozen some time ago, and writes some batches later."""
        self.at += 2.0
        self.terms += 1
        frozen_at = self.position
        self.append(self.head("claim"))
        if self.terms > 1 and self.dice.random() < 0.7:
            self.batches(self.dice.choice([0, 3, 30]))
            for _ in range(self.dice.randrange(LOOK_MESSAGES - 2)):
                self.append(self.head("batch", frozen_at + 1, self.terms - 1), self.dice.choice([0, 3]))

    async def write(self) -> Written:
        await self.engine.open()
        self.claim()
        for _ in range(self.dice.choice([0, 1, 4])):
            self.batches(self.dice.choice([0, 1, 5, 60]))
            self.claim()
        self.batches(self.dice.choice([0, 1, 200]))
        messages = await self.engine.read(FIRST, limit_bytes=1 << 30)
        order, valid = Order(), []
        for each in messages:
            batch = decode(each.data)
            if order.on_batch(batch):
                valid.append((each.offset, batch))
        return Written(self.engine, messages, valid)


def offset_of(written: Written, is_it: Callable[[Head], bool]) -> int | None:
    """Return the offset of the first valid batch that is wanted."""
    return next((offset for offset, batch in written.valid if is_it(batch.head)), None)


def index_of(written: Written, offset: int) -> int:
    return sum(each.offset < offset for each in written.messages)


async def check_position(written: Written, position: int) -> None:
    found = await find_position(written.engine, position)
    wanted = offset_of(written, lambda head: head.first <= position + 1 < head.first + len(head.own))
    if wanted is not None:
        assert found <= wanted
        assert index_of(written, wanted) - index_of(written, found) < 2 * LOOK_MESSAGES


async def check_time(written: Written, at: float) -> None:
    found = await find_time(written.engine, at)
    wanted = offset_of(written, lambda head: head.at >= at)
    assert wanted is None or found <= wanted
    early = [batch.head.at for offset, batch in written.valid if found < offset and batch.head.at < at]
    assert not early or early[0] > at - MARGIN_SECONDS - 3 * LOOK_MESSAGES


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 1 << 32), parts=st.lists(st.floats(-0.1, 1.1), min_size=1, max_size=6))
def test_a_result_is_never_too_late(seed: int, parts: list[float]) -> None:
    async def search() -> None:
        written = await _Leader(seed).write()
        valid = written.valid
        if not valid:
            return
        first, last = valid[0][1].head, valid[-1][1].head
        for part in parts:
            await check_position(written, int(first.first + part * (last.first + 50 - first.first)))
            await check_time(written, first.at + part * (last.at - first.at))

    asyncio.run(search())


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 1 << 32))
def test_bounds(seed: int) -> None:
    async def search() -> None:
        written = await _Leader(seed).write()
        heads = [(m.offset, head) for m in written.messages if (head := decode(m.data).head).kind == "batch"]
        found = await bounds(written.engine)
        if not heads:
            assert found is None
            return
        assert found is not None
        assert (found.first.offset, found.first.position) == (heads[0][0], heads[0][1].first)
        valid = [(offset, batch.head) for offset, batch in written.valid]
        offset, head = next(each for each in heads if each[0] == found.last.offset)
        if valid:  # a leader that was replaced may have written later
            assert offset >= valid[-1][0] and (heads[-1] != valid[-1] or offset == heads[-1][0])
        assert found.last.position == head.first + len(head.own) - 1
        assert found.last[2:] == (head.at, head.written_bytes, head.gateway, head.term)

    asyncio.run(search())


class Counting:
    """An engine that counts what is read."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.reads = self.messages = 0

    async def read(self, start: int, *, limit_bytes: int, limit: int = 10_000) -> list[Stored]:
        found = await self.engine.read(start, limit_bytes=limit_bytes, limit=limit)
        self.reads += 1
        self.messages += len(found)
        return found


async def test_few_messages_are_read() -> None:
    """Also with the offsets of Redis, which have large gaps, and from a large log."""
    server = MemoryServer()
    engine = server.engine()
    await engine.open()
    server.skip(1_700_000_000_000 << 20)
    for number in range(20_000):
        engine.append(
            encode(Head("batch", "t", "g", 1_000.0 + number / 50, first=number * 3 + 1), [Line(b"{}", 1)] * 3)
        )
        server.skip(20 << 20)
    counting = Counting(engine)
    for position in (0, 3, 29_999, 59_990):
        found = await find_position(counting, position)  # type: ignore[arg-type]
        (message,) = await engine.read(found, limit=1, limit_bytes=1)
        assert 0 <= position + 1 - decode(message.data).head.first < 30
    assert counting.reads < 4 * 60 and counting.messages < 4 * 150
    found_bounds = await bounds(counting)  # type: ignore[arg-type]
    assert found_bounds is not None and found_bounds.last.position == 60_000


async def test_an_empty_log() -> None:
    engine = MemoryServer().engine()
    await engine.open()
    assert await bounds(engine) is None
    assert await find_position(engine, 7) == await find_time(engine, 7.0) == FIRST


# ------------------------------------------------------------------------------------- the memory log


async def test_a_partitioned_engine() -> None:
    server = MemoryServer()
    one, two = server.engine(), server.engine()
    await one.open()
    await two.open()
    got: list[Stored] = []
    tail = asyncio.create_task(one.tail(FIRST, got.append))
    server.partition(one)
    two.append(b"x")
    for call in (one.read(FIRST, limit_bytes=1), one.open()):
        with pytest.raises(LogError):
            await call
    with pytest.raises(LogError):
        one.append(b"y")
    await asyncio.sleep(0.01)
    assert got == [] and not tail.done()
    server.heal(one)
    one.append(b"z")
    await asyncio.sleep(0.01)
    assert [each.data for each in got] == [b"x", b"z"]
    server.disconnect(one)
    with pytest.raises(LogError) as caught:
        await tail
    assert not isinstance(caught.value, LogGone)


# ------------------------------------------------------------------------------------- the factory


def engine(log: str, *values: str, access: Access | None = None) -> Engine:
    found = brokers(values, access or Access()) if values else ()
    return engine_for(log, found, prefix="shop", age_seconds=60, max_bytes=1 << 20)


@pytest.mark.parametrize(
    "log, values, kind, address",
    [
        ("rabbitmq", ["amqp://a:1,b:2"], "rabbitmq", "a:1, vhost /"),
        ("redis", ["redis://a:1/2"], "redis", "a:1"),
        ("redis", ["sentinel://a:1,b:2/0?master_name=m"], "redis", "a:1"),
        ("rabbitmq", ["eu=amqp://a:1", "us=redis://b:2"], "rabbitmq", "a:1, vhost /"),
        ("redis://:secret@c:3/0,redis://d:4/0", ["amqp://a:1"], "redis", "c:3"),
        ("amqps://c:3", ["redis://a:1"], "rabbitmq", "c:3, vhost /"),
        ("redis://c", [], "redis", "c:6379"),
    ],
)
def test_the_place_of_a_log(log: str, values: list[str], kind: str, address: str) -> None:
    place = engine(log, *values).place
    assert (place.kind, place.address, place.name) == (kind, address, "shop.log")


def test_a_url_of_the_same_kind_has_the_access_of_the_broker() -> None:
    access = Access(transport_options={"global_keyprefix": "app.", "master_name": "m"})
    assert engine("redis://c", "redis://a", access=access).place.name == "app.shop.log"
    assert engine("redis://c", "amqp://a", access=access).place.name == "shop.log"


@pytest.mark.parametrize(
    "log, values, text",
    [
        (
            "redis",
            ["amqp://guest:secret@a:1"],
            "amqp://guest:\\*\\*\\*@a:1 is not Redis .* set --log rabbitmq",
        ),
        ("rabbitmq", ["redis://:secret@a:1"], "is not RabbitMQ .* set --log redis"),
        ("rabbitmq", [], "needs a broker"),
        ("kafka", ["amqp://a"], "invalid log 'kafka': the allowed values are memory, rabbitmq, redis"),
        ("memory://", ["amqp://a"], "cannot be kept in memory://"),
        ("redis://a,amqp://b", [], "all URLs are of one kind"),
        ("kafka://a", ["amqp://a"], "kafka://"),
        ("redis://a?x=1", ["amqp://a"], "unknown parameter 'x'"),
    ],
)
def test_other_values_are_refused(log: str, values: list[str], text: str) -> None:
    with pytest.raises(SourceError, match=text) as caught:
        engine(log, *values)
    assert "secret" not in str(caught.value)
