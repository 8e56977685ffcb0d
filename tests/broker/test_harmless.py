"""A stalled or killed gateway costs the broker little, and its workers nothing.

By default the gateway is stopped until the limits of its queue are reached, which a policy makes small; the
broker keeps its connection, by long heartbeats. With `TESTS_STOP_SECONDS=60` it is stopped for a minute, with
the limits and the heartbeats that users have, and the broker closes the connection.
"""

import json
import os
import re
import signal
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from threading import Event, Thread
from typing import NamedTuple

import pytest
from celery import Celery
from kombu import Connection

from tests.support.celery_app import create_app
from tests.support.gateway_process import ROOT, GatewayProcess
from tests.support.ledger import Ledger, LedgerStream, discrepancies, publish
from tests.support.rabbitmq import Process, RabbitMQ, wait_for
from tests.support.rabbitmq_users import delete_vhost
from tests.support.stream_client import NdjsonStream
from tests.support.worker import Worker

STOP_SECONDS = float(os.environ.get("TESTS_STOP_SECONDS", "0"))
MAX_STOP_SECONDS = 60.0
DROPPING_SECONDS = 2.0
"""How long it stays stopped when the limits are reached, while the broker drops the oldest messages."""
POLICY = {"max-length": 5_000, "max-length-bytes": 4_000_000}
"""Where a queue has limits by its arguments and by a policy, RabbitMQ uses the smaller ones."""
MAX_PREFETCH_MESSAGES = 5_000
"""Messages that are sent and not acknowledged do not count for the limits of the queue."""
MAX_LATE_ENTRIES = 2_000
"""Under load, events can arrive before the dead letter of lost events: 62 did once. This is one credit."""
MAX_PUBLISH_SECONDS = 2.0
"""The longest time that a publisher of tasks waits for the broker, also on a busy machine."""
EXCHANGE_PROPERTIES = ("name", "type", "durable", "auto_delete", "internal", "arguments", "policy")


class QueueSample(NamedTuple):
    """One of the gateway's queues, as the broker lists it."""

    name: str
    is_exclusive: bool
    ready: int  # messages that wait in it, which the limits are for
    ready_bytes: int
    unacknowledged: int  # messages that are sent to the gateway
    arguments: str

    def limit(self, argument: str) -> int | str | None:
        """An argument of the queue, as rabbitmqctl writes it: `{"x-max-length",100000}`."""
        found = re.search(rf'"{argument}",("?)([^}}]*?)\1}}', self.arguments)
        if found is None:
            return None
        return found[2] if found[1] else int(found[2])


def queues(rabbitmq: RabbitMQ, url: str) -> list[QueueSample]:
    """The gateway's queues in a vhost."""
    counts = ("messages_ready", "message_bytes_ready", "messages_unacknowledged")
    columns = ("name", "exclusive", *counts, "arguments")
    text = rabbitmq.ctl("list_queues", "-p", url.rpartition("/")[2], *columns, "--no-table-headers")
    found = []
    for line in text.splitlines():
        name, exclusive, *numbers, arguments = line.split("\t")
        if name.startswith("celery-gateway."):
            ready, ready_bytes, unacknowledged = (int(number or 0) for number in numbers)
            found.append(
                QueueSample(name, exclusive == "true", ready, ready_bytes, unacknowledged, arguments)
            )
    return found


def is_limited(queue: QueueSample) -> bool:
    """Whether its length, bytes and age are limited, it drops its oldest messages, and it expires."""
    limits = [
        queue.limit(f"x-{limit}") for limit in ("max-length", "max-length-bytes", "message-ttl", "expires")
    ]
    return all(isinstance(limit, int) and limit > 0 for limit in limits) and queue.limit("x-overflow") in (
        None,
        "drop-head",
    )


class Sampler:
    """Lists the gateway's queues again and again, in a thread."""

    def __init__(self, rabbitmq: RabbitMQ, url: str) -> None:
        self.samples: list[QueueSample] = []
        self.alarms = ""
        self._rabbitmq, self._url = rabbitmq, url
        self._stopping = Event()
        self._thread = Thread(target=self._run, daemon=True, name="sampler")

    def __enter__(self) -> "Sampler":
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stopping.set()
        self._thread.join(30)

    def _run(self) -> None:
        while not self._stopping.wait(0.5):
            self.samples += queues(self._rabbitmq, self._url)
            alarms = self._rabbitmq.eval("rabbit_alarm:get_alarms()")
            self.alarms += alarms.replace("[]", "")


