"""Queues and exchanges of other owners with our names, and foreign messages in the overflow queue."""

import asyncio
import json
import logging
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest
from amqp.exceptions import NotFound
from kombu import Connection as KombuConnection

from celery_gateway.broker import amqp_consumer, amqp_queues
from celery_gateway.broker.urls import Access
from tests.support import amqp_sink
from tests.support.amqp_sink import Sink


def consuming(url: str, prefix: str) -> AbstractAsyncContextManager[Sink]:
    return amqp_sink.consuming(url, access=Access(queue_prefix=prefix), check_seconds=0.1)


@pytest.fixture
def prefix() -> str:
    """A queue prefix for each test, so that all use one vhost."""
    return f"gw-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def other(broker: str) -> Iterator[Any]:
    """A channel of another client."""
    with KombuConnection(broker) as connection:
        yield connection.default_channel


def exists(other: Any, exchange: str) -> bool:
    """Whether an exchange with this name exists."""
    channel = other.connection.channel()
    try:
        channel.exchange_declare(exchange, "direct", passive=True)
    except NotFound:
        return False
    channel.close()
    return True


def publish(channel: Any, exchange: str, key: str, body: bytes = b"{}", **properties: Any) -> None:
    message = channel.prepare_message(body, headers=properties.pop("headers", {}))
    channel.basic_publish_confirm(message, exchange=exchange, routing_key=key)


LASTING: dict[str, Any] = {"durable": False, "auto_delete": False}
Declare = Callable[[Any, str], object]
QUEUES: dict[str, Declare] = {
    "durable queue": lambda other, name: other.queue_declare(
        name, durable=True, exclusive=False, auto_delete=False
    ),
}
EXCHANGES: dict[str, Declare] = {
    "durable topic": lambda other, name: other.exchange_declare(
        name, "topic", durable=True, auto_delete=False
    ),
    "direct that stays": lambda other, name: other.exchange_declare(name, "direct", **LASTING),
    "with an alternate": lambda other, name: other.exchange_declare(
        name, "fanout", arguments={"alternate-exchange": "amq.fanout"}, **LASTING
    ),
}
CASES = [("overflow", kind) for kind in ("durable queue", "durable topic", "with an alternate")]
CASES += [("tripwire", kind) for kind in ("durable topic", "direct that stays")]


@pytest.mark.parametrize(("noun", "kind"), CASES)
async def test_another_name_is_used_and_logged_once(
    noun: str,
    kind: str,
    broker: str,
    prefix: str,
    other: Any,
    caplog: pytest.LogCaptureFixture,
) -> None:
    foreign = f"{prefix}.{noun}.0"
    (QUEUES | EXCHANGES)[kind](other, foreign)
    try:
        async with consuming(broker, prefix) as sink:
            publish(other, "celeryev", "a")
            await sink.until(lambda: len(sink.messages) == 1)
            ours = f"{prefix}.tripwire.0.1" if noun == "tripwire" else f"{prefix}.overflow.1"
            assert await asyncio.to_thread(exists, other, ours)
            (line,) = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
            what = "queue" if kind in QUEUES else "exchange"
            assert (
                f"the {what} {foreign} in the vhost {broker.rpartition('/')[2]} does not belong to a gateway"
                in line
            )
            assert "--queue-prefix" in line and "expected: " in line
            caplog.clear()
            other.exchange_delete("celeryev")  # which the tripwire exchange reports
            await sink.until(lambda: len(sink.statuses) >= 3 and sink.statuses[-1].is_consuming)
            assert sink.losses == 1
            assert "does not belong to a gateway" not in caplog.text
    finally:  # fails if it was deleted
        if kind in QUEUES:
            other.queue_declare(foreign, passive=True)
            other.queue_delete(foreign)
        else:
            other.exchange_declare(foreign, "direct", passive=True)
            other.exchange_delete(foreign)
    assert not await asyncio.to_thread(exists, other, ours), "our own exchange stays behind"


