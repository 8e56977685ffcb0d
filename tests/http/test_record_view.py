"""`view=record`: each event of a known task carries the task's record, at least as new as the event."""

import json
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from tests.support.gateway_process import GatewayProcess
from tests.support.portable_server import PortableServer
from tests.support.publisher import Publisher, received, task_event, walk
from tests.support.rabbitmq import wait_for
from tests.support.transports import KINDS, Message, messages

Server = GatewayProcess | PortableServer
RANKS = {"RECEIVED": 1, "STARTED": 2, "PROGRESS": 2, "SUCCESS": 3}
SMALL_TABLE = 2


def started(broker: str, folder: Path, *options: str) -> Iterator[GatewayProcess]:
    process = GatewayProcess(broker, folder, options=options)
    try:
        process.start()
        yield process
    finally:
        process.stop()


@pytest.fixture(scope="module")
def gateway(broker: str, folder: Path) -> Iterator[GatewayProcess]:
    yield from started(broker, folder)


@pytest.fixture(scope="module")
def small(broker: str, folder: Path) -> Iterator[GatewayProcess]:
    """A gateway whose table has room for few tasks."""
    yield from started(broker, folder, "--max-tasks", str(SMALL_TABLE))


@pytest.fixture(scope="module")
def portable(broker: str, folder: Path) -> Iterator[PortableServer]:
    server = PortableServer(broker, folder)
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture
def uid() -> str:
    return str(uuid.uuid4())


def item(server: Server, uid: str) -> Message:
    """The record of a task as of `GET /tasks`, without `children`."""
    (found,) = httpx.get(f"{server.url}/tasks", params={"uuid": uid}).json()["tasks"]
    del found["children"]
    return dict(found)


def open_websocket(server: Server, wanted: Message) -> Iterator[Message]:
    """Yield the messages of a stream that is opened on a WebSocket which had another one."""
    with connect(f"{server.url.replace('http', 'ws', 1)}/ws?type=nothing", max_size=None) as websocket:
        while json.loads(websocket.recv(timeout=20))["type"] != "gateway-status":
            pass
        websocket.send(json.dumps({"op": "open"} | wanted))
        while True:
            message = json.loads(websocket.recv(timeout=20))
            if message["type"] not in ("gateway-status", "gateway-bookmark"):
                yield message


def post(server: Server, wanted: Message) -> Iterator[Message]:
    url = f"{server.url}/events?format=ndjson"
    with httpx.stream("POST", url, json=wanted, timeout=20) as response:
        assert response.status_code == 200, response.read()
        for line in response.iter_lines():
            message = json.loads(line)
            if message["type"] not in ("gateway-status", "gateway-bookmark"):
                yield message


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("path", ["gateway", "portable"])
def test_each_event_has_the_record_of_its_task(
    request: pytest.FixtureRequest, publisher: Publisher, uid: str, path: str, kind: str
) -> None:
    server: Server = request.getfixturevalue(path)
    progress = task_event("task-progress", uid, current=1, total=4)
    first, second, last = walk("shop.pay", uid=uid)
    with closing(messages(server, kind, uuid=uid, view="record")) as stream:
        opened = next(stream)
        publisher.send(first, second, progress, last)
        got = [next(stream) for _ in range(4)]
    assert "record" not in opened
    assert [event["state"] for event in got] == ["RECEIVED", "STARTED", "PROGRESS", "SUCCESS"]
    ranks = [RANKS[event["record"]["state"]] for event in got]
    assert all(rank >= RANKS[event["state"]] for rank, event in zip(ranks, got, strict=True))
    assert ranks == sorted(ranks)
    assert got[-1]["record"] == item(server, uid)
    assert {event["record"]["uuid"] for event in got} == {uid}


@pytest.mark.parametrize("ask", [post, open_websocket], ids=["post", "open"])
def test_a_stream_that_is_asked_for_as_json(
    gateway: GatewayProcess, publisher: Publisher, uid: str, ask: Callable[..., Iterator[Message]]
) -> None:
    with closing(ask(gateway, {"any": [{"uuid": uid}], "view": "record"})) as stream:
        next(stream)
        publisher.send(*walk(uid=uid))
        got = [next(stream) for _ in range(3)]
    assert got[-1]["record"] == item(gateway, uid)


