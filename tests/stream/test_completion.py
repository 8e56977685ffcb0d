"""Streams that end when their target is complete, on every transport, and `tail --until` for scripts."""

import asyncio
import json
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.sync.client import connect

from celery_gateway.events.filter import Filter
from celery_gateway.state.task_table import TaskTable
from celery_gateway.state.worker_table import WorkerTable
from celery_gateway.stream.completion import Completions, Target
from celery_gateway.stream.framing import NDJSON
from celery_gateway.stream.hub import Hub
from celery_gateway.stream.subscription import Subscription
from tests.support.gateway_process import ROOT, GatewayProcess
from tests.support.portable_server import PortableServer
from tests.support.publisher import Publisher, received, task_event, walk
from tests.support.stream_client import NdjsonStream
from tests.support.thorough import variants
from tests.support.transports import KINDS, NOISE, Message, Server, messages


@pytest.fixture(scope="module", params=["direct", "portable"])
def server(request: pytest.FixtureRequest, broker: str, folder: Path) -> Iterator[Server]:
    server = (GatewayProcess if request.param == "direct" else PortableServer)(broker, folder)
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="module")
def impatient(broker: str, folder: Path) -> Iterator[GatewayProcess]:
    """A gateway with short timeouts."""
    options = ("--worker-timeout", "1", "--lost-grace", "0.5", "--wait-known", "0.5")
    gateway = GatewayProcess(broker, folder, options=options)
    try:
        gateway.start()
        yield gateway
    finally:
        gateway.stop()


@pytest.fixture
def uid() -> str:
    return str(uuid.uuid4())


# ------------------------------------------------------------------------- when, on a clock that jumps


class JumpingLoop(asyncio.SelectorEventLoop):
    """An event loop that skips waiting: when it is idle, its time becomes that of the next timer."""

    def __init__(self) -> None:
        super().__init__()
        self._seconds = 0.0

    def time(self) -> float:
        return self._seconds

    def _run_once(self) -> None:
        if not self._ready and self._scheduled:  # type: ignore[attr-defined]
            self._seconds = max(self._seconds, self._scheduled[0].when())  # type: ignore[attr-defined]
        super()._run_once()  # type: ignore[misc]


class Stage:
    """The table, the hub and `Completions`, connected as in the pipeline."""

    def __init__(self, **settings: Any) -> None:
        clusters = settings.pop("clusters", ())
        self.tasks = TaskTable(max_tasks=settings.pop("max_tasks", 1_000), clusters=clusters)
        self.workers = WorkerTable(has_clusters=bool(clusters))
        self.hub = Hub()
        self.completions = Completions(self.tasks, self.hub, **settings)

    @property
    def now(self) -> float:
        return asyncio.get_running_loop().time()

    def send(self, *events: Message) -> None:
        for event in events:
            process = self.workers.on_event(event, self.now)
            for joined in self.tasks.join(event, self.now, process):
                self.hub.append(joined)
                self.completions.on_event(joined)
        for gone in self.workers.find_gone(self.now):
            for lost in self.tasks.mark_lost(gone.process, gone.reason, time.time()):
                self.hub.append(lost)
                self.completions.on_event(lost)

    def restart(self, **fields: Any) -> None:
        """Restart the worker, so that its old process is gone."""
        for clock in (100, 1):
            self.send(worker_event("worker-online", clock=clock, processed=0, **fields))

    def wait_for(self, target: Target) -> "Ending":
        subscription = self.hub.subscribe(Filter(), NDJSON())
        self.completions.add(subscription, target)
        return Ending(self, subscription)


class Ending:
    """The end of a stream: its close message, and its time."""

    def __init__(self, stage: Stage, subscription: Subscription) -> None:
        self.close: Message | None = None
        self.at: float | None = None
        self._reader = asyncio.ensure_future(self._read(stage, subscription))

    async def _read(self, stage: Stage, subscription: Subscription) -> None:
        while not subscription.is_ended:
            for line in (await subscription.pull()).splitlines():
                message = json.loads(line)
                if message["type"] == "gateway-close":
                    self.close, self.at = message, stage.now

    async def result(self) -> tuple[float, Message]:
        """Return when the stream ended, and its close message without the common fields."""
        await self._reader
        assert self.close is not None and self.at is not None
        fields = {k: v for k, v in self.close.items() if k not in ("type", "id", "retry_ms")}
        return round(self.at, 1), fields


def staged(test: Callable[[], Awaitable[None]]) -> None:
    """Run a test on a ``JumpingLoop``."""
    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        runner.run(asyncio.wait_for(test(), 100_000))  # type: ignore[arg-type]


