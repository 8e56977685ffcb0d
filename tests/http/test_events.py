"""`GET /events` of a real gateway on a real RabbitMQ."""

import json
import socket
import subprocess
import uuid
from pathlib import Path

import httpx
import pytest

from tests.conftest import StreamFactory
from tests.support.gateway_process import GatewayProcess
from tests.support.publisher import Publisher, received, task_event, walk
from tests.support.rabbitmq import wait_for
from tests.support.stream_client import NdjsonStream, SseStream


@pytest.fixture
def mark() -> str:
    """A task name that only this test uses."""
    return f"test.{uuid.uuid4().hex}"


def metric(gateway: GatewayProcess, name: str) -> float:
    for line in httpx.get(f"{gateway.url}/metrics").text.splitlines():
        if line.startswith(f"celery_gateway_{name} "):
            return float(line.rpartition(" ")[2])
    raise AssertionError(f"no metric celery_gateway_{name}")


def test_single_events_and_lists_keep_the_order_of_the_broker(
    publisher: Publisher, stream: StreamFactory
) -> None:
    client = stream()
    events = [event for _ in range(4) for event in walk()]
    publisher.send(events[:5], [], events[5], [events[6]], [], events[7:])
    got = client.until(lambda seen: len(seen) >= len(events))
    assert [(e["uuid"], e["type"]) for e in got] == [(e["uuid"], e["type"]) for e in events]


@pytest.mark.parametrize("type", ["worker-heartbeat", "order-shipped", "task-progress", "plain"])
def test_custom_event_types_keep_all_their_fields(
    publisher: Publisher, stream: StreamFactory, type: str
) -> None:
    client = stream(type=type)
    event = {"type": type, "timestamp": 1.5, "id": 7, "time": "noon", "deep": {"list": [1, None, 2.5]}}
    publisher.send(event)
    (got,) = client.until(bool)
    assert got["fields"] == {"id": 7, "time": "noon"}
    assert got["deep"] == event["deep"]
    assert got["time"] == "1970-01-01T00:00:01.500000Z"
    assert isinstance(got["id"], str)


@pytest.mark.parametrize("by", ["name", "root_id"])
def test_a_filter_on_joined_fields_matches_events_without_them(
    publisher: Publisher, stream: StreamFactory, mark: str, by: str
) -> None:
    uid, root_id = str(uuid.uuid4()), str(uuid.uuid4())
    client = stream(**({"name": mark} if by == "name" else {"root_id": root_id}))
    kinds = ["task-started", "task-retried", "task-failed", "task-revoked", "task-succeeded"]
    publisher.send(*walk("another.task"))
    publisher.send(received(uid, mark, root_id), *(task_event(kind, uid) for kind in kinds))
    got = client.until(lambda seen: len(seen) == 6)
    assert [event["type"] for event in got] == ["task-received", *kinds]
    assert {(event["name"], event["root_id"], event["parent_id"]) for event in got} == {(mark, root_id, None)}


def test_a_filter_on_the_queue_matches_every_event_of_a_task(
    publisher: Publisher, stream: StreamFactory, mark: str
) -> None:
    """Only `task-sent` has the queue."""
    high, low, unsent = (f"{mark}-{queue}" for queue in ("high", "low", "unsent"))
    queries = [{"queue": "high"}, {"queue": "high", "type": "task-failed"}, {"queue": "!high"}]
    clients = [stream(name=mark, **query) for query in queries]
    everything = stream(name=mark)
    for uid in (high, low, unsent):
        if uid != unsent:
            sent = {"queue": uid.rpartition("-")[2], "hostname": "gen1@host", "retries": 0}
            publisher.send(received(uid, mark) | sent | {"type": "task-sent"})
        publisher.send(received(uid, mark), task_event("task-started", uid), task_event("task-failed", uid))
    everything.until(lambda seen: len(seen) == 11)
    got = [
        client.until(lambda seen, count=count: len(seen) == count)
        for client, count in zip(clients, (4, 1, 7), strict=True)
    ]
    assert [(event["uuid"], event["queue"]) for event in got[0]] == [(high, "high")] * 4
    assert [(event["uuid"], event["type"]) for event in got[1]] == [(high, "task-failed")]
    assert [(event["uuid"], event["queue"]) for event in got[2]] == [(low, "low")] * 4 + [(unsent, None)] * 3


