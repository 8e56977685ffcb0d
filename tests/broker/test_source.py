"""The sources at real brokers: what they declare, and what they do before and after an outage."""

import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from celery import Celery
from kombu import Connection, Exchange

from tests.support.gateway_process import GatewayProcess
from tests.support.proxy import Proxy
from tests.support.publisher import Publisher, walk
from tests.support.rabbitmq import Process, RabbitMQ, free_port, wait_for
from tests.support.stream_client import NdjsonStream
from tests.support.wire import EventFields


def queues(rabbitmq: RabbitMQ, url: str) -> list[list[str]]:
    """The vhost's queues: name, exclusive, arguments."""
    vhost = url.rpartition("/")[2]
    text = rabbitmq.ctl("list_queues", "-p", vhost, "name", "exclusive", "arguments", "--no-table-headers")
    return [line.split("\t") for line in text.splitlines() if line.startswith("celery-gateway")]


def is_consuming(statuses: list[EventFields]) -> bool:
    """Whether the only source is consuming, by the last status."""
    (source,) = statuses[-1]["sources"]
    return bool(source["consuming"])


def publish_until_seen(url: str, client: NdjsonStream, name: str) -> None:
    """Publish tasks until one is on the stream: the gateway is consuming again."""
    publisher = Publisher(url)
    try:

        def seen() -> bool:
            publisher.send(walk(name))
            return any(event.get("name") == name for event in client.events)

        assert wait_for(seen, 40)
    finally:
        publisher.close()


@pytest.fixture
def proxy(rabbitmq: RabbitMQ) -> Iterator[Proxy]:
    with Proxy(rabbitmq.port) as proxy:
        yield proxy


@contextmanager
def refused(proxy: Proxy) -> Iterator[None]:
    """The broker refuses connections within the block."""
    proxy.refuse()
    try:
        yield
    finally:
        proxy.resume()


def test_the_queue_is_exclusive_and_limited_and_gone_after_a_kill(
    rabbitmq: RabbitMQ, broker: str, folder: Path
) -> None:
    gateway = GatewayProcess(broker, folder)
    gateway.start()
    found = queues(rabbitmq, broker)
    assert len(found) == 2  # the event queue and the overflow queue
    for _, exclusive, arguments in found:
        assert exclusive == "true"
        for limit in ("x-message-ttl", "x-expires", "x-max-length", "x-max-length-bytes", "drop-head"):
            assert limit in arguments
    gateway.stop(timeout_seconds=0)
    assert wait_for(lambda: queues(rabbitmq, broker) == [], 10)


def test_an_outage_is_reported_as_a_gap(proxy: Proxy, broker: str, folder: Path) -> None:
    gateway = GatewayProcess(proxy.url(broker), folder)
    gateway.start()
    try:
        with NdjsonStream(gateway.url) as client, NdjsonStream(gateway.url, {"name": "after"}) as filtered:
            with refused(proxy):
                assert wait_for(lambda: not gateway.is_ready(), 10)
                answer = httpx.get(f"{gateway.url}/readyz")
                assert answer.status_code == 503
                assert answer.json()["reason"]
                for stream in (client, filtered):
                    (source,) = stream.statuses.until(lambda seen: not is_consuming(seen), 10)[-1]["sources"]
                    assert source["reason"]
                assert httpx.get(f"{gateway.url}/healthz").status_code == 200
            assert wait_for(gateway.is_ready, 40)
            publish_until_seen(broker, client, "after")
            for stream in (client, filtered):
                events = stream.until(lambda seen: any(event.get("name") == "after" for event in seen))
                gaps = [event for event in events if event["type"] == "gateway-gap"]
                assert [(gap["reason"], gap["lost"]) for gap in gaps] == [("broker", None)]
                assert events.index(gaps[0]) == 0
                assert is_consuming(stream.statuses.events)
    finally:
        assert gateway.stop() == 0


def test_a_deleted_queue_is_detected(rabbitmq: RabbitMQ, broker: str, folder: Path) -> None:
    gateway = GatewayProcess(broker, folder)
    gateway.start()
    try:
        with NdjsonStream(gateway.url) as client:
            (name,) = [name for name, *_ in queues(rabbitmq, broker) if ".overflow." not in name]
            vhost = broker.rpartition("/")[2]
            rabbitmq.ctl("delete_queue", "-p", vhost, name)
            publish_until_seen(broker, client, f"after.{name}")
            assert client.events[0]["type"] == "gateway-gap"
    finally:
        gateway.stop()


