"""The sizes of real queues: RabbitMQ, Redis, and kombu's memory; errors, outages and shared readings."""

import asyncio
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from kombu import Connection, Exchange, Queue

from celery_gateway.broker import queue_reader
from celery_gateway.broker.queue_names import MAX_QUEUES, parse_queues
from celery_gateway.broker.queue_reader import FRESH_SECONDS, QueueReader
from celery_gateway.broker.queue_reading import QueueReading, QueueSize
from celery_gateway.broker.queues import DEFAULT_QUEUE, Queues
from celery_gateway.broker.urls import Access, brokers
from tests.support.proxy import Proxy
from tests.support.rabbitmq import RabbitMQ
from tests.support.rabbitmq_users import add_user, delete_user, set_permissions
from tests.support.redis_server import RedisServer, redis_server


@pytest.fixture(scope="module")
def redis(folder: Path) -> Iterator[RedisServer]:
    with redis_server(folder) as server:
        yield server


def fill(url: str, name: str, count: int, **options: Any) -> None:
    """Create a queue, and publish messages to it."""
    with Connection(url) as connection:
        queue = Queue(name, exchange=Exchange(""), routing_key=name, **options)
        producer = connection.Producer()
        for number in range(count):
            producer.publish({"number": number}, routing_key=name, declare=[queue])


def read(url: str, *names: str, access: Access | None = None) -> list[QueueReading]:
    async def run() -> list[QueueReading]:
        reader = QueueReader(brokers(url, *([access] if access else []))[0], verbose=True)
        try:
            return await reader.read(names)
        finally:
            await reader.close()

    return asyncio.run(run())


def test_rabbitmq_reports_ready_messages_and_consumers(broker: str) -> None:
    fill(broker, "mail", 3)
    before = time.time()
    with Connection(broker) as connection, connection.Consumer([Queue("video")], callbacks=[print]):
        (mail, video) = read(broker, "mail", "video")
    assert (mail.depth, mail.consumers, mail.error) == (3, 0, None)
    assert (video.depth, video.consumers) == (0, 1)
    assert before - 1 <= mail.time <= time.time()
    assert (mail.unacknowledged, mail.oldest, mail.priorities) == (None, None, None)


def test_a_queue_that_does_not_exist_is_not_created(broker: str, rabbitmq: RabbitMQ) -> None:
    fill(broker, "there", 1)
    names = [f"missing-{number}" for number in range(5)]
    readings = read(broker, names[0], "there", *names[1:])
    assert readings[1].depth == 1, "the queues after a missing one are read"
    for reading in (readings[0], *readings[2:]):
        assert (reading.depth, reading.exists, reading.error) == (None, False, "the broker has no such queue")
    assert [reading.error for reading in read(broker, *names)] == ["the broker has no such queue"] * 5


def test_an_exclusive_queue_is_an_error_of_its_own(broker: str) -> None:
    with Connection(broker) as connection:
        Queue("own", exclusive=True, durable=False)(connection.channel()).declare()
        fill(broker, "beside", 2)
        own, beside = read(broker, "own", "beside")
    assert (own.depth, own.error) == (None, "the queue is exclusive to another connection")
    assert beside.depth == 2


def test_no_permission_is_needed_for_rabbitmq(broker: str, rabbitmq: RabbitMQ) -> None:
    """The documented permissions of the gateway's user are enough."""
    fill(broker, "private", 4)
    name = f"user-{uuid.uuid4().hex[:8]}"
    vhost = broker.rpartition("/")[2]
    add_user(rabbitmq, name, "secret")
    try:
        set_permissions(rabbitmq, vhost, name, r"^celery-gateway\..*", r"^celery-gateway\..*", "^celeryev$")
        url = f"amqp://{name}:secret@{broker.rpartition('@')[2]}"
        (reading,) = read(url, "private")
    finally:
        delete_user(rabbitmq, name)
    assert (reading.depth, reading.error) == (4, None)


def test_redis_reports_each_priority(redis: RedisServer) -> None:
    fill(redis.url, "plain", 2)
    with Connection(redis.url) as connection:
        producer = connection.Producer()
        for priority in (0, 3, 3, 9, 7):  # Redis has steps: 7 is 6
            producer.publish({}, routing_key="prio", declare=[Queue("prio")], priority=priority)
    plain, prio, empty = read(redis.url, "plain", "prio", "empty")
    assert (plain.depth, plain.priorities, plain.consumers, plain.error) == (2, None, None, None)
    assert (prio.depth, prio.priorities) == (5, {"0": 1, "3": 2, "6": 1, "9": 1})
    assert (empty.depth, empty.exists, empty.error) == (0, False, None)


