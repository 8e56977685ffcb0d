"""Streams that begin in the past, over each real server of the log."""

import asyncio
from contextlib import suppress
from typing import Any

import pytest

from celery_gateway.log.batch import Head, Line
from celery_gateway.log.batch import encode as encode_message
from celery_gateway.log.engine import FIRST, Stored
from tests.log.engines import ENGINES
from tests.log.test_old_entries import START, Gateway, Shared


class Real(Shared):
    """A log of a real server: offsets are found by searching."""

    def __init__(self, engine: Any) -> None:
        super().__init__()
        self.engine = engine

    def put(self, kind: str, term: str, first: int = 0, lines: list[Line] | None = None) -> int:
        head = Head(kind, term, "gateway", self.at, first=first)
        self.engine.append(encode_message(head, lines))
        return 0


async def until_stored(engine: Any, count: int) -> None:
    stored: list[Stored] = []
    is_complete = asyncio.Event()

    def on_message(message: Stored) -> None:
        stored.append(message)
        if len(stored) == count:
            is_complete.set()

    tail = asyncio.create_task(engine.tail(FIRST, on_message))
    async with asyncio.timeout(30):
        await is_complete.wait()
    tail.cancel()
    with suppress(asyncio.CancelledError):
        await tail


@pytest.mark.parametrize("kind", ENGINES)
async def test_positions_and_times_before_memory_are_read_from_the_server(
    kind: str, request: pytest.FixtureRequest
) -> None:
    engine = ENGINES[kind](request).engine("old-entries")
    log = await Real(engine).open()
    try:
        for number in range(400):
            log.at = START + number
            log.write(25)
        await until_stored(engine, 400)
        gateway: Gateway = log.gateway(block_bytes=64 << 10, cache_bytes=1 << 20).begin(380)
        gateway.read()
        beginnings = [(gateway.id(position), None) for position in (0, 5_000, 9_400)]
        clients = [
            await gateway.subscribe(*each) for each in [*beginnings, (None, 0.0), (None, START + 99.5)]
        ]
        await asyncio.gather(*[client.until_number(10_000) for client in clients])
        for client, first in zip(clients, (1, 5_001, 9_401, 1, 2_501), strict=True):
            assert client.numbers == list(range(first, 10_001))
            assert client.controls == ["gateway-open"]
            client.subscription.close()
        gateway.older.close()
    finally:
        await engine.delete()
        await engine.close()
