"""The files of deploy/nginx, as they are shipped, in a real nginx before a real gateway."""

import json
import random
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from http.client import HTTPConnection, HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import pytest
from playwright.sync_api import expect
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from tests.support.browser import chromium
from tests.support.gateway_process import GatewayProcess
from tests.support.js_client import built
from tests.support.nginx import SHIPPED, Nginx
from tests.support.publisher import Publisher, walk
from tests.support.rabbitmq import Process, free_port, wait_for
from tests.support.stream_client import NdjsonStream
from tests.support.transports import KINDS, Message, messages

KEEPALIVE_SECONDS = 0.5
READ_TIMEOUT = {"proxy_read_timeout 75s;": "proxy_read_timeout 2s;"}
READ_TIMEOUT_SECONDS = 2
KEPT, STRIPPED = "sub-path-kept.conf", "sub-path-stripped.conf"
UNDER_CELERY = ["--root-path", "/celery"]
IMPATIENT = ["--slow-timeout", "1", "--keepalive", "0.5"]
TOKEN = "c0ffee00c0ffee00c0ffee00c0ffee00"
WITH_TOKENS = {
    "nginx.conf": {"# include celery-gateway/tokens.conf": "include celery-gateway/tokens.conf"},
    "tokens.conf": {'# "TOKEN" 1;': f'"{TOKEN}" 1;'},
    KEPT: {"# include celery-gateway/require-token": "include celery-gateway/require-token"},
}

CLIENT = """
import { connect } from "./dist/index.js";
import WebSocket from "ws";
const [url, token, transport, type] = process.argv.slice(1);
const client = connect({ url, token, transport, WebSocket });
client.on("status", (status) => console.log(status));
client.on("error", (error) => console.log(error));
for await (const event of client.events({ type })) console.log(`event ${event.n}`);
"""


def mark() -> str:
    """A type of event that only this test publishes."""
    return f"mark-{random.getrandbits(64):x}"


def until_end(stream: Iterator[Message]) -> list[Message]:
    """What still comes on a stream, whether it ends in good order or is cut."""
    got = []
    with suppress(HTTPException, OSError):
        got.extend(stream)
    return got


def subscriptions(gateway: GatewayProcess) -> int:
    text = httpx.get(f"{gateway.url}/metrics").text
    return int(float(text.partition("\ncelery_gateway_subscriptions ")[2].partition("\n")[0]))


@contextmanager
def running(server: Nginx | GatewayProcess) -> Iterator[None]:
    try:
        server.start()
        yield
    finally:
        server.stop()


@pytest.fixture(scope="module")
def gateway(broker: str, folder: Path) -> Iterator[GatewayProcess]:
    process = GatewayProcess(broker, folder, options=[*UNDER_CELERY, "--keepalive", str(KEEPALIVE_SECONDS)])
    with running(process):
        yield process


@pytest.fixture(scope="module", params=[KEPT, STRIPPED])
def nginx(
    request: pytest.FixtureRequest, gateway: GatewayProcess, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Nginx]:
    replace = {
        "nginx.conf": {KEPT: request.param, "worker_shutdown_timeout 30s": "worker_shutdown_timeout 1s"},
        "proxy.conf": READ_TIMEOUT,
    }
    # Tests run in parallel can need it twice in one process: each has a folder of its own.
    server = Nginx(tmp_path_factory.mktemp(request.param), gateway.port, replace=replace)
    with running(server):
        yield server


@pytest.mark.parametrize("kind", KINDS)
def test_an_event_is_there_when_it_happens(nginx: Nginx, publisher: Publisher, kind: str) -> None:
    """One small event at a time, each read before the next is sent: nothing waits for company."""
    type = mark()
    with closing(messages(nginx, kind, type=type)) as stream:
        assert next(stream)["resume"] == "live"
        for n in range(5):
            publisher.send({"type": type, "n": n})
            assert next(stream)["n"] == n