class TaskPublisher:
    """Sends tasks as Celery's clients do, persistent and confirmed, and records how long each took."""

    def __init__(self, url: str) -> None:
        self.seconds: list[float] = []
        self._url = url
        self._stopping = Event()
        self._thread = Thread(target=self._run, daemon=True, name="tasks")

    def __enter__(self) -> "TaskPublisher":
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stopping.set()
        self._thread.join(30)

    def _run(self) -> None:
        app = Celery(broker=self._url, set_as_current=False)
        app.conf.broker_transport_options = {"confirm_publish": True}
        app.conf.task_default_queue = "harmless.tasks"
        with app:
            while not self._stopping.wait(0.02):
                started = time.monotonic()
                app.send_task("canvas.add", (1, 2), retry=False, ignore_result=True)
                self.seconds.append(time.monotonic() - started)


class Flood:
    """Publishes thousands of events a second, in a process of its own."""

    name = "flood@ledger"

    def __init__(self, url: str, folder: Path, *, per_second: float, body_bytes: int) -> None:
        self.log = folder / f"flood-{uuid.uuid4().hex[:8]}.log"
        self._process = Process(
            [sys.executable, "-m", "tests.support.ledger", url, self.name, str(per_second), str(body_bytes)],
            log=self.log,
            cwd=ROOT,
        )
        self._is_running = True

    def stop(self) -> int:
        """Stop, and return the number of published events."""
        if self._is_running:
            self._is_running = False
            code = self._process.stop(timeout_seconds=30)
            assert code == 0, self._process.tail()
        return int(self.log.read_text())

    def kill(self) -> None:
        if self._is_running:
            self._is_running = False
            self._process.kill()


@contextmanager
def running(url: str, folder: Path, *options: str) -> Iterator[GatewayProcess]:
    gateway = GatewayProcess(url, folder, options=options)
    try:
        gateway.start()
        yield gateway
    finally:
        if gateway._process is not None:
            os.kill(gateway.pid, signal.SIGCONT)
        gateway.stop()


@pytest.fixture
def vhost(rabbitmq: RabbitMQ) -> Iterator[str]:
    """The URL of a new vhost, which is deleted after the test."""
    name = f"harmless-{uuid.uuid4().hex[:8]}"
    yield rabbitmq.add_vhost(name)
    delete_vhost(rabbitmq, name)


# ------------------------------------------------------------------------------------- a stalled gateway


