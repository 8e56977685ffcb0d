"""Requests for foreign hosts and from foreign pages, and what pages of allowed origins get.

The gateway is under its own server, and mounted in an application. Its broker is the one in memory.
"""

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from email.message import Message
from email.parser import BytesParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, NamedTuple, Protocol
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.testclient import TestClient
from websockets.sync.client import connect
from websockets.typing import Subprotocol

from celery_gateway.asgi import Gateway
from celery_gateway.http import origin as origin_check
from celery_gateway.settings import Settings
from tests.support.browser import chromium
from tests.support.gateway_process import GatewayProcess
from tests.support.portable_server import in_thread

BROKER = "memory://localhost"
SHOP = "https://shop.example"
EVIL = "https://evil.example"
PATHS = ("/", "/events", "/ws", "/tasks", "/tasks/x", "/workflows/x", "/workers")
PROBES = ("/healthz", "/readyz", "/metrics")
UPGRADE = {
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version": "13",
}


class Server(Protocol):
    url: str


class Mounted(NamedTuple):
    url: str


class Answer(NamedTuple):
    status: int
    headers: Message
    body: bytes

    @property
    def error(self) -> dict[str, Any]:
        error: dict[str, Any] = json.loads(self.body)["error"]
        return error


class Pages:
    """An empty page at two origins: the address and the name of one server."""

    def __init__(self) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("Content-Type", "text/html")
                self.end_headers()
                self.wfile.write(b"<!doctype html><title>page</title>")

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        port = self._server.server_port
        self.named, self.foreign = f"http://localhost:{port}", f"http://127.0.0.1:{port}"
        Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture(scope="module")
def pages() -> Iterator[Pages]:
    pages = Pages()
    yield pages
    pages.close()


@contextmanager
def running(kind: str, folder: Path, **settings: Any) -> Iterator[Server]:
    """A gateway under its own server, or mounted under uvicorn; lists are options that are repeated."""
    if kind == "mounted":
        gateway = Gateway(Settings(broker=BROKER, **settings))
        app = Starlette(routes=[Mount("/celery", gateway)], lifespan=gateway.lifespan)
        with in_thread(app) as (_, url):
            yield Mounted(f"{url}/celery")
        return
    options: list[str] = []
    for name, value in settings.items():
        values = [value] if isinstance(value, str) else value
        option = f"--{name.removesuffix('s').replace('_', '-')}"
        options += [argument for each in values for argument in (option, each)]
    process = GatewayProcess(BROKER, folder, options=options)
    process.start()
    try:
        yield process
    finally:
        process.stop()