class TestBuffering:
    """What the settings against it are worth: what happens without them, on a site that compresses."""

    GZIP = "gzip on; gzip_proxied any; gzip_types application/x-ndjson;"
    IGNORED = "proxy_ignore_headers X-Accel-Buffering;"

    def test_the_header_alone_is_enough(
        self, gateway: GatewayProcess, publisher: Publisher, tmp_path: Path
    ) -> None:
        replace = {"proxy.conf": {"proxy_buffering off;": "", "gzip off;": self.GZIP}}
        nginx, type = Nginx(tmp_path / "nginx", gateway.port, replace=replace), mark()
        with running(nginx), NdjsonStream(nginx.url, {"type": type}) as stream:
            assert stream.response.headers["Content-Encoding"] == "gzip"
            for n in range(3):
                publisher.send({"type": type, "n": n})
                stream.until(lambda events, n=n: len(events) == n + 1)

    def test_without_either_events_are_held_back(
        self, gateway: GatewayProcess, publisher: Publisher, tmp_path: Path
    ) -> None:
        replace = {"proxy.conf": {"proxy_buffering off;": self.IGNORED, "gzip off;": self.GZIP}}
        nginx, type = Nginx(tmp_path / "nginx", gateway.port, replace=replace), mark()
        with (
            running(nginx),
            closing(messages(gateway, "ndjson", type=type)) as direct,
            socket.create_connection(("127.0.0.1", nginx.port), timeout=1) as client,
        ):
            next(direct)
            asked = f"GET /celery/events?type={type}&format=ndjson HTTP/1.1\r\n"
            client.sendall(f"{asked}Host: localhost\r\nAccept-Encoding: gzip\r\n\r\n".encode())
            assert wait_for(lambda: subscriptions(gateway) == 2, 10)
            for n in range(20):
                publisher.send({"type": type, "n": n})
                next(direct)
            with pytest.raises(TimeoutError):
                client.recv(1)

    def test_without_either_who_does_not_read_is_not_noticed(
        self, broker: str, folder: Path, publisher: Publisher, tmp_path: Path
    ) -> None:
        """nginx reads for them, into a file. With the shipped files: see `test_stalled_readers_are_cut_…`."""
        gateway = GatewayProcess(broker, folder, options=[*UNDER_CELERY, *IMPATIENT])
        replace = {"proxy.conf": {"proxy_buffering off;": self.IGNORED}}
        nginx = Nginx(tmp_path / "nginx", gateway.port, replace=replace)
        with running(gateway), running(nginx), socket.socket() as stalled:
            stall(stalled, nginx, "ndjson")
            assert wait_for(lambda: subscriptions(gateway) == 1, 10)
            for _ in range(80):
                publisher.send([{"type": "bulk", "pad": "x" * 10_000} for _ in range(25)])
            assert not wait_for(lambda: subscriptions(gateway) == 0, 3)


def bookmarks(server: Nginx, kind: str) -> Iterator[str]:
    """The position of each keep-alive on a stream that has nothing else."""
    if kind == "websocket":
        with connect(f"ws://127.0.0.1:{server.port}/celery/ws?type={mark()}") as websocket:
            while True:
                if (message := json.loads(websocket.recv(timeout=30)))["type"] == "gateway-bookmark":
                    yield message["id"]
    with closing(HTTPConnection("127.0.0.1", server.port, timeout=30)) as connection:
        connection.request("GET", f"/celery/events?format={kind}&type={mark()}")
        for line in connection.getresponse():
            if kind == "sse" and line.startswith(b"id: "):
                yield line[4:].decode().strip()
            elif kind == "ndjson" and b"bookmark" in line:
                yield json.loads(line)["id"]


class TestIdle:
    def test_keepalives_outlast_the_read_timeout(self, nginx: Nginx) -> None:
        streams = [bookmarks(nginx, kind) for kind in KINDS]
        for stream in streams:
            next(stream)
        began = time.monotonic()
        while time.monotonic() < began + 2 * READ_TIMEOUT_SECONDS:
            for stream in streams:
                next(stream)
        for stream in streams:
            stream.close()  # type: ignore[attr-defined]

    @pytest.mark.parametrize("kind", KINDS)
    def test_which_without_them_would_cut(self, broker: str, folder: Path, tmp_path: Path, kind: str) -> None:
        gateway = GatewayProcess(broker, folder, options=["--keepalive", "60"])
        nginx = Nginx(
            tmp_path / "nginx",
            gateway.port,
            replace={"proxy.conf": READ_TIMEOUT, "nginx.conf": {KEPT: STRIPPED}},
        )
        with running(gateway), running(nginx), closing(messages(nginx, kind, type=mark())) as stream:
            next(stream)
            began = time.monotonic()
            assert all(message["type"] == "closed" for message in until_end(stream))
            assert time.monotonic() - began < 10


