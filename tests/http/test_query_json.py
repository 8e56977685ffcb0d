"""Streams asked for as JSON: by POST, and by `open` on a WebSocket, again and again on one connection.

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
from contextlib import ExitStack, closing
from functools import partial
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.sync.client import connect

from gateway.filter import Filter
from gateway.frames import FORMATS
from gateway.hub import Hub
from gateway.snapshot import Snapshot
from gateway.tasks import Tasks
from tests.gateway_process import GatewayProcess
from tests.load import Load, position, states
from tests.portable_server import PortableServer
from tests.publisher import Publisher, received, task_event
from tests.rabbitmq import wait_for
from tests.transports import NOISE, Message, Server, messages

KINDS = ["sse", "ndjson", "websocket"]


class Asking:
    """A client that asks for one stream after the other: by requests, or on the one WebSocket it has."""

    def __init__(self, server: Server, kind: str) -> None:
        self._server = server
        self._kind = kind
        self._open = ExitStack()
        if kind == "websocket":
            url = server.url.replace("http", "ws", 1)
            self._websocket = self._open.enter_context(connect(f"{url}/ws?type=gateway-*", max_size=None))

    def __enter__(self) -> "Asking":
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
    """One of the test's own, under its own server."""
    process = GatewayProcess(broker, folder, options=["--keepalive", "0.3", "--allow-origin", "*"])
    try:
        process.start()
        yield process
    finally:
        process.stop()


def until_done(stream: Iterator[Message]) -> tuple[list[Message], list[Message], Message]:
    """The events before the end of a snapshot, its tasks as they came, and its last page."""
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
def test_who_comes_to_watch_more_misses_nothing_of_the_old_and_has_a_snapshot_of_the_new(
    server: Server, kind: str, broker: str
) -> None:
    """Six changes under load; the first filter's events are compared with all that the gateway had."""
    seed = random.Random(kind).randrange(1_000_000)
    choice = random.Random(seed)
    load = Load(broker, events_per_second=600, seed=seed)
    load.start()
    try:
        with Asking(server, kind) as client:
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
    """All events of a name up to a position, from the gateway's own log."""
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
def test_a_marker_without_a_snapshot_and_a_stream_of_nothing(server: Server, kind: str) -> None:
    with Asking(server, kind) as client:
        stream = client.ask({"any": [], "snapshot": []})
        assert next(stream)["resume"] == "live"
        page = next(stream)
        assert (page["type"], page["tasks"], page["done"]) == ("gateway-snapshot", [], True)
        resumed = client.ask({"any": [], "snapshot": [], "last_event_id": page["id"]})
        assert next(resumed)["resume"] == "resumed"
        assert next(resumed)["done"] is True


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_query_can_ask_for_a_body_can_too(server: Server, kind: str, publisher: Publisher) -> None:
    mark = uuid.uuid4().hex
    with Asking(server, kind) as client:
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
def test_a_request_that_cannot_be_met_is_refused_and_what_there_is_goes_on(
    server: Server, wanted: Message, parameter: str, publisher: Publisher
) -> None:
    answer = httpx.post(f"{server.url}/events", json=wanted)
    assert (answer.status_code, answer.json()["error"]["parameter"]) == (400, parameter)
    mark = uuid.uuid4().hex
    with connect(f"{server.url.replace('http', 'ws', 1)}/ws?name={mark}") as websocket:
        websocket.send(json.dumps({"op": "open"} | wanted))
        said = [json.loads(websocket.recv(timeout=10)) for _ in range(3)]
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
def test_a_body_that_is_none_is_refused(server: Server, body: bytes, query: str, parameter: str) -> None:
    answer = httpx.post(f"{server.url}/events{query}", content=body)
    assert (answer.status_code, answer.json()["error"]["parameter"]) == (400, parameter)