def test_without_it_no_event_has_a_record(gateway: GatewayProcess, publisher: Publisher, uid: str) -> None:
    with (
        closing(messages(gateway, "ndjson", uuid=uid)) as by_default,
        closing(messages(gateway, "ndjson", uuid=uid, view="event")) as stated,
        closing(messages(gateway, "ndjson", uuid=uid, view="record")) as other,
    ):
        for stream in (by_default, stated, other):
            next(stream)
        publisher.send(received(uid, "shop.pay"))
        assert ["record" in next(stream) for stream in (by_default, stated, other)] == [False, False, True]


def test_a_snapshot_then_records_that_go_on_from_it(
    gateway: GatewayProcess, publisher: Publisher, uid: str
) -> None:
    first, second, last = walk(uid=uid)
    publisher.send(first)
    wait_for(lambda: httpx.get(f"{gateway.url}/tasks/{uid}").status_code == 200, 10)
    with closing(messages(gateway, "sse", uuid=uid, snapshot="1", view="record")) as stream:
        assert next(stream)["type"] == "gateway-open"
        page = next(stream)
        assert page["type"] == "gateway-snapshot" and page["done"]
        (known,) = page["tasks"]
        publisher.send(second, last)
        got = [next(stream) for _ in range(2)]
    del known["children"]
    assert known["state"] == "RECEIVED"
    assert known.keys() == got[0]["record"].keys()
    assert got[1]["record"] == item(gateway, uid)


@pytest.mark.parametrize("kind", KINDS)
def test_a_resumed_stream_has_the_record_as_it_is_now(
    gateway: GatewayProcess, publisher: Publisher, uid: str, kind: str
) -> None:
    with closing(messages(gateway, kind, uuid=uid)) as stream:
        id = next(stream)["id"]
        publisher.send(*walk(uid=uid))
        assert [next(stream)["state"] for _ in range(3)] == ["RECEIVED", "STARTED", "SUCCESS"]
    with closing(messages(gateway, kind, uuid=uid, view="record", last_event_id=id)) as stream:
        assert next(stream)["resume"] == "resumed"
        got = [next(stream) for _ in range(3)]
    assert [event["state"] for event in got] == ["RECEIVED", "STARTED", "SUCCESS"]
    assert [event["record"] for event in got] == 3 * [item(gateway, uid)]


def test_an_evicted_task_has_no_record(small: GatewayProcess, publisher: Publisher, uid: str) -> None:
    name = f"shop.{uid}"
    with closing(messages(small, "ndjson", name=name)) as stream:
        id = next(stream)["id"]
        for number in range(SMALL_TABLE + 1):
            publisher.send(*walk(name, uid=f"{uid}-{number}"))
        assert len([next(stream) for _ in range(3 * (SMALL_TABLE + 1))]) == 9
    with closing(messages(small, "ndjson", name=name, view="record", last_event_id=id)) as stream:
        next(stream)
        got = [next(stream) for _ in range(9)]
    assert [event["record"] for event in got[:3]] == [None, None, None]
    assert {event["record"]["state"] for event in got[3:]} == {"SUCCESS"}


def test_an_event_that_is_of_no_task(gateway: GatewayProcess, publisher: Publisher, uid: str) -> None:
    worker = {"type": "worker-heartbeat", "hostname": uid, "timestamp": time.time(), "freq": 2.0}
    with closing(messages(gateway, "ndjson", hostname=uid, view="record")) as stream:
        next(stream)
        publisher.send(worker, worker | {"type": "shop-opened", "uuid": uid, "record": 7})
        about_a_worker, of_no_task = next(stream), next(stream)
    assert "record" not in about_a_worker
    assert of_no_task["record"] is None


def test_a_field_of_this_name_that_the_application_has_set_is_replaced(
    gateway: GatewayProcess, publisher: Publisher, uid: str
) -> None:
    own = task_event("task-progress", uid, record={"n": 1}, line="\u2028")
    with closing(messages(gateway, "ndjson", uuid=uid, view="record")) as stream:
        next(stream)
        publisher.send(received(uid, "shop.pay"), own)
        _, event = next(stream), next(stream)
    assert event["record"]["state"] == "PROGRESS"
    assert event["record"]["custom"] == {"record": {"n": 1}, "line": "\u2028"}


