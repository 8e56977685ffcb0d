"""Requests for streams as JSON: by POST, and by `open` on a WebSocket.

What a client relies on when it comes to watch more while it goes on: of what it watched before it misses
nothing and gets nothing twice, and of the new it has a snapshot at its place among the events.
"""

import asyncio
import json
import random
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from functools import partial
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.requests import HTTPConnection as HTTPRequest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from celery_gateway.errors import BadRequest
from celery_gateway.events.filter import Filter
from celery_gateway.http.query_json import PARAMETERS, json_query
from celery_gateway.http.query_params import stream_query
from celery_gateway.state.task_table import TaskTable
from celery_gateway.stream.framing import FORMATS
from celery_gateway.stream.hub import Hub
from celery_gateway.stream.snapshot import Snapshots
from tests.support.attacks import Meter
from tests.support.cpu_time import scaled
from tests.support.gateway_process import GatewayProcess
from tests.support.load import Load, position, states
from tests.support.portable_server import PortableServer
from tests.support.publisher import Publisher, received, task_event
from tests.support.rabbitmq import wait_for
from tests.support.transports import NOISE, Message, Server, messages

KINDS = ["sse", "ndjson", "websocket"]


class Requester:
    """A client that requests one stream after the other: by POST, or on a single WebSocket."""

    def __init__(self, server: Server, kind: str) -> None:
        self._server = server
        self._kind = kind
        self._open = ExitStack()
        if kind == "websocket":
            url = server.url.replace("http", "ws", 1)
            self._websocket = self._open.enter_context(connect(f"{url}/ws?type=nothing", max_size=None))

    def __enter__(self) -> "Requester":
        return self

    def __exit__(self, *exception: object) -> None:
        self._open.close()

    def ask(self, wanted: Message) -> Iterator[Message]:
        """Return the messages of a stream from its gateway-open on, without keep-alives and status."""
        if self._kind == "websocket":
            return self._ask_websocket(wanted)
        return self._ask_http(wanted)

    def _ask_websocket(self, wanted: Message) -> Iterator[Message]:
        before = [self._websocket.recv(timeout=30)] if not hasattr(self, "_begun") else []
        assert all(json.loads(text)["type"] == "gateway-open" for text in before)
        self._begun = True
        self._websocket.send(json.dumps({"op": "open"} | wanted))
        is_open = False
        while True:
            message = json.loads(self._websocket.recv(timeout=30))
            is_open = is_open or message["type"] == "gateway-open"
            if is_open and message["type"] not in NOISE:
                yield message

    def _ask_http(self, wanted: Message) -> Iterator[Message]:
        with closing(HTTPConnection("127.0.0.1", self._server.port, timeout=30)) as connection:
            path = self._server.url.partition(f":{self._server.port}")[2]
            connection.request("POST", f"{path}/events?format={self._kind}", json.dumps(wanted))
            response = connection.getresponse()
            assert response.status == 200, response.read()
            for line in response:
                if self._kind == "ndjson" or line.startswith(b"data: "):
                    message = json.loads(line.removeprefix(b"data: "))
                    if message["type"] not in NOISE:
                        yield message


@pytest.fixture(scope="module", params=["direct", "portable"])
def server(request: pytest.FixtureRequest, broker: str, folder: Path) -> Iterator[Server]:
    server: Server
    if request.param == "direct":
        server = GatewayProcess(broker, folder, options=["--keepalive", "0.5", "--allow-origin", "*"])
    else:
        server = PortableServer(broker, folder)
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture
def gateway(broker: str, folder: Path) -> Iterator[GatewayProcess]:
    """A gateway for this test only, under its own server."""
    process = GatewayProcess(broker, folder, options=["--keepalive", "0.3", "--allow-origin", "*"])
    try:
        process.start()
        yield process
    finally:
        process.stop()


