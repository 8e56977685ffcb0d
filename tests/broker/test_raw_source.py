"""The source for a shared log: RabbitMQ keeps Celery's messages, and gateways consume them from an offset."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import aiormq
import pytest

from celery_gateway.broker.raw_source import RawSource
from celery_gateway.broker.urls import Access
from celery_gateway.errors import SourceError
from tests.support.amqp_sink import Sink
from tests.support.proxy import Proxy
from tests.support.rabbitmq import RabbitMQ

RETENTION: dict[str, Any] = {"age_seconds": 3_600, "max_bytes": 16 << 20}


@pytest.fixture
def access() -> Access:
    """A queue prefix that no other test has."""
    return Access(queue_prefix=f"gateway-{uuid.uuid4().hex[:8]}")


def raw_source(url: str, access: Access, **options: Any) -> RawSource:
    options = {**RETENTION, "first_pause_seconds": 0.05, "exchange": f"{access.queue_prefix}-ev"} | options
    return RawSource([url], access=access, **options)


@asynccontextmanager
async def consuming(source: RawSource) -> AsyncIterator[Sink]:
    sink = Sink()
    running = asyncio.create_task(source.run(sink))
    try:
        await sink.until(lambda: bool(sink.statuses) and sink.statuses[-1].is_consuming)
        yield sink
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running


@asynccontextmanager
async def channel_of(url: str) -> AsyncIterator[aiormq.abc.AbstractChannel]:
    connection = await aiormq.connect(url)
    try:
        yield await connection.channel()
    finally:
        await connection.close()


async def publish(url: str, access: Access, first: int, end: int, size: int = 0) -> None:
    """Publish messages with a number each, and wait until the broker has them."""
    async with channel_of(url) as channel:
        for start in range(first, end, 100):
            await asyncio.gather(
                *(
                    channel.basic_publish(
                        b"%d " % number + bytes(size),
                        exchange=f"{access.queue_prefix}-ev",
                        routing_key="task.multi",
                    )
                    for number in range(start, min(start + 100, end))
                )
            )


async def has_exchange(url: str, name: str) -> bool:
    async with channel_of(url) as channel:
        try:
            await channel.exchange_declare(name, passive=True)
        except aiormq.exceptions.ChannelNotFoundEntity:
            return False
        return True


def numbers(sink: Sink) -> list[int]:
    return [int(message.body.split(b" ")[0]) for message in sink.messages]


async def test_messages_are_kept_while_nothing_consumes(broker: str, access: Access) -> None:
    source = raw_source(broker, access)
    await source.declare()
    await source.declare()
    await publish(broker, access, 0, 3_000)
    async with consuming(source) as sink:
        await sink.until(lambda: len(sink.messages) >= 3_000)
        assert numbers(sink) == list(range(3_000))
        offsets = [message.offset or 0 for message in sink.messages]
        assert offsets == sorted(set(offsets))
        assert source.start == offsets[-1] + 1
    await publish(broker, access, 3_000, 3_010)
    async with consuming(source) as sink:
        await sink.until(lambda: len(sink.messages) >= 10)
        assert numbers(sink) == list(range(3_000, 3_010))
    successor = raw_source(broker, access, start=offsets[1_000])
    async with consuming(successor) as sink:
        await sink.until(lambda: len(sink.messages) >= 2_010)
        assert numbers(sink) == list(range(1_000, 3_010))
        assert sink.losses == 0


async def test_a_broken_connection_loses_nothing(rabbitmq: RabbitMQ, broker: str, access: Access) -> None:
    with Proxy(rabbitmq.port) as proxy:
        source = raw_source(proxy.url(broker), access)
        async with consuming(source) as sink:
            for part in range(3):
                await publish(broker, access, 100 * part, 100 * part + 50)
                await sink.until(lambda part=part: len(sink.messages) >= 100 * part + 50)  # type: ignore[misc]
                await asyncio.to_thread(proxy.cut)
                await publish(broker, access, 100 * part + 50, 100 * part + 100)
                await sink.until(lambda part=part: len(sink.messages) >= 100 * part + 100)  # type: ignore[misc]
            assert numbers(sink) == list(range(300))
            assert sink.losses == 0
            assert any(not status.is_consuming for status in sink.statuses)


async def test_a_restart_of_the_broker_is_a_loss(broker: str, access: Access) -> None:
    """A restart deletes what is not durable, and RabbitMQ drops messages until its streams are up."""
    mark = f"{access.queue_prefix}.raw"
    source = raw_source(broker, access)
    async with consuming(source) as sink:
        await publish(broker, access, 0, 10)
        await sink.until(lambda: len(sink.messages) >= 10)
        assert sink.losses == 0
    async with channel_of(broker) as channel:
        await channel.exchange_delete(mark)  # as a restart does
    reported = asyncio.Event()

    async def is_reported() -> None:
        await reported.wait()

    for _ in range(2):  # the first one may end before its gap is in the log
        async with consuming(raw_source(broker, access, start=source.start, is_reported=is_reported)) as sink:
            assert sink.losses == 1
    async with consuming(raw_source(broker, access, start=source.start)) as sink:
        assert sink.losses == 1
        for _ in range(600):
            if await has_exchange(broker, mark):
                break
            await asyncio.sleep(0.05)
    async with consuming(raw_source(broker, access, start=source.start)) as sink:
        assert sink.losses == 0
    async with consuming(raw_source(broker, access)) as sink:
        assert sink.losses == 0, "who reads everything misses nothing"


async def test_a_removed_binding_is_made_again(broker: str, access: Access) -> None:
    async with consuming(raw_source(broker, access, check_seconds=0.1)) as sink:
        async with channel_of(broker) as channel:
            await channel.queue_unbind(
                f"{access.queue_prefix}.raw", f"{access.queue_prefix}-ev", routing_key="#"
            )
        number = 0
        while not sink.messages:
            await publish(broker, access, number, number + 1)
            number += 1
            assert number < 300
            await asyncio.sleep(0.1)


async def test_messages_that_retention_removed_are_lost(broker: str, access: Access) -> None:
    source = raw_source(broker, access, max_bytes=1 << 20)
    await source.declare()
    await publish(broker, access, 0, 10)
    async with consuming(source) as sink:
        await sink.until(lambda: len(sink.messages) == 10)
        assert sink.losses == 0
    await publish(broker, access, 10, 410, size=10_000)
    async with consuming(source) as sink:
        await sink.until(lambda: bool(sink.messages) and numbers(sink)[-1] == 409)
        got = numbers(sink)
        assert got[0] > 10 and got == list(range(got[0], 410))
        assert sink.losses == 1
        assert 0 < source.lost_messages <= 1.2 * (got[0] - 10)
    async with consuming(raw_source(broker, access)) as sink:  # one without a position misses nothing
        await sink.until(lambda: bool(sink.messages) and numbers(sink)[-1] == 409)
        assert sink.losses == 0


@pytest.mark.parametrize("moment", ["stopped", "running"])
async def test_a_stream_that_was_created_anew(broker: str, access: Access, moment: str) -> None:
    source = raw_source(broker, access)
    async with consuming(source) as sink:
        await publish(broker, access, 0, 20)
        await sink.until(lambda: len(sink.messages) == 20)
        if moment == "running":
            async with channel_of(broker) as channel:
                await channel.queue_delete(f"{access.queue_prefix}.raw")
            await sink.until(lambda: sink.losses == 1)
            await publish(broker, access, 20, 25)
            await sink.until(lambda: len(sink.messages) == 25)
            assert numbers(sink) == list(range(25))
            assert source.start == 5
            assert "consumer-cancelled" in [status.code for status in sink.statuses]
            return
    async with channel_of(broker) as channel:
        await channel.queue_delete(f"{access.queue_prefix}.raw")
    await source.declare()
    await publish(broker, access, 20, 25)
    async with consuming(source) as sink:
        await sink.until(lambda: len(sink.messages) == 5)
        assert sink.losses == 1
        assert numbers(sink) == list(range(20, 25))


async def test_credit_stops(broker: str, access: Access) -> None:
    may_continue = False
    source = raw_source(broker, access, may_continue=lambda: may_continue)
    await source.declare()
    await publish(broker, access, 0, 5_000)
    async with consuming(source) as sink:
        await sink.until(lambda: len(sink.messages) >= 2_000)
        await asyncio.sleep(0.2)
        stopped_at = len(sink.messages)
        assert 2_000 <= stopped_at < 4_000  # the broker sends whole chunks
        may_continue = True
        await sink.until(lambda: len(sink.messages) == 5_000)
        assert numbers(sink) == list(range(5_000))


async def test_a_deleted_exchange_is_a_loss(broker: str, access: Access) -> None:
    source = raw_source(broker, access, check_seconds=0.1)
    async with consuming(source) as sink:
        await publish(broker, access, 0, 5)
        await sink.until(lambda: len(sink.messages) == 5)
        async with channel_of(broker) as channel:
            await channel.exchange_delete(f"{access.queue_prefix}-ev")
        await sink.until(lambda: "exchange-missing" in [status.code for status in sink.statuses])
        await sink.until(lambda: sink.statuses[-1].is_consuming)
        await publish(broker, access, 5, 10)
        await sink.until(lambda: len(sink.messages) == 10)
        assert numbers(sink) == list(range(10))
        assert sink.losses == 1


async def test_another_retention_is_used_and_logged_once(
    broker: str, access: Access, caplog: pytest.LogCaptureFixture
) -> None:
    await raw_source(broker, access).declare()
    source = raw_source(broker, access, max_bytes=32 << 20)
    await source.declare()
    await source.declare()
    (warning,) = [record for record in caplog.records if "retention" in record.getMessage()]
    assert "set_policy" in warning.getMessage()


async def test_a_queue_of_another_type_is_not_consumed(broker: str, access: Access) -> None:
    async with channel_of(broker) as channel:
        await channel.queue_declare(f"{access.queue_prefix}.raw", durable=True)
    with pytest.raises(SourceError, match="x-queue-type"):
        await raw_source(broker, access).declare()


async def test_a_refused_login_is_a_diagnosis(broker: str, access: Access) -> None:
    with pytest.raises(SourceError, match="refused the login") as raised:
        await raw_source(broker.replace("guest:guest", "guest:wrong"), access).declare()
    assert "wrong" not in str(raised.value)
