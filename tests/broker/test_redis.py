"""Redis as a broker: odd messages, killed gateways, replicas, sentinels, prefixes and options."""

import asyncio
import json
import random
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import kombu
import pytest
from kombu import Connection, Consumer, Exchange, Queue

from celery_gateway.broker.factory import source_for
from celery_gateway.broker.pidbox import Command
from celery_gateway.broker.pidbox_client import request
from celery_gateway.broker.redis_channels import options_for
from celery_gateway.broker.source import Source, Status
from celery_gateway.broker.urls import Access, brokers
from celery_gateway.check.preflight import preflight
from celery_gateway.check.step import Result, exit_code
from celery_gateway.events.message import UNREADABLE, Message
from celery_gateway.events.normalize import normalize
from tests.support.gateway_process import GatewayProcess
from tests.support.rabbitmq import wait_for
from tests.support.redis_server import RedisServer, Sentinels, dispatching, envelope, redis_server
from tests.support.stream_client import NdjsonStream

TOPIC = "/0.celeryev/task.started"


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[RedisServer]:
    with redis_server(folder) as server:
        yield server


@pytest.fixture(autouse=True)
def empty_server(server: RedisServer) -> Iterator[None]:
    yield
    with server.client() as client:
        client.flushall()


def started(number: int) -> dict[str, Any]:
    return {
        "type": "task-started",
        "uuid": f"good-{number}",
        "hostname": "w1@localhost",
        "timestamp": time.time(),
    }