def until_done(stream: Iterator[Message]) -> tuple[list[Message], list[Message], Message]:
    """Return the events before the end of a snapshot, its tasks in order, and its last page."""
    events: list[Message] = []
    tasks: list[Message] = []
    for message in stream:
        if message["type"] == "gateway-snapshot":
            tasks += message["tasks"]
            if message["done"]:
                return events, tasks, message
        elif not message["type"].startswith("gateway-"):
            events.append(message)
    raise AssertionError("the stream ended amid a snapshot")


@pytest.mark.parametrize("kind", KINDS)
def test_adding_a_filter_loses_nothing_and_gets_a_snapshot(server: Server, kind: str, broker: str) -> None:
    """Six changes under load; the events of the first filter are compared with the history."""
    seed = random.Random(kind).randrange(1_000_000)
    choice = random.Random(seed)
    load = Load(broker, events_per_second=600, seed=seed)
    load.start()
    try:
        with Requester(server, kind) as client:
            old: list[Message] = []
            last_id, first_id = None, None
            new_filter: list[dict[str, list[str]]] = []
            for name in ["a.two", "b.one"] * 3:
                wanted = {"any": [{"name": ["a.one"]}, *new_filter], "snapshot": new_filter}
                stream = client.ask(wanted | ({"last_event_id": last_id} if last_id else {}))
                opened = next(stream)
                assert opened["resume"] == ("resumed" if last_id else "live")
                before, tasks, page = until_done(stream)
                assert last_id is not None or not before, "a stream that begins live begins with its snapshot"
                first_id = first_id or page["id"]
                rebuilt = {task["uuid"]: task["state"] for task in tasks}
                assert all(task["name"] in [n for f in new_filter for n in f["name"]] for task in tasks)
                after = [next(stream) for _ in range(choice.randrange(1, 150))]
                last_id = after[-1]["id"]
                if kind == "websocket":  # what comes meanwhile is the old stream's, and comes again
                    assert next(stream)
                else:
                    stream.close()  # type: ignore[attr-defined]
                ids = [position(event) for event in before]
                assert ids == sorted(ids) and all(id <= position(page) for id in ids)
                assert all(position(event) > position(page) for event in after)
                old += [event for event in before + after if event["name"] == "a.one"]
                if new_filter:
                    # As of the snapshot: what the whole history up to there says of each task that is in it.
                    new = new_filter[0]["name"][0]
                    known = states(history(server, page["id"], new))
                    assert rebuilt == known
                new_filter = [{"name": [name]}]
        everything = history(server, last_id, "a.one")
        start = position({"id": first_id})
        expected = [event["id"] for event in everything if position(event) > start]
        assert [event["id"] for event in old] == expected
        assert len(expected) > 100
    finally:
        load.end()


def history(server: Server, up_to: str, name: str) -> list[Message]:
    """Return all events of a name up to a position, from the gateway's history."""
    found: list[Message] = []
    end = position({"id": up_to})
    with closing(messages(server, "ndjson", {"since": "earliest"})) as stream:  # type: ignore[type-var]
        for message in stream:
            if message["type"].startswith("gateway-"):
                assert message["type"] != "gateway-gap"
            elif position(message) > end:
                return found
            elif message.get("name") == name:
                found.append(message)
                if position(message) == end:
                    return found
    raise AssertionError("the log ended before the position")


@pytest.mark.parametrize("kind", KINDS)
def test_a_snapshot_of_nothing_and_a_stream_of_nothing(server: Server, kind: str) -> None:
    with Requester(server, kind) as client:
        stream = client.ask({"any": [], "snapshot": []})
        assert next(stream)["resume"] == "live"
        page = next(stream)
        assert (page["type"], page["tasks"], page["done"]) == ("gateway-snapshot", [], True)
        resumed = client.ask({"any": [], "snapshot": [], "last_event_id": page["id"]})
        assert next(resumed)["resume"] == "resumed"
        assert next(resumed)["done"] is True