@pytest.mark.timeout(STOP_SECONDS + 180)
@pytest.mark.parametrize(
    ("per_second", "body_bytes", "limit"),
    [
        pytest.param(5_000, 300, "max-length", id="5000-events-a-second"),
        pytest.param(3_000, 5_000, "max-length-bytes", id="15-MB-a-second", marks=pytest.mark.thorough),
    ],
)
def test_a_stalled_gateway(
    per_second: float,
    body_bytes: int,
    limit: str,
    rabbitmq: RabbitMQ,
    vhost: str,
    folder: Path,
) -> None:
    url = vhost if STOP_SECONDS else f"{vhost}?heartbeat={2 * MAX_STOP_SECONDS:.0f}"

    if not STOP_SECONDS:
        policy = ("small", r"^celery-gateway\.", json.dumps(POLICY))
        rabbitmq.ctl("set_policy", "-p", vhost.rpartition("/")[2], *policy, "--apply-to", "queues")

    def limit_of(sample: QueueSample, name: str) -> int:
        limits = [int(sample.limit(f"x-{name}") or 0)] + [POLICY[name]] * (not STOP_SECONDS)
        return min(limits)

    def is_full(sample: QueueSample) -> bool:
        reached = sample.ready if limit == "max-length" else sample.ready_bytes
        return reached > 0.99 * limit_of(sample, limit)

    with (
        running(url, folder, "--slow-timeout", "600", "--history-bytes", str(256 << 20)) as gateway,
        LedgerStream(gateway.url) as stream,
        Ledger(vhost, per_second=10) as ledger,
        TaskPublisher(vhost) as tasks,
    ):
        ledger.wait_until_it_flows(stream)
        flood = Flood(vhost, folder, per_second=per_second, body_bytes=body_bytes)
        try:
            assert wait_for(lambda: stream.latest.get(flood.name, 0) > per_second, 20)
            assert not stream.gaps
            os.kill(gateway.pid, signal.SIGSTOP)
            stopped_at = time.monotonic()
            with Sampler(rabbitmq, vhost) as sampler:
                if not STOP_SECONDS:
                    assert wait_for(lambda: any(map(is_full, sampler.samples)), MAX_STOP_SECONDS)
                time.sleep(STOP_SECONDS or DROPPING_SECONDS)  # there is nothing to wait for
            os.kill(gateway.pid, signal.SIGCONT)
            stopped_seconds = time.monotonic() - stopped_at
            assert wait_for(lambda: len(stream.gaps) > 0, 30), gateway.tail()
            ledger.wait_until_it_flows(stream, timeout_seconds=60)
            published = flood.stop()
        finally:
            flood.kill()
        received = stream.entries
        assert wait_for(lambda: stream.latest[flood.name] == published - 1, 60), (
            f"{stream.latest[flood.name]} of {published - 1}\n{gateway.tail()}"
        )
        ledger.settle(stream, timeout_seconds=30, late_by=MAX_LATE_ENTRIES)
        found = discrepancies(received, flood.name, range(published), published, late_by=MAX_LATE_ENTRIES)
        assert not found, "\n".join(found[:10])
        assert {gap["reason"] for gap in stream.gaps} == {"broker"}
        assert wait_for(gateway.is_ready, 10), gateway.tail()
    fullest = max(sampler.samples, key=lambda sample: sample.ready)
    lost = published - sum(entry.author == flood.name for entry in received)
    print(
        f"{published} events published, {lost} lost, {len(stream.gaps)} gaps reported; it was "
        f"stopped for {stopped_seconds:.1f} s; the queue held at most "
        f"{fullest.ready} messages ({fullest.ready_bytes} bytes), and {fullest.unacknowledged} were sent; a "
        f"task took at most {max(tasks.seconds):.3f} s of {len(tasks.seconds)}"
    )
    for sample in sampler.samples:
        assert is_limited(sample), sample
        assert sample.ready <= limit_of(sample, "max-length"), sample
        assert sample.ready_bytes <= limit_of(sample, "max-length-bytes"), sample
        assert sample.unacknowledged <= MAX_PREFETCH_MESSAGES, sample
    assert lost > 0, "nothing was lost, so the gap proves nothing"
    assert not sampler.alarms, sampler.alarms
    assert max(tasks.seconds) < MAX_PUBLISH_SECONDS
    assert len(tasks.seconds) > 5 * stopped_seconds, "too few tasks were sent"


def exchanges(rabbitmq: RabbitMQ, url: str) -> list[str]:
    """The exchanges of a vhost, without the broker's own."""
    text = rabbitmq.ctl("list_exchanges", "-p", url.rpartition("/")[2], "name", "--no-table-headers")
    return [name for name in text.splitlines() if name and not name.startswith("amq.")]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["kill", "stop"])
def test_its_queues_are_deleted_with_it(
    number: signal.Signals, rabbitmq: RabbitMQ, vhost: str, folder: Path
) -> None:
    with running(vhost, folder) as gateway:
        found = queues(rabbitmq, vhost)
        assert found
        for queue in found:
            assert queue.is_exclusive and is_limited(queue), queue
        os.kill(gateway.pid, number)
        assert wait_for(lambda: not queues(rabbitmq, vhost), 10)
        left = {"celeryev"} if number == signal.SIGTERM else {"celeryev", "celery-gateway.tripwire.0"}
        assert wait_for(lambda: set(exchanges(rabbitmq, vhost)) == left, 10), exchanges(rabbitmq, vhost)
    # The tripwire exchange of a killed gateway is taken over, and later deleted, by the next one.
    with running(vhost, folder) as gateway:
        assert gateway.is_ready()
    assert wait_for(lambda: exchanges(rabbitmq, vhost) == ["celeryev"], 10), exchanges(rabbitmq, vhost)


