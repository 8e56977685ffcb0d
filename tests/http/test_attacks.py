"""Attacks of hostile clients, measured by the gateway's CPU time and memory."""

import json
import os
import re
import select
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from celery_gateway.http.input_turns import INPUT_SHARE, MAX_INPUT_SECONDS
from tests.support.attacks import GET, WEBSOCKET, Meter, ask, flood, frame, until
from tests.support.cpu_time import scaled
from tests.support.gateway_process import GatewayProcess

MAX_HELD_SECONDS = 0.1
"""Maximum CPU time of the gateway between a request of another client and its response."""
MAX_USED_SECONDS = 1.5
"""Maximum CPU time of the gateway during an attack."""
MAX_GROWN_BYTES = 32 << 20
SMALL_HEADERS = b"".join(b"x-%06d: %b\r\n" % (number, b"v" * 50) for number in range(1_000))
POST = b"POST /events HTTP/1.1\r\nHost: localhost\r\n"
CHUNKED = b"POST /events HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
STREAM = b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    gateway = GatewayProcess("memory://localhost", tmp_path_factory.mktemp("attacks"))
    gateway.start()
    yield gateway
    gateway.stop()
    assert "Traceback" not in gateway.log.read_text(), gateway.tail()


@pytest.mark.parametrize(
    ("reasons", "first", "more"),
    [
        pytest.param("head", GET, SMALL_HEADERS, id="headers"),
        pytest.param("head", GET + b"x: ", b"v" * 65_536, id="header"),
        pytest.param("head", b"", b"\r\n" * 30_000, id="line-ends"),
        pytest.param("url", b"GET /healthz?", b"v" * 65_536, id="url"),
        pytest.param("head", CHUNKED + b"0\r\n", SMALL_HEADERS, id="trailers"),
        pytest.param("head", CHUNKED + b"0\r\nx: ", b"v" * 65_536, id="trailer"),
        pytest.param("head", CHUNKED + b"1;", b"v" * 65_536, id="chunk-extension"),
        pytest.param(
            "input-rate|body",  # whichever comes first on this machine
            CHUNKED,
            b"1\r\nx\r\n" * 10_000,
            id="small-chunks",
        ),
        pytest.param("body", GET + b"Content-Length: 9999999999\r\n\r\n", b"v" * 65_536, id="body"),
        pytest.param("pipelining", b"", (GET + b"\r\n") * 5_000, id="pipelined"),
        pytest.param("input-rate", STREAM, b"v" * 65_536, id="beside-a-stream"),
    ],
)
def test_an_endless_request_ends_its_connection(
    gateway: GatewayProcess, reasons: str, first: bytes, more: bytes
) -> None:
    def count() -> float:
        return sum(refused(gateway, reason) for reason in reasons.split("|"))

    before = count()
    cost = flood(gateway, first, more, reads=False)
    assert cost.is_cut, cost
    assert until(lambda: count() > before)
    assert cost.used_seconds < scaled(MAX_USED_SECONDS), cost
    assert cost.memory_bytes < MAX_GROWN_BYTES, cost
    assert cost.held_seconds < scaled(MAX_HELD_SECONDS), cost


def refused(gateway: GatewayProcess, reason: str) -> float:
    """Return the number of clients refused for a reason."""
    return metric(gateway, f'clients_refused_total{{reason="{reason}"}}')


def metric(gateway: GatewayProcess, name: str) -> float:
    """Return the value of a metric."""
    text = ask(gateway.port, b"GET /metrics HTTP/1.0\r\n\r\n").decode()
    found = re.search(rf"^celery_gateway_{re.escape(name)} (\S+)$", text, re.M)
    assert found is not None
    return float(found[1])


def texts(*messages: object) -> bytes:
    return b"".join(frame(json.dumps(message).encode()) for message in messages)


