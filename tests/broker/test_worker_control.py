"""Remote control of real workers without task events, also during outages and alarms of the broker."""

import asyncio
import json
import socket
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest
from celery import Celery
from kombu import Connection, Consumer, Exchange, Producer, Queue

from celery_gateway.broker.pidbox import Command
from celery_gateway.broker.worker_control import (
    MAX_DESTINATIONS,
    MAX_WORKERS,
    NAMES_AT_ONCE,
    WorkerControl,
)
from tests.support.gateway_process import GatewayProcess
from tests.support.proxy import Proxy
from tests.support.rabbitmq import RabbitMQ, wait_for
from tests.support.stream_client import NdjsonStream
from tests.support.wire import EventFields
from tests.support.worker import Worker

CONTROL = ["--control"]
OF_EACH_WORKER = [command for command in Command if command is not Command.ACTIVE_QUEUES]
"""What each worker gets; its queues are asked for by `/queues`."""
PIDBOX = Exchange("celery.pidbox", type="fanout", durable=False, delivery_mode="transient")


@contextmanager
def started_worker(celery: Celery, folder: Path, *, events: bool = False) -> Iterator[Worker]:
    """A worker of one process, on a queue that is called like itself."""
    name = f"worker-{uuid.uuid4().hex[:8]}"
    worker = Worker(
        celery.conf.broker_url,
        folder,
        results=folder / "results",
        concurrency=1,
        events=events,
        name=name,
        options=["-Q", f"{name}@localhost"],
    )
    worker.start()
    try:
        yield worker
    finally:
        worker.kill()


@contextmanager
def started_gateway(broker: str, folder: Path, *options: str) -> Iterator[GatewayProcess]:
    gateway = GatewayProcess(broker, folder, options=options)
    gateway.start()
    try:
        yield gateway
    finally:
        gateway.stop()


class Door:
    """A web page that does not end until `open()`: the task that reads it is under way until then."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._opened, self.entered = Event(), Event()
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/"
        self._thread = Thread(target=self._serve, daemon=True)
        self._thread.start()

    def open(self) -> None:
        self._opened.set()

    def close(self) -> None:
        self._opened.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(5)

    def _serve(self) -> None:
        with suppress(OSError):
            client, _ = self._listener.accept()
            with client:
                client.recv(65536)
                client.sendall(b"HTTP/1.0 200 OK\r\n\r\n")
                self.entered.set()
                while not self._opened.wait(0.2):
                    client.sendall(b".")


@pytest.fixture
def door() -> Iterator[Door]:
    door = Door()
    try:
        yield door
    finally:
        door.close()


@pytest.fixture
def pidbox(broker: str) -> Iterator["Pidbox"]:
    pidbox = Pidbox(broker)
    try:
        yield pidbox
    finally:
        pidbox.close()


class Pidbox:
    """All commands that are sent to workers, without those of `Worker` itself (ping)."""

    def __init__(self, url: str) -> None:
        self._connection = Connection(url)
        self._channel = self._connection.channel()
        self._queue = Queue(f"pidbox-{uuid.uuid4()}", PIDBOX, exclusive=True, auto_delete=True)(self._channel)
        self._queue.declare()
        self._commands: list[dict[str, Any]] = []

    def commands(self) -> list[dict[str, Any]]:
        while (message := self._queue.get(no_ack=True)) is not None:
            body = json.loads(message.body)
            if body["method"] != "ping":
                self._commands.append(body)
        return self._commands

    def close(self) -> None:
        self._connection.release()

    def __enter__(self) -> "Pidbox":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def start_visit(celery: Celery, worker: Worker, door: Door) -> str:
    """Start a task that is under way until the door is opened; return its uuid."""
    uid = str(celery.send_task("walks.visit", (door.url,), queue=worker.hostname).id)
    assert door.entered.wait(15), worker.tail()
    return uid


def add_until_seen(
    celery: Celery, worker: Worker, client: NdjsonStream, timeout_seconds: float = 40
) -> list[EventFields]:
    """Send tasks until the worker's own events of one come through: they are switched on."""
    deadline = time.monotonic() + timeout_seconds
    while time.monotonic() < deadline:
        uid = str(celery.send_task("canvas.add", (1, 2), queue=worker.hostname).id)
        if wait_for(lambda uid=uid: "task-succeeded" in [e["type"] for e in client.of(uid)], 0.5):
            return client.of(uid)
    raise AssertionError(f"no events of {worker.hostname}; {worker.tail()}")