def test_a_drain_is_told_and_what_comes_after_it(gateway: GatewayProcess, nginx: Nginx) -> None:
    streams = {kind: messages(nginx, kind, type=mark()) for kind in KINDS}
    for stream in streams.values():
        next(stream)
    assert gateway.stop() == 0
    for kind, stream in streams.items():
        close, *rest = stream
        assert (close["type"], close["reason"]) == ("gateway-close", "drain")
        assert [message["code"] for message in rest] == ([1012] if kind == "websocket" else [])
    assert httpx.get(f"{nginx.url}/events").status_code == 502
    gateway.start()
    for kind in KINDS:
        with closing(messages(nginx, kind, last_event_id=close["id"])) as stream:
            assert next(stream)["resume"] == "reset"
            assert next(stream)["reason"] == "unknown-id"


def test_nothing_is_missed_across_a_reload(nginx: Nginx, publisher: Publisher) -> None:
    """The streams of the old worker processes are cut, a second later."""
    type = mark()
    streams = {kind: messages(nginx, kind, type=type) for kind in KINDS}
    for stream in streams.values():
        next(stream)
    publisher.send({"type": type, "n": 0})
    before = {kind: next(stream) for kind, stream in streams.items()}
    nginx.reload()
    for stream in streams.values():
        assert all(message["type"] == "closed" for message in until_end(stream))
    publisher.send({"type": type, "n": 1}, {"type": type, "n": 2})
    for kind in KINDS:
        with closing(messages(nginx, kind, type=type, last_event_id=before[kind]["id"])) as stream:
            assert next(stream)["resume"] == "resumed"
            assert [next(stream)["n"] for _ in range(2)] == [1, 2]


def test_last_event_id_is_passed_on(nginx: Nginx, publisher: Publisher) -> None:
    """The header, which an EventSource sends."""
    type = mark()
    with closing(messages(nginx, "sse", type=type)) as stream:
        next(stream)
        publisher.send({"type": type, "n": 0}, {"type": type, "n": 1})
        first = next(stream)
    with NdjsonStream(nginx.url, {"type": type}, {"Last-Event-ID": first["id"]}) as again:
        assert again.opened["resume"] == "resumed"
        assert again.until(bool)[0]["n"] == 1


