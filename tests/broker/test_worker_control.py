"""Talking to workers: real ones, that send no task events by themselves, over a broker that has its moods."""

import asyncio
import json
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest
from celery import Celery
from kombu import Connection, Consumer, Exchange, Producer, Queue

from gateway.pidbox import Command
from gateway.remote import MAX_DESTINATIONS, MAX_WORKERS, NAMES_AT_ONCE, ROUND_SECONDS, Remote
from tests.gateway_process import GatewayProcess
from tests.rabbitmq import RabbitMQ, wait_for
from tests.stream_client import NdjsonStream
from tests.wire import EventFields
from tests.worker import Worker

CONTROL = ["--control"]
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
    """A web page that is sent until the door is opened: the task that reads it is under way until then."""

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
            visitor, _ = self._listener.accept()
            with visitor:
                visitor.recv(65536)
                visitor.sendall(b"HTTP/1.0 200 OK\r\n\r\n")
                self.entered.set()
                while not self._opened.wait(0.2):
                    visitor.sendall(b".")


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
    """Everything that is said to workers; what `Worker` itself says (ping) and its answers apart."""

    def __init__(self, url: str) -> None:
        self._connection = Connection(url)
        self._channel = self._connection.channel()
        self._queue = Queue(f"pidbox-{uuid.uuid4()}", PIDBOX, exclusive=True, auto_delete=True)(self._channel)
        self._queue.declare()
        self._said: list[dict[str, Any]] = []

    def said(self) -> list[dict[str, Any]]:
        while (message := self._queue.get(no_ack=True)) is not None:
            body = json.loads(message.body)
            if body["method"] != "ping":
                self._said.append(body)
        return self._said

    def close(self) -> None:
        self._connection.release()

    def __enter__(self) -> "Pidbox":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def visit(celery: Celery, worker: Worker, door: Door) -> str:
    """The uuid of a task that the worker is now at."""
    uid = str(celery.send_task("walks.visit", (door.url,), queue=worker.hostname).id)
    assert door.entered.wait(15), worker.tail()
    return uid


def add_until_seen(
    celery: Celery, worker: Worker, client: NdjsonStream, timeout_seconds: float = 20
) -> list[EventFields]:
    """Send tasks until the worker's own events of one come through: they are switched on."""
    deadline = time.monotonic() + timeout_seconds
    while time.monotonic() < deadline:
        uid = str(celery.send_task("canvas.add", (1, 2), queue=worker.hostname).id)
        if wait_for(lambda uid=uid: "task-succeeded" in [e["type"] for e in client.of(uid)], 0.5):
            return client.of(uid)
    raise AssertionError(f"no events of {worker.hostname}; {worker.tail()}")


def test_a_worker_without_events_has_them_switched_on_and_the_task_it_is_at_has_its_name(
    celery: Celery, broker: str, folder: Path, door: Door
) -> None:
    with started_worker(celery, folder) as worker:
        uid = visit(celery, worker, door)
        with started_gateway(broker, folder, *CONTROL) as gateway, NdjsonStream(gateway.url) as client:
            assert wait_for(lambda: worker.hostname in gateway.log.read_text(), 15), gateway.tail()
            door.open()
            (event,) = client.until_types(uid, "task-succeeded")
            assert (event["name"], event["root_id"], event["state"]) == ("walks.visit", None, "SUCCESS")
            events = add_until_seen(celery, worker, client)
            assert {event["name"] for event in events} == {"canvas.add"}


def test_without_control_nothing_is_said_and_such_a_task_has_no_name(
    celery: Celery, broker: str, folder: Path, door: Door
) -> None:
    with started_worker(celery, folder, events=True) as worker:
        uid = visit(celery, worker, door)
        pidbox = Pidbox(broker)
        with started_gateway(broker, folder) as gateway, NdjsonStream(gateway.url) as client:
            client.until(lambda events: [e["type"] for e in events].count("worker-heartbeat") >= 2)
            door.open()
            (event,) = client.until_types(uid, "task-succeeded")
            assert event["name"] is None
        assert pidbox.said() == []
        pidbox.close()


def test_only_the_fixed_commands_are_said_and_to_workers_by_their_name(
    celery: Celery, broker: str, folder: Path, pidbox: Pidbox
) -> None:
    with (
        started_worker(celery, folder) as worker,
        started_gateway(broker, folder, *CONTROL),
    ):
        whole = [command.value for command in Command]

        def methods() -> list[str]:
            return [said["method"] for said in pidbox.said() if said["destination"] == [worker.hostname]]

        assert wait_for(lambda: len(methods()) >= len(whole), 15)
        assert methods()[: len(whole)] == whole
        for said in pidbox.said():
            assert said["arguments"] in ({}, {"safe": True})
            assert said["destination"] == [worker.hostname] or said["method"] == "active"
        assert set(whole) == {"enable_events", "active", "reserved", "scheduled"}