@pytest.mark.parametrize("kind", KINDS)
def test_a_body_has_all_abilities_of_a_query(server: Server, kind: str, publisher: Publisher) -> None:
    mark = uuid.uuid4().hex
    with Requester(server, kind) as client:
        stream = client.ask({"any": [{"name": f"{mark}.*", "state": ["!RECEIVED"]}], "fields": ["state"]})
        opened = next(stream)
        for name in (f"{mark}.a", f"{mark}.b"):
            uid = str(uuid.uuid4())
            publisher.send(received(uid, name))
            publisher.send(task_event("task-started", uid))
        both = [next(stream), next(stream)]
        assert [set(event) for event in both] == [{"id", "type", "state"}] * 2
        stream = client.ask(
            {"any": [{"name": [f"{mark}.b"]}], "last_event_id": opened["id"], "fields": "name"}
        )
        assert next(stream)["resume"] == "resumed"
        assert [next(stream)["type"] for _ in range(2)] == ["task-received", "task-started"]
        stream = client.ask({"any": [{"name": [f"{mark}.*"]}], "since": "earliest"})
        assert next(stream)["type"] == "gateway-open"
        assert [next(stream)["name"] for _ in range(4)] == [f"{mark}.a"] * 2 + [f"{mark}.b"] * 2
        stream = client.ask({"any": [{"name": [f"{mark}.*"]}], "snapshot": True})
        assert next(stream)["type"] == "gateway-open"
        _, tasks, _ = until_done(stream)
        assert sorted(task["name"] for task in tasks) == [f"{mark}.a", f"{mark}.b"]
        stream = client.ask({"any": [{"name": ["x"]}], "last_event_id": "no-such-log-1", "snapshot": []})
        assert next(stream)["resume"] == "reset"
        assert next(stream)["reason"] == "unknown-id"
        assert next(stream)["done"] is True


WRONG: list[tuple[Any, str]] = [
    ({"nmae": []}, "nmae"),
    ({"any": {}}, "any"),
    ({"any": None}, "any"),
    ({"snapshot": None}, "snapshot"),
    ({"fields": None}, "fields"),
    ({"any": ["x"]}, "any"),
    ({"any": [{"nmae": ["x"]}]}, "nmae"),
    ({"any": [{"name": [5]}]}, "name"),
    ({"any": [{"name": [""]}]}, "name"),
    ({"any": [{}] * 101}, "any"),
    ({"any": [{"name": [f"{n}*" for n in range(60)]}, {"state": [f"{n}*" for n in range(60)]}]}, "any"),
    ({"any": [{"uuid": [str(n) for n in range(600)]}, {"root_id": [str(n) for n in range(600)]}]}, "any"),
    ({"snapshot": "yes"}, "snapshot"),
    ({"snapshot": [{"nmae": ["x"]}]}, "nmae"),
    ({"snapshot": [], "since": "10m"}, "snapshot"),
    ({"since": "yesterday"}, "since"),
    ({"since": 10}, "since"),
    ({"last_event_id": 5}, "last_event_id"),
    ({"fields": []}, "fields"),
    ({"fields": [""]}, "fields"),
    ({"fields": {"a": 1}}, "fields"),
    ({"until": "ready"}, "until"),
]


@pytest.mark.parametrize(("wanted", "parameter"), WRONG)
def test_an_invalid_request_gets_an_error_and_the_stream_continues(
    server: Server, wanted: Message, parameter: str, publisher: Publisher
) -> None:
    answer = httpx.post(f"{server.url}/events", json=wanted)
    assert (answer.status_code, answer.json()["error"]["parameter"]) == (400, parameter)
    mark = uuid.uuid4().hex
    with connect(f"{server.url.replace('http', 'ws', 1)}/ws?name={mark}") as websocket:
        websocket.send(json.dumps({"op": "open"} | wanted))
        said: list[Message] = []
        while len(said) < 3:
            message = json.loads(websocket.recv(timeout=10))
            said += [message] if message["type"] != "gateway-bookmark" else []
        assert [message["type"] for message in said] == ["gateway-open", "gateway-status", "gateway-error"]
        assert said[2]["parameter"] == parameter
        publisher.send(received(str(uuid.uuid4()), mark))
        while (message := json.loads(websocket.recv(timeout=10)))["type"] == "gateway-bookmark":
            pass
        assert message["name"] == mark