@pytest.mark.parametrize(
    ("more", "reads"),
    [
        pytest.param(frame(b"x", 9) * 1_000, True, id="pings"),
        pytest.param(frame(b"x" * 125, 9) * 1_000, False, id="pings-whose-answers-are-not-read"),
        pytest.param(
            frame(b"a", is_final=False) + frame(b"", 0, is_final=False) * 50_000, True, id="fragments"
        ),
        pytest.param(frame(b"{}") * 1_000, True, id="refused-messages"),
        pytest.param(
            texts(*({"op": "filter", "any": [{"name": [f"n{number}"]}]} for number in range(500))),
            True,
            id="filters",
        ),
        pytest.param(texts({"op": "open", "since": "earliest"}) * 500, True, id="streams"),
        pytest.param(texts({"op": "open", "snapshot": True}) * 500, False, id="snapshots"),
        pytest.param(
            texts(
                *(
                    {"op": "filter", "any": [{"uuid": [f"{one}-{two}" for two in range(1_000)]}]}
                    for one in range(10)
                )
            ),
            True,
            id="long-filters",
        ),
        pytest.param(
            texts(
                *(
                    {"op": "filter", "any": [{"name": [f"{one}x{two}" + "*a" * 490 for two in range(100)]}]}
                    for one in range(5)
                )
            ),
            True,
            id="wildcards",
        ),
    ],
)
def test_a_flood_of_messages_ends_or_is_not_read(gateway: GatewayProcess, more: bytes, reads: bool) -> None:
    seconds = 4.0 if reads else 1.0
    cost = flood(gateway, WEBSOCKET, more, seconds=seconds, reads=reads)
    # Input waits while its responses are not read (until --slow-timeout). On a busy machine it may stay
    # within its allowance of CPU time; the responses take as much again.
    is_allowed = cost.used_seconds < 2 * (MAX_INPUT_SECONDS + INPUT_SHARE * seconds)
    assert cost.is_cut or not reads or is_allowed, cost
    assert cost.used_seconds < scaled(MAX_USED_SECONDS), cost
    assert cost.memory_bytes < MAX_GROWN_BYTES, cost
    assert cost.held_seconds < scaled(0.25), cost


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (GET + b"x: %b\r\n\r\n" % (b"v" * 100_000), 431),
        (GET + b"".join(b"x-%d: y\r\n" % number for number in range(201)) + b"\r\n", 431),
        (
            GET + b"".join(b"x-%d: y\r\n" % number for number in range(199)) + b"Connection: close\r\n\r\n",
            431,
        ),
        (
            GET + b"".join(b"x-%d: y\r\n" % number for number in range(198)) + b"Connection: close\r\n\r\n",
            200,
        ),
        (b"GET /healthz?%b HTTP/1.1\r\nHost: localhost\r\n\r\n" % (b"v" * 60_000), 414),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nNo colon\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),  # TLS
        (b"GET /ws?name=%b HTTP/1.1\r\n%b" % (b"a" * 9_000, WEBSOCKET.partition(b"\r\n")[2]), 414),
        (
            WEBSOCKET[:-2] + b"".join(b"x-%d: y\r\n" % number for number in range(130)) + b"\r\n",
            431,
        ),
        (WEBSOCKET[:-2] + b"x: %b\r\n\r\n" % (b"v" * 9_000), 431),
        (WEBSOCKET.replace(b"Sec-WebSocket-Key", b"x"), 400),
        (WEBSOCKET.replace(b"Version: 13", b"Version: 1"), 400),
        (WEBSOCKET.replace(b"dGhlIHNhbXBsZSBub25jZQ==", b"short"), 400),
        (WEBSOCKET.replace(b"Host: localhost", b"Host: a\r\nHost: b"), 400),
        (WEBSOCKET.replace(b"Host: localhost\r\n", b""), 400),
        (WEBSOCKET[:-2] + b"x: \xff\xfe\r\n\r\n", 101),
        (WEBSOCKET.replace(b"GET", b"POST"), 405),
    ],
)
def test_a_rejected_request_has_a_response(
    gateway: GatewayProcess, request_bytes: bytes, status: int
) -> None:
    answer = ask(gateway.port, request_bytes, seconds=1.5)
    assert answer.startswith(b"HTTP/1.1 %d " % status), answer[:300]
    if status not in (101, 200):
        head, _, body = answer.partition(b"\r\n\r\n")
        assert b"connection: close" in head.lower()
        if b"json" in head:
            assert json.loads(body)["error"]["code"]


HEAVY = {"any": [{"name": [f"n{number}*"], "uuid": [f"{number}"] * 9} for number in range(99)]}
MANY = ",".join(f"task-suceeded{number}" for number in range(400))


