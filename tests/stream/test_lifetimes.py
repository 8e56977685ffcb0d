"""Lifetimes: streams that end at a time, or when their owner is revoked."""

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator

import pytest

from celery_gateway.events.filter import Filter
from celery_gateway.stream.framing import NDJSON
from celery_gateway.stream.hub import Hub
from celery_gateway.stream.lifetimes import Lifetimes
from celery_gateway.stream.subscription import Subscription

pytestmark = pytest.mark.unit


@pytest.fixture
async def hub() -> AsyncIterator[Hub]:
    hub = Hub()
    yield hub
    hub.close()


def subscribe(hub: Hub) -> Subscription:
    return hub.subscribe(Filter(), NDJSON())


async def last_message(subscription: Subscription) -> bytes:
    """Everything up to the end of the stream; its last line."""
    lines = b""
    while chunk := await subscription.pull():
        lines += chunk
    return lines.splitlines()[-1]


async def test_a_stream_ends_in_time_with_its_reason(hub: Hub) -> None:
    lifetimes = Lifetimes()
    expired, drained, untouched = (subscribe(hub) for _ in range(3))
    lifetimes.end_after(expired, 0.01, "expired")
    lifetimes.end_after(drained, -5, "drain")
    async with asyncio.timeout(5):
        assert b'"reason":"expired"' in await last_message(expired)
        assert b'"reason":"drain"' in await last_message(drained)
    assert untouched.closing is None


async def test_a_stream_does_not_end_before_its_time(hub: Hub) -> None:
    lifetimes, subscription = Lifetimes(), subscribe(hub)
    begun_at = asyncio.get_running_loop().time()
    lifetimes.end_after(subscription, 0.3, "expired")
    async with asyncio.timeout(5):
        await last_message(subscription)
    assert asyncio.get_running_loop().time() >= begun_at + 0.3


async def test_streams_that_have_ended_are_not_kept(hub: Hub) -> None:
    lifetimes, subscription = Lifetimes(), subscribe(hub)
    lifetimes.end_after(subscription, 3_600, "expired")
    lifetimes.own(subscription, "owner")
    reference = weakref.ref(subscription)
    subscription.close()
    del subscription
    gc.collect()
    assert reference() is None


async def test_the_streams_of_a_revoked_owner_end_at_once(hub: Hub) -> None:
    lifetimes = Lifetimes()
    alice, bob, nobody = (subscribe(hub) for _ in range(3))
    lifetimes.own(alice, "alice")
    lifetimes.own(bob, "bob")
    lifetimes.end_owned(lambda owner: owner == "alice", "expired")
    async with asyncio.timeout(5):
        assert b'"reason":"expired"' in await last_message(alice)
    assert bob.closing is None and nobody.closing is None