@pytest.fixture(scope="module", params=["own", "mounted"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def server(kind: str, folder: Path, pages: Pages) -> Iterator[Server]:
    """It has settings for hosts, origins and the public URL."""
    with running(
        kind,
        folder,
        allow_origins=[SHOP, pages.named],
        allow_hosts=["events.example", ".internal.example"],
        public_url="https://public.example:8443/celery",
    ) as server:
        yield server


def ask(
    server: Server,
    path: str,
    *more: tuple[str, str],
    method: str = "GET",
    version: str = "1.1",
    host: str | None = "localhost",
    upgrade: bool = True,
    **headers: str,
) -> Answer:
    """Send one request; for a stream, return the head only."""
    parts = urlsplit(server.url)
    lines = [f"{method} {path if path == '*' else parts.path + path} HTTP/{version}"]
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    if path.partition("?")[0] == "/ws" and method == "GET" and upgrade:
        named |= UPGRADE
    if host is not None:
        lines.append(f"Host: {host}")
    lines += [f"{name}: {value}" for name, value in (*named.items(), *more)]
    with socket.create_connection(("127.0.0.1", parts.port or 0), timeout=10) as connection:
        connection.sendall("\r\n".join([*lines, "", ""]).encode("latin-1"))
        file = connection.makefile("rb")
        status = int(file.readline().split()[1])
        answer_headers = BytesParser().parsebytes(b"".join(iter(file.readline, b"\r\n")), headersonly=True)
        length = 0 if method == "HEAD" else int(answer_headers.get("Content-Length", 0))
        return Answer(status, answer_headers, file.read(length))


@pytest.mark.parametrize("path", [*PATHS, *PROBES, "/nothing"])
def test_a_foreign_host_is_rejected_on_every_path(server: Server, path: str) -> None:
    for host in ("evil.example", "evil.example:8555", "localhost.evil.example"):
        answer = ask(server, path, host=host)
        assert answer.status == 403
        assert answer.headers["Content-Type"] == "application/json"
        assert answer.error["code"] == "forbidden-host" and "--allow-host" in answer.error["message"]
        assert "evil" not in str(answer.headers) + str(answer.error), "it repeats nothing of such a request"


@pytest.mark.parametrize(
    "host",
    [
        *("localhost", "127.0.0.1:8555", "[::1]:8555", "10.0.0.7", "events.example", "a.internal.example:80"),
        *("public.example", "public.example:8443", "a.localhost", "gateway", "gateway:8555"),
    ],
)
def test_other_hosts_are_served(server: Server, host: str) -> None:
    assert ask(server, "/healthz", host=host).status == 200
    assert ask(server, "/ws", host=host, Origin=f"http://{host}").status == 101


@pytest.mark.parametrize("path", [*PATHS, *PROBES])
def test_http_1_1_requires_exactly_one_host(server: Server, path: str) -> None:
    assert ask(server, path, host=None).status == 400
    assert ask(server, path, ("Host", "evil.example")).status == 400
    assert ask(server, path, ("Host", "localhost")).status == 400


def test_redirects_are_relative(server: Server) -> None:
    """A redirect with the Host header could point to another site, and behind a proxy to the wrong port."""
    for path in ("/events/?type=task-sent", "/tasks/?name=a&limit=5", "/workers/"):
        answer = ask(server, path)
        name, _, query = path.strip("/").partition("/?")
        assert answer.status == 307
        assert answer.headers["Location"] == f"../{name}" + (f"?{query}" if query else "")
    assert ask(server, "/nothing/").status == 404


def test_http_1_0_needs_no_host(server: Server) -> None:
    assert ask(server, "/", method="OPTIONS", version="1.0", host=None).status == 204
    if isinstance(server, GatewayProcess):  # of a server as a whole; elsewhere that is not the gateway
        assert ask(server, "*", method="OPTIONS", version="1.0", host=None).status == 204
    assert ask(server, "/healthz", version="1.0", host=None).status == 200


@pytest.mark.parametrize(
    "origin", [EVIL, "null", "http://localhost:3000", "https://shop.example:444", "file://"]
)
def test_a_foreign_page_is_rejected(server: Server, origin: str) -> None:
    for path in (
        "/ws",
        "/events",
        "/events?format=ndjson",
        "/events?since=earliest",
        "/tasks",
        "/ws?since=0s",
    ):
        answer = ask(server, path, Origin=origin)
        assert answer.status == 403, path
        assert (answer.error["code"], answer.error["origin"]) == ("forbidden-origin", origin)
        assert "--allow-origin" in answer.error["message"]
        assert "Access-Control-Allow-Origin" not in answer.headers
    body = {"Content-Type": "text/plain", "Content-Length": "0"}  # of a request without a preflight
    assert ask(server, "/events", *body.items(), method="POST", Origin=origin).status == 403


def test_a_rejected_websocket_logs_no_error(folder: Path) -> None:
    with running("own", folder) as server:
        assert isinstance(server, GatewayProcess)
        assert ask(server, "/ws", Origin=EVIL).status == 403
        assert ask(server, "/ws", host="evil.example").status == 403
        assert ask(server, "/ws?nmae=x").status == 400
        assert ask(server, "/healthz").status == 200  # after these the log has what it gets
        log = server.log.read_text()
        assert log.count("refused a request") == 2
        assert "ERROR" not in log and "ASGI" not in log, log


def test_rejected_hosts_and_origins_are_logged_once_a_minute(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = TestClient(Gateway(Settings(broker=BROKER)))

    def logged(**headers: str) -> int:
        caplog.clear()
        assert client.get("/tasks", headers=headers).status_code == 403
        return caplog.text.count("refused a request")

    assert sum(logged(Host=f"evil-{n}.example") for n in range(30)) == origin_check.MAX_LOGGED
    assert logged(Origin=EVIL) == 1
    assert logged(Origin=EVIL) == 0
    monkeypatch.setattr(origin_check, "LOG_SECONDS", 0.0)  # as if that time had passed
    assert logged(Host="evil-29.example") == 1
    assert logged(Origin=EVIL) == 1


def test_pages_of_the_same_host_are_served(server: Server) -> None:
    for host, origin in (
        ("localhost:8555", "http://localhost:8555"),
        ("events.example", "https://events.example"),  # behind a proxy with TLS
        ("127.0.0.1:8555", "https://public.example:8443"),
        ("127.0.0.1:8555", SHOP),
    ):
        assert ask(server, "/ws", host=host, Origin=origin).status == 101
        assert ask(server, "/events", host=host, Origin=origin).status == 200
    forwarded = ("X-Forwarded-Host", "events.example, proxy.example")  # Apache httpd sends its own Host
    assert ask(server, "/ws", forwarded, host="127.0.0.1:8555", Origin="https://events.example").status == 101
    assert ask(server, "/ws", forwarded, host="127.0.0.1:8555", Origin=EVIL).status == 403
    assert ask(server, "/ws", forwarded, host="evil.example").status == 403


@pytest.mark.parametrize(
    ("path", "status"),
    [("/events", 200), ("/tasks", 200), ("/events?nmae=x", 400), ("/tasks/x", 404), ("/nothing", 404)],
)
def test_pages_of_an_allowed_origin_may_read_with_credentials(server: Server, path: str, status: int) -> None:
    answer = ask(server, path, Origin=SHOP)
    assert answer.status == status
    assert answer.headers["Access-Control-Allow-Origin"] == SHOP
    assert answer.headers["Access-Control-Allow-Credentials"] == "true"
    assert answer.headers["Access-Control-Expose-Headers"] == "ETag, Retry-After"
    assert "Origin" in answer.headers["Vary"]
    others = ask(server, path)
    assert "Access-Control-Allow-Origin" not in others.headers
    assert "Origin" in others.headers["Vary"], "a cache would give this answer to a page"


def test_preflights_are_answered(server: Server) -> None:
    asked = {
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,cache-control,last-event-id,x-requested-with",
        "Access-Control-Request-Private-Network": "true",
    }
    answer = ask(server, "/events", *asked.items(), method="OPTIONS", Origin=SHOP)
    assert answer.status == 204
    assert answer.headers["Access-Control-Allow-Origin"] == SHOP
    assert answer.headers["Access-Control-Allow-Credentials"] == "true"
    assert answer.headers["Access-Control-Allow-Headers"] == asked["Access-Control-Request-Headers"]
    assert answer.headers["Access-Control-Allow-Private-Network"] == "true"
    assert "POST" in answer.headers["Access-Control-Allow-Methods"]
    assert {"Origin", "Access-Control-Request-Headers"} <= set(answer.headers["Vary"].split(", "))
    plain = ask(server, "/tasks", *list(asked.items())[:1], method="OPTIONS", Origin=SHOP)
    assert "Access-Control-Allow-Private-Network" not in plain.headers
    assert ask(server, "/events", *asked.items(), method="OPTIONS", Origin=EVIL).status == 403


def test_all_origins_and_all_hosts(kind: str, folder: Path) -> None:
    with running(kind, folder, allow_origins=["*", SHOP], allow_hosts=["*"]) as server:
        for origin, credentials in ((EVIL, None), ("null", None), (SHOP, "true")):
            answer = ask(server, "/events", host="evil.example", Origin=origin)
            assert answer.status == 200
            assert answer.headers["Access-Control-Allow-Origin"] == (SHOP if credentials else "*")
            assert answer.headers["Access-Control-Allow-Credentials"] == credentials
            assert ask(server, "/ws", host="evil.example", Origin=origin).status == 101


@pytest.mark.parametrize("path", [*PATHS, *PROBES])
def test_options_and_head_are_answered(server: Server, path: str) -> None:
    answer = ask(server, path, method="OPTIONS")
    assert (answer.status, answer.body) == (204, b"")
    allowed = set(answer.headers["Allow"].split(", "))
    assert allowed == {"GET", "HEAD", "OPTIONS"} | ({"POST"} if path == "/events" else set())
    if path != "/ws":
        head, get = ask(server, path, method="HEAD"), ask(server, path)
        assert head.status == get.status
        for name in ("Content-Type", "Cache-Control", "X-Accel-Buffering", "ETag"):
            assert head.headers[name] == get.headers[name], name
    assert ask(server, "/nothing", method="OPTIONS").status == 404
    assert "OPTIONS" in ask(server, "/tasks", method="DELETE").headers["Allow"]


def test_a_websocket_path_without_upgrade_gets_426(server: Server) -> None:
    answer = ask(server, "/ws", upgrade=False)
    assert (answer.status, answer.headers["Upgrade"]) == (426, "websocket")
    assert "Connection" in answer.error["message"]


def test_streams_forbid_transformation(server: Server) -> None:
    for format in ("sse", "ndjson"):
        headers = ask(server, f"/events?format={format}").headers
        assert headers["Cache-Control"] == "no-store, no-transform"
        assert headers["X-Accel-Buffering"] == "no"


TOKEN = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ1c2VyIn0.c2lnbmF0dXJlLXNpZ25hdHVyZQ"


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [
        ([], None),
        (["celery-gateway"], "celery-gateway"),
        (["graphql-ws", "celery-gateway"], "celery-gateway"),
        ([TOKEN, "celery-gateway"], "celery-gateway"),
        (["v12.stomp", "mqtt"], "v12.stomp"),
        ([TOKEN, "mqtt"], "mqtt"),
        (["x" * 65, "mqtt"], "mqtt"),
        ([TOKEN], None),
    ],
)
def test_a_subprotocol_is_accepted_by_name(server: Server, offered: list[str], chosen: str | None) -> None:
    url = f"{server.url.replace('http', 'ws', 1)}/ws"
    with connect(url, subprotocols=[Subprotocol(name) for name in offered] or None) as websocket:
        assert websocket.subprotocol == chosen
        assert json.loads(websocket.recv(timeout=10))["type"] == "gateway-open"


# In a browser

OPEN_WEBSOCKET = """([url, protocols]) => new Promise((resolve) => {
    const socket = new WebSocket(url, protocols);
    socket.onmessage = ({ data }) => { resolve([JSON.parse(data).type, socket.protocol]); socket.close(); };
    socket.onclose = () => resolve("refused");
})"""
OPEN_EVENT_SOURCE = """([url, withCredentials]) => new Promise((resolve) => {
    const source = new EventSource(url, { withCredentials });
    source.addEventListener("gateway-open", () => { resolve("gateway-open"); source.close(); });
    source.onerror = () => { resolve("refused"); source.close(); };
})"""
FETCH = """async ([url, options]) => {
    try {
        const response = await fetch(url, options);
        return [response.status, (await response.json()).error?.code ?? null];
    } catch {
        return "refused";
    }
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium("--host-resolver-rules=MAP *.example 127.0.0.1") as browser:
        yield browser


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    context = browser.new_context(bypass_csp=True)  # responses forbid scripts of any kind
    yield context.new_page()
    context.close()


@pytest.mark.parametrize("allowed", [True, False])
def test_what_a_page_of_another_origin_reads(server: Server, pages: Pages, page: Page, allowed: bool) -> None:
    page.goto(pages.named if allowed else pages.foreign)
    url = server.url
    socket_url = f"{url.replace('http', 'ws', 1)}/ws?since=earliest"
    opened = page.evaluate(OPEN_WEBSOCKET, [socket_url, ["celery-gateway", TOKEN]])
    assert opened == (["gateway-open", "celery-gateway"] if allowed else "refused")
    opened = page.evaluate(OPEN_WEBSOCKET, [socket_url, []])
    assert opened == (["gateway-open", ""] if allowed else "refused")
    for credentials in (True, False):
        opened = page.evaluate(OPEN_EVENT_SOURCE, [f"{url}/events?since=earliest", credentials])
        assert opened == ("gateway-open" if allowed else "refused")
    headers = {"Cache-Control": "no-cache", "X-Requested-With": "XMLHttpRequest", "Authorization": "Bearer x"}
    options = {"credentials": "include", "headers": headers}
    answer = page.evaluate(FETCH, [f"{url}/tasks", options])
    assert answer == ([200, None] if allowed else "refused")
    answer = page.evaluate(FETCH, [f"{url}/tasks?nmae=x", options])
    assert answer == ([400, "unknown-parameter"] if allowed else "refused"), "errors can be read, too"


def test_dns_rebinding_is_rejected(server: Server, page: Page) -> None:
    """For the browser, the page and the gateway have the same origin."""
    rebound = server.url.replace("127.0.0.1", "evil.example")
    response = page.goto(f"{rebound}/tasks")
    assert response is not None and response.status == 403
    assert page.evaluate(FETCH, [f"{rebound}/events", {}]) == [403, "forbidden-host"]
    socket_url = f"{rebound.replace('http', 'ws', 1)}/ws"
    assert page.evaluate(OPEN_WEBSOCKET, [socket_url, []]) == "refused"
    named = server.url.replace("127.0.0.1", "events.example")
    response = page.goto(f"{named}/tasks")
    assert response is not None and response.status == 200
    socket_url = f"{named.replace('http', 'ws', 1)}/ws"
    assert page.evaluate(OPEN_WEBSOCKET, [socket_url, []]) == ["gateway-open", ""]