def test_events_have_the_attempt(publisher: Publisher, stream: StreamFactory, mark: str) -> None:
    uid = str(uuid.uuid4())
    client = stream(uuid=uid)
    clock = iter(range(1, 100))

    def event(type: str, **fields: object) -> dict[str, object]:
        return task_event(type, uid, clock=next(clock), **fields)

    publisher.send(
        received(uid, mark, clock=next(clock)),
        event("task-started"),
        event("task-retried", exception="E()"),
        received(uid, mark, clock=next(clock)) | {"retries": 1},
        event("task-progress", current=1, total=2),
        event("task-started"),
        event("task-custom", attempt="mine"),
        event("task-succeeded", result="1"),
    )
    got = client.until(lambda seen: len(seen) == 8)
    assert [(event["attempt"], event["state"]) for event in got] == [
        *((1, "RECEIVED"), (1, "STARTED"), (1, "RETRY")),
        *((2, "RECEIVED"), (2, "PROGRESS"), (2, "PROGRESS"), ("mine", "CUSTOM"), (2, "SUCCESS")),
    ]


def test_ids_of_any_json_type_are_joined_and_matched(
    publisher: Publisher, stream: StreamFactory, mark: str
) -> None:
    number = int(uuid.uuid4().int % 10**15)
    by_uuid, by_root = stream(uuid=str(number)), stream(root_id=str(number))
    publisher.send(received("x", mark, "x") | {"uuid": number, "root_id": number})
    publisher.send(task_event("task-started", "x") | {"uuid": number})
    publisher.send(received(mark, mark) | {"root_id": number, "parent_id": number})
    got = by_root.until(lambda seen: len(seen) == 3)
    assert [(event["uuid"], event["root_id"], event["parent_id"]) for event in got] == [
        (number, number, None),
        (number, str(number), None),  # what is joined is the text
        (mark, number, number),
    ]
    assert {event["name"] for event in got} == {mark}
    assert by_uuid.until(lambda seen: len(seen) == 2) == got[:2]


def test_task_started_before_task_received_waits_for_the_name(
    publisher: Publisher, stream: StreamFactory, mark: str
) -> None:
    client = stream(name=mark)
    first, started, succeeded = walk(mark)
    publisher.send(started)
    publisher.send([first, succeeded])
    got = client.until(lambda seen: len(seen) == 3)
    assert [event["type"] for event in got] == ["task-started", "task-received", "task-succeeded"]
    assert got[-1]["state"] == "SUCCESS"


def test_an_event_of_an_unknown_task_has_nulls(publisher: Publisher, stream: StreamFactory) -> None:
    uid = str(uuid.uuid4())
    client = stream(uuid=uid)
    publisher.send(task_event("task-succeeded", uid))
    (got,) = client.until(bool)
    assert (got["name"], got["root_id"], got["parent_id"], got["state"]) == (None, None, None, "SUCCESS")


def test_sse_and_ndjson_have_the_same_objects(publisher: Publisher, stream: StreamFactory, mark: str) -> None:
    ndjson, sse = stream(name=mark), stream(format="sse", name=mark)
    assert isinstance(sse, SseStream)
    publisher.send(walk(mark))
    events = ndjson.until(lambda seen: len(seen) == 3)
    assert sse.until(lambda seen: len(seen) == 3) == events
    opened, *frames = sse.frames
    assert opened.event == "gateway-open"
    assert opened.json()["resume"] == "live"
    # Without an event: line they are `message`, so EventSource.onmessage gets them.
    assert [(frame.event, frame.id) for frame in frames] == [("message", event["id"]) for event in events]


@pytest.mark.parametrize(
    ("accept", "query", "media_type"),
    [
        ("text/event-stream", "", "text/event-stream; charset=utf-8"),
        ("*/*", "", "text/event-stream; charset=utf-8"),
        ("application/x-ndjson", "", "application/x-ndjson"),
        ("text/*, application/x-ndjson;q=0.9, */*;q=0.1", "", "application/x-ndjson"),
        ("*/*", "?format=ndjson", "application/x-ndjson"),
        ("application/x-ndjson", "?format=sse", "text/event-stream; charset=utf-8"),
    ],
)
def test_the_format_is_negotiated(gateway: GatewayProcess, accept: str, query: str, media_type: str) -> None:
    with httpx.stream("GET", f"{gateway.url}/events{query}", headers={"Accept": accept}) as response:
        assert response.headers["content-type"] == media_type
        assert response.headers["cache-control"] == "no-store, no-transform"
        assert response.headers["x-accel-buffering"] == "no"
        assert response.headers["connection"] == "close"