def test_redis_uses_the_options_of_the_app(redis: RedisServer) -> None:
    options = {"global_keyprefix": "shop.", "sep": ":", "priority_steps": [0, 5]}
    with Connection(redis.url, transport_options=options) as connection:
        producer = connection.Producer()
        for priority in (0, 5, 5):
            producer.publish({}, routing_key="q", declare=[Queue("q")], priority=priority)
    access = Access(transport_options=options)
    (reading,) = read(redis.url, "q", access=access)
    assert (reading.depth, reading.priorities) == (3, {"0": 1, "5": 2})
    assert read(redis.url, "q")[0].depth == 0, "another prefix"


def test_redis_reports_a_key_of_another_type_and_a_missing_permission(redis: RedisServer) -> None:
    with redis.client() as client:
        client.set("text", "x")
        client.rpush("allowed", "x")
        client.execute_command(
            "ACL", "SETUSER", "reader", "on", ">secret", "resetkeys", "~allowed", "+ping", "+select", "+llen"
        )
    text = read(redis.url, "text")[0]
    assert (text.depth, text.error) == (None, "its key in Redis is not a list")
    url = redis.url.replace("redis://", "redis://reader:secret@")
    # The lists of the priorities belong to a queue, too.
    refused = read(url, "refused")[0]
    assert refused.depth is None
    assert refused.error is not None
    assert "permission for LLEN" in refused.error


def test_the_documented_permission_is_enough_for_redis(redis: RedisServer) -> None:
    with redis.client() as client:
        client.execute_command(
            *("ACL", "SETUSER", "gateway", "on", ">secret", "resetchannels", "&/0.celeryev/*"),
            *("+ping", "+select", "+psubscribe", "+punsubscribe"),
        )
        client.execute_command("ACL", "SETUSER", "gateway", "+llen", "~media*")
    fill(redis.url, "media", 2)
    (reading,) = read(redis.url.replace("redis://", "redis://gateway:secret@"), "media")
    assert (reading.depth, reading.error) == (2, None)


def test_kombus_memory_reports_messages() -> None:
    name = f"queue-{uuid.uuid4().hex}"
    fill("memory://", name, 2)
    found, missing = read("memory://", name, "missing")
    assert (found.depth, found.consumers, found.error) == (2, None, None)
    assert (missing.depth, missing.exists) == (None, False)


def test_a_recording_has_no_queues(folder: Path) -> None:
    path = folder / "empty.jsonl"
    path.write_text("")
    (reading,) = read(f"recording://{path}", "celery")
    assert reading.error == "this broker does not report queue lengths"


def test_a_broker_that_does_not_answer_delays_a_request_for_some_seconds_only(
    broker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue_reader, "WAIT_SECONDS", 0.5)
    port = int(broker.rpartition(":")[2].partition("/")[0])

    async def run() -> None:
        with Proxy(port) as proxy:
            proxy.stall()
            reader = QueueReader(brokers(proxy.url(broker))[0])
            ticks = 0
            reading = asyncio.create_task(reader.read(["mail"]))
            while not reading.done():
                await asyncio.sleep(0.01)
                ticks += 1
            assert ticks >= 10, "the event loop runs meanwhile"
            assert reading.result()[0].error == queue_reader._SLOW

    asyncio.run(run())


# ---- readings