def test_events_are_switched_on_and_the_task_under_way_has_its_name(
    celery: Celery, broker: str, folder: Path, door: Door
) -> None:
    with started_worker(celery, folder) as worker:
        uid = start_visit(celery, worker, door)
        with started_gateway(broker, folder, *CONTROL) as gateway, NdjsonStream(gateway.url) as client:
            assert wait_for(lambda: worker.hostname in gateway.log.read_text(), 15), gateway.tail()
            door.open()
            (event,) = client.until_types(uid, "task-succeeded")
            assert (event["name"], event["root_id"], event["state"]) == ("walks.visit", None, "SUCCESS")
            events = add_until_seen(celery, worker, client)
            assert {event["name"] for event in events} == {"canvas.add"}


def test_without_control_no_command_is_sent_and_the_task_under_way_has_no_name(
    celery: Celery, broker: str, folder: Path, door: Door
) -> None:
    with started_worker(celery, folder, events=True) as worker:
        uid = start_visit(celery, worker, door)
        pidbox = Pidbox(broker)
        with started_gateway(broker, folder) as gateway, NdjsonStream(gateway.url) as client:
            client.until(lambda events: [e["type"] for e in events].count("worker-heartbeat") >= 2)
            door.open()
            (event,) = client.until_types(uid, "task-succeeded")
            assert event["name"] is None
        assert pidbox.commands() == []
        pidbox.close()


def test_only_the_fixed_commands_are_sent_to_workers_by_name(
    celery: Celery, broker: str, folder: Path, pidbox: Pidbox
) -> None:
    with (
        started_worker(celery, folder) as worker,
        started_gateway(broker, folder, *CONTROL),
    ):
        whole = [command.value for command in OF_EACH_WORKER]

        def methods() -> list[str]:
            return [
                command["method"]
                for command in pidbox.commands()
                if command["destination"] == [worker.hostname]
            ]

        assert wait_for(lambda: len(methods()) >= len(whole), 15)
        assert methods()[: len(whole)] == whole
        for command in pidbox.commands():
            assert command["arguments"] in ({}, {"safe": True})
            assert command["destination"] == [worker.hostname] or command["method"] == "active"
        assert set(whole) == {"enable_events", "active", "reserved", "scheduled"}


def test_events_are_switched_on_for_a_new_worker_and_after_a_restart(
    celery: Celery, broker: str, folder: Path
) -> None:
    with (
        started_gateway(broker, folder, *CONTROL) as gateway,
        NdjsonStream(gateway.url) as client,
        started_worker(celery, folder) as worker,
    ):
        first = {event["pid"] for event in add_until_seen(celery, worker, client)}
        client.until(lambda events: gaps(events) == ["broker"])
        worker.kill()
        worker.start()
        second = {event["pid"] for event in add_until_seen(celery, worker, client)}
        assert worker.pid in second - first
        # The events before the command are missing, so there is a gap.
        client.until(lambda events: gaps(events) == ["broker"] * 2)


def gaps(events: list[EventFields]) -> list[str]:
    """The reasons of the gaps."""
    return [event["reason"] for event in events if event["type"] == "gateway-gap"]


def test_a_worker_with_events_causes_no_gap(celery: Celery, broker: str, folder: Path) -> None:
    with (
        started_gateway(broker, folder, *CONTROL) as gateway,
        NdjsonStream(gateway.url) as client,
        Pidbox(broker) as pidbox,
        started_worker(celery, folder, events=True) as worker,
    ):
        # All commands of a round are sent, and the worker has replied: their consequences are on the stream
        # before the task that is sent after the next heartbeats.
        assert wait_for(lambda: len(pidbox.commands()) >= len(OF_EACH_WORKER), 15)
        beats = len(client.events)
        client.until(lambda events: [e["type"] for e in events[beats:]].count("worker-heartbeat") >= 2, 20)
        add_until_seen(celery, worker, client)
        assert gaps(client.events) == []