@pytest.mark.parametrize(
    ("query", "parameter", "code"),
    [
        ("nmae=shop.*", "nmae", "unknown-parameter"),
        ("name=", "name", "empty-value"),
        ("name=a,,b", "name", "empty-value"),
        ("name=!", "name", "empty-value"),
        ("format=xml", "format", "bad-value"),
        ("format=sse&format=ndjson", "format", "bad-value"),
        ("uuid=" + "x" * 1001, "uuid", "value-too-long"),
        ("type=" + ",".join(["a"] * 1001), "type", "too-many-values"),
    ],
)
def test_a_bad_query_gets_400_with_the_parameter(
    gateway: GatewayProcess, query: str, parameter: str, code: str
) -> None:
    response = httpx.get(f"{gateway.url}/events?{query}")
    assert response.status_code == 400
    error = response.json()["error"]
    assert (error["code"], error["parameter"]) == (code, parameter)
    assert error["message"]
    if code == "unknown-parameter":
        assert "name" in error["allowed"]


def test_unknown_paths_get_404_in_the_error_shape(gateway: GatewayProcess) -> None:
    response = httpx.get(f"{gateway.url}/nothing")
    assert response.status_code == 404
    assert response.json()["error"]["code"] == "not-found"


def test_head_ends_at_once(gateway: GatewayProcess) -> None:
    assert httpx.head(f"{gateway.url}/events").headers["content-type"].startswith("text/event-stream")


@pytest.mark.parametrize("format", ["sse", "ndjson"])
def test_keep_alives_advance_the_position_of_a_silent_stream(broker: str, folder: Path, format: str) -> None:
    gateway = GatewayProcess(broker, folder, options=["--keepalive", "0.2"])
    gateway.start()
    publisher = Publisher(broker)
    try:
        kind = NdjsonStream if format == "ndjson" else SseStream
        with kind(gateway.url, {"name": "nothing.has.this.name"}) as client:
            before = client.opened["id"]
            assert client.last_event_id == before
            publisher.send(walk())
            assert wait_for(lambda: client.last_event_id != before, 10)
            assert client.events == []
    finally:
        publisher.close()
        gateway.stop()


@pytest.mark.parametrize("format", ["sse", "ndjson"])
def test_a_resumed_stream_has_every_event_once(
    publisher: Publisher, stream: StreamFactory, mark: str, format: str
) -> None:
    watcher = stream(name=mark)
    events = [event for _ in range(20) for event in walk(mark)]
    publisher.send(events[:10])
    whole = watcher.until(lambda seen: len(seen) == 10)
    publisher.send(events[10:])
    whole = watcher.until(lambda seen: len(seen) == len(events))
    back = stream(format=format, name=mark, headers={"Last-Event-ID": whole[6]["id"]})
    assert back.opened["resume"] == "resumed"
    assert back.until(lambda seen: len(seen) == len(events) - 7) == whole[7:]


@pytest.mark.parametrize(
    "query",
    [
        "lastEventId={new}",
        "Last-Event-ID={new}",
        "last-event-id={new}",
        "evs_last_event_id={new}&evs_preamble=2056&evs_buffer_size_limit=262144",
        "last_event_id={old}&last_event_id={new}",
        "last_event_id={old}&lastEventId={new}",
        "lastEventId={old}&last_event_id={new}&r=0.5&_=1795234871",
    ],
)
def test_parameters_of_client_libraries_are_accepted(
    publisher: Publisher, gateway: GatewayProcess, query: str
) -> None:
    mark = f"test.{uuid.uuid4().hex}"
    with httpx.stream("GET", f"{gateway.url}/events?format=ndjson&name={mark}", timeout=20) as response:
        lines = map(json.loads, response.iter_lines())
        next(lines), next(lines)
        publisher.send(walk(mark))
        events = [next(lines) for _ in range(3)]
    given = query.format(old=events[0]["id"], new=events[1]["id"])
    for method in ("GET", "POST"):
        url = f"{gateway.url}/events?format=ndjson&{given}"
        body = {"json": {"any": [{"name": mark}]}} if method == "POST" else {}
        url += "" if body else f"&name={mark}"
        with httpx.stream(method, url, timeout=20, **body) as response:  # type: ignore[arg-type]
            assert response.status_code == 200, response.read()
            lines = map(json.loads, response.iter_lines())
            opened, _ = next(lines), next(lines)
            assert (opened["resume"], next(lines)) == ("resumed", events[2])


