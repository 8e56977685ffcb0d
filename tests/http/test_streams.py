"""Tests for every transport: SSE, NDJSON and WebSocket, direct and portable.

The direct paths are those of `celery-gateway serve`; the portable ones are the same application
under hypercorn.
"""

import json
import random
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, Protocol

import httpx
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests.support.gateway_process import GatewayProcess
from tests.support.portable_server import PortableServer
from tests.support.publisher import Publisher
from tests.support.rabbitmq import wait_for
from tests.support.thorough import tries

KINDS = ["sse", "ndjson", "websocket"]
STATUS = frozenset({"gateway-status"})
Message = dict[str, Any]


class Server(Protocol):
    url: str
    port: int


def messages(
    server: Server, kind: str, query: dict[str, str], *, skipped: frozenset[str] = STATUS
) -> Iterator[Message]:
    """Yield the messages of a stream, with keep-alives; closing the iterator closes the connection.

    Args:
        skipped: types of message that are left out.
    """
    for message in _messages(server, kind, query):
        if message["type"] not in skipped:
            yield message


def _messages(server: Server, kind: str, query: dict[str, str]) -> Iterator[Message]:
    path = server.url.partition(f":{server.port}")[2]
    text = str(httpx.QueryParams(query))
    if kind == "websocket":
        with connect(f"ws://127.0.0.1:{server.port}{path}/ws?{text}", max_size=None) as websocket:
            try:
                while True:
                    yield json.loads(websocket.recv())
            except ConnectionClosed:
                return
            finally:
                websocket.socket.close()  # cut, without goodbye
    with closing(HTTPConnection("127.0.0.1", server.port, timeout=30)) as connection:
        connection.request("GET", f"{path}/events?{text}&format={kind}")
        response = connection.getresponse()
        assert response.status == 200, response.read()
        id = ""
        for line in response:
            if kind == "ndjson":
                yield json.loads(line)
            elif line.startswith(b"id: "):
                id = line[4:].decode().strip()
            elif line.startswith(b"data: "):
                message = json.loads(line[6:])
                assert message["id"] == id
                yield message
                id = ""
            elif line == b"\n" and id:
                yield {"type": "gateway-bookmark", "id": id}


def subscriptions(server: Server) -> float:
    text = httpx.get(f"{server.url}/metrics").text
    return float(text.partition("\ncelery_gateway_subscriptions ")[2].partition("\n")[0])


@pytest.fixture(scope="module", params=["direct", "portable"])
def server(request: pytest.FixtureRequest, broker: str, folder: Path) -> Iterator[Server]:
    server: GatewayProcess | PortableServer
    if request.param == "direct":
        server = GatewayProcess(broker, folder, options=["--keepalive", "0.3"])
    else:
        server = PortableServer(broker, folder)
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.mark.parametrize("kind", KINDS)
def test_resumed_streams_have_every_event_once(publisher: Publisher, server: Server, kind: str) -> None:
    """Six filters, each repeatedly: connect, read some events, disconnect, resume with the last id."""
    count, cuts_at_least = tries(3_000), tries(250)
    mark = f"cut-{kind}-{random.getrandbits(64):x}"
    filters = [{"type": mark}, *({"type": mark, "name": f"n{digit},x{digit}"} for digit in range(5))]
    results: dict[int, list[int]] = {}
    cuts: dict[int, int] = {}

    def live(number: int, ready: threading.Barrier) -> None:
        chance = random.Random(number)
        got: list[int] = []
        query = dict(filters[number])
        cuts[number] = 0
        end = False
        while not end:
            stream = messages(server, kind, query, skipped=frozenset())
            for left, message in zip(range(chance.choice((1, 2, 3, 6, 31)), -1, -1), stream, strict=False):
                if not ready.broken and cuts[number] == 0 and message["type"] == "gateway-open":
                    ready.wait(20)
                assert message["type"] in ("gateway-open", "gateway-status", "gateway-bookmark", mark)
                if message["type"] == "gateway-open":
                    assert message["resume"] == ("resumed" if "last_event_id" in query else "live")
                if message["type"] == mark:
                    got.append(message["n"])
                    end = message["n"] == count
                query["last_event_id"] = message["id"]
                if end or not left:
                    break
            cuts[number] += 1
        results[number] = got

    ready = threading.Barrier(len(filters) + 1)
    threads = [threading.Thread(target=live, args=(number, ready)) for number in range(len(filters))]
    for thread in threads:
        thread.start()
    ready.wait(20)
    for n in range(0, count, 10):
        publisher.send([{"type": mark, "n": k, "name": f"n{k % 5}"} for k in range(n, n + 10)])
        time.sleep(0.01)  # paces the publisher; nothing is asserted of it
    publisher.send({"type": mark, "n": count, "name": "x0"})
    for digit in range(1, 5):
        publisher.send({"type": mark, "n": count, "name": f"x{digit}"})
    for thread in threads:
        thread.join(60)
    assert len(results) == len(filters), f"only {sorted(results)} came to the end"
    for number, wanted in enumerate(filters):
        expected = [n for n in range(count) if "name" not in wanted or f"n{n % 5}" == wanted["name"][:2]]
        assert results[number] == [*expected, count], f"{wanted}: {cuts[number]} cuts"
    assert sum(cuts.values()) >= cuts_at_least, cuts