@pytest.mark.parametrize(
    ("body", "query", "parameter"),
    [
        (b"{", "", "body"),
        (b"[]", "", "body"),
        (b"\xff", "", "body"),
        (b"[" * 100_000, "", "body"),
        (b" " * (257 << 10), "", "body"),
        (b"{}", "?name=x", "name"),
        (b"{}", "?format=xml", "format"),
    ],
)
def test_an_invalid_body_gets_400(server: Server, body: bytes, query: str, parameter: str) -> None:
    answer = httpx.post(f"{server.url}/events{query}", content=body)
    assert (answer.status_code, answer.json()["error"]["parameter"]) == (400, parameter)


def test_an_empty_body_matches_every_event(server: Server, publisher: Publisher) -> None:
    with httpx.stream("POST", f"{server.url}/events", timeout=10) as response:
        lines = response.iter_lines()
        assert next(lines) == "event: gateway-open"
        mark = uuid.uuid4().hex
        publisher.send(received(str(uuid.uuid4()), mark))
        assert any(f'"name":"{mark}"' in line for line in lines)


def test_keepalives_are_named_events_with_data(gateway: GatewayProcess) -> None:
    """Some parsers ignore an id without data; others pass it on as an empty message."""
    seen: dict[str, list[str]] = {}
    for method in ("POST", "GET"):
        query = {"json": {"any": []}} if method == "POST" else {"params": {"name": "nothing"}}
        with httpx.stream(method, f"{gateway.url}/events", timeout=10, **query) as response:  # type: ignore[arg-type]
            lines = response.iter_lines()
            for line in lines:  # each message ends with an empty line
                if line == "event: gateway-status":
                    break
            seen[method] = [next(lines) for _ in range(7)][3:]
    for lines in seen.values():
        assert lines[0] == "event: gateway-bookmark"
        assert json.loads(lines[2].removeprefix("data: "))["type"] == "gateway-bookmark"


def test_a_page_of_an_allowed_origin_may_post(gateway: GatewayProcess) -> None:
    headers = {
        "Origin": "https://shop.example",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type",
    }
    answer = httpx.options(f"{gateway.url}/events", headers=headers)
    assert answer.status_code == 204
    assert "POST" in answer.headers["access-control-allow-methods"]
    allowed = answer.headers["access-control-allow-headers"].lower()
    assert "authorization" in allowed and "content-type" in allowed


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("path", ["/events", "/tasks", "/workers", "/tasks/x", "/workflows/x"])
def test_access_token_is_accepted_and_unused(server: Server, path: str, method: str) -> None:
    with httpx.stream(method, f"{server.url}{path}", params={"access_token": "x"}, timeout=10) as response:
        is_known = method == "GET" or path == "/events"
        assert response.status_code == (405 if not is_known else 404 if path.endswith("/x") else 200)


def test_a_websocket_accepts_a_token(server: Server) -> None:
    with connect(f"{server.url.replace('http', 'ws', 1)}/ws?access_token=x") as websocket:
        assert json.loads(websocket.recv(timeout=10))["type"] == "gateway-open"


def test_the_header_overrides_the_body(server: Server, publisher: Publisher) -> None:
    """So libraries that reconnect with a header resume a stream requested by POST."""
    mark = uuid.uuid4().hex
    wanted = {"any": [{"name": mark}], "last_event_id": "no-such-log-1"}
    with httpx.stream("POST", f"{server.url}/events?format=ndjson", json={"any": []}, timeout=10) as response:
        id = json.loads(next(response.iter_lines()))["id"]
    publisher.send(received(str(uuid.uuid4()), mark))
    headers = {"Last-Event-ID": id}
    url = f"{server.url}/events?format=ndjson"
    with httpx.stream("POST", url, json=wanted, headers=headers, timeout=10) as response:
        lines = response.iter_lines()
        assert json.loads(next(lines))["resume"] == "resumed"
        assert json.loads(next(lines))["type"] == "gateway-status"
        assert json.loads(next(lines))["name"] == mark