@pytest.mark.parametrize("query", ["last_event_id=", "lastEventId=", "lastEventId=&r=1"])
def test_an_empty_last_event_id_is_ignored(gateway: GatewayProcess, query: str) -> None:
    for request in (
        {"method": "GET", "headers": {"Last-Event-ID": ""}},
        {"method": "POST", "headers": {"Last-Event-ID": ""}, "json": {"last_event_id": ""}},
    ):
        with httpx.stream(
            url=f"{gateway.url}/events?format=ndjson&{query}", timeout=20, **request
        ) as response:  # type: ignore[arg-type]
            assert json.loads(next(response.iter_lines()))["resume"] == "live"


def test_an_unknown_last_event_id_gets_reset_and_a_gap(
    publisher: Publisher, stream: StreamFactory, mark: str
) -> None:
    client = stream(name=mark, headers={"Last-Event-ID": "another-1"})
    assert client.opened["resume"] == "reset"
    publisher.send(walk(mark))
    gap, *events = client.until(lambda seen: len(seen) == 4)
    assert (gap["type"], gap["reason"], gap["lost"]) == ("gateway-gap", "unknown-id", None)
    assert len(events) == 3


def test_a_stalled_reader_delays_no_other_and_gets_a_gap(broker: str, folder: Path) -> None:
    gateway = GatewayProcess(broker, folder, options=["--history-bytes", "2000000"])
    gateway.start()
    publisher = Publisher(broker)
    try:
        stalled = socket.socket()
        stalled.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        stalled.settimeout(20)
        stalled.connect(("127.0.0.1", gateway.port))
        stalled.sendall(b"GET /events?format=ndjson HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert wait_for(lambda: metric(gateway, "subscriptions") == 1, 5)
        with NdjsonStream(gateway.url) as healthy:
            count = 12_000
            padding = "x" * 1000
            for start in range(0, count, 20):
                publisher.send([{"type": "bulk", "n": n, "pad": padding} for n in range(start, start + 20)])
                if start % 500 == 480:  # a busy machine holds up this reader, too: by less than the history
                    healthy.until(lambda seen, near=start - 480: bool(seen) and seen[-1]["n"] >= near, 30)
            got = healthy.until(lambda seen: bool(seen) and seen[-1].get("n") == count - 1, 30)
        assert [event["n"] for event in got] == list(range(count))
        received = bytearray()
        with stalled:
            while not (received.endswith(b"\n") and b'"n":%d' % (count - 1) in received[-5000:]):
                assert (chunk := stalled.recv(1 << 20)), "the gateway closed the stalled stream"
                received += chunk
        # Whole lines of JSON, and between them the sizes of HTTP's chunks.
        messages = [json.loads(line) for line in received.split(b"\n") if line.startswith(b"{")]
        gaps = [message["reason"] for message in messages if message["type"] == "gateway-gap"]
        numbers = [message["n"] for message in messages if message["type"] == "bulk"]
        assert gaps == ["evicted"]
        assert len(numbers) < count
        assert numbers == sorted(set(numbers))
        assert sum(after != before + 1 for before, after in zip(numbers, numbers[1:], strict=False)) == 1
    finally:
        publisher.close()
        gateway.stop()


@pytest.mark.parametrize("format", ["sse", "ndjson"])
def test_sigterm_ends_open_streams_with_a_close_message_and_exit_code_0(
    broker: str, folder: Path, format: str
) -> None:
    gateway = GatewayProcess(broker, folder)
    gateway.start()
    with (NdjsonStream if format == "ndjson" else SseStream)(gateway.url) as client:
        assert gateway.stop() == 0
        last = client.until(bool)[-1]
        assert (last["type"], last["reason"]) == ("gateway-close", "drain")
        assert client.closed()


def test_ended_streams_free_their_memory(gateway: GatewayProcess, stream: StreamFactory) -> None:
    before = metric(gateway, "subscriptions")
    clients = [stream(name=f"x{n}") for n in range(20)]
    assert metric(gateway, "subscriptions") == before + 20
    for client in clients:
        client.close()
    assert wait_for(lambda: metric(gateway, "subscriptions") <= before, 10)


@pytest.mark.parametrize("path", ["/celery/events", "/events"])
def test_a_sub_path_works_stripped_or_not(broker: str, folder: Path, path: str) -> None:
    gateway = GatewayProcess(broker, folder, options=["--root-path", "/celery"])
    gateway.start()
    try:
        with httpx.stream("GET", f"{gateway.url}{path}", params={"format": "ndjson"}) as response:
            assert json.loads(next(response.iter_lines()))["type"] == "gateway-open"
    finally:
        gateway.stop()


def test_a_page_of_another_site_may_read_only_if_allowed(broker: str, folder: Path) -> None:
    gateway = GatewayProcess(broker, folder, options=["--allow-origin", "https://shop.example"])
    gateway.start()
    try:
        for origin, allowed, status in (
            ("https://shop.example", "https://shop.example", 200),
            ("https://evil.example", None, 403),
        ):
            with httpx.stream("GET", f"{gateway.url}/events", headers={"Origin": origin}) as response:
                assert response.status_code == status
                assert response.headers.get("access-control-allow-origin") == allowed
    finally:
        gateway.stop()


@pytest.mark.parametrize(
    ("arguments", "prefix"), [([], "data: "), (["-H", "Accept: application/x-ndjson"], "")]
)
def test_curl_tails_the_stream(
    gateway: GatewayProcess, publisher: Publisher, mark: str, arguments: list[str], prefix: str
) -> None:
    url = f"{gateway.url}/events?name={mark}&type=task-started,task-succeeded"
    with subprocess.Popen(["curl", "-sN", *arguments, url], stdout=subprocess.PIPE, text=True) as curl:
        try:
            assert curl.stdout is not None
            lines = (line.removeprefix(prefix) for line in curl.stdout if line.startswith(prefix + "{"))
            assert [json.loads(next(lines))["type"] for _ in range(2)] == ["gateway-open", "gateway-status"]
            publisher.send(walk(mark))
            got = [json.loads(next(lines)) for _ in range(2)]
        finally:
            curl.kill()
    assert [(e["type"], e["name"], e["state"]) for e in got] == [
        ("task-started", mark, "STARTED"),
        ("task-succeeded", mark, "SUCCESS"),
    ]


def test_hostile_messages_do_not_affect_others(
    gateway: GatewayProcess, publisher: Publisher, stream: StreamFactory, mark: str
) -> None:
    client = stream(name=mark)
    good = [event for _ in range(8) for event in walk(mark)]
    bad: list[tuple[bytes, str | None, str | None, dict[str, str]]] = [
        (b"\x80\x04\x95", "application/x-python-serialize", "binary", {}),
        (b"!!python/object/apply:os.system ['true']", "application/x-yaml", "utf-8", {}),
        (
            b"x\x9c\x03\x00\x00\x00\x00\x01",
            "application/json",
            "utf-8",
            {"compression": "application/x-gzip"},
        ),
        (b"{}", "application/json", "utf-7", {}),
        (b"[" * 100_000, "application/json", "utf-8", {}),
        (b'{"type": "task-sta', "application/json", "utf-8", {}),
        (b'[1, null, "a", {}, {"type": 5}, {"type": "gateway-close"}]', None, None, {}),
    ]
    for index, event in enumerate(good):
        body, content_type, content_encoding, headers = bad[index % len(bad)]
        publisher.send_raw(body, content_type, content_encoding, headers)
        publisher.send([{"type": "worker-elect"}, event, 7])
    got = client.until(lambda seen: len(seen) == len(good))
    assert [(e["uuid"], e["type"]) for e in got] == [(e["uuid"], e["type"]) for e in good]
    text = httpx.get(f"{gateway.url}/metrics").text
    reasons = (
        "content-type compression content-encoding too-deep undecodable not-an-object no-type reserved-type"
    )
    for reason in (*reasons.split(), "gossip"):
        assert f'celery_gateway_refused_total{{reason="{reason}"}} 0.0' not in text, reason


def test_a_request_among_pipelined_ones_gets_its_stream(
    gateway: GatewayProcess, publisher: Publisher, mark: str
) -> None:
    before = metric(gateway, "subscriptions")
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=10) as client:
        client.sendall(
            f"GET /events?name={mark}&format=ndjson HTTP/1.1\r\nHost: localhost\r\n\r\n".encode() * 3
        )
        received = b""
        while b"gateway-open" not in received:
            received += client.recv(4096)
        publisher.send(walk(mark))
        while b"task-succeeded" not in received:
            received += client.recv(4096)
    assert received.count(b"gateway-open") == 1
    assert wait_for(lambda: metric(gateway, "subscriptions") == before, 5)
    assert "ERROR" not in gateway.log.read_text()