def worker_event(type: str, **fields: Any) -> Message:
    """Return a worker event of the same process as the events of `task_event`."""
    return {"type": type, "hostname": "w1@host", "pid": 1, "timestamp": time.time(), "freq": 2.0} | fields


def sent(uid: str, root_id: str | None = None, **fields: Any) -> Message:
    """Return a ``task-sent`` event of a client."""
    about = {"name": "shop.pay", "root_id": root_id or uid, "parent_id": None, "retries": 0}
    return task_event("task-sent", uid, hostname="gen1@host", pid=9, **about) | fields


def ended(uid: str, root_id: str = "r") -> list[Message]:
    """Return all events of a task, ``task-sent`` included."""
    return [
        sent(uid, root_id),
        received(uid, "shop.pay", root_id),
        task_event("task-succeeded", uid, result="1"),
    ]


def test_a_workflow_whose_tasks_were_all_sent_is_ready_after_two_quiet_seconds() -> None:
    async def test() -> None:
        stage = Stage()
        stage.send(*ended("r"))
        ending = stage.wait_for(Target("root_id", "r"))
        assert await ending.result() == (
            2.0,
            {"reason": "ready", "known": 1, "ready": 1, "sent_events": True},
        )

    staged(test)


def test_a_workflow_without_task_sent_events_is_ready_after_thirty_quiet_seconds() -> None:
    async def test() -> None:
        stage = Stage()
        stage.send(*ended("r"), *ended("a")[1:])
        ending = stage.wait_for(Target("root_id", "r"))
        assert await ending.result() == (
            30.0,
            {"reason": "ready", "known": 2, "ready": 2, "sent_events": False},
        )

    staged(test)


@pytest.mark.parametrize("quiet_seconds", [0.0, 5.0, 3600.0])
def test_the_quiet_time_of_a_target_replaces_both_defaults(quiet_seconds: float) -> None:
    async def test() -> None:
        stage = Stage()
        stage.send(*ended("r"), *ended("a")[1:])
        ending = stage.wait_for(Target("root_id", "r", quiet_seconds=quiet_seconds))
        at, close = await ending.result()
        assert (at, close["reason"]) == (quiet_seconds, "ready")

    staged(test)


def test_the_quiet_time_begins_again_with_each_task_and_event() -> None:
    async def test() -> None:
        stage = Stage()
        stage.send(*ended("r"))
        ending = stage.wait_for(Target("root_id", "r"))
        await asyncio.sleep(1.9)
        stage.send(sent("a", "r"))
        await asyncio.sleep(1000)
        stage.send(*ended("a")[1:])
        await asyncio.sleep(1.9)
        stage.send(task_event("task-progress", "a"))
        await asyncio.sleep(1.9)
        assert ending.close is None
        at, close = await ending.result()
        assert (at, close["known"], close["ready"]) == (1005.8, 2, 2)

    staged(test)


def test_a_late_task_sent_shortens_the_quiet_time() -> None:
    async def test() -> None:
        stage = Stage()
        sending, *rest = ended("r")
        stage.send(*rest)
        ending = stage.wait_for(Target("root_id", "r"))
        await asyncio.sleep(10)
        stage.send(sending)
        assert await ending.result() == (
            12.0,
            {"reason": "ready", "known": 1, "ready": 1, "sent_events": True},
        )

    staged(test)


def test_a_stream_waits_for_a_task_that_runs_again() -> None:
    """A nightly job with a fixed id."""

    async def test() -> None:
        stage = Stage()
        stage.send(*ended("r"))
        await asyncio.sleep(60)
        stage.send(sent("r", timestamp=time.time() + 60))
        endings = [stage.wait_for(Target("root_id", "r")), stage.wait_for(Target("uuid", "r"))]
        await asyncio.sleep(1000)
        assert [ending.close for ending in endings] == [None, None]
        later = {"timestamp": time.time() + 61, "clock": 50}
        stage.send(received("r", "shop.pay") | later, task_event("task-failed", "r", exception="E()") | later)
        assert [(await ending.result())[0] for ending in endings] == [1062.0, 1060.0]

    staged(test)


def test_a_stream_of_a_lost_task_ends_after_the_grace_time() -> None:

    async def test() -> None:
        stage = Stage()
        stage.send(received("u", "shop.pay"), task_event("task-started", "u"))
        endings = [stage.wait_for(Target("uuid", "u")), stage.wait_for(Target("root_id", "u"))]
        await asyncio.sleep(100)
        stage.restart()
        for ending in endings:
            assert await ending.result() == (
                160.0,
                {"reason": "lost", "known": 1, "ready": 0, "sent_events": False},
            )

    staged(test)