def test_null_means_omitted_for_narrow_parameters() -> None:
    names = (
        *(
            "last_event_id",
            "max_event_bytes",
            "max_rate",
            "quiet_time",
            "since",
            "statistics",
            "until",
            "view",
        ),
        *("window", "workers"),
    )
    assert json_query(dict.fromkeys(names), "sse") == json_query({}, "sse")
    assert {*names, "any", "snapshot", "fields"} == set(PARAMETERS)


@pytest.mark.parametrize("name", ["any", "snapshot", "fields"])
def test_null_is_rejected_where_omitting_means_everything(name: str) -> None:
    with pytest.raises(BadRequest, match=f"invalid {name}=null: it must be .*; or leave it out") as refused:
        json_query({name: None}, "ndjson")
    assert (refused.value.code, refused.value.parameter) == ("bad-value", name)


@pytest.mark.parametrize("name", ["any", "snapshot"])
@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (5, "it is a number; it must be a list of at most 100 objects"),
        ("x", "it is a string; it must be a list"),
        ({"name": ["x"]}, "it is an object; it must be a list"),
        ([None], "the list contains null; it must contain only objects"),
        ([[]], "the list contains a list; it must contain only objects"),
        ([{"name": ["x"]}, None], "the list contains null; it must contain only objects"),
        ([{"name": None}], 'invalid "name": it is null; it must be a list of strings'),
        ([{"name": {"a": 1}}], 'invalid "name": it is an object; it must be a list of strings'),
        ([{"name": []}], 'invalid "name": the list is empty; leave "name" out instead'),
        ([{"name": ["x", None]}], 'invalid "name": the list contains null; it must contain only strings'),
        ([{"name": ["x", ["y"]]}], 'invalid "name": the list contains a list; it must contain only strings'),
        (
            [{"name": ["x", True]}],
            'invalid "name": the list contains a boolean; it must contain only strings',
        ),
        ([{}] * 101, "it is a list of 101; it must be a list of at most 100 objects"),
        ([{"name": ["x"] * 501}, {"uuid": ["x"] * 500}], "it has 1001 values; at most 1000 are allowed"),
    ],
)
def test_an_invalid_filter_is_rejected_with_the_reason(name: str, value: Any, problem: str) -> None:
    with pytest.raises(BadRequest) as refused:
        json_query({name: value}, "ndjson")
    assert problem in str(refused.value)


def nested(depth: int) -> Any:
    value: Any = "x"
    for _ in range(depth):
        value = [value]
    return value


HUGE: dict[str, Message] = {
    "globs": {"any": [{"name": [f"*{n}i{k}" + "*a" * 6 for n in range(100)]} for k in range(100)]},
    "values": {"any": [{"uuid": ["x"] * 80_000}]},
    "values in all alternatives": {"any": [{"uuid": ["x"] * 800}] * 100},
    "nulls": {"any": [None] * 50_000},
    "null values": {"any": [{"uuid": [None] * 50_000}]},
    "alternatives": {"any": [{}] * 80_000},
    "commas": {"fields": ["," * 200_000]},
    "fields": {"fields": ["a"] * 60_000},
    "long fields": {"fields": ["a" * 100_000, "b" * 100_000]},
    "a long field": {"any": [{"x" * 200_000: ["a"]}]},
    "a long name": {"x" * 200_000: 1},
    "a long value": {"any": [{"name": ["x" * 200_000]}]},
    "a long type": {"any": [{"type": ["task " * 40_000]}]},
    "a long text": {"until": "x" * 200_000},
    "a long time": {"since": "1" * 200_000},
    "a long number": {"max_event_bytes": "1" * 200_000},
    "nested": {"any": nested(900)},
    "nested values": {"any": [{"name": nested(900)}]},
    "a nested number": {"max_event_bytes": nested(900)},
    "a large number": {"max_event_bytes": -(10**4_000)},
}