@pytest.mark.parametrize("kind", KINDS)
def test_a_stream_can_start_in_the_past(publisher: Publisher, server: Server, kind: str) -> None:
    mark = f"since-{kind}-{random.getrandbits(64):x}"
    with closing(messages(server, kind, {"type": mark})) as live:
        assert next(live)["resume"] == "live"
        publisher.send(*({"type": mark, "n": n} for n in range(5)))
        before = [next(message for message in live if message["type"] == mark) for _ in range(5)]
    for since in ("earliest", "10m", "1970-01-01T00:00:00Z"):
        with closing(messages(server, kind, {"type": mark, "since": since})) as again:
            assert next(again)["resume"] == "resumed"
            assert [next(again) for _ in before] == before
    with closing(messages(server, kind, {"type": mark, "since": "0s"})) as late:
        next(late)
        publisher.send({"type": mark, "n": 5})
        assert next(message for message in late if message["type"] == mark)["n"] == 5


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("begins", ["live", "resumed", "reset", "snapshot"])
def test_the_status_of_the_sources_follows_the_opening(server: Server, kind: str, begins: str) -> None:
    query = {"type": "nothing"}
    if begins == "resumed":
        with closing(messages(server, kind, query)) as before:
            query["last_event_id"] = next(before)["id"]
    elif begins != "live":
        query |= {"last_event_id": "no-log-1"} if begins == "reset" else {"snapshot": "1"}
    expected = {"reset": ["gateway-gap"], "snapshot": ["gateway-snapshot"]}.get(begins, [])
    with closing(messages(server, kind, query, skipped=frozenset({"gateway-bookmark"}))) as stream:
        opened = next(stream)
        told = [next(stream) for _ in range(1 + len(expected))]
    assert opened["resume"] == ("live" if begins == "snapshot" else begins)
    assert sorted(message["type"] for message in told) == sorted(["gateway-status", *expected])
    assert told[-1]["type"] != "gateway-snapshot" or told[0]["type"] == "gateway-status"
    (status,) = (message for message in told if message["type"] == "gateway-status")
    assert status["id"] == opened["id"]
    (source,) = status["sources"]
    assert (source["cluster"], source["consuming"]) == (None, True)
    assert source["reason"].startswith("consuming")
    assert time.time() - 3600 < source["since"] <= time.time()


@pytest.mark.parametrize(
    "since", ["", "yesterday", "10", "10 m", "-5m", "2026-11-21T08:31:00", "2026-13-01T00:00:00Z"]
)
def test_an_invalid_since_gets_400(server: Server, since: str) -> None:
    answer = httpx.get(f"{server.url}/events", params={"since": since})
    assert answer.status_code == 400
    assert answer.json()["error"]["parameter"] == "since"