def test_a_gateway_that_starts_before_its_broker(proxy: Proxy, broker: str, folder: Path) -> None:
    gateway = GatewayProcess(proxy.url(broker), folder)
    try:
        with refused(proxy):
            gateway.launch()
            assert wait_for(lambda: "not consuming" in gateway.tail(), 20)
        assert wait_for(gateway.is_ready, 40)
        with NdjsonStream(gateway.url) as client:
            publish_until_seen(broker, client, "late")
            assert all(event["type"] != "gateway-gap" for event in client.events)
    finally:
        gateway.stop()


def test_the_exchange_is_declared_as_workers_declare_it(rabbitmq: RabbitMQ, folder: Path) -> None:
    url = rabbitmq.add_vhost(f"fresh-{uuid.uuid4().hex}")
    gateway = GatewayProcess(url, folder)
    gateway.start()
    try:
        with Celery(broker=url) as app, app.connection_for_write() as connection:
            # A declaration that differs would be refused with 406 and close the channel.
            app.events.Dispatcher(connection, hostname="w1@host").exchange(connection).declare()
    finally:
        gateway.stop()


def test_an_exchange_with_other_properties_is_used_as_it_is(rabbitmq: RabbitMQ, folder: Path) -> None:
    url = rabbitmq.add_vhost(f"odd-{uuid.uuid4().hex}")
    with Connection(url) as connection:
        channel = connection.channel()
        Exchange("celeryev", type="topic", durable=False, channel=channel).declare()
    gateway = GatewayProcess(url, folder)
    gateway.start()
    try:
        with NdjsonStream(gateway.url) as client, Connection(url) as connection:
            connection.Producer().publish(
                {"type": "task-started", "uuid": "x"}, exchange="celeryev", routing_key="task.started"
            )
            assert client.until(bool)[0]["uuid"] == "x"
    finally:
        gateway.stop()


@pytest.fixture(scope="module")
def redis_url(folder: Path) -> Iterator[str]:
    """A private Redis that keeps nothing on the disk."""
    server = shutil.which("redis-server")
    assert server, "redis-server is missing: run sh tests/support/setup-system.sh as root"
    port = free_port()
    process = Process(
        [server, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", folder],
        log=folder / "redis.log",
    )
    try:
        process.wait_until(lambda: "Ready to accept connections" in process.tail(), 10)
        yield f"redis://127.0.0.1:{port}/3"
    finally:
        process.stop()


def test_events_of_a_celery_app_through_redis(redis_url: str, folder: Path) -> None:
    gateway = GatewayProcess(redis_url, folder)
    gateway.start()
    try:
        with Celery(broker=redis_url) as app, NdjsonStream(gateway.url, {"name": "shop.*"}) as client:
            about = {"uuid": "x", "name": "shop.charge", "root_id": "x"}
            with app.events.default_dispatcher() as dispatcher:
                dispatcher.send("task-received", **about)
                dispatcher.send("task-started", uuid="x")
                dispatcher.send("task-succeeded", uuid="x", result="None", runtime=0.1)
            got = client.until(lambda seen: len(seen) == 3)
            assert [event["state"] for event in got] == ["RECEIVED", "STARTED", "SUCCESS"]
    finally:
        assert gateway.stop() == 0


def test_two_gateways_get_the_same_events(broker: str, folder: Path) -> None:
    gateways = [GatewayProcess(broker, folder) for _ in range(2)]
    publisher = Publisher(broker)
    clients: list[NdjsonStream] = []
    try:
        for gateway in gateways:
            gateway.start()
            clients.append(NdjsonStream(gateway.url))
        events = walk()
        publisher.send(events)
        for client in clients:
            got = client.until(lambda seen: len(seen) == 3)
            assert [event["type"] for event in got] == [event["type"] for event in events]
    finally:
        publisher.close()
        for client in clients:
            client.close()
        for gateway in gateways:
            gateway.stop()