@pytest.mark.parametrize("wanted", HUGE.values(), ids=HUGE.keys())
def test_an_oversized_request_is_rejected_in_little_cpu_time(wanted: Message) -> None:
    took_seconds = []
    for _ in range(3):
        started = time.process_time()
        with pytest.raises(BadRequest) as refused:
            json_query(wanted, "ndjson")
        took_seconds.append(time.process_time() - started)
    assert min(took_seconds) < scaled(0.02)
    assert len(str(refused.value)) < 1_000
    assert len(refused.value.parameter) <= 100


LONG_QUERIES = {
    "parameters": ("name=a&" * 10_000, "query"),
    "separators": ("&" * 60_000, "query"),
    "commas": ("name=" + "a," * 30_000, "name"),
    "encoded commas": ("name=" + "a%2C" * 15_000, "name"),
    "fields": ("fields=" + "," * 60_000, "fields"),
    "a long parameter": ("x" * 60_000 + "=1", "x" * 100),
    "a long value": ("since=" + "x" * 60_000, "since"),
    "a long format": ("format=" + "x" * 60_000, "format"),
}


@pytest.mark.parametrize(("query", "parameter"), LONG_QUERIES.values(), ids=LONG_QUERIES.keys())
def test_an_oversized_query_is_rejected_in_little_cpu_time(query: str, parameter: str) -> None:
    scope = {"type": "http", "query_string": query.encode(), "headers": []}
    took_seconds = []
    for _ in range(3):
        started = time.process_time()
        with pytest.raises(BadRequest) as refused:
            stream_query(HTTPRequest(scope))
        took_seconds.append(time.process_time() - started)
    assert min(took_seconds) < scaled(0.02)
    assert refused.value.parameter == parameter
    assert len(str(refused.value)) < 1_000


def test_as_many_parameters_as_patterns_are_allowed() -> None:
    query = "&".join(f"uuid={number}" for number in range(1_000)) + "&type=task-sent&fields=state"
    with pytest.raises(BadRequest) as refused:
        stream_query(HTTPRequest({"type": "http", "query_string": query.encode(), "headers": []}))
    assert (refused.value.code, refused.value.parameter) == ("too-many-values", "uuid")
    scope = {"type": "http", "query_string": query.replace("&type=task-sent", "").encode(), "headers": []}
    assert stream_query(HTTPRequest(scope)).filter.cost == 1_000


def test_a_null_filter_does_not_change_the_stream(server: Server, publisher: Publisher) -> None:
    mark = uuid.uuid4().hex
    with connect(f"{server.url.replace('http', 'ws', 1)}/ws?name={mark}") as websocket:
        for message in ({"any": None}, {}, {"any": [None]}, {"any": [{"name": None}]}):
            websocket.send(json.dumps({"op": "filter"} | message))
        said: list[Message] = []
        while [message["type"] for message in said].count("gateway-error") < 4:
            said.append(json.loads(websocket.recv(timeout=10)))
        errors = [message["parameter"] for message in said if message["type"] == "gateway-error"]
        assert errors == ["any", "any", "any", "name"]
        publisher.send([received(str(uuid.uuid4()), name) for name in ("other", mark)])
        while said[-1]["type"] != "task-received":
            said.append(json.loads(websocket.recv(timeout=10)))
        assert [message["name"] for message in said if message["type"] == "task-received"] == [mark]


def subscriptions(server: Server) -> float:
    text = httpx.get(f"{server.url}/metrics").text
    return float(text.partition("\ncelery_gateway_subscriptions ")[2].partition("\n")[0])


def rss_bytes(pid: int) -> int:
    text = Path(f"/proc/{pid}/status").read_text()
    return int(text.partition("VmRSS:")[2].split()[0]) << 10


