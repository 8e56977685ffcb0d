"""The headers of every response: all routes and all errors, under the gateway's own server and mounted."""

import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import httpx
import pytest
from playwright.sync_api import Page
from starlette.applications import Starlette
from starlette.routing import Mount, Route, WebSocketRoute

from celery_gateway.asgi import Gateway
from celery_gateway.http import request_limits
from celery_gateway.http.dashboard import POLICY, load
from celery_gateway.http.dashboard_endpoints import ASSET_CACHE
from celery_gateway.http.headers import SafeHeaders
from celery_gateway.settings import Settings
from tests.support.access_file import AccessFile
from tests.support.browser import chromium
from tests.support.gateway_process import GatewayProcess
from tests.support.portable_server import in_thread

BROKER = "memory://localhost"
SHOP = "https://shop.example"
UPGRADE = (
    "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)
NOTHING_ALLOWED = "default-src 'none'; frame-ancestors 'none'"
HTML = "Accept: text/html,*/*;q=0.8\r\n"
ASSETS = f"/assets/{load().hash}"


class Case(NamedTuple):
    """A request, and the status of its response.

    Attributes:
        headers: with line ends.
        is_own: only our own server answers it; another one has its own limits and errors.
    """

    status: int
    method: str
    path: str
    headers: str = ""
    body: bytes = b""
    version: str = "HTTP/1.1"
    host: str = "Host: localhost\r\n"
    is_own: bool = False

    @property
    def name(self) -> str:
        return f"{self.status} {self.method} {self.path[:40]} {self.headers[:30]!r}"


CASES = [
    Case(200, "GET", "/"),
    Case(200, "GET", "/tasks/x", HTML),
    Case(200, "HEAD", "/workers", HTML),
    Case(200, "GET", f"{ASSETS}/app.js"),
    Case(200, "GET", f"{ASSETS}/app.css", "Accept-Encoding: gzip\r\n"),
    Case(404, "GET", "/assets/other/app.js"),
    Case(200, "GET", "/healthz"),
    Case(200, "GET", "/readyz"),
    Case(200, "GET", "/metrics"),
    Case(200, "GET", "/tasks"),
    Case(200, "GET", "/tasks/counts"),
    Case(200, "GET", "/workflows"),
    Case(200, "GET", "/statistics"),
    Case(200, "GET", "/failures"),
    Case(200, "GET", "/queues"),
    Case(404, "GET", "/workers/x"),
    Case(200, "HEAD", "/tasks"),
    Case(200, "GET", "/workers"),
    Case(200, "HEAD", "/events"),
    Case(200, "GET", "/events"),
    Case(200, "GET", "/events?format=ndjson"),
    Case(200, "GET", "/events", version="HTTP/1.0", is_own=True),
    Case(200, "POST", "/events", "Content-Type: application/json\r\nContent-Length: 2\r\n", b"{}"),
    Case(204, "POST", "/session"),
    Case(204, "DELETE", "/session"),
    Case(204, "OPTIONS", "/events"),
    Case(204, "OPTIONS", "*"),
    Case(204, "OPTIONS", "/events", f"Origin: {SHOP}\r\nAccess-Control-Request-Method: GET\r\n"),
    Case(307, "GET", "/events/"),
    Case(400, "GET", "/events?nmae=x"),
    Case(400, "POST", "/events", "Content-Length: 1\r\n", b"{"),
    Case(400, "POST", "/events", "Content-Length: 300000\r\n", b"x" * 300_000),
    Case(400, "GET", "/events", host=""),
    Case(400, "GET", "/events\x01", is_own=True),
    Case(400, "GET", "/events", "Content-Length: x\r\n", is_own=True),
    Case(403, "GET", "/events", host="Host: evil.example\r\n"),
    Case(403, "GET", "/events", "Origin: https://evil.example\r\n"),
    Case(404, "GET", "/nothing"),
    Case(404, "GET", "/tasks/x"),
    Case(404, "GET", "/workflows/x"),
    Case(404, "GET", "/events/x-1"),
    Case(403, "POST", "/tasks/x/revoke", "Content-Type: application/json\r\nContent-Length: 2\r\n", b"{}"),
    Case(
        403, "POST", "/workflows/x/revoke", "Content-Type: application/json\r\nContent-Length: 2\r\n", b"{}"
    ),
    Case(405, "DELETE", "/tasks"),
    Case(414, "GET", "/events?name=" + "x" * 61_000, is_own=True),
    Case(426, "GET", "/ws"),
    Case(431, "GET", "/events", "X-A: a\r\n" * 300, is_own=True),
    Case(400, "GET", "/ws?nmae=x", UPGRADE),
    Case(403, "GET", "/ws", UPGRADE + "Origin: https://evil.example\r\n"),
    Case(403, "GET", "/ws", UPGRADE, host="Host: evil.example\r\n"),
    Case(400, "GET", "/ws", UPGRADE.replace("-Key: ", "-Kez: "), is_own=True),
    Case(400, "GET", "/ws", UPGRADE.replace(": 13", ": 99"), is_own=True),
    Case(414, "GET", "/ws?name=" + "x" * 9_000, UPGRADE, is_own=True),
    Case(431, "GET", "/ws", UPGRADE + "X-A: a\r\n" * 130, is_own=True),
]
AUTH_CASES = [
    Case(401, "GET", "/"),
    Case(401, "GET", "/", "Accept: text/html\r\n"),
    Case(401, "GET", "/tasks", HTML),
    Case(200, "GET", "/healthz"),
    Case(401, "GET", "/events"),
    Case(401, "GET", "/tasks", "Authorization: Bearer x\r\n"),
    Case(401, "GET", "/metrics"),
    Case(401, "POST", "/session"),
    Case(401, "GET", "/ws", UPGRADE),
    Case(403, "GET", "/metrics", "Authorization: Bearer TOKEN\r\n"),
    Case(200, "GET", "/tasks", "Authorization: Bearer TOKEN\r\n"),
    Case(200, "GET", "/events", "Authorization: Bearer TOKEN\r\n"),
    Case(404, "GET", "/tasks/x", "Authorization: Bearer TOKEN\r\n"),
]


@pytest.fixture(scope="module", params=["own", "mounted"])
def server(request: pytest.FixtureRequest, folder: Path) -> Iterator[tuple[str, bool]]:
    """The URL of a gateway, and whether it is under its own server."""
    if request.param == "own":
        gateway = GatewayProcess(BROKER, folder, options=["--allow-origin", SHOP])
        gateway.start()
        yield gateway.url, True
        gateway.stop()
        return
    mounted = Gateway(Settings(broker=BROKER, allow_origins=[SHOP]))
    app = Starlette(routes=[Mount("/celery", mounted)], lifespan=mounted.lifespan)
    with in_thread(app) as (_, url):
        yield f"{url}/celery", False


def ask(url: str, case: Case) -> tuple[int, dict[str, str]]:
    """Send a request; return the status and the headers, with names in lower case."""
    parts = urlsplit(url)
    path = case.path if case.path == "*" else parts.path + case.path
    head = f"{case.method} {path} {case.version}\r\n{case.host}{case.headers}\r\n"
    with socket.create_connection(("127.0.0.1", parts.port or 0), timeout=10) as connection:
        connection.sendall(head.encode("latin-1"))
        sender = Thread(target=_send, args=(connection, case.body), daemon=True)
        sender.start()
        received = b""
        while b"\r\n\r\n" not in received:
            part = connection.recv(1 << 16)
            assert part, f"{case.name}: {received!r}"
            received += part
        sender.join(5)
    lines = received.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")
    headers: dict[str, str] = {}
    for line in lines[1:]:
        name, _, value = line.partition(":")
        assert name.lower() not in headers or name.lower() == "set-cookie", f"{case.name}: {name} twice"
        headers[name.lower()] = value.strip()
    return int(lines[0].split()[1]), headers


def _send(connection: socket.socket, body: bytes) -> None:
    with suppress(OSError):  # the response came before its end
        connection.sendall(body)


def assert_safe(case: Case, status: int, headers: dict[str, str]) -> None:
    assert status == case.status, case.name
    assert headers["x-content-type-options"] == "nosniff", case.name
    assert headers["referrer-policy"] == "no-referrer", case.name
    assert headers["cross-origin-resource-policy"] == "same-origin", case.name
    assert "strict-transport-security" not in headers, case.name
    policy = headers["content-security-policy"]
    if headers.get("content-type", "").startswith("text/html"):
        assert policy == POLICY, case.name
    else:
        assert policy == NOTHING_ALLOWED, case.name
    if headers.get("content-type", "").startswith(("text/event-stream", "application/x-ndjson")):
        assert headers["cache-control"] == "no-store, no-transform", case.name
    elif case.path.startswith(ASSETS):
        assert headers["cache-control"] == ASSET_CACHE, case.name
    elif "etag" in headers:
        is_page = headers.get("content-type", "").startswith("text/html")
        assert headers["cache-control"] == ("no-cache" if is_page else "private, no-cache"), case.name
    else:
        assert headers["cache-control"] == "no-store", case.name


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_each_response_is_safe(server: tuple[str, bool], case: Case) -> None:
    url, is_own = server
    if case.is_own and not is_own:
        pytest.skip("another server has its own limits and errors")
    if case.path == "*" and not is_own:
        pytest.skip("it is a request to the application around the gateway")
    assert_safe(case, *ask(url, case))


@pytest.mark.unit
def test_the_cases_are_all_routes() -> None:
    app: Any = Gateway(Settings(broker=BROKER))._app
    while not isinstance(app, Starlette):
        app = app._app
    for route in app.routes:
        assert isinstance(route, Route | WebSocketRoute)
        pattern = re.compile(re.sub(r"\{[^}]*\}", "[^/?]+", route.path) + r"(\?.*)?")
        methods = getattr(route, "methods", None) or {"GET"}
        missing = {
            method
            for method in methods
            if not any(pattern.fullmatch(case.path) and case.method == method for case in CASES)
        } - {"HEAD"}
        assert not missing, f"{route.path} {missing}: add a case"


@pytest.mark.parametrize("is_own", [True, False])
def test_each_response_is_safe_with_authentication(is_own: bool, tmp_path: Path) -> None:
    file = AccessFile(tmp_path)
    token = file.create("reader", ["events", "state"])

    def check(url: str) -> None:
        for case in AUTH_CASES:
            own = case._replace(headers=case.headers.replace("TOKEN", token))
            status, headers = ask(url, own)
            assert_safe(case, status, headers)
            varying = {each.strip() for each in headers["vary"].split(",")}
            assert varying >= {"Authorization", "Cookie"}, case.name
            assert ("www-authenticate" in headers) is (status in (401, 403)), case.name

    if is_own:
        gateway = GatewayProcess(BROKER, tmp_path, options=["--auth", str(file.path)])
        gateway.start()
        try:
            check(gateway.url)
        finally:
            gateway.stop()
        return
    mounted = Gateway(Settings(broker=BROKER, auth=str(file.path)))
    app = Starlette(routes=[Mount("/celery", mounted)], lifespan=mounted.lifespan)
    with in_thread(app) as (_, url):
        check(f"{url}/celery")


async def test_a_gateway_that_does_not_run_answers_safely() -> None:
    transport = httpx.ASGITransport(app=Gateway(Settings(broker=BROKER)))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        response = await client.get("/tasks")
    headers = {name.lower(): value for name, value in response.headers.items()}
    assert_safe(Case(503, "GET", "/tasks"), response.status_code, headers)


@pytest.mark.unit
@pytest.mark.parametrize(
    "error",
    [
        request_limits.too_many_connections("connections"),
        request_limits.client_over_limit("memory", 1.0),
        request_limits.body_too_long(),
        request_limits.too_many_pipelined(),
        request_limits.https_required(),
    ],
    ids=lambda error: error.code,
)
def test_errors_of_connections_are_safe(error: request_limits.RequestRejected) -> None:
    for hsts_seconds in (0, 60):
        raw = request_limits.as_http1(error.response(), hsts_seconds)
        lines = raw.partition(b"\r\n\r\n")[0].decode().split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines[1:])
        assert headers.pop("strict-transport-security", "") == ("max-age=60" if hsts_seconds else "")
        assert_safe(Case(error.status_code, "", ""), int(lines[0].split()[1]), headers)