def test_an_empty_body_asks_for_everything(server: Server, publisher: Publisher) -> None:
    with httpx.stream("POST", f"{server.url}/events", timeout=10) as response:
        lines = response.iter_lines()
        assert next(lines) == "event: gateway-open"
        mark = uuid.uuid4().hex
        publisher.send(received(str(uuid.uuid4()), mark))
        assert any(f'"name":"{mark}"' in line for line in lines)


def test_keepalives_of_a_posted_stream_have_data_and_an_event_sources_have_none(
    gateway: GatewayProcess,
) -> None:
    """Parsers for `fetch` do not show an id without data; an EventSource would dispatch one with."""
    seen: dict[str, list[str]] = {}
    for method in ("POST", "GET"):
        query = {"json": {"any": []}} if method == "POST" else {"params": {"name": "nothing"}}
        with httpx.stream(method, f"{gateway.url}/events", timeout=10, **query) as response:  # type: ignore[arg-type]
            lines = response.iter_lines()
            for line in lines:  # each message ends with an empty line
                if line == "event: gateway-status":
                    break
            seen[method] = [next(lines) for _ in range(7)][3:]
    assert seen["POST"][0] == "event: gateway-bookmark"
    assert json.loads(seen["POST"][2].removeprefix("data: "))["type"] == "gateway-bookmark"
    assert [line.partition(":")[0] for line in seen["GET"]] == ["id", "", "id", ""]


def test_a_page_of_another_origin_may_post(gateway: GatewayProcess) -> None:
    headers = {
        "Origin": "https://shop.example",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type",
    }
    answer = httpx.options(f"{gateway.url}/events", headers=headers)
    assert answer.status_code == 200
    assert "POST" in answer.headers["access-control-allow-methods"]
    allowed = answer.headers["access-control-allow-headers"].lower()
    assert "authorization" in allowed and "content-type" in allowed


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("path", ["/events", "/tasks", "/workers", "/tasks/x", "/workflows/x"])
def test_a_token_is_left_to_the_proxy_in_front(server: Server, path: str, method: str) -> None:
    with httpx.stream(method, f"{server.url}{path}", params={"access_token": "x"}, timeout=10) as response:
        is_known = method == "GET" or path == "/events"
        assert response.status_code == (405 if not is_known else 404 if path.endswith("/x") else 200)


def test_a_websocket_takes_a_token_too(server: Server) -> None:
    with connect(f"{server.url.replace('http', 'ws', 1)}/ws?access_token=x") as websocket:
        assert json.loads(websocket.recv(timeout=10))["type"] == "gateway-open"


def test_the_header_goes_before_the_body(server: Server, publisher: Publisher) -> None:
    """So libraries that come back with a header resume what they asked for by POST."""
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


def test_null_is_as_if_it_were_left_out(server: Server) -> None:
    names = ("any", "fields", "last_event_id", "quiet_time", "since", "snapshot", "until")
    with httpx.stream("POST", f"{server.url}/events", json=dict.fromkeys(names), timeout=10) as response:
        assert response.status_code == 200


def subscriptions(server: Server) -> float:
    text = httpx.get(f"{server.url}/metrics").text
    return float(text.partition("\ncelery_gateway_subscriptions ")[2].partition("\n")[0])


def rss_bytes(pid: int) -> int:
    text = Path(f"/proc/{pid}/status").read_text()
    return int(text.partition("VmRSS:")[2].split()[0]) << 10


def test_one_who_asks_without_end_and_never_reads_costs_little_and_is_cut(
    broker: str, folder: Path, publisher: Publisher
) -> None:
    """Each `open` would give it the whole history again; it gets what its buffer takes."""
    gateway = GatewayProcess(broker, folder, options=["--slow-timeout", "1", "--keepalive", "0.5"])
    try:
        gateway.start()
        publisher.send([received(str(uuid.uuid4()), "x" * 1000) for _ in range(5000)])
        tasks: Callable[[], list[Any]] = lambda: httpx.get(f"{gateway.url}/tasks?limit=1").json()["tasks"]  # noqa: E731
        assert wait_for(lambda: bool(tasks()), 20)
        before = rss_bytes(gateway.pid)
        with connect(f"{gateway.url.replace('http', 'ws', 1)}/ws?type=gateway-*") as websocket:
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