@pytest.mark.parametrize(
    "request_bytes",
    [
        pytest.param(
            POST + b"Content-Length: %d\r\n\r\n%b" % (len(json.dumps(HEAVY)), json.dumps(HEAVY).encode()),
            id="posted",
        ),
        pytest.param(b"GET /events?type=%b HTTP/1.1\r\nHost: localhost\r\n\r\n" % MANY.encode(), id="query"),
        pytest.param(b"GET /tasks?type=%b HTTP/1.1\r\nHost: localhost\r\n\r\n" % MANY.encode(), id="lookup"),
        pytest.param(WEBSOCKET.replace(b"/ws", b"/ws?type=%b" % MANY.encode()), id="websocket"),
    ],
)
def test_requests_that_complete_at_once_start_in_turn(gateway: GatewayProcess, request_bytes: bytes) -> None:
    clients = [socket.create_connection(("127.0.0.1", gateway.port), 10) for _ in range(150)]
    for client in clients:
        client.sendall(request_bytes[:-1])
    with Meter(gateway) as meter:
        assert until(lambda: meter.answers > 5)
        for client in clients:
            client.sendall(request_bytes[-1:])
        for client in clients:
            assert client.recv(100).startswith(b"HTTP/1.1 ")
            client.close()
    assert meter.held_seconds < scaled(MAX_HELD_SECONDS), meter.held_seconds


def test_small_fragments_are_charged_with_their_overhead(gateway: GatewayProcess) -> None:
    fragments = frame(b"x", is_final=False) + frame(b"x", 0, is_final=False) * 3_000
    clients = [socket.create_connection(("127.0.0.1", gateway.port), 10) for _ in range(30)]
    try:
        before = metric(gateway, "client_memory_bytes")
        for client in clients:
            client.sendall(WEBSOCKET)
            assert client.recv(100).startswith(b"HTTP/1.1 101")
            client.sendall(fragments)
        assert until(lambda: metric(gateway, "client_memory_bytes") - before > 30 * 3_000 * 80)
    finally:
        for client in clients:
            client.close()


def test_pipelined_requests_are_answered_in_order(gateway: GatewayProcess) -> None:
    paths = ("healthz", "readyz", "nothing")
    answer = ask(
        gateway.port,
        b"".join(b"GET /%b HTTP/1.1\r\nHost: localhost\r\n\r\n" % path.encode() for path in paths * 5),
        seconds=1.0,
    )
    statuses = re.findall(rb"HTTP/1.1 (\d+)", answer)
    assert statuses == [b"200", b"200", b"404"] * 5


def test_too_many_pipelined_requests_end_the_connection_after_their_responses(
    gateway: GatewayProcess,
) -> None:
    answer = ask(gateway.port, (GET + b"\r\n") * 100)
    assert 1 <= answer.count(b"HTTP/1.1 200") <= 17
    assert answer.count(b"connection: close") == 1 and answer.endswith(b"}")


def test_connections_stay_below_the_limit_of_file_descriptors(tmp_path: Path) -> None:
    """The broker and the log need file descriptors, too."""
    gateway = GatewayProcess("memory://localhost", tmp_path)
    inherited = [sys.executable, "-c", _LIMITED, *gateway._args]
    gateway._args = inherited
    gateway.start()
    clients: list[socket.socket] = []
    try:
        for _ in range(300):
            clients.append(socket.create_connection(("127.0.0.1", gateway.port), 5))  # noqa: PERF401
        refused_now = 300 - 172  # one address has at most nine tenths of the 192 connections
        assert until(lambda: len(select.select(clients, [], [], 0)[0]) == refused_now)
        limits = Path(f"/proc/{gateway.pid}/limits").read_text()
        assert re.search(r"Max open files +256 +256", limits), "it is raised to the hard limit"
        descriptors = len(os.listdir(f"/proc/{gateway.pid}/fd"))
        assert descriptors < 172 + 30, descriptors
        # Another address finds room.
        answer = ask(gateway.port, GET + b"Connection: close\r\n\r\n", source="127.0.0.2")
        assert answer.startswith(b"HTTP/1.1 200")
        metrics = ask(gateway.port, b"GET /metrics HTTP/1.0\r\n\r\n", source="127.0.0.2").decode()
        assert f'clients_refused_total{{reason="connections"}} {refused_now:.1f}' in metrics
        assert gateway.log.read_text().count("connections") == 1, "it is logged once"
    finally:
        for client in clients:
            client.close()
        gateway.stop()


_LIMITED = (
    "import os, resource, sys; resource.setrlimit(resource.RLIMIT_NOFILE, (100, 256)); "
    "os.execv(sys.argv[1], sys.argv[1:])"
)