@pytest.mark.parametrize("kind", KINDS)
def test_keep_alives_advance_the_position_of_an_idle_stream(
    publisher: Publisher, server: Server, kind: str
) -> None:
    with closing(messages(server, kind, {"type": "nothing"})) as stream:
        opened = next(stream)
        publisher.send({"type": "something"})
        moved = next(message for message in stream if message["id"] != opened["id"])
        assert moved["type"] == "gateway-bookmark"
    with closing(messages(server, kind, {"type": "nothing", "last_event_id": moved["id"]})) as again:
        assert next(again)["resume"] == "resumed"


@pytest.mark.parametrize("kind", KINDS)
def test_a_disconnected_client_is_removed(server: Server, kind: str) -> None:
    before = subscriptions(server)
    streams = [messages(server, kind, {"type": "nothing"}) for _ in range(5)]
    for stream in streams:
        next(stream)
    assert subscriptions(server) == before + 5
    for stream in streams:
        stream.close()
    assert wait_for(lambda: subscriptions(server) == before, 10)


def request_of(kind: str, port: int) -> bytes:
    if kind == "websocket":
        return (
            b"GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
    return f"GET /events?format={kind} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()


@pytest.mark.parametrize("kind", KINDS)
def test_a_client_that_does_not_read_is_closed_under_another_server(
    broker: str, folder: Path, publisher: Publisher, kind: str
) -> None:
    server = PortableServer(broker, folder)
    server.start()
    try:
        with socket.socket() as stalled:
            stalled.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            stalled.connect(("127.0.0.1", server.port))
            stalled.sendall(request_of(kind, server.port).replace(b"GET ", b"GET /celery"))
            assert wait_for(lambda: subscriptions(server) == 1, 5)
            for _ in range(400):
                publisher.send([{"type": "bulk", "pad": "x" * 1000} for _ in range(20)])
            assert wait_for(lambda: subscriptions(server) == 0, 15)
    finally:
        server.stop()


class TestSlowClients:
    """Slow clients under the gateway's own server."""

    @pytest.mark.parametrize("kind", KINDS)
    def test_a_client_that_does_not_read_is_closed_with_an_id_to_resume(
        self, broker: str, folder: Path, kind: str
    ) -> None:
        gateway = GatewayProcess(broker, folder, options=["--keepalive", "0.5", "--slow-timeout", "1"])
        gateway.start()
        publisher = Publisher(broker)
        try:
            with socket.socket() as stalled:
                stalled.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                stalled.settimeout(20)
                stalled.connect(("127.0.0.1", gateway.port))
                stalled.sendall(request_of(kind, gateway.port))
                assert wait_for(lambda: subscriptions(gateway) == 1, 5)
                for _ in range(400):
                    publisher.send([{"type": "bulk", "pad": "x" * 1000} for _ in range(20)])
                assert wait_for(lambda: subscriptions(gateway) == 0, 15)
                received = bytearray()
                while chunk := stalled.recv(1 << 20):
                    received += chunk
            start = received.rindex(b'{"type":"gateway-close"')
            closed = json.loads(received[start : received.index(b"}", start) + 1])
            assert closed["reason"] == "slow"
            if kind == "websocket":
                assert received.endswith((4008).to_bytes(2) + b"slow"), received[-400:]
            with closing(messages(gateway, kind, {"last_event_id": closed["id"]})) as again:
                assert next(again)["resume"] == "resumed"
        finally:
            publisher.close()
            gateway.stop()

    def test_stalled_readers_take_little_memory(self, broker: str, folder: Path) -> None:
        gateway = GatewayProcess(broker, folder, options=["--history-bytes", "4000000"])
        gateway.start()
        publisher = Publisher(broker)
        stalled: list[socket.socket] = []
        try:
            publisher.send(*[[{"type": "warm", "pad": "x" * 1000} for _ in range(20)] for _ in range(300)])
            for number in range(60):
                client = socket.socket()
                stalled.append(client)
                client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                client.connect(("127.0.0.1", gateway.port))
                client.sendall(request_of(KINDS[number % 3], gateway.port))
            assert wait_for(lambda: subscriptions(gateway) == 60, 10)
            before_kb = rss_kb(gateway.pid)
            with closing(messages(gateway, "ndjson", {"type": "bulk"})) as healthy:
                next(healthy)
                got: list[int] = []
                for n in range(1_000):
                    publisher.send([{"type": "bulk", "n": 20 * n + k, "pad": "x" * 1000} for k in range(20)])
                    if n % 50 == 49:  # less than half of what the history holds
                        got += (next(healthy)["n"] for _ in range(1_000))
            assert got == list(range(20_000))
            # 20 MB were sent to each of the 60.
            assert rss_kb(gateway.pid) - before_kb < 60_000
        finally:
            publisher.close()
            for client in stalled:
                client.close()
            gateway.stop()


def rss_kb(pid: int) -> int:
    (line,) = (
        line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS")
    )
    return int(line.split()[1])


@pytest.mark.timing
def test_sigterm_ends_hundreds_of_streams_of_every_kind_within_five_seconds(
    broker: str, folder: Path
) -> None:
    gateway = GatewayProcess(broker, folder)
    gateway.start()
    streams = [(kind, messages(gateway, kind, {"name": f"n{n}"})) for n in range(100) for kind in KINDS]
    for _, stream in streams:
        next(stream)
    stalled = socket.create_connection(("127.0.0.1", gateway.port))
    stalled.sendall(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert wait_for(lambda: subscriptions(gateway) == 301, 5)
    began = time.monotonic()
    assert gateway.stop() == 0
    assert time.monotonic() - began < 5
    pauses_ms = set()
    for _, stream in streams:
        *_, last = (message for message in stream if message["type"] != "gateway-bookmark")
        assert (last["type"], last["reason"]) == ("gateway-close", "drain")
        pauses_ms.add(last["retry_ms"])
    stalled.close()
    assert len(pauses_ms) > 50, "clients should not all come back at one time"


def test_pings_without_reading_take_no_memory(broker: str, folder: Path) -> None:
    gateway = GatewayProcess(broker, folder)
    gateway.start()
    try:
        before_kb = rss_kb(gateway.pid)
        with socket.create_connection(("127.0.0.1", gateway.port)) as client:
            client.sendall(request_of("websocket", gateway.port))
            text = b'{"op":"ping"}'
            pings = (b"\x81%c\x00\x00\x00\x00%b" % (0x80 | len(text), text)) * 1_000
            client.settimeout(1)
            sent_bytes = 0
            with suppress(TimeoutError, ConnectionError):
                while sent_bytes < 100_000_000:
                    sent_bytes += client.send(pings)
            # The gateway has stopped reading, so the buffers between are full; or it has ended the flood.
            assert sent_bytes < 100_000_000
            assert rss_kb(gateway.pid) - before_kb < 10_000
            assert gateway.is_ready()
    finally:
        gateway.stop()


def test_idle_connections_have_tcp_keepalive(broker: str, folder: Path) -> None:
    """Linux shows the timer of a socket in /proc/net/tcp: 02 is keep-alive."""
    gateway = GatewayProcess(broker, folder)
    gateway.start()
    try:
        with closing(messages(gateway, "ndjson", {"type": "nothing"})) as stream:
            next(stream)
            local = f"0100007F:{gateway.port:04X}"
            rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()]
            established = [row for row in rows if row[1] == local and row[3] == "01"]
            assert [row[5].partition(":")[0] for row in established] == ["02"]
    finally:
        gateway.stop()


@pytest.mark.parametrize("kind", KINDS)
def test_the_rate_of_keep_alives(broker: str, folder: Path, kind: str) -> None:
    gateway = GatewayProcess(broker, folder, options=["--keepalive", "0.8"])
    gateway.start()
    try:
        with closing(messages(gateway, kind, {"type": "nothing"})) as stream:
            next(stream)
            started = time.monotonic()
            count = 5
            for _ in range(count):
                assert next(stream)["type"] == "gateway-bookmark"
            # A busy machine delays keep-alives, and never makes more of them.
            assert time.monotonic() - started > (count - 1) * 0.5
    finally:
        gateway.stop()