def test_a_stream_waits_for_a_lost_task_that_is_delivered_again_within_the_grace_time() -> None:
    async def test() -> None:
        stage = Stage(lost_grace_seconds=20.0)
        stage.send(received("u", "shop.pay"), task_event("task-started", "u"))
        ending = stage.wait_for(Target("uuid", "u"))
        stage.restart()
        await asyncio.sleep(19)
        other = {"hostname": "w2@host"}
        stage.send(received("u", "shop.pay") | other, task_event("task-started", "u") | other)
        await asyncio.sleep(1000)
        assert ending.close is None
        stage.send(task_event("task-succeeded", "u", result="1") | other)
        at, close = await ending.result()
        assert (at, close["reason"], close["ready"]) == (1019.0, "ready", 1)

    staged(test)


def test_a_workflow_is_lost_only_when_no_other_task_of_it_runs() -> None:
    async def test() -> None:
        stage = Stage()
        stage.send(*ended("r"), received("a", "shop.pay", "r"), task_event("task-started", "a"))
        stage.send(received("b", "shop.pay", "r") | {"hostname": "w2@host"})
        ending = stage.wait_for(Target("root_id", "r"))
        stage.restart()
        await asyncio.sleep(1000)
        assert ending.close is None
        stage.send(task_event("task-revoked", "b", hostname="w2@host"))
        assert await ending.result() == (
            1060.0,
            {"reason": "lost", "known": 3, "ready": 2, "sent_events": False},
        )

    staged(test)


@pytest.mark.parametrize("field", ["uuid", "root_id"])
def test_a_target_without_events_becomes_unknown_after_a_while(field: Any) -> None:
    async def test() -> None:
        stage = Stage()
        stage.send(*ended("another"))
        ending = stage.wait_for(Target(field, "typo"))
        at, close = await ending.result()
        assert (at, close["reason"]) == (30.0, "unknown")
        assert "'typo'" in close["message"]

    staged(test)


def test_a_stream_waits_for_a_target_whose_first_event_comes_in_time() -> None:
    async def test() -> None:
        stage = Stage(wait_known_seconds=5.0)
        endings = [stage.wait_for(Target("uuid", "r")), stage.wait_for(Target("root_id", "r"))]
        await asyncio.sleep(4.9)
        stage.send(sent("r"))
        await asyncio.sleep(1000)
        assert [ending.close for ending in endings] == [None, None]
        stage.send(*ended("r")[1:])
        assert [(await ending.result())[1]["reason"] for ending in endings] == ["ready", "ready"]

    staged(test)


def test_each_stream_of_an_unknown_target_waits_from_its_own_beginning() -> None:
    async def test() -> None:
        stage = Stage()
        first = stage.wait_for(Target("uuid", "u"))
        await asyncio.sleep(29)
        second = stage.wait_for(Target("uuid", "u"))
        assert (await first.result())[0] == 30.0
        assert (await second.result())[0] == 59.0

    staged(test)


def test_a_stream_of_an_id_that_is_no_root_ends_at_once_and_names_the_root() -> None:
    """The id of a chain's result is that of its last task."""

    async def test() -> None:
        stage = Stage()
        stage.send(*ended("r"), sent("last", "r"))
        at, close = await stage.wait_for(Target("root_id", "last")).result()
        assert (at, close["reason"], close["root_id"]) == (0.0, "unknown", "r")
        assert "'last'" in close["message"] and "'r'" in close["message"]
        later = stage.wait_for(Target("root_id", "next"))
        await asyncio.sleep(3)
        stage.send(sent("next", "r"))
        at, close = await later.result()
        assert (at, close["root_id"]) == (3.0, "r")

    staged(test)


def test_an_evicted_target_is_unknown_at_once() -> None:
    async def test() -> None:
        stage = Stage(max_tasks=1)
        stage.send(*ended("r"), *ended("other", "other"))
        for field in ("uuid", "root_id"):
            at, close = await stage.wait_for(Target(field, "r")).result()  # type: ignore[arg-type]
            assert (at, close["reason"]) == (0.0, "unknown")
            assert "evicted" in close["message"]

    staged(test)


