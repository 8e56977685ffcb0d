"""The log in RabbitMQ: what other engines do not have (see ``test_engines``)."""

import asyncio
import re
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress

import pytest

from celery_gateway.broker.address import address_of
from celery_gateway.broker.permissions import grant_rabbitmq
from celery_gateway.broker.urls import Access
from celery_gateway.errors import SourceError
from celery_gateway.log import rabbitmq_connection, rabbitmq_log
from celery_gateway.log.engine import FIRST, LogError, LogGone, Stored
from celery_gateway.log.rabbitmq_log import RabbitMQLog
from tests.support.proxy import Proxy
from tests.support.rabbitmq import RabbitMQ, free_port
from tests.support.rabbitmq_users import add_user, delete_user, set_permissions

DEADLINE_SECONDS = 30


@pytest.fixture
def name() -> str:
    return f"celery-gateway.{uuid.uuid4().hex}"


@pytest.fixture
def proxy(rabbitmq: RabbitMQ) -> Iterator[Proxy]:
    with Proxy(rabbitmq.port) as proxy:
        yield proxy


def rabbitmq_log_at(*urls: str, name: str, max_bytes: int = 16 << 20) -> RabbitMQLog:
    return RabbitMQLog(urls, access=Access(), name=name, age_seconds=3_600, max_bytes=max_bytes)


@asynccontextmanager
async def opened(engine: RabbitMQLog) -> AsyncIterator[RabbitMQLog]:
    async with asyncio.timeout(DEADLINE_SECONDS):
        try:
            await engine.open()
            yield engine
        finally:
            await engine.close()


async def until_stored(engine: RabbitMQLog, count: int) -> list[Stored]:
    while len(found := await engine.read(FIRST, limit_bytes=1 << 30)) < count:
        pass
    return found


async def test_a_silent_broker_ends_the_tail(proxy: Proxy, broker: str, name: str) -> None:
    async with opened(rabbitmq_log_at(proxy.url(broker), name=name)) as engine:
        engine.append(b"x")
        assert len(await until_stored(engine, 1)) == 1
        got: list[Stored] = []
        tail = asyncio.create_task(engine.tail(FIRST, got.append))
        await asyncio.sleep(0.1)
        proxy.stall()
        with pytest.raises(LogError, match="sent nothing|silent|nothing was read|no data") as raised:
            await tail
        assert not isinstance(raised.value, LogGone)
        with pytest.raises(LogError):
            engine.append(b"y")
        proxy.resume()
        await engine.open()
        await engine.read(FIRST, limit_bytes=1)


async def test_the_next_url_is_used(broker: str, name: str) -> None:
    dead = f"amqp://guest:secret@127.0.0.1:{free_port()}/x"
    async with opened(rabbitmq_log_at(dead, broker, name=name)) as engine:
        assert engine.place.kind == "rabbitmq"
        assert str(address_of(broker).port) in engine.place.address
        engine.append(b"x")
        await until_stored(engine, 1)
    with pytest.raises(LogError, match="nothing listens|refused") as raised:
        await rabbitmq_log_at(dead, dead, name=name).open()
    assert "secret" not in str(raised.value)


async def test_an_invalid_url_is_refused_at_once(name: str) -> None:
    with pytest.raises(SourceError, match="login method"):
        rabbitmq_log_at("amqp://localhost//?login_method=none", name=name)


async def test_a_message_without_a_stream_is_noticed(broker: str, name: str) -> None:
    async with (
        opened(rabbitmq_log_at(broker, name=name)) as engine,
        opened(rabbitmq_log_at(broker, name=name)) as other,
    ):
        channel = await other._open_main()._open_channel()
        await channel.queue_delete(name)  # its exchange is left
        engine.append(b"x")
        with pytest.raises(LogGone):
            while True:
                await asyncio.sleep(0.01)
                engine.append(b"x")
        await engine.open()
        engine.append(b"y")
        assert [each.data for each in await until_stored(engine, 1)] == [b"y"]


async def test_what_the_broker_does_not_read_is_limited(
    proxy: Proxy, broker: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rabbitmq_connection, "MAX_UNSENT_BYTES", 1 << 20)
    async with opened(rabbitmq_log_at(proxy.url(broker), name=name)) as engine:
        proxy.stall()
        with pytest.raises(LogError, match="alarm"):
            for _ in range(1_000):
                engine.append(bytes(100_000))
                await asyncio.sleep(0)
        with pytest.raises(LogError, match="alarm"):
            engine.append(b"x")
        proxy.resume()


async def test_an_existing_stream_is_used_as_it_is(
    broker: str, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(rabbitmq_log_at(broker, name=name)) as engine:
        engine.append(b"x")
    async with opened(rabbitmq_log_at(broker, name=name, max_bytes=32 << 20)) as engine:
        await engine.open()
        assert len(await until_stored(engine, 1)) == 1
    (warning,) = [record.getMessage() for record in caplog.records if record.name == rabbitmq_log.__name__]
    assert "x-max-length-bytes" in warning and "set_policy" in warning


async def test_a_queue_that_is_not_a_stream_is_refused(broker: str, name: str) -> None:
    async with opened(rabbitmq_log_at(broker, name=f"{name}-stream")) as engine:
        channel = await engine._open_main()._open_channel()
        await channel.queue_declare(name, durable=True)
        with pytest.raises(LogError, match="not a stream"):
            await rabbitmq_log_at(broker, name=name).open()
        await channel.queue_delete(name)


async def test_the_permissions_of_a_gateway_are_enough(rabbitmq: RabbitMQ, broker: str, name: str) -> None:
    user = f"gateway-{uuid.uuid4().hex[:8]}"
    url = re.sub(r"//.*?@", f"//{user}:password@", broker)
    add_user(rabbitmq, user, "password")
    try:
        *_, own, write, read = grant_rabbitmq(address_of(url), "celeryev").replace("'", "").split(" ")
        set_permissions(rabbitmq, address_of(url).vhost, user, own, write, read)
        async with opened(rabbitmq_log_at(url, name=name)) as engine:
            engine.append(b"x")
            assert len(await until_stored(engine, 1)) == 1
            with pytest.raises(LogError, match="has no access to the queue") as raised:
                await rabbitmq_log_at(url, name="elsewhere").open()
            assert "|celeryev)$" in str(raised.value)
            await engine.delete()
    finally:
        delete_user(rabbitmq, user)


async def test_idle_readers_are_closed(broker: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rabbitmq_log, "IDLE_SECONDS", 0.1)
    async with opened(rabbitmq_log_at(broker, name=name)) as engine:
        engine.append(b"x")
        await asyncio.gather(*(engine.read(FIRST, limit_bytes=1) for _ in range(3)))
        assert engine._idle
        while engine._idle or engine._closing:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        assert len(await engine.read(FIRST, limit_bytes=1)) == 1


async def test_a_tail_that_was_cancelled_leaves_the_connection(broker: str, name: str) -> None:
    async with opened(rabbitmq_log_at(broker, name=name)) as engine:
        for round_ in range(5):
            for number in range(1_000):
                engine.append(b"%d" % (1_000 * round_ + number))
            got: list[Stored] = []
            tail = asyncio.create_task(engine.tail(FIRST, got.append))
            while len(got) < 500:  # noqa: ASYNC110
                await asyncio.sleep(0)
            tail.cancel()
            with suppress(asyncio.CancelledError):
                await tail
            count = len(got)
            await asyncio.sleep(0.02)
            assert len(got) == count
            assert [each.data for each in got] == [b"%d" % number for number in range(count)]
