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
    lifetimes: Lifetimes[str] = Lifetimes()
    expired, drained, untouched = (subscribe(hub) for _ in range(3))
    lifetimes.end_after(expired, 0.01, "expired")
    lifetimes.end_after(drained, -5, "drain")
    async with asyncio.timeout(30):
        assert b'"reason":"expired"' in await last_message(expired)
        assert b'"reason":"drain"' in await last_message(drained)
    assert untouched.closing is None


async def test_a_stream_does_not_end_before_its_time(hub: Hub) -> None:
    lifetimes: Lifetimes[str] = Lifetimes()
    subscription = subscribe(hub)
    begun_at = asyncio.get_running_loop().time()
    lifetimes.end_after(subscription, 0.3, "expired")
    async with asyncio.timeout(30):
        await last_message(subscription)
    assert asyncio.get_running_loop().time() >= begun_at + 0.3


async def test_streams_that_have_ended_are_not_kept(hub: Hub) -> None:
    lifetimes: Lifetimes[str] = Lifetimes()
    subscription = subscribe(hub)
    lifetimes.end_after(subscription, 3_600, "expired")
    lifetimes.own(subscription, "owner", "session")
    reference = weakref.ref(subscription)
    assert list(lifetimes._sessions) == ["session"]
    subscription.close()
    del subscription
    gc.collect()
    assert reference() is None
    assert not list(lifetimes._sessions) and not list(lifetimes._owned)


async def test_the_streams_of_a_revoked_owner_end_at_once(hub: Hub) -> None:
    lifetimes: Lifetimes[str] = Lifetimes()
    alice, bob, nobody = (subscribe(hub) for _ in range(3))
    lifetimes.own(alice, "alice", "")
    lifetimes.own(bob, "bob", "")
    lifetimes.end_owned(lambda owner: owner == "alice", "expired")
    async with asyncio.timeout(30):
        assert b'"reason":"expired"' in await last_message(alice)
    assert bob.closing is None and nobody.closing is None


async def test_the_streams_of_a_session_end_at_once(hub: Hub) -> None:
    lifetimes: Lifetimes[str] = Lifetimes()
    first, second, another = (subscribe(hub) for _ in range(3))
    for subscription, session in ((first, "a"), (second, "a"), (another, "b")):
        lifetimes.own(subscription, "alice", session)
    lifetimes.end_session("a", "expired")
    lifetimes.end_session("unknown", "expired")
    async with asyncio.timeout(30):
        for subscription in (first, second):
            assert b'"reason":"expired"' in await last_message(subscription)
    assert another.closing is None


async def test_ends_that_are_far_away_share_timers_and_hold(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    lifetimes: Lifetimes[str] = Lifetimes()
    subscriptions = [subscribe(hub) for _ in range(50)]
    for number, subscription in enumerate(subscriptions):
        lifetimes.end_after(subscription, 1_000 * (number + 1), "expired")
    assert len(lifetimes._due) == 1
    monkeypatch.setattr("celery_gateway.stream.lifetimes.LOOK_SECONDS", 1)
    soon = subscribe(hub)
    begun_at = asyncio.get_running_loop().time()
    lifetimes.end_after(soon, 2.5, "expired")  # looked at again on the way
    async with asyncio.timeout(30):
        await last_message(soon)
    assert asyncio.get_running_loop().time() >= begun_at + 2.5
    assert all(subscription.closing is None for subscription in subscriptions)


async def test_an_expired_stream_gets_nothing_that_is_left_for_it(hub: Hub) -> None:
    """Whoever reads slowly must not read on for as long as there is something left."""
    slow, drained = subscribe(hub), subscribe(hub)
    for number in range(10):
        hub.append({"type": "task-sent", "uuid": f"before-{number}"})
    hub.flush()
    slow.end("expired")
    drained.end("drain")
    hub.append({"type": "task-sent", "uuid": "after"})
    hub.flush()
    async with asyncio.timeout(30):
        assert b'"reason":"expired"' in await last_message(slow)
        everything = b""
        while chunk := await drained.pull():
            everything += chunk
    assert b"before-9" in everything and b"after" not in everything