def test_a_target_is_complete_on_all_brokers_or_on_the_named_one() -> None:

    async def test() -> None:
        stage = Stage(clusters=("eu", "us"))
        stage.send(*[event | {"cluster": "eu"} for event in ended("r")])
        stage.send(sent("r", cluster="us"))
        all_of_it = [stage.wait_for(Target("uuid", "r")), stage.wait_for(Target("root_id", "r"))]
        assert (await stage.wait_for(Target("uuid", "r", "eu")).result())[0] == 0.0
        assert (await stage.wait_for(Target("root_id", "r", "eu")).result())[0] == 2.0
        us = stage.wait_for(Target("uuid", "r", "us"))
        await asyncio.sleep(998)
        assert [ending.close for ending in (us, *all_of_it)] == [None, None, None]
        stage.send(*[event | {"cluster": "us"} for event in ended("r")[1:]])
        assert (await us.result())[0] == 1000.0
        assert [await ending.result() for ending in all_of_it] == [
            (1000.0, {"reason": "ready", "known": 2, "ready": 2, "sent_events": True}),
            (1002.0, {"reason": "ready", "known": 2, "ready": 2, "sent_events": True}),
        ]

    staged(test)


@pytest.mark.parametrize("how", ["ready", "lost", "unknown"])
def test_a_target_stays_complete_until_it_starts_again(how: str) -> None:
    async def test() -> None:
        stage = Stage(wait_known_seconds=1.0)
        if how == "ready":
            stage.send(*ended("u", "u"))
        elif how == "lost":
            stage.send(received("u", "shop.pay"), task_event("task-started", "u"))
            stage.restart()
        target = Target("uuid", "u")
        before = stage.hub.id.decode()
        stage.send(*ended("another"))
        ending = stage.wait_for(target)
        _, close = await ending.result()
        assert close["reason"] == how
        assert ending.close is not None
        id = ending.close["id"]
        assert stage.completions.is_complete(target, id)
        assert not stage.completions.is_complete(target, before), "it has not received the end"
        assert not stage.completions.is_complete(target, "another-log-1")
        assert not stage.completions.is_complete(Target("root_id", "u"), id)
        stage.send(received("u", "shop.pay", hostname="w2@host"))
        assert not stage.completions.is_complete(target, id)

    staged(test)


# ------------------------------------------------------------------------------- on every transport


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("final", "fields", "state"),
    [
        ("task-succeeded", {"result": "1", "runtime": 0.1}, "SUCCESS"),
        ("task-failed", {"exception": "Oops()", "traceback": "…"}, "FAILURE"),
        ("task-revoked", {"terminated": False, "signum": None, "expired": False}, "REVOKED"),
    ],
)
def test_a_stream_ends_right_after_the_event_that_makes_the_task_ready(
    server: Server, publisher: Publisher, uid: str, kind: str, final: str, fields: Message, state: str
) -> None:
    stream = messages(server, kind, until="ready", uuid=uid)
    assert next(stream)["type"] == "gateway-open"
    publisher.send(received(uid, "shop.pay"), task_event("task-started", uid))
    assert [next(stream)["state"], next(stream)["state"]] == ["RECEIVED", "STARTED"]
    publisher.send(task_event(final, uid, **fields))
    assert next(stream)["state"] == state
    close = next(stream)
    assert (close["type"], close["reason"]) == ("gateway-close", "ready")
    assert (close["known"], close["ready"], close["sent_events"]) == (1, 1, False)
    rest = list(stream)
    assert rest == ([{"type": "closed", "code": 1000, "reason": "ready"}] if kind == "websocket" else [])


@pytest.mark.parametrize("kind", KINDS)
def test_a_task_that_is_ready_already_is_in_the_snapshot_before_the_end(
    server: Server, publisher: Publisher, uid: str, kind: str
) -> None:
    with NdjsonStream(server.url, {"uuid": uid}) as client:
        publisher.send(walk(uid=uid))
        client.until(lambda seen: len(seen) == 3)
    got = [message for message in messages(server, kind, until="ready", uuid=uid, snapshot="1")]
    assert [message["type"] for message in got[:3]] == ["gateway-open", "gateway-snapshot", "gateway-close"]
    assert [task["state"] for task in got[1]["tasks"]] == ["SUCCESS"]


