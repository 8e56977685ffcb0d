"""Streams that end when what they wait for is ready, on every transport, and `tail --until` for scripts."""

import json
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from http.client import HTTPResponse
from pathlib import Path

import httpx
import pytest

from tests.gateway_process import ROOT, GatewayProcess
from tests.portable_server import PortableServer
from tests.publisher import Publisher, received, task_event, walk
from tests.stream_client import NdjsonStream
from tests.transports import KINDS, Message, Server, messages


@pytest.fixture(scope="module", params=["direct", "portable"])
def server(request: pytest.FixtureRequest, broker: str, folder: Path) -> Iterator[Server]:
    server = (GatewayProcess if request.param == "direct" else PortableServer)(broker, folder)
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture
def uid() -> str:
    return str(uuid.uuid4())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("final", "fields", "state"),
    [
        ("task-succeeded", {"result": "1", "runtime": 0.1}, "SUCCESS"),
        ("task-failed", {"exception": "Oops()", "traceback": "…"}, "FAILURE"),
        ("task-revoked", {"terminated": False, "signum": None, "expired": False}, "REVOKED"),
    ],
)
def test_it_ends_right_after_the_event_with_which_the_task_is_ready(
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
    rest = list(stream)
    assert rest == ([{"type": "closed", "code": 1000, "reason": "ready"}] if kind == "websocket" else [])


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_ready_already_is_told_with_a_snapshot_and_ends(
    server: Server, publisher: Publisher, uid: str, kind: str
) -> None:
    with NdjsonStream(server.url, {"uuid": uid}) as client:
        publisher.send(walk(uid=uid))
        client.until(lambda seen: len(seen) == 3)
    got = [message for message in messages(server, kind, until="ready", uuid=uid, snapshot="1")]
    assert [message["type"] for message in got[:3]] == ["gateway-open", "gateway-snapshot", "gateway-close"]
    assert [task["state"] for task in got[1]["tasks"]] == ["SUCCESS"]


def test_who_comes_back_to_a_stream_that_has_ended_gets_204(
    server: Server, publisher: Publisher, uid: str
) -> None:
    with NdjsonStream(server.url, {"uuid": uid, "until": "ready"}) as client:
        publisher.send(walk(uid=uid))
        assert client.closed()
        assert client.last_event_id is not None
        seen = client.events
    assert [message["type"] for message in seen][-1] == "gateway-close"
    publisher.send(walk())  # life goes on, for others
    asked = {"uuid": uid, "until": "ready"}
    again = httpx.get(f"{server.url}/events", params=asked, headers={"Last-Event-ID": client.last_event_id})
    assert (again.status_code, again.content) == (204, b"")
    # One that has not seen the end gets the rest of it.
    for missed in (1, 2):
        rest = list(messages(server, "ndjson", **asked, last_event_id=seen[-2 - missed]["id"]))
        assert [message["type"] for message in rest[1:]] == [
            message["type"] for message in seen[-1 - missed :]
        ]


@pytest.mark.parametrize("kind", KINDS)
def test_a_workflow_is_ready_when_all_that_is_known_of_it_is_for_two_seconds(
    server: Server, publisher: Publisher, uid: str, kind: str
) -> None:
    stream = messages(server, kind, until="ready", root_id=uid)
    next(stream)
    publisher.send(walk("first", uid, uid))
    assert [next(stream)["name"] for _ in range(3)] == ["first"] * 3
    time.sleep(1)  # the next task of a chain comes a little later
    second = str(uuid.uuid4())
    publisher.send(received(second, "second", uid))
    assert next(stream)["name"] == "second"
    time.sleep(2.5)  # and takes its time
    began = time.monotonic()
    publisher.send(task_event("task-started", second), task_event("task-succeeded", second, result="1"))
    assert [next(stream)["name"] for _ in range(2)] == ["second"] * 2
    assert next(stream)["reason"] == "ready"
    assert time.monotonic() - began >= 1.9
    stream.close()


def test_a_task_that_is_not_known_yet_is_waited_for(server: Server, publisher: Publisher, uid: str) -> None:
    stream = messages(server, "ndjson", until="ready", uuid=uid, snapshot="1")
    assert next(stream)["type"] == "gateway-open"
    assert next(stream)["tasks"] == []
    publisher.send(walk(uid=uid))
    assert [message["type"] for message in stream][-1] == "gateway-close"


def test_a_slow_reader_gets_all_of_a_big_workflow_before_the_end(
    server: Server, publisher: Publisher, uid: str
) -> None:
    if isinstance(server, PortableServer):
        pytest.skip("its slow-timeout is two seconds")
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
        query = f"format=ndjson&snapshot=1&until=ready&root_id={uid}"
        reader.sendall(f"GET {prefix}/events?{query} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        time.sleep(3)  # longer than a workflow has to be quiet
        with HTTPResponse(reader) as response:
            response.begin()
            data = response.read()
    assert {each for each in tasks if b'"uuid":"%b"' % each.encode() in data} == set(tasks)
    assert data.index(b'"done":true') < data.index(b'"reason":"ready"')


@pytest.mark.parametrize(
    "query",
    ["until=ready", "until=done&uuid=1", "until=ready&uuid=a*", "until=ready&uuid=1,2", "until=ready&uuid=!1"]
    + ["until=ready&uuid=1&uuid=2", "until=ready&name=x", "until=ready&until=ready&uuid=1"],
)
def test_an_end_that_cannot_be_waited_for_is_refused(server: Server, query: str) -> None:
    answer = httpx.get(f"{server.url}/events?{query}")
    assert answer.status_code == 400
    assert answer.json()["error"]["parameter"] == "until"


def tail(server: Server, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "gateway", "tail", server.url, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )


@pytest.mark.parametrize(("final", "code"), [("task-succeeded", 0), ("task-failed", 1), ("task-revoked", 1)])
def test_a_script_can_wait_for_a_task(
    server: Server, publisher: Publisher, uid: str, final: str, code: int
) -> None:
    publisher.send(received(uid, "shop.pay"))
    with tail(server, "--until", "ready", "--uuid", uid) as process:
        try:
            assert process.stdout is not None
            assert "is RECEIVED" in process.stdout.readline()
            publisher.send(task_event(final, uid))
            out, _ = process.communicate(timeout=20)
            assert process.returncode == code
            assert final in out
        finally:
            process.kill()


def test_a_script_learns_of_a_task_that_has_ended_before(
    server: Server, publisher: Publisher, uid: str
) -> None:
    for number, (final, code) in enumerate([("task-succeeded", 0), ("task-failed", 1)]):
        with NdjsonStream(server.url, {"uuid": f"{uid}-{number}"}) as client:
            publisher.send(received(f"{uid}-{number}", "shop.pay"), task_event(final, f"{uid}-{number}"))
            client.until(lambda seen: len(seen) == 2)
        with tail(
            server, "--until", "ready", "--uuid", f"{uid}-{number}", "--json", "--fields", "name"
        ) as process:
            try:
                out, _ = process.communicate(timeout=20)
                assert process.returncode == code
                assert json.loads(out.splitlines()[1])["tasks"][0]["name"] == "shop.pay"
            finally:
                process.kill()


def test_a_script_waits_through_a_restart_of_the_gateway(
    broker: str, folder: Path, publisher: Publisher, uid: str
) -> None:
    gateway = GatewayProcess(broker, folder)
    gateway.start()
    process = tail(gateway, "--until", "ready", "--uuid", uid)
    try:
        assert process.stdout is not None
        publisher.send(received(uid, "shop.pay"))
        assert "shop.pay" in process.stdout.readline()
        gateway.stop()
        gateway.start()
        publisher.send(received(uid, "shop.pay"), task_event("task-succeeded", uid, result="1"))
        process.communicate(timeout=30)
        assert process.returncode == 0
    finally:
        process.kill()
        process.communicate()
        gateway.stop()