def test_a_stream_that_is_replaced_gives_nothing_more(gateway: GatewayProcess, broker: str) -> None:
    """Under load: what waits for a flush when another is opened is the new one's, and comes once."""
    load = Load(broker, events_per_second=3000, seed=17)
    load.start()
    try:
        with Asking(gateway, "websocket") as client:
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


def test_who_asks_without_end_and_reads_all_holds_nobody_up(
    gateway: GatewayProcess, publisher: Publisher
) -> None:
    """What is replaced in the same breath is not begun: no snapshot of all for each of 20,000 messages."""
    publisher.send([received(str(uuid.uuid4()), "flood") for _ in range(10_000)])
    assert wait_for(lambda: bool(httpx.get(f"{gateway.url}/tasks?limit=1&name=flood").json()["tasks"]), 20)
    wanted = {"op": "open", "any": [], "snapshot": [{"name": "*x*"}]}
    frame = websocket_frame(json.dumps(wanted).encode())
    with connect(f"{gateway.url.replace('http', 'ws', 1)}/ws?type=gateway-*", max_size=None) as websocket:
        websocket.recv(timeout=10)
        raw: socket.socket = websocket.socket
        writer = threading.Thread(target=lambda: raw.sendall(frame * 20_000), daemon=True)
        writer.start()
        slowest_seconds = 0.0
        opened = 0
        while opened < 20_000:
            if opened % 1_000 == 0:
                asked_at = time.monotonic()
                assert httpx.get(f"{gateway.url}/healthz", timeout=30).status_code == 200
                slowest_seconds = max(slowest_seconds, time.monotonic() - asked_at)
            opened += json.loads(websocket.recv(timeout=30))["type"] == "gateway-open"
        writer.join(10)
    assert slowest_seconds < 3  # one socket's read of it took longer than a minute


def test_nothing_is_opened_after_the_last_message(broker: str, folder: Path, publisher: Publisher) -> None:
    """And whoever tries keeps nobody else from being told that the gateway goes."""
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
                    f"GET /ws?uuid={uid}&until=ready HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\n"
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


def test_a_loss_behind_the_snapshot_is_told_behind_it() -> None:
    """Of a resumed stream that is read so slowly that events behind the snapshot are evicted, too."""

    async def read_slowly() -> list[Message]:
        hub = Hub(history_bytes=1_000_000)

        def append(count: int) -> None:
            for number in range(count):
                hub.append({"type": "task-received", "uuid": str(number), "padding": "x" * 200})
            hub.settle()

        append(1000)
        id = hub.id_of(10).decode()
        begin = partial(Snapshot, Tasks(), Filter(), lambda record: b"{}", lambda: (), hub, follows=False)
        subscription = hub.subscribe(Filter(), FORMATS["ndjson"], id, None, begin, is_due_when_resumed=True)
        text = subscription.read() + subscription.read()  # gateway-open, and the first events of the way
        append(8000)
        while chunk := subscription.read():
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


def test_whoever_leaves_amid_a_body_leaves_no_trace(gateway: GatewayProcess) -> None:
    head = b"POST /events HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{"
    for _ in range(3):
        with socket.create_connection(("127.0.0.1", gateway.port)) as connection:
            connection.sendall(head)
    assert httpx.get(f"{gateway.url}/healthz").status_code == 200
    assert gateway.stop() == 0
    assert "Traceback" not in gateway.tail()


def test_streams_that_were_replaced_are_gone(gateway: GatewayProcess) -> None:
    with Asking(gateway, "websocket") as client:
        for _ in range(50):
            assert next(client.ask({"any": [{"uuid": [str(uuid.uuid4())]}]}))["type"] == "gateway-open"
        assert subscriptions(gateway) == 1
    assert wait_for(lambda: subscriptions(gateway) == 0, 10)