def test_a_client_that_reconnects_to_a_completed_stream_gets_204(
    server: Server, publisher: Publisher, uid: str
) -> None:
    with NdjsonStream(server.url, {"uuid": uid, "until": "ready"}) as client:
        publisher.send(walk(uid=uid))
        assert client.closed()
        assert client.last_event_id is not None
        seen = client.events
    assert [message["type"] for message in seen][-1] == "gateway-close"
    publisher.send(walk())  # an event of another task
    query = {"uuid": uid, "until": "ready"}
    again = httpx.get(f"{server.url}/events", params=query, headers={"Last-Event-ID": client.last_event_id})
    assert (again.status_code, again.content) == (204, b"")
    # A client that has not received the end gets the rest of the stream.
    for missed in (1, 2):
        rest = list(messages(server, "ndjson", **query, last_event_id=seen[-2 - missed]["id"]))
        assert [message["type"] for message in rest[1:]] == [
            message["type"] for message in seen[-1 - missed :]
        ]


@pytest.mark.parametrize("kind", KINDS)
def test_a_workflow_is_ready_when_all_its_known_tasks_are_for_the_quiet_time(
    server: Server, publisher: Publisher, uid: str, kind: str
) -> None:
    stream = messages(server, kind, until="ready", root_id=uid, quiet_time="1")
    next(stream)
    second = str(uuid.uuid4())
    publisher.send(walk("first", uid, uid), received(second, "second", uid))
    assert [next(stream)["name"] for _ in range(4)] == ["first"] * 3 + ["second"]
    began = time.monotonic()
    publisher.send(task_event("task-started", second), task_event("task-succeeded", second, result="1"))
    assert [next(stream)["name"] for _ in range(2)] == ["second"] * 2
    close = next(stream)
    assert time.monotonic() - began >= 1
    assert (close["reason"], close["known"], close["ready"], close["sent_events"]) == ("ready", 2, 2, False)
    stream.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", KINDS)
def test_the_answer_to_an_id_that_is_no_root_names_the_root(
    server: Server, publisher: Publisher, uid: str, kind: str
) -> None:
    last = str(uuid.uuid4())
    with NdjsonStream(server.url, {"root_id": uid}) as client:
        publisher.send(walk("first", uid, uid), walk("last", uid, last))
        client.until(lambda seen: len(seen) == 6)
    opened, close, *rest = messages(server, kind, until="ready", root_id=last)
    assert opened["type"] == "gateway-open"
    assert (close["type"], close["reason"], close["root_id"]) == ("gateway-close", "unknown", uid)
    assert uid in close["message"] and last in close["message"]
    assert rest == ([{"type": "closed", "code": 4004, "reason": "unknown"}] if kind == "websocket" else [])


@pytest.mark.parametrize("kind", KINDS)
def test_a_stream_of_an_unknown_target_ends_with_that_reason(impatient: GatewayProcess, kind: str) -> None:
    for target in ("uuid", "root_id"):
        opened, close, *rest = messages(impatient, kind, {target: f"typo-{kind}", "until": "ready"})
        assert opened["type"] == "gateway-open"
        assert (close["type"], close["reason"]) == ("gateway-close", "unknown")
        assert f"typo-{kind}" in close["message"]
        assert rest == (
            [{"type": "closed", "code": 4004, "reason": "unknown"}] if kind == "websocket" else []
        )
    query = {"until": "ready", "uuid": f"typo-{kind}"}
    # An EventSource reconnects after the end; 204 makes it stop.
    (_, ended) = messages(impatient, "ndjson", query)
    again = httpx.get(f"{impatient.url}/events", params=query, headers={"Last-Event-ID": ended["id"]})
    assert again.status_code == 204


def on_worker(hostname: str, *events: Message) -> list[Message]:
    """Return the events as those of another worker, after its heartbeat."""
    alive = worker_event("worker-heartbeat", hostname=hostname, clock=1, active=1, processed=1)
    return [alive, *({**event, "hostname": hostname} for event in events)]


@pytest.mark.parametrize("kind", variants(1, KINDS))
def test_a_task_is_lost_with_its_worker_and_its_stream_ends_after_the_grace(
    impatient: GatewayProcess, publisher: Publisher, uid: str, kind: str
) -> None:
    worker = f"doomed-{kind}@host"
    stream = messages(impatient, kind, until="ready", root_id=uid)
    assert next(stream)["type"] == "gateway-open"
    publisher.send(*on_worker(worker, received(uid, "shop.pay", queue="q"), task_event("task-started", uid)))
    assert [next(stream)["state"] for _ in range(2)] == ["RECEIVED", "STARTED"]
    lost = next(stream)
    assert {key: lost[key] for key in lost.keys() - {"id", "time", "timestamp", "reason"}} == {
        "type": "task-lost", "source": "gateway", "uuid": uid, "name": "shop.pay", "root_id": uid,
        "parent_id": None, "queue": None, "state": "LOST", "hostname": worker, "pid": 1, "retries": 0,
        "attempt": 1,
    }  # fmt: skip
    assert "silent" in lost["reason"]
    assert abs(lost["timestamp"] - time.time()) < 30
    close = next(stream)
    assert (close["type"], close["reason"]) == ("gateway-close", "lost")
    assert (close["known"], close["ready"]) == (1, 0)
    rest = list(stream)
    assert rest == ([{"type": "closed", "code": 4010, "reason": "lost"}] if kind == "websocket" else [])
    with closing(
        messages(impatient, kind, {"type": "task-lost", "name": "shop.*", "since": "earliest"})
    ) as again:  # type: ignore[type-var]
        assert any(message.get("uuid") == uid for message in again)