def request_of(kind: str) -> bytes:
    if kind == "websocket":
        return (
            b"GET /celery/ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
    return (
        f"GET /celery/events?format={kind} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()
    )


def stall(client: socket.socket, nginx: Nginx, kind: str) -> None:
    """Asks for a stream and does not read it."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.settimeout(20)
    client.connect(("127.0.0.1", nginx.port))
    client.sendall(request_of(kind))


def test_stalled_readers_are_cut_and_harm_nobody(broker: str, folder: Path, tmp_path: Path) -> None:
    gateway = GatewayProcess(broker, folder, options=[*UNDER_CELERY, *IMPATIENT])
    nginx, publisher, stalled = Nginx(tmp_path / "nginx", gateway.port), Publisher(broker), []
    sent = 0
    try:
        with running(gateway), running(nginx), NdjsonStream(nginx.url, {"fields": "n"}) as healthy:
            for kind in KINDS:
                stalled.append(client := socket.socket())
                stall(client, nginx, kind)
            assert wait_for(lambda: subscriptions(gateway) == 4, 10)
            deadline = time.monotonic() + 40
            while subscriptions(gateway) > 1 and time.monotonic() < deadline:
                for _ in range(20):
                    publisher.send([{"type": "bulk", "n": sent + k, "pad": "x" * 1000} for k in range(20)])
                    sent += 20
            assert subscriptions(gateway) == 1, "those who do not read are still there"
            healthy.until(lambda events: len(events) >= sent)
            assert [event["n"] for event in healthy.events] == list(range(sent))
            for client in stalled:
                with suppress(ConnectionResetError):
                    while client.recv(1 << 20):
                        pass
    finally:
        publisher.close()
        for client in stalled:
            client.close()


@pytest.mark.parametrize("accept", ["text/event-stream", "application/x-ndjson"])
def test_a_posted_request_is_answered_by_a_stream(nginx: Nginx, publisher: Publisher, accept: str) -> None:
    """Also one that is longer than what nginx keeps in memory."""
    type = mark()
    wanted = {"any": [{"type": [type]}, {"uuid": [f"{n:036}" for n in range(900)]}]}
    with closing(HTTPConnection("127.0.0.1", nginx.port, timeout=20)) as connection:
        connection.request(
            "POST",
            "/celery/events",
            json.dumps(wanted),
            {"Content-Type": "application/json", "Accept": accept},
        )
        response = connection.getresponse()
        assert (response.status, response.headers["Content-Type"].partition(";")[0]) == (200, accept)
        assert any(b'"gateway-open"' in line for line in response)
        for n in range(3):
            publisher.send({"type": type, "n": n})
            line = next(line for line in response if type.encode() in line)
            assert json.loads(line.removeprefix(b"data: "))["n"] == n


def test_a_stream_is_opened_anew_on_its_websocket(nginx: Nginx, publisher: Publisher) -> None:
    type = mark()
    with connect(f"ws://127.0.0.1:{nginx.port}/celery/ws?type=nothing") as websocket:
        assert json.loads(websocket.recv(timeout=20))["type"] == "gateway-open"
        websocket.send(json.dumps({"op": "open", "any": [{"type": [type]}], "snapshot": []}))
        wanted = ["gateway-open", "gateway-snapshot"]
        while wanted:
            message = json.loads(websocket.recv(timeout=20))
            if message["type"] == wanted[0]:
                wanted.pop(0)
        publisher.send({"type": type})
        while message["type"] != type:
            message = json.loads(websocket.recv(timeout=20))


def test_the_rest_is_there_too(nginx: Nginx, publisher: Publisher) -> None:
    publisher.send(*walk("shop.charge", uid="u-nginx"))
    assert wait_for(lambda: httpx.get(f"{nginx.url}/tasks/u-nginx").status_code == 200, 10)
    with httpx.Client() as client:
        assert client.get(f"{nginx.url}/readyz").json()["status"] == "ready"
        assert client.get(f"{nginx.url}/tasks", params={"name": "shop.*"}).json()["tasks"]
        assert client.get(f"{nginx.url}/events?nmae=x").json()["error"]["parameter"] == "nmae"
        assert client.get(f"http://127.0.0.1:{nginx.port}/tasks").status_code == 404


def test_the_dashboard_lives_under_the_sub_path(nginx: Nginx, publisher: Publisher) -> None:
    name = f"shop.at_{nginx.port}"
    with chromium() as browser:
        page = browser.new_page()
        failed: list[object] = []
        # A page ends its own streams, which browsers report as failed.
        page.on("requestfailed", lambda request: "ABORTED" in request.failure or failed.append(request))
        page.on("pageerror", lambda error: failed.append(error))
        page.goto(nginx.url)  # without the last slash: nginx adds it
        assert page.url == f"{nginx.url}/"
        expect(page.locator(".status.level-ok")).to_be_visible()
        page.get_by_role("link", name="Live").click()
        expect(page).to_have_url(f"{nginx.url}/events")
        publisher.send(*walk(name))
        expect(page.get_by_role("row").filter(has_text=name)).to_have_count(3)
        page.get_by_role("row").filter(has_text=name).get_by_role("link").first.click()
        expect(page.locator("main")).to_have_attribute("data-view", "task")
        page.reload()
        expect(page.locator("main")).to_contain_text(name)
        assert failed == []


@pytest.fixture(scope="module")
def guarded(gateway: GatewayProcess, folder: Path) -> Iterator[Nginx]:
    nginx = Nginx(folder / "guarded", gateway.port, replace=WITH_TOKENS)
    with running(nginx):
        yield nginx


class TestTokens:
    def test_whoever_has_one_comes_in(self, guarded: Nginx, publisher: Publisher) -> None:
        type = mark()
        with NdjsonStream(guarded.url, {"type": type}, {"Authorization": f"Bearer {TOKEN}"}) as stream:
            publisher.send({"type": type})
            stream.until(bool)
        for kind in KINDS:
            with closing(messages(guarded, kind, access_token=TOKEN)) as opened:
                assert next(opened)["type"] == "gateway-open"
        url, bearer = f"ws://127.0.0.1:{guarded.port}/celery/ws", f"celery-gateway.bearer.{TOKEN}"
        for offered in (["celery-gateway", bearer], [bearer, "celery-gateway"]):
            with connect(url, subprotocols=offered) as websocket:  # type: ignore[arg-type]
                assert websocket.subprotocol == "celery-gateway"
        for wrong in (f"{bearer}0", f"x{bearer}", "celery-gateway.bearer.1"):
            with pytest.raises(InvalidStatus):
                connect(url, subprotocols=["celery-gateway", wrong])  # type: ignore[list-item]
        tail = [sys.executable, "-m", "celery_gateway", "tail", guarded.url, "--json", "--token", TOKEN]
        with subprocess.Popen(tail, stdout=subprocess.PIPE) as process:
            try:
                assert process.stdout is not None
                assert b"gateway-open" in process.stdout.readline()
            finally:
                process.kill()

    @pytest.mark.parametrize(
        "headers",
        [
            {},
            {"Authorization": "Bearer x"},
            {"Authorization": f"Basic {TOKEN}"},
            {"Authorization": "Bearer 1"},
        ],
    )
    @pytest.mark.parametrize("query", ["", "?access_token=", "?access_token=1", "?access_token=OPTIONS"])
    def test_and_nobody_else(self, guarded: Nginx, headers: dict[str, str], query: str) -> None:
        for path in ("/", "/events", "/ws", "/tasks", "/metrics", "/healthz"):
            answer = httpx.get(f"{guarded.url}{path}{query}", headers=headers)
            assert answer.status_code == 401, path
            assert answer.headers["WWW-Authenticate"].startswith("Bearer")
            assert answer.json()["error"]["code"] == "unauthorized"
        with pytest.raises(InvalidStatus):
            connect(f"ws://127.0.0.1:{guarded.port}/celery/ws{query}", additional_headers=headers)

    @pytest.mark.parametrize("transport", ["sse", "websocket"])
    def test_the_javascript_client_shows_it(
        self, gateway: GatewayProcess, publisher: Publisher, tmp_path: Path, transport: str
    ) -> None:
        """On each of its connections."""
        nginx_conf = WITH_TOKENS["nginx.conf"] | {"worker_shutdown_timeout 30s": "worker_shutdown_timeout 1s"}
        nginx = Nginx(tmp_path / "nginx", gateway.port, replace={**WITH_TOKENS, "nginx.conf": nginx_conf})
        type = mark()
        with running(nginx):
            script = ["node", "--input-type=module", "-e", CLIENT, nginx.url, TOKEN, transport, type]
            client = Process(script, log=tmp_path / "client.log", cwd=built())
            try:
                client.wait_until(lambda: "open" in client.log.read_text(), 15)
                publisher.send({"type": type, "n": 0})
                client.wait_until(lambda: "event 0" in client.log.read_text(), 15)
                nginx.reload()
                client.wait_until(lambda: client.log.read_text().count("open") == 2, 15)
                publisher.send({"type": type, "n": 1})
                client.wait_until(lambda: "event 1" in client.log.read_text(), 15)
                assert client.log.read_text().count("event") == 2
            finally:
                client.kill()
        assert TOKEN not in nginx.access_log.read_text() + nginx.error_log.read_text()

    def test_a_browser_may_ask_before_it_sends_one(self, guarded: Nginx) -> None:
        assert httpx.options(f"{guarded.url}/events").status_code != 401

    def test_as_shipped_nobody_comes_in(self, gateway: GatewayProcess, tmp_path: Path) -> None:
        nginx = Nginx(
            tmp_path / "nginx",
            gateway.port,
            replace={**WITH_TOKENS, "tokens.conf": {"default 0": "default 0"}},
        )
        with running(nginx):
            for token in ("TOKEN", "0", "1", TOKEN):
                assert httpx.get(f"{nginx.url}/healthz?access_token={token}").status_code == 401

    def test_none_is_written_into_a_log(self, guarded: Nginx, folder: Path) -> None:
        """Nor when the gateway is away, which nginx would report with the whole request."""
        away = Nginx(folder / "away", free_port(), replace=WITH_TOKENS)
        with running(away):
            for nginx, status in ((guarded, 200), (away, 502)):
                for path in ("/healthz", "/tasks"):
                    answer = httpx.get(
                        f"{nginx.url}{path}",
                        params={"access_token": TOKEN},
                        headers={"Referer": f"{nginx.url}/?access_token={TOKEN}"},
                    )
                    assert answer.status_code == status
                line = f'"GET /celery/tasks HTTP/1.1" {status} '
                assert wait_for(lambda n=nginx, text=line: text in n.access_log.read_text(), 5)
                for log in (nginx.access_log, nginx.error_log):
                    assert TOKEN not in log.read_text()
                    assert "access_token" not in log.read_text()


@contextmanager
def application(statuses: dict[str, int] | None = None) -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """Somebody's own server: its port, and what it was asked. Answers 200, or by the cookie."""
    asked: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append({"method": self.command, "path": self.path, **dict(self.headers)})
            self.send_response((statuses or {}).get(self.headers.get("Cookie", ""), 403 if statuses else 200))
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        try:
            yield server.server_port, asked
        finally:
            server.shutdown()


@pytest.mark.parametrize(
    ("way", "path"), [(KEPT, "/celery/workflows/a%2Fb?x=%2C"), (STRIPPED, "/workflows/a/b?x=%2C")]
)
def test_what_the_gateway_is_told(tmp_path: Path, way: str, path: str) -> None:
    with application() as (port, asked):
        nginx = Nginx(tmp_path / "nginx", port, replace={"nginx.conf": {KEPT: way}})
        headers = {"Authorization": "Bearer t", "Last-Event-ID": "e-1", "Origin": "https://shop.example"}
        with running(nginx):
            httpx.get(
                f"{nginx.url}/workflows/a%2Fb?x=%2C",
                headers=headers | {"X-Forwarded-For": "192.0.2.7", "X-Forwarded-User": "admin"},
            )
        expected = {
            **headers,
            "path": path,
            "Host": f"127.0.0.1:{nginx.port}",
            "X-Forwarded-For": "192.0.2.7, 127.0.0.1",
            "X-Forwarded-Host": f"127.0.0.1:{nginx.port}",
            "X-Forwarded-Proto": "http",
        }
        assert len(asked) == 1
        assert {key: asked[0].get(key) for key in expected} == expected
        assert asked[0].keys().isdisjoint({"Connection", "Upgrade", "X-Forwarded-User"})


def test_the_session_of_the_site_decides(
    gateway: GatewayProcess, publisher: Publisher, tmp_path: Path
) -> None:
    with application({"session=good": 204, "session=old": 401}) as (port, asked):
        replace = {
            "nginx.conf": {f"{KEPT};": f"{KEPT}; include celery-gateway/session.conf;"},
            "session.conf": {"127.0.0.1:8000": f"127.0.0.1:{port}"},
            KEPT: {"# auth_request": "auth_request"},
        }
        nginx, type = Nginx(tmp_path / "nginx", gateway.port, replace=replace), mark()
        with running(nginx):
            with NdjsonStream(nginx.url, {"type": type}, {"Cookie": "session=good"}) as stream:
                publisher.send({"type": type})
                stream.until(bool)
            assert asked[0]["X-Original-URI"].startswith("/celery/events?")
            assert httpx.get(f"{nginx.url}/tasks", headers={"Cookie": "session=old"}).status_code == 401
            assert httpx.get(f"{nginx.url}/tasks").status_code == 403
            assert httpx.get(f"http://127.0.0.1:{nginx.port}/celery-gateway-session").status_code == 404


@pytest.fixture
def tls(gateway: GatewayProcess, tmp_path: Path) -> Iterator[Nginx]:
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1"),
            *("-subj", "/CN=celery.example", "-keyout", key, "-out", certificate),
        ],
        check=True,
        capture_output=True,
    )
    replace = {
        "nginx.conf": {"# include celery-gateway/tls.conf": "include celery-gateway/tls.conf"},
        "tls.conf": {
            "/etc/ssl/certs/celery.example.pem": str(certificate),
            "/etc/ssl/private/celery.example.key": str(key),
        },
    }
    nginx = Nginx(tmp_path / "nginx", gateway.port, replace=replace)
    with running(nginx):
        yield nginx