def test_a_worker_that_comes_later_and_one_that_restarts_have_their_events_switched_on(
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
        # CASES.md A19: what it did until it was told is missing, and that is said.
        client.until(lambda events: gaps(events) == ["broker"] * 2)


def gaps(events: list[EventFields]) -> list[str]:
    """The reasons of the gaps."""
    return [event["reason"] for event in events if event["type"] == "gateway-gap"]


def test_a_worker_whose_events_were_on_makes_no_gap(celery: Celery, broker: str, folder: Path) -> None:
    with (
        started_gateway(broker, folder, *CONTROL) as gateway,
        NdjsonStream(gateway.url) as client,
        Pidbox(broker) as pidbox,
        started_worker(celery, folder, events=True) as worker,
    ):
        # All of a round has been said, and the worker has answered: what followed from it is on the stream
        # before the task that is sent after the next heartbeats.
        assert wait_for(lambda: len(pidbox.said()) >= len(Command), 15)
        beats = len(client.events)
        client.until(lambda events: [e["type"] for e in events[beats:]].count("worker-heartbeat") >= 2, 20)
        add_until_seen(celery, worker, client)
        assert gaps(client.events) == []


def test_an_alarm_of_the_broker_stops_neither_the_gateway_nor_what_comes_after(
    rabbitmq: RabbitMQ, celery: Celery, broker: str, folder: Path
) -> None:
    with started_worker(celery, folder) as worker:
        rabbitmq.ctl("set_vm_memory_high_watermark", "0.0000001")
        try:
            with started_gateway(broker, folder, *CONTROL) as gateway, NdjsonStream(gateway.url) as client:
                assert wait_for(lambda: "an alarm is on" in gateway.log.read_text(), 15), gateway.tail()
                assert gateway.is_ready()
                rabbitmq.ctl("set_vm_memory_high_watermark", "0.4")
                add_until_seen(celery, worker, client, 30)
        finally:
            rabbitmq.ctl("set_vm_memory_high_watermark", "0.4")


def test_after_an_outage_of_the_broker_workers_are_told_again(
    rabbitmq: RabbitMQ, celery: Celery, broker: str, folder: Path
) -> None:
    with started_gateway(broker, folder, *CONTROL) as gateway, NdjsonStream(gateway.url) as client:
        with started_worker(celery, folder) as worker:
            add_until_seen(celery, worker, client)
            rabbitmq.stop_app()
            try:
                assert wait_for(lambda: not gateway.is_ready(), 10)
            finally:
                rabbitmq.start_app()
            add_until_seen(celery, worker, client, 40)
        with started_worker(celery, folder) as worker:
            add_until_seen(celery, worker, client)
    assert "Traceback" not in gateway.log.read_text()


@pytest.fixture
async def remote(broker: str) -> Any:
    """One in this process, the names it gave, and a mark for each time it said that events were off."""
    remote = Remote([broker])
    names: list[list[tuple[str, str]]] = []
    enabled: list[bool] = []
    run = remote.run(lambda some: names.append(list(some)), lambda: enabled.append(True))
    runner = asyncio.create_task(run)
    yield remote, names, enabled
    runner.cancel()
    with suppress(asyncio.CancelledError):
        await runner


def heartbeat(hostname: Any, pid: Any = 1, kind: str = "heartbeat") -> EventFields:
    return {"type": f"worker-{kind}", "hostname": hostname, "pid": pid}


async def until(condition: Any, timeout_seconds: float = 15) -> None:
    async with asyncio.timeout(timeout_seconds):
        while not condition():  # noqa: ASYNC110  a condition of other threads, too
            await asyncio.sleep(0.02)


async def test_a_flood_of_heartbeats_becomes_few_broadcasts_of_bounded_size(
    pidbox: Pidbox, remote: tuple[Remote, Any, Any]
) -> None:
    began = time.monotonic()
    for number in range(2 * MAX_WORKERS):
        remote[0].saw(heartbeat(f"celery@h{number}"))
    while time.monotonic() - began < 4:
        for number in range(100):
            remote[0].saw(heartbeat("celery@h", pid=number))  # one of many pids
            remote[0].saw(heartbeat(f"celery@h{number}", kind="online"))
        await asyncio.sleep(0.01)
    statistics = remote[0].statistics()
    elapsed = time.monotonic() - began
    assert statistics.workers <= MAX_WORKERS
    assert 2 <= statistics.rounds <= 1 + elapsed / ROUND_SECONDS
    said = pidbox.said()
    assert len(said) <= statistics.rounds * len(Command)
    assert max(len(each["destination"]) for each in said) == MAX_DESTINATIONS


async def test_only_workers_count(pidbox: Pidbox, remote: tuple[Remote, Any, Any]) -> None:
    for hostname in ("", "h" * 256, None, 7, ["celery@a"], {"a": 1}):
        remote[0].saw(heartbeat(hostname))
        remote[0].saw(heartbeat(hostname, kind="online"))
    remote[0].saw(heartbeat("celery@gone"))
    remote[0].saw(heartbeat("celery@gone", kind="offline"))
    remote[0].saw(heartbeat("celery@custom", kind="mood"))
    assert remote[0].statistics().workers == 0
    remote[0].saw(heartbeat("genius@host", pid="?"))
    await until(lambda: pidbox.said())
    assert {tuple(said["destination"]) for said in pidbox.said()} == {("genius@host",)}


class Parrot:
    """Answers each command with the bodies it was given for it, once it is not deaf any more."""

    def __init__(self, url: str, answers: dict[str, list[bytes]], deaf_rounds: int = 0) -> None:
        self.heard: list[str] = []
        self._answers = answers
        self._deaf = deaf_rounds * len(Command)
        self._url = url
        self._stopping, self.listening = Event(), Event()
        self._thread = Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self.listening.wait(10)

    def close(self) -> None:
        self._stopping.set()
        self._thread.join(5)

    def _run(self) -> None:
        with Connection(self._url) as connection:
            channel = connection.channel()
            producer = Producer(channel, auto_declare=False)

            def answer(message: Any) -> None:
                body = json.loads(message.body)
                self.heard.append(body["method"])
                if len(self.heard) <= self._deaf:
                    return
                for reply in self._answers.get(body["method"], []):
                    producer.publish(
                        reply,
                        exchange=body["reply_to"]["exchange"],
                        routing_key=body["reply_to"]["routing_key"],
                        content_type="application/json",
                        content_encoding="utf-8",
                        headers={"ticket": body["ticket"]},
                    )

            queue = Queue(f"parrot-{uuid.uuid4()}", PIDBOX, exclusive=True, auto_delete=True)
            with Consumer(channel, [queue], no_ack=True, on_message=answer):
                self.listening.set()
                while not self._stopping.is_set():
                    with suppress(TimeoutError):
                        connection.drain_events(timeout=0.1)


def reply(answer: Any) -> bytes:
    return json.dumps({"celery@parrot": answer}).encode()


ENABLED = reply({"ok": "task events enabled"})


async def test_names_come_in_portions_and_bad_answers_lose_only_themselves(
    broker: str, remote: tuple[Remote, list[list[tuple[str, str]]], Any]
) -> None:
    requests = [{"id": f"s{n}", "name": "a.b", "args": [float("nan")]} for n in range(1_200)]
    parrot = Parrot(
        broker,
        {
            "enable_events": [ENABLED],
            "active": [reply([{"id": 7, "name": "x"}, {"id": "u"}, {"id": "a1", "name": "a.b"}])],
            "reserved": [b"\xff{", b"[" * 100_000, b"7", reply("no"), reply({"error": "busy"}), reply([7])],
            "scheduled": [reply([{"eta": None, "request": request} for request in requests])],
        },
    )
    try:
        remote[0].saw(heartbeat("celery@parrot"))
        await until(lambda: remote[0].statistics().names >= 1_201)
        await until(lambda: remote[0].statistics().unanswered == 0)
    finally:
        parrot.close()
    portions = remote[1]
    assert all(0 < len(portion) <= NAMES_AT_ONCE for portion in portions)
    named = [pair for portion in portions for pair in portion]
    assert sorted(named) == sorted([(f"s{n}", "a.b") for n in range(1_200)] + [("a1", "a.b")])


@pytest.mark.parametrize(("words", "times"), [("task events enabled", 1), ("task events already enabled", 0)])
async def test_that_events_were_off_is_known_by_the_words_of_the_answer(
    broker: str, remote: tuple[Remote, Any, list[bool]], words: str, times: int
) -> None:
    answers = {command.value: [reply([])] for command in Command}
    parrot = Parrot(broker, answers | {"enable_events": [reply({"ok": words})]})
    try:
        remote[0].saw(heartbeat("celery@parrot"))
        await until(lambda: remote[0].statistics()[:2] == (1, 0))
    finally:
        parrot.close()
    assert len(remote[2]) == times


async def test_a_worker_is_told_until_it_answers_and_then_left_in_peace(
    broker: str, remote: tuple[Remote, Any, list[bool]]
) -> None:
    answers = {
        command.value: [ENABLED if command is Command.ENABLE_EVENTS else reply([])] for command in Command
    }
    parrot = Parrot(broker, answers, deaf_rounds=1)
    try:
        remote[0].saw(heartbeat("celery@parrot", kind="online"))
        await until(lambda: remote[0].statistics()[:2] == (1, 0))
        assert parrot.heard == [command.value for command in Command] * 2
        rounds = remote[0].statistics().rounds
        remote[0].saw(heartbeat("celery@parrot"))
        remote[0].saw(heartbeat("celery@parrot", pid=2))  # a second worker of that name, or the next one
        await until(lambda: remote[0].statistics()[:3] == (2, 0, rounds + 1))
        remote[0].warm()  # finds it by its answer, and its heartbeat makes no other of it
        await until(lambda: remote[0].statistics()[:3] == (1, 0, rounds + 2))
        remote[0].saw(heartbeat("celery@parrot"))
        assert remote[0].statistics()[:2] == (1, 0)
        assert len(parrot.heard) == len(Command) * 4 + 1
        assert len(remote[2]) == 3, "each time it answered that its events were off until then"
    finally:
        parrot.close()