def requested(server: Server, kind: str, wanted: Message) -> Iterator[Message]:
    """Yield the messages of a stream, requested by POST, or by an `open` message on a WebSocket."""
    if kind == "websocket":
        with connect(f"{server.url.replace('http', 'ws', 1)}/ws?type=nothing") as websocket:
            for _ in range(2):  # gateway-open and gateway-status of the stream that is replaced
                websocket.recv(timeout=30)
            websocket.send(json.dumps({"op": "open"} | wanted))
            for text in websocket:
                if (message := json.loads(text))["type"] not in NOISE:
                    yield message
            yield {"type": "closed", "code": websocket.close_code}
        return
    with closing(HTTPConnection("127.0.0.1", server.port, timeout=30)) as connection:
        path = server.url.partition(f":{server.port}")[2]
        connection.request("POST", f"{path}/events?format={kind}", json.dumps(wanted))
        response = connection.getresponse()
        assert response.status == 200, response.read()
        for line in response:
            if kind == "ndjson" or line.startswith(b"data: "):
                message = json.loads(line.removeprefix(b"data: "))
                if message["type"] not in NOISE:
                    yield message


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("quiet_time", [0, 0.5, "500ms", None])
def test_a_body_and_an_open_message_can_have_a_target(
    server: Server, publisher: Publisher, uid: str, kind: str, quiet_time: Any
) -> None:
    publisher.send(received(uid, "shop.pay"))
    wanted = {"any": [{"root_id": uid}], "until": "ready", "quiet_time": quiet_time, "snapshot": True}
    stream = requested(server, kind, wanted)
    assert next(stream)["type"] == "gateway-open"
    while not next(stream).get("done"):
        pass
    end = task_event("task-succeeded", uid, result="1")
    sending = sent(uid)  # so that the default quiet time is two seconds
    began = time.monotonic()
    publisher.send(
        [end, sending]
    )  # in one message: with a quiet time of 0 the stream would end after the first
    *events, close = [message for message in stream if message["type"] != "closed"]
    assert {"task-succeeded", "task-sent"} <= {event["type"] for event in events}
    assert (close["reason"], close["known"], close["ready"], close["sent_events"]) == ("ready", 1, 1, True)
    lasted = time.monotonic() - began
    assert lasted >= {0: 0.0, None: 2.0}.get(quiet_time, 0.5)


def test_a_target_can_have_wildcards_in_its_id(server: Server, publisher: Publisher, uid: str) -> None:
    """`*`, `?`, `,` and `!` are valid in ids; a backslash escapes them."""
    for own, pattern in ((f"{uid}:*", rf"{uid}:\*"), (f"!{uid},us?", rf"\!{uid}\,us\?")):
        stream = messages(server, "ndjson", until="ready", uuid=pattern)
        assert next(stream)["type"] == "gateway-open"
        publisher.send(walk(uid=f"{uid}:other"), walk(uid=own))
        *events, close = stream
        assert [event["uuid"] for event in events] == [own] * 3
        assert close["reason"] == "ready"
        posted = requested(server, "ndjson", {"any": [{"uuid": pattern}], "until": "ready"})
        assert [message["type"] for message in posted] == ["gateway-open", "gateway-close"]


def test_a_stream_waits_for_a_task_without_events_so_far(
    server: Server, publisher: Publisher, uid: str
) -> None:
    stream = messages(server, "ndjson", until="ready", uuid=uid, snapshot="1")
    assert next(stream)["type"] == "gateway-open"
    assert next(stream)["tasks"] == []
    publisher.send(walk(uid=uid))
    assert [message["type"] for message in stream][-1] == "gateway-close"