def test_more_streams_than_six_from_one_page_over_http_2(tls: Nginx, publisher: Publisher) -> None:
    """Over HTTP/1.1 the seventh EventSource would wait for ever."""
    count, type = 12, mark()
    with chromium() as browser:
        # A document of the gateway as the page: its policy forbids scripts.
        page = browser.new_context(ignore_https_errors=True, bypass_csp=True).new_page()
        page.goto(f"https://127.0.0.1:{tls.tls_port}/celery/healthz")
        page.evaluate(
            """([type, count]) => {
                window.opened = window.events = 0;
                for (let n = 0; n < count; n++) {
                    const source = new EventSource(`events?type=${type}`);
                    source.addEventListener("gateway-open", () => window.opened++);
                    source.onmessage = () => window.events++;
                }
            }""",
            [type, count],
        )
        page.wait_for_function(f"window.opened == {count}", timeout=15_000)
        protocol = page.evaluate("performance.getEntriesByType('navigation')[0].nextHopProtocol")
        publisher.send({"type": type})
        page.wait_for_function(f"window.events == {count}", timeout=15_000)
        assert protocol == "h2"


def test_a_client_comes_back_to_its_replica(broker: str, folder: Path, tmp_path: Path) -> None:
    replicas = [GatewayProcess(broker, folder, options=UNDER_CELERY) for _ in range(2)]
    nginx = Nginx(
        tmp_path / "nginx",
        *(replica.port for replica in replicas),
        replace={"nginx.conf": {"upstream.conf": "upstream-replicas.conf"}},
    )
    with running(replicas[0]), running(replicas[1]), running(nginx):
        last_event_id = None
        for kind in KINDS * 3:
            query = {} if last_event_id is None else {"last_event_id": last_event_id}
            with closing(messages(nginx, kind, query)) as stream:
                opened = next(stream)
            assert opened["resume"] == ("resumed" if query else "live")
            last_event_id = opened["id"]
        with closing(messages(nginx, "sse")) as stream:
            next(stream)
            (mine,) = (replica for replica in replicas if subscriptions(replica))
            mine.stop()
            last_event_id = until_end(stream)[-1]["id"]
        with closing(messages(nginx, "sse", last_event_id=last_event_id)) as stream:
            assert next(stream)["resume"] == "reset"
            assert next(stream)["reason"] == "unknown-id"