@pytest.mark.unit
@pytest.mark.parametrize(
    ("scheme", "sent"), [("https", True), ("wss", True), ("http", False), ("ws", False), (None, False)]
)
async def test_hsts_is_sent_over_https_only(scheme: str | None, sent: bool) -> None:
    messages: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        kind = "websocket.http.response.start" if scope["type"] == "websocket" else "http.response.start"
        await send({"type": kind, "status": 403, "headers": []})

    async def send(message: Any) -> None:
        messages.append(message)

    scope = {"type": "websocket" if scheme in ("ws", "wss") else "http"} | (
        {"scheme": scheme} if scheme else {}
    )
    for seconds in (7, 0):
        await SafeHeaders(app, hsts_seconds=seconds)(scope, None, send)  # type: ignore[arg-type]
    with_hsts, without = (dict(message["headers"]) for message in messages)
    assert with_hsts.get(b"strict-transport-security") == (b"max-age=7" if sent else None)
    assert b"strict-transport-security" not in without


# Pages


@contextmanager
def isolated_page() -> Iterator[str]:
    """The URL of a page with Cross-Origin-Embedder-Policy."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            for name, value in {
                "Content-Type": "text/html",
                "Cross-Origin-Embedder-Policy": "require-corp",
                "Cross-Origin-Opener-Policy": "same-origin",
            }.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(b"<!doctype html><title>page</title>")

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        try:
            yield f"http://localhost:{server.server_port}"
        finally:
            server.shutdown()


READ = """async ([url, withCredentials]) => {
    const credentials = withCredentials ? "include" : "omit";
    const response = await fetch(`${url}/tasks`, { credentials });
    const opened = await new Promise((resolve) => {
        const source = new EventSource(`${url}/events?since=earliest`, { withCredentials });
        source.addEventListener("gateway-open", () => { source.close(); resolve(true); });
        source.onerror = () => { source.close(); resolve(false); };
    });
    const embedded = await fetch(`${url}/tasks`, { mode: "no-cors" }).then(() => true, () => false);
    return [response.status, opened, embedded, self.crossOriginIsolated];
}"""


@pytest.mark.parametrize("allowed", ["named", "*"])
def test_pages_of_allowed_origins_read_and_none_embeds(allowed: str, folder: Path) -> None:
    """Also a page that is isolated, which reads only what permits it."""
    with isolated_page() as origin, chromium() as browser:
        gateway = GatewayProcess(
            BROKER, folder, options=["--allow-origin", origin if allowed == "named" else "*"]
        )
        gateway.start()
        try:
            page: Page = browser.new_page()
            page.goto(origin)
            # http://localhost and http://127.0.0.1 are different sites
            got = page.evaluate(READ, [gateway.url, allowed == "named"])
            assert got == [200, True, False, True]
        finally:
            gateway.stop()