class Backend:
    """Counts readings; each waits until it is let go. Used where a real broker cannot be made to wait."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, ...]] = []
        self.running = self.most_running = 0
        self.gate = threading.Event()
        self.gate.set()
        self.error: Exception | None = None
        self.is_connected = False
        self.closed = 0

    def read(self, names: Sequence[str], deadline: float) -> Iterator[tuple[str, QueueSize]]:
        self.asked.append(tuple(names))
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        self.gate.wait(30)
        self.running -= 1
        if self.error is not None:
            raise self.error
        self.is_connected = True
        return iter([(name, QueueSize(len(self.asked))) for name in names])

    def close(self) -> None:
        self.is_connected = False
        self.closed += 1


def reader_of(backend: Backend, **options: Any) -> QueueReader:
    return QueueReader(brokers("memory://")[0], backend=lambda url, access: backend, **options)


def test_requests_at_the_same_time_share_a_reading() -> None:
    async def run() -> None:
        backend = Backend()
        backend.gate.clear()
        reader = reader_of(backend)
        requests = [asyncio.create_task(reader.read(["a", "b"])) for _ in range(50)]
        await asyncio.sleep(0)
        backend.gate.set()
        for readings in await asyncio.gather(*requests):
            assert [reading.depth for reading in readings] == [1, 1]
        assert [reading.depth for reading in await reader.read(["b"])] == [1], "it is fresh"
        assert [reading.depth for reading in await reader.read(["a", "c"])] == [1, 2], "only c is due"
        assert backend.asked == [("a", "b"), ("c",)]
        assert backend.most_running == 1
        await reader.close()
        assert backend.closed == 1

    asyncio.run(run())


def grow_old(reader: QueueReader) -> None:
    """Let the readings be older than they are."""
    for name, (at, reading) in reader._readings.items():
        reader._readings[name] = at - FRESH_SECONDS, reading


def test_a_slow_broker_gives_the_last_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue_reader, "WAIT_SECONDS", 0.05)

    async def run() -> None:
        backend = Backend()
        reader = reader_of(backend)
        (first,) = await reader.read(["a"])
        backend.gate.clear()
        grow_old(reader)
        (second,) = await reader.read(["a"])
        third, new = await reader.read(["a", "new"])
        assert (second.depth, second.time) == (third.depth, third.time) == (first.depth, first.time)
        assert second.error == third.error == new.error == queue_reader._SLOW
        assert (new.depth, new.exists) == (None, False)
        assert len(backend.asked) == 2, "one thread waits, and no other is started"
        assert reader.error == queue_reader._SLOW
        backend.gate.set()
        monkeypatch.setattr(queue_reader, "WAIT_SECONDS", 30)
        assert (await reader.read(["a"]))[0].error is reader.error is None
        await reader.close()

    asyncio.run(run())


def test_after_an_error_the_broker_has_a_pause() -> None:
    async def run() -> None:
        backend = Backend()
        backend.error = ConnectionRefusedError(111, "Connection refused")
        reader = reader_of(backend)
        for _ in range(5):
            (reading,) = await reader.read(["a"])
            assert reading.error is not None
            assert "unreachable" in reading.error
            assert "memory" not in reading.error, "without --verbose-health there is no address"
            assert reader.error == reading.error
        assert len(backend.asked) == 1
        await reader.close()
        assert [each.depth for each in await reader.read(["a"])] == [None], "a closed reader reads nothing"

    asyncio.run(run())


def test_the_connection_is_closed_when_nobody_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue_reader, "IDLE_SECONDS", 0.01)

    async def run() -> None:
        backend = Backend()
        reader = reader_of(backend)
        await reader.read(["a"])
        async with asyncio.timeout(30):
            while not backend.closed:  # noqa: ASYNC110
                await asyncio.sleep(0.005)
        await reader.close()

    asyncio.run(run())


def test_a_lost_connection_is_replaced_at_once(broker: str) -> None:
    fill(broker, "lasting", 1)
    port = int(broker.rpartition(":")[2].partition("/")[0])

    async def run() -> None:
        with Proxy(port) as proxy:
            reader = QueueReader(brokers(proxy.url(broker))[0])
            assert (await reader.read(["lasting"]))[0].depth == 1
            proxy.cut()
            grow_old(reader)
            (reading,) = await reader.read(["lasting"])
            assert (reading.depth, reading.error) == (1, None)
            await reader.close()

    asyncio.run(run())


# ---- names


def test_names_of_one_broker_and_of_several() -> None:
    async def run() -> None:
        single = Queues(brokers("memory://"))
        assert await single.names(None, []) == {DEFAULT_QUEUE: False}
        assert await single.names(None, ["b", "a", ""]) == {"a": True, "b": True}
        assert await single.names(None, ["x" * 256]) == {DEFAULT_QUEUE: False}, "no broker has such a queue"
        several = Queues(brokers(["eu=memory://", "us=memory://"]))
        assert await several.names("eu", ["a"]) == {"a": False}, "it may be the other broker's"
        listed = Queues(brokers(["eu=memory://", "us=memory://"]), ["all,eu=one", "a=b"])
        assert await listed.names("eu", ["seen"]) == {"all": True, "one": True, "a=b": True}
        assert await listed.names("us", ["seen"]) == {"all": True, "a=b": True}

    asyncio.run(run())


@pytest.mark.parametrize("values", [[""], ["a,,b"], [","], ["x" * 256], ["é" * 128]])
def test_bad_names_are_refused(values: list[str]) -> None:
    with pytest.raises(ValueError, match=r"queue"):
        parse_queues(values)


def test_the_number_of_names_is_bounded() -> None:
    names = [f"q{number}" for number in range(MAX_QUEUES + 1)]
    with pytest.raises(ValueError, match="at most 200"):
        parse_queues(names)
    assert len(parse_queues(names[1:])) == MAX_QUEUES
    assert FRESH_SECONDS >= 2