def test_commands_are_sent_again_after_an_outage_of_the_broker(
    rabbitmq: RabbitMQ, celery: Celery, broker: str, folder: Path
) -> None:
    """The outage is one of the network between the gateway and the broker."""
    with (
        Proxy(rabbitmq.port) as proxy,
        started_gateway(proxy.url(broker), folder, *CONTROL) as gateway,
        NdjsonStream(gateway.url) as client,
    ):
        with started_worker(celery, folder) as worker:
            add_until_seen(celery, worker, client)
            proxy.refuse()
            assert wait_for(lambda: not gateway.is_ready(), 10)
            celery.control.disable_events(destination=[worker.hostname])
            proxy.resume()
            add_until_seen(celery, worker, client, 40)
        with started_worker(celery, folder) as worker:
            add_until_seen(celery, worker, client)
    assert "Traceback" not in gateway.log.read_text()


@asynccontextmanager
async def running(
    remote: WorkerControl,
) -> AsyncIterator[tuple[WorkerControl, list[list[tuple[str, str]]], list[bool]]]:
    """Run a `WorkerControl`; give the names that it reports, and an item for each report of events off."""
    names: list[list[tuple[str, str]]] = []
    enabled: list[bool] = []
    run = remote.run(lambda some: names.append(list(some)), lambda: enabled.append(True))
    runner = asyncio.create_task(run)
    try:
        yield remote, names, enabled
    finally:
        runner.cancel()
        with suppress(asyncio.CancelledError):
            await runner


@pytest.fixture
async def remote(broker: str) -> Any:
    """What `running` gives, for a `WorkerControl` with the defaults."""
    async with running(WorkerControl([broker])) as parts:
        yield parts


def heartbeat(hostname: Any, pid: Any = 1, kind: str = "heartbeat") -> EventFields:
    return {"type": f"worker-{kind}", "hostname": hostname, "pid": pid}


async def until(condition: Any, timeout_seconds: float = 40) -> None:
    async with asyncio.timeout(timeout_seconds):
        while not condition():  # noqa: ASYNC110  a condition of other threads, too
            await asyncio.sleep(0.02)


async def test_a_flood_of_heartbeats_causes_few_commands_of_bounded_size(broker: str, pidbox: Pidbox) -> None:
    async with running(WorkerControl([broker], round_seconds=0.4, silence_seconds=0.1)) as (remote, _, _):
        began_at = time.monotonic()
        for number in range(2 * MAX_WORKERS):
            remote.on_event(heartbeat(f"celery@h{number}"))
        async with asyncio.timeout(30):
            while remote.statistics().rounds < 4:
                for number in range(100):
                    remote.on_event(heartbeat("celery@h", pid=number))  # with many pids
                    remote.on_event(heartbeat(f"celery@h{number}", kind="online"))
                await asyncio.sleep(0.01)
        statistics = remote.statistics()
        elapsed_seconds = time.monotonic() - began_at
        assert statistics.workers <= MAX_WORKERS
        assert statistics.rounds <= 1 + elapsed_seconds / 0.4
        commands = pidbox.commands()
        assert len(commands) <= statistics.rounds * len(OF_EACH_WORKER)
        assert max(len(each["destination"]) for each in commands) == MAX_DESTINATIONS


async def test_only_workers_with_valid_names_get_commands(
    pidbox: Pidbox, remote: tuple[WorkerControl, Any, Any]
) -> None:
    for hostname in ("", "h" * 256, None, 7, ["celery@a"], {"a": 1}):
        remote[0].on_event(heartbeat(hostname))
        remote[0].on_event(heartbeat(hostname, kind="online"))
    remote[0].on_event(heartbeat("celery@gone"))
    remote[0].on_event(heartbeat("celery@gone", kind="offline"))
    remote[0].on_event(heartbeat("celery@custom", kind="mood"))
    assert remote[0].statistics().workers == 0
    remote[0].on_event(heartbeat("genius@host", pid="?"))
    await until(lambda: pidbox.commands())
    assert {tuple(command["destination"]) for command in pidbox.commands()} == {("genius@host",)}