# ------------------------------------------------------------------------------------- declarations


def exchange(rabbitmq: RabbitMQ, url: str, name: str) -> dict[str, str]:
    """The properties of an exchange at the broker; empty if it does not exist."""
    text = rabbitmq.ctl(
        "list_exchanges", "-p", url.rpartition("/")[2], *EXCHANGE_PROPERTIES, "--no-table-headers"
    )
    rows = [
        dict(zip(EXCHANGE_PROPERTIES, line.split("\t"), strict=False)) for line in text.splitlines() if line
    ]
    return next((row for row in rows if row["name"] == name), {})


def declared_by_celery(rabbitmq: RabbitMQ, name: str = "celeryev") -> dict[str, str]:
    """The properties of the exchange that Celery declares, in a vhost of its own."""
    vhost = f"celery-{uuid.uuid4().hex[:8]}"
    url = rabbitmq.add_vhost(vhost)
    try:
        with Celery(broker=url, set_as_current=False) as app:
            app.conf.event_exchange = name
            with app.events.default_dispatcher() as dispatcher:
                dispatcher.send("worker-heartbeat")
            return exchange(rabbitmq, url, name)
    finally:
        delete_vhost(rabbitmq, vhost)


_names = count(1)


@pytest.fixture
def start_worker(folder: Path) -> Iterator[Callable[[str], Worker]]:
    """Workers that send events, killed when the test ends."""
    started: list[Worker] = []
    results = folder / "results"
    results.mkdir(exist_ok=True)

    def start(url: str) -> Worker:
        worker = Worker(url, folder, results=results, pool="solo", name=f"harmless-{next(_names)}")
        worker.start()
        started.append(worker)
        return worker

    yield start
    for worker in started:
        worker.kill()


def assert_runs_and_sends_events(url: str, worker: Worker, stream: NdjsonStream, folder: Path) -> None:
    app = create_app(url, folder / "results")
    try:
        result = app.send_task("canvas.add", (1, 2))
        assert result.get(timeout=20, disable_sync_subtasks=False) == 3, worker.tail()
    finally:
        app.close()
    stream.until_types(result.id, "task-received", "task-started", "task-succeeded")
    assert {event["hostname"] for event in stream.of(result.id) if event["type"] == "task-succeeded"} == {
        worker.hostname
    }
    assert "PRECONDITION_FAILED" not in worker.tail(200)


def test_a_worker_before_and_after_the_gateway(
    rabbitmq: RabbitMQ, vhost: str, start_worker: Callable[[str], Worker], folder: Path
) -> None:
    first = start_worker(vhost)
    declared_by_the_worker = exchange(rabbitmq, vhost, "celeryev")
    assert declared_by_the_worker
    with running(vhost, folder) as gateway, NdjsonStream(gateway.url) as stream:
        assert exchange(rabbitmq, vhost, "celeryev") == declared_by_the_worker
        assert_runs_and_sends_events(vhost, first, stream, folder)
        first.kill()
        last = start_worker(vhost)
        assert_runs_and_sends_events(vhost, last, stream, folder)


def test_a_gateway_before_all_workers(
    rabbitmq: RabbitMQ, vhost: str, start_worker: Callable[[str], Worker], folder: Path
) -> None:
    with running(vhost, folder) as gateway, NdjsonStream(gateway.url) as stream:
        assert exchange(rabbitmq, vhost, "celeryev") == declared_by_celery(rabbitmq)
        assert_runs_and_sends_events(vhost, start_worker(vhost), stream, folder)


def test_an_exchange_with_another_name(rabbitmq: RabbitMQ, vhost: str, folder: Path) -> None:
    assert not exchange(rabbitmq, vhost, "shop.events")
    with running(vhost, folder, "--exchange", "shop.events") as gateway, NdjsonStream(gateway.url) as stream:
        assert exchange(rabbitmq, vhost, "shop.events") == declared_by_celery(rabbitmq, "shop.events")
        assert not exchange(rabbitmq, vhost, "celeryev")
        with Connection(vhost) as connection:
            publish(connection.default_channel, b'{"type": "shop-open", "timestamp": 1}', "shop.events")
        assert stream.until(bool)[0]["type"] == "shop-open"