def test_endless_requests_without_reading_take_little_memory(
    broker: str, folder: Path, publisher: Publisher
) -> None:
    """Each `open` requests the whole history again; the gateway sends what fits into the buffer."""
    gateway = GatewayProcess(broker, folder, options=["--slow-timeout", "1", "--keepalive", "0.5"])
    try:
        gateway.start()
        publisher.send([received(str(uuid.uuid4()), "x" * 1000) for _ in range(5000)])
        tasks: Callable[[], list[Any]] = lambda: httpx.get(f"{gateway.url}/tasks?limit=1").json()["tasks"]  # noqa: E731
        assert wait_for(lambda: bool(tasks()), 20)
        before = rss_bytes(gateway.pid)
        with connect(f"{gateway.url.replace('http', 'ws', 1)}/ws?type=nothing") as websocket:
            raw: socket.socket = websocket.socket
            frame = websocket_frame(json.dumps({"op": "open", "since": "earliest", "any": [{}]}).encode())
            raw.settimeout(0.2)
            sent = 0
            try:
                while sent < 20_000:
                    raw.sendall(frame * 100)
                    sent += 100
            except (TimeoutError, OSError):
                pass
            assert sent >= 100
            assert wait_for(lambda: subscriptions(gateway) == 0, 20)
            grown = rss_bytes(gateway.pid) - before
        assert grown < 40 << 20
    finally:
        gateway.stop()


def websocket_frame(payload: bytes) -> bytes:
    """A masked text message, with a mask of zeros (RFC 6455 section 5.2)."""
    assert len(payload) < 126
    return bytes([0x81, 0x80 | len(payload)]) + bytes(4) + payload


def test_a_replaced_stream_sends_nothing_more(gateway: GatewayProcess, broker: str) -> None:
    """Under load: events that wait for a flush are sent once, on the new stream."""
    load = Load(broker, events_per_second=3000, seed=17)
    load.start()
    try:
        with Requester(gateway, "websocket") as client:
            last_id = None
            for _ in range(200):
                stream = client.ask({"snapshot": []} | ({"last_event_id": last_id} if last_id else {}))
                assert next(stream)["resume"] == ("resumed" if last_id else "live")
                before, _, page = until_done(stream)
                ids = [position(event) for event in [*before, next(stream)]]
                expected = range((position({"id": last_id}) if last_id else position(page)) + 1, ids[-1] + 1)
                assert ids == list(expected)
                last_id = page["id"]
    finally:
        load.end()


def test_endless_requests_do_not_delay_others(gateway: GatewayProcess, publisher: Publisher) -> None:
    """A stream that is replaced at once is not started: there are no 20,000 snapshots."""
    publisher.send([received(str(uuid.uuid4()), "flood") for _ in range(10_000)])
    assert wait_for(lambda: bool(httpx.get(f"{gateway.url}/tasks?limit=1&name=flood").json()["tasks"]), 20)
    wanted = {"op": "open", "any": [], "snapshot": [{"name": "*x*"}]}
    frame = websocket_frame(json.dumps(wanted).encode())
    with connect(f"{gateway.url.replace('http', 'ws', 1)}/ws?type=nothing", max_size=None) as websocket:
        websocket.recv(timeout=10)
        raw: socket.socket = websocket.socket

        def write() -> None:
            with suppress(OSError):  # the gateway closes the connection of a client that sends too much
                raw.sendall(frame * 20_000)

        writer = threading.Thread(target=write, daemon=True)
        writer.start()
        opened = 0
        with Meter(gateway) as meter:
            while opened < 20_000:
                try:
                    opened += json.loads(websocket.recv(timeout=30))["type"] == "gateway-open"
                except ConnectionClosed as closed:
                    assert closed.rcvd is not None and closed.rcvd.reason == "limit"
                    break
        writer.join(10)
    assert meter.answers and meter.held_seconds < scaled(0.25), meter.held_seconds