def test_a_client_resumes_at_any_gateway_with_the_same_log(broker: str, folder: Path, tmp_path: Path) -> None:
    """Streams at both gateways, through nginx without affinity; one of them is killed."""
    options = [*UNDER_CELERY, "--log", "rabbitmq"]
    gateways = [GatewayProcess(broker, folder, options=options) for _ in range(2)]
    nginx = Nginx(
        tmp_path / "nginx",
        *(gateway.port for gateway in gateways),
        replace={"nginx.conf": {"upstream.conf": "upstream-shared-log.conf"}},
    )
    type = mark()
    with running(gateways[0]), running(gateways[1]), running(nginx), closing(Publisher(broker)) as publisher:
        with (
            closing(messages(nginx, "sse", type=type)) as one,
            closing(messages(nginx, "sse", type=type)) as two,
        ):
            assert next(one)["resume"] == next(two)["resume"] == "live"
            assert [subscriptions(gateway) for gateway in gateways] == [1, 1]
            for n in range(3):
                publisher.send({"type": type, "n": n})
            got = [next(one) for _ in range(3)]
            assert got == [next(two) for _ in range(3)]
        for kind in KINDS * 2:
            with closing(messages(nginx, kind, last_event_id=got[0]["id"], type=type)) as stream:
                assert next(stream)["resume"] == "resumed"
                assert [next(stream), next(stream)] == got[1:]
        gateways[0].stop()
        publisher.send({"type": type, "n": 3})
        with closing(messages(nginx, "sse", last_event_id=got[2]["id"], type=type)) as stream:
            assert next(stream)["resume"] == "resumed"
            assert next(stream)["n"] == 3


def test_nginx_takes_every_file(tmp_path: Path) -> None:
    """Each is included by one of the tests here; those that are no whole configuration say where they go."""
    assert {path.name for path in SHIPPED.glob("*.conf")} == {
        *("nginx.conf", "celery-gateway.conf", "upstream.conf", "upstream-replicas.conf", "proxy.conf"),
        "upstream-shared-log.conf",
        *(KEPT, STRIPPED, "tls.conf", "tokens.conf", "require-token.conf", "session.conf"),
        "authenticated-user.conf",  # tests/clients/test_oauth2_proxy.py
    }
    assert "test is successful" in Nginx(tmp_path / "nginx", free_port()).check()