def test_a_slow_reader_gets_all_of_a_big_workflow_before_the_end(
    server: Server, publisher: Publisher, uid: str
) -> None:
    if isinstance(server, PortableServer):
        pytest.skip("its --slow-timeout is two seconds")
    tasks = [f"{uid}-{number}" for number in range(3_000)]
    with NdjsonStream(server.url, {"root_id": uid, "type": "task-succeeded", "fields": "uuid"}) as client:
        for start in range(0, len(tasks), 100):
            events = [received(each, "shop.pay", uid) | {"args": "x" * 300} for each in tasks[start:][:100]]
            ends = [task_event("task-succeeded", each, result="1") for each in tasks[start:][:100]]
            publisher.send(events + ends)
        client.until(lambda seen: len(seen) == len(tasks), 30)
    with socket.socket() as reader:
        reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        reader.settimeout(20)
        reader.connect(("127.0.0.1", server.port))
        prefix = server.url.partition(f":{server.port}")[2]
        query = f"format=ndjson&snapshot=1&until=ready&quiet_time=1&root_id={uid}"
        reader.sendall(f"GET {prefix}/events?{query} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        time.sleep(3)  # longer than the quiet time
        with HTTPResponse(reader) as response:
            response.begin()
            data = response.read()
    assert {each for each in tasks if b'"uuid":"%b"' % each.encode() in data} == set(tasks)
    assert data.index(b'"done":true') < data.index(b'"reason":"ready"')


@pytest.mark.parametrize(
    "query",
    ["until=ready", "until=done&uuid=1", "until=ready&uuid=a*", "until=ready&uuid=1,2", "until=ready&uuid=!1"]
    + ["until=ready&uuid=1&uuid=2", "until=ready&name=x", "until=ready&until=ready&uuid=1"]
    + ["until=ready&uuid=a\\\\*"],
)
def test_an_invalid_target_is_refused(server: Server, query: str) -> None:
    answer = httpx.get(f"{server.url}/events?{query}")
    assert answer.status_code == 400
    assert answer.json()["error"]["parameter"] == "until"


@pytest.mark.parametrize(
    "any",
    [
        [],
        [{}],
        [{"uuid": "a*"}],
        [{"uuid": ["1", "2"]}],
        [{"uuid": "1"}, {"uuid": "2"}],
        [{"name": "x"}],
    ],
)
def test_a_body_without_exactly_one_target_is_refused(server: Server, any: Any) -> None:
    answer = httpx.post(f"{server.url}/events", json={"any": any, "until": "ready"})
    assert (answer.status_code, answer.json()["error"]["parameter"]) == (400, "until")


@pytest.mark.parametrize(
    "quiet_time",
    [
        "",
        "x",
        "-1",
        "1e3",
        "86401",
        "25h",
        "1 s",
        "nan",
        -1,
        86_401,
        True,
        [1],
        10.0**300,
        pytest.param(10**400, id="huge"),
    ],
)
def test_a_bad_quiet_time_is_refused(server: Server, quiet_time: Any) -> None:
    answers = [
        httpx.post(
            f"{server.url}/events",
            json={"any": [{"root_id": "r"}], "until": "ready", "quiet_time": quiet_time},
        )
    ]
    if isinstance(quiet_time, str):
        query = {"root_id": "r", "until": "ready", "quiet_time": quiet_time}
        answers.append(httpx.get(f"{server.url}/events", params=query))
    for answer in answers:
        assert (answer.status_code, answer.json()["error"]["parameter"]) == (400, "quiet_time")


def test_a_quiet_time_without_a_target_is_refused(server: Server) -> None:
    for answer in (
        httpx.get(f"{server.url}/events?root_id=r&quiet_time=1"),
        httpx.post(f"{server.url}/events", json={"any": [{"root_id": "r"}], "quiet_time": 1}),
    ):
        assert (answer.status_code, answer.json()["error"]["parameter"]) == (400, "quiet_time")
        assert "until=ready" in answer.json()["error"]["message"]


def tail(server: Server, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "celery_gateway", "tail", server.url, "--until", "ready", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )


def line_with(process: subprocess.Popen[str], text: str) -> str:
    """Return the next line of a process that contains a text."""
    assert process.stdout is not None
    return next(line for line in process.stdout if text in line)


def finished(server: Server, *arguments: str) -> tuple[int, str, str]:
    """Run `tail` to its end; return its exit code and what it printed."""
    with tail(server, *arguments) as process:
        try:
            out, err = process.communicate(timeout=30)
            return process.returncode, out, err
        finally:
            process.kill()


@pytest.mark.parametrize(("final", "code"), [("task-succeeded", 0), ("task-failed", 1), ("task-revoked", 1)])
def test_a_script_can_wait_for_a_task(
    server: Server, publisher: Publisher, uid: str, final: str, code: int
) -> None:
    publisher.send(received(uid, "shop.pay"))
    with tail(server, "--uuid", uid) as process:
        try:
            assert "is RECEIVED" in line_with(process, "shop.pay")
            publisher.send(task_event(final, uid))
            out, err = process.communicate(timeout=20)
            assert process.returncode == code
            assert final in out
            assert "task_send_sent_event" not in err, "a single task has no unseen tasks"
        finally:
            process.kill()


def test_a_script_gets_the_result_of_a_task_that_has_ended_before(
    server: Server, publisher: Publisher, uid: str
) -> None:
    for number, (final, code) in enumerate([("task-succeeded", 0), ("task-failed", 1)]):
        with NdjsonStream(server.url, {"uuid": f"{uid}-{number}"}) as client:
            publisher.send(received(f"{uid}-{number}", "shop.pay"), task_event(final, f"{uid}-{number}"))
            client.until(lambda seen: len(seen) == 2)
        returned, out, err = finished(server, "--uuid", f"{uid}-{number}", "--json", "--fields", "name")
        assert returned == code
        assert err == ("" if code == 0 else f"failed: shop.pay {uid[:8]}\n")
        messages = [json.loads(line) for line in out.splitlines()]
        (page,) = (message for message in messages if message["type"] == "gateway-snapshot")
        assert page["tasks"][0]["name"] == "shop.pay"
        assert messages[-1]["reason"] == "ready"


@pytest.mark.parametrize(("final", "code"), [("task-succeeded", 0), ("task-failed", 1)])
def test_a_script_gets_a_warning_if_tasks_may_wait_unseen(
    server: Server, publisher: Publisher, uid: str, final: str, code: int
) -> None:
    with NdjsonStream(server.url, {"root_id": uid}) as client:
        publisher.send(walk("first", uid, uid), received(f"{uid}-2", "second", uid))
        publisher.send(task_event(final, f"{uid}-2"))
        client.until(lambda seen: len(seen) == 5)
    returned, _, err = finished(server, "--root-id", uid, "--quiet-time", "0.2")
    assert returned == code
    assert "2 of 2 known tasks" in err
    assert "task_send_sent_event" in err and "--quiet-time" in err


def test_a_script_gets_no_warning_if_each_task_has_a_task_sent_event(
    server: Server, publisher: Publisher, uid: str
) -> None:
    with NdjsonStream(server.url, {"root_id": uid}) as client:
        publisher.send(*ended(uid, uid))
        client.until(lambda seen: len(seen) == 3)
    returned, _, err = finished(server, "--root-id", uid, "--quiet-time", "200ms")
    assert (returned, err) == (0, "")


def test_a_script_gets_an_error_for_an_id_that_is_no_root(
    server: Server, publisher: Publisher, uid: str
) -> None:
    with NdjsonStream(server.url, {"root_id": uid}) as client:
        publisher.send(received(f"{uid}-last", "last", uid))
        client.until(bool)
    returned, out, err = finished(server, "--root-id", f"{uid}-last")
    assert returned == 4
    assert f"belongs to the root '{uid}'" in err
    assert "task-" not in out


def test_a_script_gets_an_error_for_an_unknown_id(impatient: GatewayProcess) -> None:
    for option in ("--uuid", "--root-id"):
        returned, _, err = finished(impatient, option, "TYPO")
        assert returned == 4
        waiting, end = err.splitlines()
        assert "no events of it yet" in waiting
        assert "'TYPO'" in end


def test_a_script_gets_an_error_for_a_lost_task(
    impatient: GatewayProcess, publisher: Publisher, uid: str
) -> None:
    publisher.send(*on_worker("script@host", received(uid, "shop.pay"), task_event("task-started", uid)))
    returned, out, err = finished(impatient, "--uuid", uid)
    assert returned == 3
    assert "task-lost" in out and "silent" in out
    assert "lost: the worker that had it is gone" in err


def test_a_script_waits_through_a_restart_of_the_gateway(
    broker: str, folder: Path, publisher: Publisher, uid: str
) -> None:
    gateway = GatewayProcess(broker, folder)
    gateway.start()
    process = tail(gateway, "--uuid", uid)
    try:
        publisher.send(received(uid, "shop.pay"))
        line_with(process, "shop.pay")
        gateway.stop()
        gateway.start()
        publisher.send(received(uid, "shop.pay"), task_event("task-succeeded", uid, result="1"))
        process.communicate(timeout=30)
        assert process.returncode == 0
    finally:
        process.kill()
        process.communicate()
        gateway.stop()