def test_no_stream_is_opened_after_the_last_message(broker: str, folder: Path, publisher: Publisher) -> None:
    """Such attempts do not prevent the closing of other streams."""
    uid = str(uuid.uuid4())
    gateway = GatewayProcess(broker, folder)
    try:
        gateway.start()
        publisher.send(received(uid, "until"))
        publisher.send(task_event("task-succeeded", uid, result="1", runtime=0.1))
        assert wait_for(lambda: httpx.get(f"{gateway.url}/tasks/{uid}").status_code == 200, 20)
        with ExitStack() as open:
            others = [
                open.enter_context(closing(messages(gateway, "ndjson", {})))
                for _ in range(5)  # type: ignore[type-var]
            ]
            assert all(next(other)["type"] == "gateway-open" for other in others)
            for _ in range(3):
                raw = open.enter_context(socket.create_connection(("127.0.0.1", gateway.port), timeout=10))
                raw.sendall(
                    f"GET /ws?uuid={uid}&until=ready HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\n"
                    "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
                    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
                )
                heard = b""
                while b"gateway-close" not in heard:
                    heard += raw.recv(65_536)
                raw.sendall(websocket_frame(b'{"op": "open", "since": "earliest"}'))  # and no close frame
            with ThreadPoolExecutor(1) as pool:
                stopping = pool.submit(gateway.stop)
                for other in others:
                    assert [message["type"] for message in other][-1] == "gateway-close"
                assert stopping.result() == 0
        assert "Traceback" not in gateway.tail()
    finally:
        gateway.stop()


def test_a_gap_after_the_snapshot_is_sent_after_it() -> None:
    """A resumed stream is read so slowly that events after the snapshot are evicted."""

    async def read_slowly() -> list[Message]:
        hub = Hub(history_bytes=1_000_000)

        def append(count: int) -> None:
            for number in range(count):
                hub.append({"type": "task-received", "uuid": str(number), "padding": "x" * 200})
            hub.flush()

        append(1000)
        id = hub.id_of(10).decode()
        snapshots = Snapshots(TaskTable(), hub, lambda: (), lambda: True, hub.limits)
        begin = partial(
            snapshots.begin, Filter(), FORMATS["ndjson"], lambda record: b"{}", None, follows_filter=False
        )
        subscription = hub.subscribe(Filter(), FORMATS["ndjson"], id, None, begin, snapshot_when_resumed=True)
        text = subscription.read() + subscription.read()  # gateway-open, and the first events of the way
        append(8000)
        while (chunk := subscription.read()) or subscription.has_more:
            text += chunk
        return [json.loads(line) for line in text.splitlines()]

    told = asyncio.run(read_slowly())
    kinds = [message["type"] for message in told]
    page, gap = told[kinds.index("gateway-snapshot")], told[kinds.index("gateway-gap")]
    assert kinds.count("gateway-gap") == 1
    assert kinds.index("gateway-gap") == kinds.index("gateway-snapshot") + 1
    assert position(page) == 1000 < position(gap)
    assert [position(message) for message in told[kinds.index("gateway-gap") + 1 :]] == list(
        range(position(gap) + 1, 9001)
    )


def test_a_client_that_disconnects_within_its_body_leaves_no_trace(gateway: GatewayProcess) -> None:
    head = b"POST /events HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n{"
    for _ in range(3):
        with socket.create_connection(("127.0.0.1", gateway.port)) as connection:
            connection.sendall(head)
    assert httpx.get(f"{gateway.url}/healthz").status_code == 200
    assert gateway.stop() == 0
    assert "Traceback" not in gateway.tail()


def test_replaced_streams_are_closed(gateway: GatewayProcess) -> None:
    with Requester(gateway, "websocket") as client:
        for _ in range(50):
            assert next(client.ask({"any": [{"uuid": [str(uuid.uuid4())]}]}))["type"] == "gateway-open"
        assert subscriptions(gateway) == 1
    assert wait_for(lambda: subscriptions(gateway) == 0, 10)