async def test_names_of_other_gateways_are_not_foreign(
    broker: str, prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with consuming(broker, prefix), consuming(broker, prefix), consuming(broker, prefix):
        assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def test_a_tripwire_that_was_left_behind_is_taken_over(broker: str, prefix: str, other: Any) -> None:
    older = f"{prefix}.events"
    other.exchange_declare(older, "topic", **LASTING)
    other.exchange_declare(f"{prefix}.tripwire.0", "direct", durable=False, auto_delete=True)
    other.exchange_bind(older, f"{prefix}.tripwire.0")
    async with consuming(broker, prefix) as sink:
        other.exchange_delete(older)  # the old tripwire was bound to it
        for count in range(1, 4):  # each lasts longer than a round of checks
            publish(other, "celeryev", "a")
            await sink.until(lambda count=count: len(sink.messages) == count)  # type: ignore[misc]
            await asyncio.sleep(0.1)
        assert len(sink.statuses) == 1 and sink.losses == 0


def death(queue: str) -> dict[str, Any]:
    entry = {"queue": queue, "reason": "maxlen", "count": 1, "exchange": "celeryev", "routing-keys": ["a"]}
    return {"x-death": [entry], "x-first-death-queue": queue, "x-first-death-reason": "maxlen"}


async def test_only_the_broker_reports_losses(
    broker: str, prefix: str, other: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async with consuming(broker, prefix) as sink:
        overflow = f"{prefix}.overflow.0"
        with pytest.raises(Exception, match="ACCESS_REFUSED"):
            publish(other, overflow, "")
        with KombuConnection(broker) as connection:
            channel = connection.default_channel
            for headers in ({}, death("celeryev"), death(overflow), {"x-death": overflow}):
                for _ in range(20):
                    publish(channel, "", overflow, headers=headers)
            channel.exchange_bind(overflow, "celeryev")  # another way into the queue
            publish(channel, "celeryev", "a")
            await sink.until(lambda: len(sink.messages) == 1)
            channel.exchange_unbind(overflow, "celeryev")
            await sink.until(lambda: "are not dead letters" in caplog.text)
        assert sink.losses == 0
        logged = [record for record in caplog.records if record.levelno >= logging.WARNING]
        assert len(logged) == 1 and overflow in logged[0].getMessage()
        assert len(sink.statuses) == 1


async def test_dead_letters_are_recognized_among_foreign_messages(
    monkeypatch: pytest.MonkeyPatch, broker: str, prefix: str
) -> None:
    """The event loop is held until the broker has dropped events, while another client publishes."""
    monkeypatch.setattr(amqp_consumer, "PREFETCH_MESSAGES", 10)
    monkeypatch.setitem(amqp_queues.QUEUE_ARGUMENTS, "x-max-length", 20)
    async with consuming(broker, prefix) as sink:
        with KombuConnection(broker) as connection:
            for number in range(100):
                body = json.dumps({"type": "a", "number": number}).encode()
                publish(connection.default_channel, "celeryev", "a", body)  # this holds the event loop
                publish(connection.default_channel, "", f"{prefix}.overflow.0")
        await sink.until(lambda: any(b"99" in message.body for message in sink.messages))
        assert len(sink.messages) < 100, "nothing was lost"
        await sink.until(lambda: sink.losses > 0)
        assert sink.losses <= 5


async def test_a_dead_letter_with_long_properties_is_recognized(
    monkeypatch: pytest.MonkeyPatch, broker: str, prefix: str
) -> None:
    monkeypatch.setattr(amqp_consumer, "PREFETCH_MESSAGES", 2)
    monkeypatch.setitem(amqp_queues.QUEUE_ARGUMENTS, "x-max-length", 2)
    async with consuming(broker, prefix) as sink:
        with KombuConnection(broker) as connection:
            for _ in range(10):
                publish(connection.default_channel, "celeryev", "a", headers={"long": "x" * 60_000})
            time.sleep(0.1)  # noqa: ASYNC251
        await sink.until(lambda: sink.losses == 1)
