"""Limits on streams and filters: over HTTP they are refused; over WebSocket the stream continues."""

import asyncio
import json
from typing import Any

import pytest
from starlette.types import Message, Receive, Scope, Send
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from celery_gateway.events.filter import Filter
from celery_gateway.http.stream_response import pulled
from celery_gateway.stream.framing import FORMATS
from celery_gateway.stream.hub import Hub
from celery_gateway.stream.keepalive import KeepaliveTimer
from celery_gateway.stream.limits import Limits
from celery_gateway.stream.subscription import SUBSCRIPTION_BYTES
from tests.support.served_gateway import ServedGateway, until

pytestmark = pytest.mark.unit


async def refused(port: int, path: str) -> dict[str, Any]:
    """Return the error of a refused request, and check that the response has ``Retry-After``."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    async with asyncio.timeout(30):
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    assert head.startswith(b"HTTP/1.1 503"), head
    assert b"\r\nretry-after: " in head.lower()
    error: dict[str, Any] = json.loads(body)["error"]
    return error


async def test_filters_that_cost_too_much_are_refused_and_released_with_their_clients() -> None:
    async with ServedGateway().opened() as house:
        limits = house.hub.limits
        limits.filters.limit = 20
        query = "".join(f"&uuid={number}" for number in range(8))
        async with connect(f"ws://127.0.0.1:{house.port}/ws?name=one{query}") as client:
            assert json.loads(await client.recv())["type"] == "gateway-open"
            assert limits.filters.used >= 8
            assert (await refused(house.port, f"/events?name=two{query}"))["code"] == "limit"
            with pytest.raises(InvalidStatus) as handshake:
                await connect(f"ws://127.0.0.1:{house.port}/ws?name=three{query}")
            assert handshake.value.response.status_code == 503
            before = limits.filters.used
            await client.recv()  # gateway-status
            for operation in ("filter", "open"):
                many = {"op": operation, "any": [{"uuid": [str(number) for number in range(50)]}]}
                await client.send(json.dumps(many))
                answer = json.loads(await client.recv())
                assert (answer["type"], answer["code"]) == ("gateway-error", "limit")
            assert limits.filters.used == before
            house.hub.append({"type": "test", "name": "one", "uuid": "3"})
            assert json.loads(await client.recv())["name"] == "one", "the stream continues unchanged"
            assert limits.refused["filters"] == 4
        await until(lambda: limits.filters.used == 0)
        assert house.hub.statistics()[-2:] == (0, 0)


async def test_streams_over_the_memory_limit_are_refused() -> None:
    async with ServedGateway().opened() as house:
        limits = house.hub.limits
        limits.memory.limit = 100 * SUBSCRIPTION_BYTES
        streams = []
        while not limits.refused["memory"]:
            client = await asyncio.open_connection("127.0.0.1", house.port)
            client[1].write(b"GET /events?type=none HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert b"HTTP/1.1" in await client[0].readline()
            streams.append(client)
        assert 10 < len(streams) <= 51
        assert (await refused(house.port, "/events?type=none"))["code"] == "limit"
        assert (await refused(house.port, "/events?snapshot=1"))["code"] == "limit"
        for _, writer in streams:
            writer.close()
        await until(lambda: limits.memory.used == 0)
        assert limits.refused["memory"] == 3


async def test_a_stream_whose_response_is_cancelled_at_its_first_byte_leaves_nothing_behind() -> None:
    """The application around the gateway has a timeout of its own."""
    house = ServedGateway()
    gateway = house.app
    cancelled = asyncio.Event()

    async def send(message: Message) -> None:
        await asyncio.Event().wait()

    async def app(scope: Scope, receive: Receive, _: Send) -> None:
        try:
            async with asyncio.timeout(0.05):
                await gateway(scope, receive, send)
        except TimeoutError:
            cancelled.set()

    house.app = app
    async with house.opened(), asyncio.timeout(30):
        reader, writer = await asyncio.open_connection("127.0.0.1", house.port)
        writer.write(b"GET /events?snapshot=1 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await cancelled.wait()
        assert house.hub.statistics()[-2:] == (0, 0)
        writer.close()
        await until(lambda: house.hub.limits.memory.used == 0)


async def test_the_checks_of_streams_go_on_after_an_unexpected_error(
    caplog: pytest.LogCaptureFixture,
) -> None:
    subscription = Hub().subscribe(Filter(), FORMATS["ndjson"])
    checks = 0

    def buffered_bytes() -> int:
        nonlocal checks
        checks += 1
        if checks == 1:
            raise ZeroDivisionError
        return 0

    keepalive_timer = KeepaliveTimer(0.05, 10.0)
    keepalive_timer.add(subscription, buffered_bytes)
    await until(lambda: checks >= 3)
    assert "ZeroDivisionError" in caplog.text
    keepalive_timer.remove(subscription)
    await until(lambda: keepalive_timer._timer is None)  # there is no stream to check
    subscription.close()


async def test_a_chunk_that_waits_to_be_pulled_is_charged_and_over_the_limit_ends_the_stream() -> None:
    hub = Hub(limits=Limits(memory_bytes=200_000))
    subscription = hub.subscribe(Filter(), FORMATS["ndjson"], client="192.0.2.1")
    stream = pulled(subscription, 1_000.0)
    text = await anext(stream)
    reading = asyncio.ensure_future(anext(stream))
    while subscription.has_more:  # noqa: ASYNC110
        await asyncio.sleep(0)
    hub.append({"type": "test", "text": "x" * 50_000})
    hub.flush()
    assert SUBSCRIPTION_BYTES + 50_000 < hub.limits.memory.used < SUBSCRIPTION_BYTES + 51_000
    text += await reading
    assert hub.limits.memory.used == SUBSCRIPTION_BYTES
    reading = asyncio.ensure_future(anext(stream))
    while subscription.has_more:  # noqa: ASYNC110
        await asyncio.sleep(0)
    hub.append({"type": "test", "text": "x" * 150_000})
    hub.flush()
    text += await reading
    async with asyncio.timeout(30):
        text += b"".join([chunk async for chunk in stream])
    last = json.loads(text.splitlines()[-1])
    assert (last["type"], last["reason"]) == ("gateway-close", "limit")
    assert hub.limits.memory.used == 0
    assert hub.limits.refused["memory"] == 1