@pytest.mark.parametrize("fields", ["state", "state,record"])
def test_fields_select_those_of_the_event_and_of_the_record(
    gateway: GatewayProcess, publisher: Publisher, uid: str, fields: str
) -> None:
    with closing(messages(gateway, "ndjson", uuid=uid, view="record", fields=fields)) as stream:
        next(stream)
        publisher.send(received(uid, "shop.pay"), task_event("task-progress", uid, record=3, progress=0.5))
        got = [next(stream) for _ in range(2)]
    for event in got:
        del event["id"]
    assert got[0]["type"] == "task-received" and got[0]["state"] == "RECEIVED"
    assert got[1] == {
        "type": "task-progress",
        "state": "PROGRESS",
        "record": {"uuid": uid, "state": "PROGRESS"},
    }


def test_a_lost_task(gateway: GatewayProcess, publisher: Publisher, uid: str) -> None:
    now = time.time()

    def event(type: str, at: float, **fields: Any) -> Message:
        common = {"hostname": f"celery@{uid}", "pid": 1, "clock": 1, "utcoffset": 0, "timestamp": now + at}
        return {"type": type, **common, **fields}

    with closing(messages(gateway, "ndjson", uuid=uid, type="task-lost", view="record")) as stream:
        next(stream)
        publisher.send(
            event("worker-online", 0, active=0, processed=0, freq=2.0),
            received(uid, "shop.pay") | event("task-received", 1),
            event("task-started", 2, uuid=uid),
            event("worker-online", 20, active=0, processed=0, freq=2.0),
            event("worker-heartbeat", 22, active=0, processed=0, freq=2.0),
        )
        lost = next(stream)
    record = lost["record"]
    assert (record["state"], record["stale"], record["lost"]) == ("LOST", True, lost["timestamp"])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("limit", [2_000, 4_096, 16_384])
def test_a_long_record_is_truncated(
    gateway: GatewayProcess, publisher: Publisher, uid: str, kind: str, limit: int
) -> None:
    text = "é" * 15_000
    long = task_event("task-succeeded", uid, result=text)
    with closing(
        messages(gateway, kind, uuid=uid, view="record", max_event_bytes=str(limit), type="task-succeeded")
    ) as stream:
        next(stream)
        publisher.send(received(uid, "shop.pay"), long)
        event = next(stream)
    assert len(json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode()) <= limit
    assert event["truncated"] == ["result"]
    record = event["record"]
    assert (record["uuid"], record["state"]) == (uid, "SUCCESS")
    assert "result" in record["truncated"]


def test_a_short_event_leaves_its_room_to_the_record(
    gateway: GatewayProcess, publisher: Publisher, uid: str
) -> None:
    publisher.send(received(uid, "shop.pay"), task_event("task-succeeded", uid, result="x" * 20_000))
    with closing(
        messages(gateway, "ndjson", uuid=uid, view="record", max_event_bytes="16384", type="task-note")
    ) as stream:
        next(stream)
        publisher.send(task_event("task-note", uid))
        event = next(stream)
    assert "truncated" not in event
    assert event["record"]["truncated"] == ["result"]
    assert len(event["record"]["result"]) > 12_000


@pytest.mark.parametrize("value", ["", "records", "event,record"])
def test_another_value_is_refused(gateway: GatewayProcess, value: str) -> None:
    expected = ("bad-value", "view", ["event", "record"])
    asked = (
        httpx.get(f"{gateway.url}/events", params={"view": value}),
        httpx.post(f"{gateway.url}/events", json={"view": value}),
    )
    for answer in asked:
        error = answer.json()["error"]
        assert answer.status_code == 400
        assert (error["code"], error["parameter"], error["allowed"]) == expected
        assert error["message"].startswith(f"invalid view='{value}': the allowed values are 'event' and")
    with (
        pytest.raises(InvalidStatus) as refused,
        connect(f"{gateway.url.replace('http', 'ws')}/ws?view={value}"),
    ):
        pass
    assert refused.value.response.status_code == 400
    with closing(open_websocket(gateway, {"view": value})) as stream:
        error = next(stream)
    assert (error["type"], error["code"], error["parameter"]) == ("gateway-error", "bad-value", "view")


def test_twice_is_refused(gateway: GatewayProcess) -> None:
    answer = httpx.get(f"{gateway.url}/events?view=record&view=record")
    assert (answer.status_code, answer.json()["error"]["parameter"]) == (400, "view")
