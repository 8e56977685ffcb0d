"""Large events: truncated on every stream, complete at `GET /events/{id}`."""

import json
import socket
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.sync.client import connect

from tests.support.gateway_process import GatewayProcess
from tests.support.portable_server import PortableServer
from tests.support.publisher import Publisher, received, task_event
from tests.support.rabbitmq import wait_for
from tests.support.transports import KINDS, messages

LIMIT = 500_000


@pytest.fixture(scope="module", params=["direct", "portable"])
def gateway(
    request: pytest.FixtureRequest, broker: str, folder: Path
) -> Iterator[GatewayProcess | PortableServer]:
    server = (GatewayProcess if request.param == "direct" else PortableServer)(broker, folder)
    try:
        server.start()
        yield server
    finally:
        server.stop()


def large(mark: str, size: int, **more: Any) -> dict[str, Any]:
    return {"type": mark, "uuid": mark, "small": "s", "text": "é" * (size // 2)} | more


@pytest.mark.parametrize("kind", KINDS)
def test_a_large_event_is_truncated_on_streams_and_complete_by_id(
    publisher: Publisher, gateway: GatewayProcess, kind: str
) -> None:
    mark = f"large-{uuid.uuid4().hex}"
    stream = messages(gateway, kind, type=mark)
    opened = next(stream)
    publisher.send(large(mark, 10, n=1), large(mark, 2_000_000, n=2), large(mark, 10, n=3))
    got = [next(stream) for _ in range(3)]
    assert [event["n"] for event in got] == [1, 2, 3]
    assert ["truncated" in event for event in got] == [False, True, False]
    assert got[1]["truncated"] == ["text"] and got[1]["small"] == "s"
    assert 0.9 * LIMIT < len(json.dumps(got[1], ensure_ascii=False).encode()) <= LIMIT * 1.01
    whole = httpx.get(f"{gateway.url}/events/{got[1]['id']}")
    assert whole.status_code == 200
    cut = {key: value for key, value in got[1].items() if key != "truncated"}
    assert whole.json() == cut | {"text": "é" * 1_000_000}
    assert httpx.get(f"{gateway.url}/events/{got[0]['id']}").json() == got[0]
    stream.close()
    again = messages(gateway, kind, type=mark, last_event_id=opened["id"])
    assert [next(again).get("n") for _ in range(4)] == [None, 1, 2, 3], "the same ids, in the same order"
    again.close()


def test_a_truncated_event_fits_the_limits_of_readers(publisher: Publisher, gateway: GatewayProcess) -> None:
    """`websockets` accepts messages up to 1 MiB by default, many readers lines up to 64 KiB."""
    mark = f"large-{uuid.uuid4().hex}"
    with connect(f"{gateway.url.replace('http', 'ws')}/ws?type={mark}") as by_default:
        by_default.recv(), by_default.recv()
        with connect(
            f"{gateway.url.replace('http', 'ws')}/ws?type={mark}&max_event_bytes=60000", max_size=1 << 16
        ) as small:
            small.recv(), small.recv()
            publisher.send(large(mark, 2_000_000, n=1), large(mark, 100_000, n=2), large(mark, 10, n=3))
            for socket in (by_default, small):
                assert [json.loads(socket.recv(timeout=20))["n"] for _ in range(3)] == [1, 2, 3]


def test_large_tasks_are_truncated_in_a_snapshot(publisher: Publisher, gateway: GatewayProcess) -> None:
    uid = str(uuid.uuid4())
    publisher.send(received(uid, "shop.big"), task_event("task-succeeded", uid, result="r" * 30_000))
    wait_for(lambda: httpx.get(f"{gateway.url}/tasks/{uid}").json().get("state") == "SUCCESS", 20)
    with connect(
        f"{gateway.url.replace('http', 'ws')}/ws?uuid={uid}&snapshot=1&max_event_bytes=9000"
    ) as websocket:
        pages = [json.loads(websocket.recv(timeout=20)) for _ in range(3)]
    (task,) = [task for page in pages for task in page.get("tasks", ())]
    assert task["truncated"] == ["result"] and len(task["result"]) < 9_000
    assert len(httpx.get(f"{gateway.url}/tasks/{uid}").json()["result"]) == 30_000


def test_pages_of_a_snapshot_respect_the_limit_of_the_client(
    publisher: Publisher, gateway: GatewayProcess
) -> None:
    name = f"shop.{uuid.uuid4().hex}"
    publisher.send([received(f"{name}-{number}", name) | {"args": "a" * 900} for number in range(40)])
    wait_for(lambda: len(httpx.get(f"{gateway.url}/tasks?name={name}").json()["tasks"]) == 40, 20)
    for format in ("ndjson", "sse"):
        query = {"name": name, "snapshot": "1", "max_event_bytes": "8192", "format": format}
        found = 0
        with httpx.stream("GET", f"{gateway.url}/events", params=query, timeout=20) as response:
            for line in response.iter_lines():
                assert len(line) <= 8192
                if "gateway-snapshot" in line and line.startswith(("{", "data: {")):
                    page = json.loads(line.removeprefix("data: "))
                    found += len(page["tasks"])
                    if page["done"]:
                        break
        assert found == 40


@pytest.mark.parametrize(
    ("id", "code"),
    [("nothing", "event-unknown"), ("{epoch}-99999999", "event-unknown"), ("{epoch}-0", "event-unknown")],
)
def test_an_unknown_event_id_gets_404(gateway: GatewayProcess, id: str, code: str) -> None:
    opened = next(messages(gateway, "ndjson"))
    answer = httpx.get(f"{gateway.url}/events/{id.format(epoch=opened['id'].partition('-')[0])}")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, code)


@pytest.mark.parametrize("value", ["0", "-5", "1999", "x", "1e9"])
def test_an_invalid_max_event_bytes_gets_400(gateway: GatewayProcess, value: str) -> None:
    answer = httpx.get(f"{gateway.url}/events", params={"max_event_bytes": value})
    assert (answer.status_code, answer.json()["error"]["parameter"]) == (400, "max_event_bytes")


def test_an_evicted_event_gets_404_with_the_reason(publisher: Publisher, broker: str, folder: Path) -> None:
    gateway = GatewayProcess(broker, folder, options=["--history-bytes", "100000", "--max-event-bytes", "0"])
    try:
        gateway.start()
        mark = f"large-{uuid.uuid4().hex}"
        stream = messages(gateway, "ndjson", type=mark)
        next(stream)
        publisher.send(large(mark, 10, n=1), large(mark, 700_000, n=2))
        first, second = next(stream), next(stream)
        assert "truncated" not in second, "0: no limit"
        answer = httpx.get(f"{gateway.url}/events/{first['id']}")
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "event-evicted")
    finally:
        gateway.stop()


def test_http_1_0_gets_no_chunked_coding(publisher: Publisher, gateway: GatewayProcess) -> None:
    mark = f"old-{uuid.uuid4().hex}"
    if isinstance(gateway, PortableServer):
        pytest.skip("the server decides there")
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=10) as connection:
        connection.sendall(f"GET /events?type={mark}&format=ndjson HTTP/1.0\r\n\r\n".encode())
        lines = connection.makefile("rb")
        head = iter(lambda: lines.readline().strip().lower(), b"")
        assert next(head).startswith(b"http/1.1 200")
        headers = list(head)
        assert b"connection: close" in headers
        names = [header.partition(b":")[0] for header in headers]
        assert not {b"transfer-encoding", b"content-length"}.intersection(names)
        assert json.loads(lines.readline())["type"] == "gateway-open"
        assert json.loads(lines.readline())["type"] == "gateway-status"
        publisher.send({"type": mark, "n": 1})
        assert json.loads(lines.readline())["n"] == 1
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=10) as connection:
        connection.sendall(b"GET /workers HTTP/1.0\r\n\r\n")
        answer = b"".join(iter(lambda: connection.recv(65_536), b""))
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["workers"] is not None