class Taken:
    """A sink that keeps everything."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.statuses: list[Status] = []
        self.gaps = 0

    def message(self, message: Message) -> None:
        self.messages.append(message)

    def status(self, status: Status) -> None:
        self.statuses.append(status)

    def lost(self) -> None:
        self.gaps += 1

    def uuids(self) -> list[str]:
        return [event["uuid"] for m in self.messages for event in normalize(m, 0.0).events if "uuid" in event]

    def refused(self) -> list[str]:
        return [reason for message in self.messages for reason in normalize(message, 0.0).refused]


@contextmanager
def consuming(source: Source) -> Iterator[Taken]:
    """Run a source in a thread with an event loop, from when it consumes until the end of the block."""
    taken = Taken()
    loop = asyncio.new_event_loop()
    task = loop.create_task(source.run(taken))

    def run() -> None:
        with suppress(asyncio.CancelledError):
            loop.run_until_complete(task)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        assert wait_for(lambda: any(status.is_consuming for status in taken.statuses), 15), taken.statuses
        yield taken
    finally:
        loop.call_soon_threadsafe(task.cancel)
        thread.join(10)


def checked(url: str, *options: tuple[str, Any], wait_seconds: float = 6.0) -> Result:
    (broker,) = brokers(url, Access(transport_options=dict(options)))
    return asyncio.run(preflight(broker.urls[0], "celeryev", wait_seconds, access=broker.access))


def findings(result: Result) -> list[str | None]:
    return [step.finding for step in result.steps if step.finding]


# ------------------------------------------------------------------------------------- odd messages


def odd_payloads(seed: int, count: int) -> Iterator[bytes]:
    """Envelopes with a missing or wrong part, and bytes that are not an envelope."""
    dice = random.Random(seed)
    values: list[Any] = [None, 5, -1.5, True, "", "x", "===", [], [1], {}, {"a": 1}, "\ud800", "é", 10**400]
    yield from (b"{}", b"[]", b"5", b"null", b'"x"', b" ", b"not json", b"\xff\xfe\x00", b'{"body":null}')
    yield from (b"[" * 100_000, b'{"a":' * 50_000, b'{"properties":{}}', b"\x80\x04}\x94.", b"NaN")
    for _ in range(count):
        whole: Any = json.loads(envelope({"type": "task-started", "uuid": "odd"}))
        name = dice.choice(
            ["body", "properties", "body_encoding", "headers", "content-type", "content-encoding"]
        )
        target = whole["properties"] if name == "body_encoding" else whole
        if dice.random() < 0.4:
            del target[name]
        else:
            target[name] = dice.choice(values)
        data = json.dumps(whole).encode()
        yield data if dice.random() < 0.8 else data[: dice.randrange(1, len(data))]


def test_odd_messages_are_skipped(server: RedisServer) -> None:
    """Each is counted; every valid one arrives, in order, over one connection."""
    (broker,) = brokers(server.url)
    with consuming(source_for(broker)) as taken, server.client() as client:
        odd = list(odd_payloads(7, 600))
        for number, payload in enumerate(odd):
            client.publish(TOPIC, payload)
            client.publish(TOPIC, envelope(started(number)))
        assert wait_for(lambda: len(taken.messages) >= 2 * len(odd), 20)
        good = [uuid for uuid in taken.uuids() if uuid != "odd"]
        assert good == [f"good-{number}" for number in range(len(odd))]
        read = taken.uuids().count("odd")
        assert len(taken.refused()) == len(odd) - read and read < len(odd) / 2
        assert {"envelope", "undecodable"} <= set(taken.refused())
        assert taken.gaps == 0 and [status.is_consuming for status in taken.statuses] == [True]


def test_messages_of_other_channels_and_large_messages(server: RedisServer) -> None:
    """Other exchanges and other databases are ignored; messages that are too large are counted."""
    (broker,) = brokers(server.url)
    with consuming(source_for(broker)) as taken, server.client() as client:
        for channel in ("/0.celeryevil/x", "/1.celeryev/x", "celeryev/x", "/0.celeryev"):
            client.publish(channel, envelope(started(1)))
        client.publish(TOPIC, envelope(started(2)))
        big = started(3) | {"result": "x" * (9 << 20)}
        client.publish(TOPIC, envelope(big))
        client.publish(TOPIC, b"x" * (13 << 20))
        client.publish(TOPIC, envelope(started(4)))
        assert wait_for(lambda: "good-4" in taken.uuids(), 20)
        assert taken.uuids() == ["good-2", "good-4"]
        assert taken.refused() == ["too-large", "too-large"]


def test_a_gateway_counts_odd_messages_and_check_passes(server: RedisServer, folder: Path) -> None:
    gateway = GatewayProcess(server.url, folder)
    gateway.start()
    try:
        with NdjsonStream(gateway.url) as stream, server.client() as client, dispatching(server.url):
            for number in range(100):
                client.publish(TOPIC, (b"{}", b"[]", b"5", b'{"body":null}', b"\x00\xff")[number % 5])
                client.publish(TOPIC, envelope(started(number)))
            got = stream.until(lambda seen: sum(e.get("uuid", "").startswith("good") for e in seen) == 100)
            assert all(event["type"] != "gateway-gap" for event in got)
            assert exit_code(checked(server.url).steps) == 0
        metrics = httpx.get(f"{gateway.url}/metrics").text
        assert 'celery_gateway_refused_total{reason="envelope"} 100.0' in metrics
        assert gateway.is_ready() and "Traceback" not in gateway.log.read_text()
    finally:
        assert gateway.stop() == 0
    with server.client() as client:
        assert client.keys("*celery-gateway*") == [] and client.smembers("_kombu.binding.celeryev") == set()


# ------------------------------------------------------------------------------------- leftovers


def test_killed_gateways_leave_no_lists(server: RedisServer, folder: Path) -> None:
    """A publisher that declares the exchange as topic pushes to every bound queue."""
    gateways = [GatewayProcess(server.url, folder) for _ in range(3)]
    try:
        for gateway in gateways:
            gateway.launch()
        for gateway in gateways:
            assert wait_for(gateway.is_ready, 60), gateway.tail()
    finally:
        for gateway in gateways:
            gateway.stop(timeout_seconds=0)
    with Connection(server.url) as connection, server.client() as client:
        topic = Exchange("celeryev", type="topic", durable=True)
        for number in range(50):
            connection.Producer().publish(
                started(number), exchange=topic, routing_key="task.started", declare=[topic]
            )
        assert client.keys("*") == []


def test_leftovers_of_older_versions_are_deleted_and_those_of_others_are_not(server: RedisServer) -> None:
    """The queues of older versions were bound with kombu, and never unbound."""
    names = ["celery-gateway.host.1.aa", "celery-gateway.check.host.2.bb", "celeryev.flower"]
    connection = Connection(server.url)
    exchange = Exchange("celeryev", type="topic", durable=True)
    queues = [Queue(name, exchange, routing_key="#", durable=False) for name in names]
    Consumer(connection, queues, no_ack=True)
    connection.Producer().publish(started(0), exchange=exchange, routing_key="task.started")
    connection.transport.channels.clear()  # as if it was killed
    with server.client() as client:
        assert len(client.smembers("_kombu.binding.celeryev")) == 3
        assert client.llen(names[0]) == 1
        with consuming(source_for(brokers(server.url)[0])):
            assert wait_for(lambda: len(client.smembers("_kombu.binding.celeryev")) == 1, 10)
            assert wait_for(lambda: client.exists(*names) == 1, 10)
        (left,) = client.smembers("_kombu.binding.celeryev")
        assert left.endswith(b"celeryev.flower")


def test_remote_control_leaves_no_key(server: RedisServer) -> None:
    """Also if the process ends while it waits: the list of replies expires."""
    replies = request(server.url, [Command.ACTIVE], None, 1.5)
    with server.client() as client, client.pubsub() as worker:
        worker.psubscribe("/0.celery.pidbox")  # one that never replies
        assert worker.get_message(timeout=5)
        thread = threading.Thread(target=lambda: list(replies), daemon=True)
        thread.start()
        assert wait_for(lambda: bool(client.keys("*")), 5)
        keys = client.keys("*")
        assert len(keys) == 1 and keys[0].startswith(b"celery-gateway.control.")
        assert 0 < client.pttl(keys[0]) <= 60_000
        thread.join(10)
        assert 0 < client.pttl(keys[0]) <= 15_000
        worker.punsubscribe()
        client.delete(keys[0])
        assert list(request(server.url, [Command.ACTIVE], None, 0.2)) == []
        assert wait_for(lambda: not client.keys("*"), 5)


# ------------------------------------------------------------------------------------- replicas and sentinels


def test_a_replica_has_events_and_is_reported(server: RedisServer, folder: Path) -> None:
    with redis_server(folder, "--replicaof", f"127.0.0.1 {server.port}") as replica:
        with replica.client() as client:
            assert wait_for(lambda: client.info("replication")["master_link_status"] == "up", 10)
        gateway = GatewayProcess(replica.url, folder)
        gateway.start()
        try:
            with NdjsonStream(gateway.url) as stream, dispatching(server.url):
                stream.until(lambda seen: len(seen) > 3)
                result = checked(replica.url)
            assert findings(result) == ["replica"] and exit_code(result.steps) == 65
            assert "is a read-only replica" in gateway.log.read_text()
            assert "Traceback" not in gateway.log.read_text()
        finally:
            gateway.stop()


@pytest.mark.skipif(kombu.VERSION < (5, 4), reason="here kombu itself is the older one")
def test_sentinels_a_failover_and_workers_of_an_older_kombu(folder: Path) -> None:
    with Sentinels(folder) as sentinels:
        wrong = checked(sentinels.url, ("master_name", "nobody"))
        assert findings(wrong) == ["no-master"] and "'nobody'" in wrong.steps[-1].what
        option = ("master_name", "mymaster")
        with dispatching(sentinels.url, {"master_name": "mymaster"}):
            assert exit_code(checked(sentinels.url, option).steps) == 0
        with sentinels.master.client() as client:
            beat = envelope({"type": "worker-heartbeat", "hostname": "old@host", "freq": 2, "timestamp": 1.0})
            result = _checked_while(
                lambda: client.publish("/{db}.celeryev/worker.heartbeat", beat), sentinels.url, option
            )
            assert findings(result) == ["events-elsewhere"]
            assert result.steps[-1].remedy.endswith("--transport-option sentinel_fanout_compat=true")
        options = [
            "--transport-option",
            "master_name=mymaster",
            "--transport-option",
            "sentinel_fanout_compat=true",
        ]
        gateway = GatewayProcess(sentinels.url, folder, options=options)
        gateway.start()
        try:
            with NdjsonStream(gateway.url) as stream, sentinels.master.client() as client:
                twin = envelope(started(1))
                client.publish("/{db}.celeryev/task.started", envelope(started(0)))
                client.publish("/{db}.celeryev/task.started", twin)
                client.publish(TOPIC, twin)
                client.publish(TOPIC, envelope(started(2)))
                seen = stream.until(lambda seen: len(seen) == 3)
                assert [event["uuid"] for event in seen] == ["good-0", "good-1", "good-2"]
                sentinels.master.stop()
                assert wait_for(lambda: sentinels.current() == sentinels.replica.port, 20)
                assert wait_for(gateway.is_ready, 20)
                with sentinels.replica.client() as successor:
                    assert wait_for(lambda: successor.publish(TOPIC, envelope(started(3))) > 0, 20)
                after = stream.until(lambda seen: seen[-1].get("uuid") == "good-3")
                assert [event["type"] for event in after[3:]][0] == "gateway-gap"
            text = gateway.log.read_text()
            assert "Traceback" not in text and len(text.splitlines()) < 12, text
        finally:
            assert gateway.stop() == 0


def _checked_while(send: Any, url: str, *options: tuple[str, Any]) -> Result:
    stopping = threading.Event()

    def run() -> None:
        while not stopping.wait(0.1):
            send()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        return checked(url, *options, wait_seconds=2.0)
    finally:
        stopping.set()
        thread.join(5)


# ------------------------------------------------------------------------------------- prefixes and options


@pytest.mark.parametrize(
    ("options", "remedy"),
    [
        ({"global_keyprefix": "shop. 1:"}, "--transport-option 'global_keyprefix=shop. 1:'"),
        ({"fanout_prefix": False}, "--transport-option fanout_prefix=false"),
        ({"fanout_patterns": False}, "--transport-option fanout_patterns=false"),
    ],
)
def test_a_missing_prefix_is_found_and_its_remedy_works(
    options: dict[str, Any], remedy: str, server: RedisServer
) -> None:
    with dispatching(server.url, options):
        result = checked(server.url, wait_seconds=1.5)
        assert findings(result) == ["events-elsewhere"] and exit_code(result.steps) == 29
        assert result.steps[-1].remedy.endswith(remedy)
        assert exit_code(checked(server.url, *options.items()).steps) == 0


def test_workers_on_another_database_are_found(server: RedisServer) -> None:
    with dispatching(server.url.replace("/0", "/3")):
        result = checked(server.url, wait_seconds=1.5)
    assert findings(result) == ["events-elsewhere"]
    assert "the database 3" in result.steps[-1].remedy


@pytest.mark.parametrize(
    ("channel", "options", "database"),
    [
        ("/0.celeryev/task.started", {}, "0"),
        ("a/b./12.celeryev/x", {"global_keyprefix": "a/b."}, "12"),
        ("/{db}.celeryev/x", {"sentinel_fanout_compat": True}, "0"),
        ("pceleryev", {"fanout_prefix": False, "global_keyprefix": "p", "fanout_patterns": False}, "0"),
    ],
)
def test_the_options_for_a_channel(channel: str, options: dict[str, Any], database: str) -> None:
    assert options_for(channel, "celeryev", "0") == (options, database)


@pytest.mark.parametrize("how", ["environment", "file and url"])
def test_transport_options_of_the_commands(how: str, server: RedisServer, folder: Path) -> None:
    """A gateway without them subscribes to another channel; flags are in the test of sentinels."""
    url, options, environment = server.url, [], {}
    given = {"global_keyprefix": "7", "fanout_prefix": "/x.", "socket_timeout": 5}
    if how == "environment":
        environment = {"GATEWAY_TRANSPORT_OPTIONS": json.dumps(given)}
    else:
        path = folder / "gateway.toml"
        path.write_text('[transport_options]\nglobal_keyprefix = "7"\n')
        options = ["--config", str(path)]
        url += "?fanout_prefix=/x.&socket_timeout=5"
    gateway = GatewayProcess(url, folder, options=options, environment=environment)
    gateway.start()
    try:
        with server.client() as client:
            assert client.publish("7/x.celeryev/task.started", envelope(started(0))) == 1
            assert client.publish(TOPIC, envelope(started(0))) == 0
    finally:
        gateway.stop()


# ------------------------------------------------------------------------------------- outages


def test_an_outage_is_a_gap_and_few_lines_in_the_log(folder: Path, server: RedisServer) -> None:
    other = RedisServer(folder)
    other.start()
    gateway = GatewayProcess(other.url, folder)
    try:
        gateway.start()
        with NdjsonStream(gateway.url) as stream:
            other.stop()
            assert wait_for(lambda: not gateway.is_ready(), 10)
            assert "cannot be reached" in wait_for_reason(gateway, "cannot be reached")
            other.start()
            assert wait_for(gateway.is_ready, 20)
            with other.client() as client:
                assert wait_for(lambda: client.publish(TOPIC, envelope(started(0))) > 0, 10)
            seen = stream.until(lambda seen: seen[-1].get("uuid") == "good-0")
            assert [event["type"] for event in seen if event["type"] == "gateway-gap"] == ["gateway-gap"]
        text = gateway.log.read_text()
        assert "Traceback" not in text and len(text.splitlines()) < 8, text
    finally:
        gateway.stop()
        other.stop()


def wait_for_reason(gateway: GatewayProcess, words: str) -> str:
    def reason() -> str:
        return str(httpx.get(f"{gateway.url}/readyz").json()["reason"])

    assert wait_for(lambda: words in reason(), 15), reason()
    return reason()


def test_a_message_of_text_is_read_as_kombu_reads_it(server: RedisServer) -> None:
    """Without `body_encoding` (transport option body_encoding=None) the body is text."""
    (broker,) = brokers(server.url)
    text = json.dumps({"type": "task-started", "uuid": "text"})
    with consuming(source_for(broker)) as taken, server.client() as client:
        for properties in ({"delivery_tag": "1"}, {"body_encoding": "utf-8"}, {"body_encoding": None}):
            client.publish(TOPIC, json.dumps({"body": text, "properties": properties}))
        assert wait_for(lambda: len(taken.messages) == 3, 10)
        assert taken.uuids() == ["text"] * 3
    assert UNREADABLE not in taken.messages
    assert re.fullmatch(r"127\.0\.0\.1:\d+", server.url.split("/")[2])