class FakeWorker:
    """Replies to each command with given bodies, after some rounds without a reply."""

    def __init__(self, url: str, replies: dict[str, list[bytes]], silent_rounds: int = 0) -> None:
        self.received: list[str] = []
        self._replies = replies
        self._silent = silent_rounds * len(OF_EACH_WORKER)
        self._url = url
        self._stopping, self.is_consuming = Event(), Event()
        self._thread = Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self.is_consuming.wait(10)

    def close(self) -> None:
        self._stopping.set()
        self._thread.join(5)

    def _run(self) -> None:
        with Connection(self._url) as connection:
            channel = connection.channel()
            producer = Producer(channel, auto_declare=False)

            def on_message(message: Any) -> None:
                body = json.loads(message.body)
                self.received.append(body["method"])
                if len(self.received) <= self._silent:
                    return
                for body_of_reply in self._replies.get(body["method"], []):
                    producer.publish(
                        body_of_reply,
                        exchange=body["reply_to"]["exchange"],
                        routing_key=body["reply_to"]["routing_key"],
                        content_type="application/json",
                        content_encoding="utf-8",
                        headers={"ticket": body["ticket"]},
                    )

            queue = Queue(f"fake-worker-{uuid.uuid4()}", PIDBOX, exclusive=True, auto_delete=True)
            with Consumer(channel, [queue], no_ack=True, on_message=on_message):
                self.is_consuming.set()
                while not self._stopping.is_set():
                    with suppress(TimeoutError):
                        connection.drain_events(timeout=0.1)


def reply(content: Any) -> bytes:
    return json.dumps({"celery@fake": content}).encode()


ENABLED = reply({"ok": "task events enabled"})


async def test_names_arrive_in_portions_and_unreadable_replies_are_skipped(
    broker: str, remote: tuple[WorkerControl, list[list[tuple[str, str]]], Any]
) -> None:
    requests = [{"id": f"s{n}", "name": "a.b", "args": [float("nan")]} for n in range(1_200)]
    worker = FakeWorker(
        broker,
        {
            "enable_events": [ENABLED],
            "active": [reply([{"id": 7, "name": "x"}, {"id": "u"}, {"id": "a1", "name": "a.b"}])],
            "reserved": [b"\xff{", b"[" * 100_000, b"7", reply("no"), reply({"error": "busy"}), reply([7])],
            "scheduled": [reply([{"eta": None, "request": request} for request in requests])],
        },
    )
    try:
        remote[0].on_event(heartbeat("celery@fake"))
        await until(lambda: remote[0].statistics().names >= 1_201)
        await until(lambda: remote[0].statistics().unanswered == 0)
    finally:
        worker.close()
    portions = remote[1]
    assert all(0 < len(portion) <= NAMES_AT_ONCE for portion in portions)
    named = [pair for portion in portions for pair in portion]
    assert sorted(named) == sorted([(f"s{n}", "a.b") for n in range(1_200)] + [("a1", "a.b")])


@pytest.mark.parametrize(("text", "times"), [("task events enabled", 1), ("task events already enabled", 0)])
async def test_the_text_of_a_reply_shows_whether_events_were_off(
    broker: str, remote: tuple[WorkerControl, Any, list[bool]], text: str, times: int
) -> None:
    replies = {command.value: [reply([])] for command in OF_EACH_WORKER}
    worker = FakeWorker(broker, replies | {"enable_events": [reply({"ok": text})]})
    try:
        remote[0].on_event(heartbeat("celery@fake"))
        await until(lambda: remote[0].statistics()[:2] == (1, 0))
    finally:
        worker.close()
    assert len(remote[2]) == times


async def test_commands_are_repeated_until_the_worker_replies(
    broker: str, remote: tuple[WorkerControl, Any, list[bool]]
) -> None:
    replies = {
        command.value: [ENABLED if command is Command.ENABLE_EVENTS else reply([])]
        for command in OF_EACH_WORKER
    }
    worker = FakeWorker(broker, replies, silent_rounds=1)
    try:
        remote[0].on_event(heartbeat("celery@fake", kind="online"))
        await until(lambda: remote[0].statistics()[:2] == (1, 0))
        assert worker.received == [command.value for command in OF_EACH_WORKER] * 2
        rounds = remote[0].statistics().rounds
        remote[0].on_event(heartbeat("celery@fake"))
        remote[0].on_event(heartbeat("celery@fake", pid=2))  # a second worker of that name, or the next one
        await until(lambda: remote[0].statistics()[:3] == (2, 0, rounds + 1))
        remote[0].request_all()  # it replies, and its next heartbeat adds no second entry
        await until(lambda: remote[0].statistics()[:3] == (1, 0, rounds + 2))
        remote[0].on_event(heartbeat("celery@fake"))
        assert remote[0].statistics()[:2] == (1, 0)
        assert len(worker.received) == len(OF_EACH_WORKER) * 4 + 1
        assert len(remote[2]) == 3, "one for each reply that its events were off"
    finally:
        worker.close()
