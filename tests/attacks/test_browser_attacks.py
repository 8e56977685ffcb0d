"""Pages of other origins in a real Chromium, whose user has a valid session: they read nothing, and start or
end no session.

Chromium sends the session's cookie with requests of pages of another port of the same host (cookies do not
depend on ports), so the gateway has to refuse these. It does not send it with those of other sites.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Response

from celery_gateway.http.carriers import COOKIE
from tests.support.access_file import AccessFile
from tests.support.browser import chromium
from tests.support.gateway_process import GatewayProcess
from tests.support.rabbitmq import free_port, wait_for
from tests.support.thorough import variants
from tests.support.web import WebServer

ALL = ("events", "state", "workers", "metrics", "dashboard")
PROTECTED = ("/tasks", "/workers", "/metrics", "/events?since=earliest", "/workflows/a", "/events/a-1")

FETCH = """async ([url, options]) => {
    try {
        const response = await fetch(url, options);
        if (response.type === "opaque") return "opaque";
        const reader = response.body?.getReader();
        const { value } = reader ? await reader.read() : {};
        reader?.cancel();
        return [response.status, new TextDecoder().decode(value)];
    } catch { return "refused"; }
}"""
XHR = """([method, url, headers]) => new Promise((resolve) => {
    const request = new XMLHttpRequest();
    request.open(method, url);
    request.withCredentials = true;
    for (const [name, value] of Object.entries(headers)) request.setRequestHeader(name, value);
    request.onloadend = () => resolve(request.status ? [request.status, request.responseText] : "refused");
    request.send();
})"""
EVENT_SOURCE = """([url, withCredentials]) => new Promise((resolve) => {
    const source = new EventSource(url, { withCredentials });
    for (const type of ["message", "gateway-open"])
        source.addEventListener(type, (event) => { resolve(event.data); source.close(); });
    source.onerror = () => { resolve("refused"); source.close(); };
})"""
WEBSOCKET = """([url, protocols]) => new Promise((resolve) => {
    const socket = new WebSocket(url, protocols);
    socket.onmessage = ({ data }) => { resolve(data); socket.close(); };
    socket.onclose = () => resolve("refused");
})"""
ELEMENT = """([tag, attribute, url]) => new Promise((resolve) => {
    const globals = new Set(Object.keys(window));
    const element = document.createElement(tag);
    const done = (event) => {
        let inner = null;
        try { inner = element.contentDocument?.body?.innerText ?? null; } catch { }
        const added = Object.keys(window).filter((name) => !globals.has(name) && !/^\\d+$/.test(name));
        const size = element.naturalWidth ?? 0;
        let rules = 0;
        try { rules = element.sheet?.cssRules.length ?? 0; } catch { }
        resolve({ event, inner, added, size, rules });
    };
    element.onload = () => done("load");
    element.onerror = () => done("error");
    setTimeout(() => done("silent"), 300);
    if (tag === "link") element.rel = "stylesheet";
    element[attribute] = url;
    document.body.append(element);
})"""
FORM = """([action, method, fields]) => {
    const frame = document.createElement("iframe");
    frame.name = "target" + Math.random();
    const form = document.createElement("form");
    Object.assign(form, { action, method, target: frame.name, enctype: "text/plain" });
    for (const [name, value] of fields) {
        const input = document.createElement("input");
        Object.assign(input, { name, value });
        form.append(input);
    }
    document.body.append(frame, form);
    return new Promise((resolve) => {
        const read = () => {
            try { resolve(frame.contentDocument?.body?.innerText ?? null); } catch { resolve(null); }
        };
        frame.onload = read;
        setTimeout(read, 1_000);
        form.submit();
    });
}"""
WINDOW = """(url) => new Promise((resolve) => {
    const opened = window.open(url);
    setTimeout(() => {
        let text = null;
        try { text = opened?.document?.body?.innerText ?? null; } catch { }
        opened?.close();
        resolve(text);
    }, 700);
})"""
BEACON = "(url) => navigator.sendBeacon(url, 'x')"


class Gateways(NamedTuple):
    """The same access file, and other options: which pages may read."""

    closed: GatewayProcess
    open: GatewayProcess
    named: GatewayProcess


@pytest.fixture(scope="module")
def access(folder: Path) -> AccessFile:
    return AccessFile(folder)


@pytest.fixture(scope="module")
def attacker() -> Iterator[WebServer]:
    server = WebServer()
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def gateways(folder: Path, access: AccessFile, attacker: WebServer) -> Iterator[Gateways]:
    port = attacker.page_url.rpartition(":")[2].partition("/")[0]
    allowed = ([], ["--allow-origin", "*"], ["--allow-origin", f"http://localhost:{port}"])
    made = [
        GatewayProcess(
            "memory://localhost", folder, options=["--auth", str(access.path), *more], port=free_port()
        )
        for more in allowed
    ]
    try:
        for process in made:
            process.launch()
        assert all(wait_for(process.is_ready, 20) for process in made)
        yield Gateways(*made)
    finally:
        for process in made:
            process.stop()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium("--host-resolver-rules=MAP *.example 127.0.0.1, MAP *.localhost 127.0.0.1") as browser:
        yield browser


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    context = browser.new_context(bypass_csp=True)
    yield context
    context.close()


def own_page(context: BrowserContext, gateway: GatewayProcess) -> Page:
    page = context.new_page()
    page.goto(f"http://localhost:{gateway.port}/healthz")
    return page


def log_in(context: BrowserContext, gateway: GatewayProcess, token: str) -> str:
    """Start a session, as the dashboard does; return the cookie's value."""
    page = own_page(context, gateway)
    headers = {"Authorization": f"Bearer {token}"}
    assert page.evaluate(FETCH, ["/session", {"method": "POST", "headers": headers}])[0] == 204
    assert page.evaluate(FETCH, ["/tasks", {}])[0] == 200
    page.close()
    return cookie_of(context)


def cookie_of(context: BrowserContext) -> str:
    return next((cookie["value"] for cookie in context.cookies() if cookie["name"] == COOKIE), "")


def foreign_pages(attacker: WebServer) -> dict[str, str]:
    port_and_path = attacker.page_url.partition("127.0.0.1")[2]
    return {
        "same-site": f"http://localhost{port_and_path}",
        "below": f"http://evil.localhost{port_and_path}",
        "cross-site": f"http://evil.example{port_and_path}",
        "address": attacker.page_url,
    }


@pytest.mark.parametrize("origin", variants(2, ["same-site", "cross-site", "below", "address"]))
@pytest.mark.parametrize("kind", ["closed", "open"])
def test_a_foreign_page_reads_nothing(
    gateways: Gateways,
    access: AccessFile,
    attacker: WebServer,
    context: BrowserContext,
    kind: str,
    origin: str,
) -> None:
    gateway: GatewayProcess = getattr(gateways, kind)
    cookie = log_in(context, gateway, access.sign(any=[{}], may=ALL))
    page = context.new_page()
    page.goto(foreign_pages(attacker)[origin])
    answers: list[Response] = []
    page.on("response", lambda response: answers.append(response))
    url = f"http://localhost:{gateway.port}"
    for path in PROTECTED:
        for credentials in ("include", "omit", "same-origin"):
            assert_refused(page.evaluate(FETCH, [url + path, {"credentials": credentials}]))
        assert page.evaluate(FETCH, [url + path, {"credentials": "include", "mode": "no-cors"}]) in (
            "opaque",
            "refused",
        )
        for header in ({}, {"X-Forwarded-Host": page.url.split("/")[2]}, {"X-Forwarded-User": "admin"}):
            assert_refused(page.evaluate(XHR, ["GET", url + path, header]))
    for credentials in (True, False):
        assert page.evaluate(EVENT_SOURCE, [f"{url}/events?since=earliest", credentials]) == "refused"
    socket_url = f"ws://localhost:{gateway.port}/ws?since=earliest"
    assert page.evaluate(WEBSOCKET, [socket_url, []]) == "refused"
    assert page.evaluate(WEBSOCKET, [socket_url, ["celery-gateway"]]) == "refused"
    for tag, attribute in (("img", "src"), ("script", "src"), ("iframe", "src"), ("link", "href")):
        seen = page.evaluate(ELEMENT, [tag, attribute, f"{url}/tasks"])
        assert (seen["inner"], seen["added"], seen["size"], seen["rules"]) == (None, [], 0, 0), tag
        assert tag == "iframe" or seen["event"] != "load", tag
    for tag, attribute in (("object", "data"), ("embed", "src"), ("video", "src"), ("audio", "src")):
        seen = page.evaluate(ELEMENT, [tag, attribute, f"{url}/tasks"])
        assert not seen["inner"] and not seen["added"], tag
    assert not [answer for answer in answers if answer.ok and "/tasks" in answer.url], "cookies do not count"
    assert page.evaluate(WINDOW, f"{url}/tasks") is None, "a link may open the page, which is not readable"
    assert cookie_of(context) == cookie
    assert own_page(context, gateway).evaluate(FETCH, ["/tasks", {}])[0] == 200


def assert_refused(answer: Any) -> None:
    """Nothing is readable; with `--allow-origin '*'` a page may read that it needs a token."""
    assert answer == "refused" or answer[0] in (401, 403), answer


@pytest.mark.parametrize("origin", ["same-site", "cross-site"])
@pytest.mark.parametrize("kind", ["closed", "open"])
def test_a_foreign_page_starts_and_ends_no_session(
    gateways: Gateways,
    access: AccessFile,
    attacker: WebServer,
    context: BrowserContext,
    kind: str,
    origin: str,
) -> None:
    """Also not one of the attacker, whose token is valid: the user would not notice that (login CSRF)."""
    gateway: GatewayProcess = getattr(gateways, kind)
    own, url = access.sign(any=[{}], may=ALL, subject="attacker"), f"http://localhost:{gateway.port}/session"
    page = context.new_page()
    page.goto(foreign_pages(attacker)[origin])
    bearer = {"Authorization": f"Bearer {own}"}

    def attack() -> None:
        for method in ("POST", "DELETE"):
            for credentials in ("include", "omit"):
                for mode in ("cors", "no-cors"):
                    options = {"method": method, "credentials": credentials, "mode": mode}
                    page.evaluate(FETCH, [url, options])
                    page.evaluate(FETCH, [url, options | {"headers": bearer}])
                    page.evaluate(FETCH, [f"{url}?access_token={own}", options])
            for headers in ({}, bearer):
                page.evaluate(XHR, [method, url, headers])
        for method in ("post", "get"):
            for fields in ([], [["access_token", own]], [["_method", "DELETE"]]):
                assert page.evaluate(FORM, [url, method, fields]) is None
        page.evaluate(BEACON, url)
        page.evaluate(BEACON, f"{url}?access_token={own}")

    attack()
    assert cookie_of(context) == ""
    cookie = log_in(context, gateway, access.sign(any=[{}], may=ALL, subject="user"))
    stream = own_page(context, gateway)
    stream.evaluate(
        "() => { window.ended = false; const source = new EventSource('/events');"
        "source.addEventListener('gateway-close', () => { window.ended = true; }); }"
    )
    attack()
    assert cookie_of(context) == cookie
    assert stream.evaluate("window.ended") is False
    assert stream.evaluate(FETCH, ["/tasks", {}])[0] == 200


def test_a_named_origin_may_use_the_session(
    gateways: Gateways, access: AccessFile, attacker: WebServer, context: BrowserContext
) -> None:
    """The control: what the tests above try does read something where it is allowed."""
    gateway = gateways.named
    cookie = log_in(context, gateway, access.sign(any=[{}], may=ALL))
    page = context.new_page()
    page.goto(foreign_pages(attacker)["same-site"])
    url = f"http://localhost:{gateway.port}"
    status, text = page.evaluate(FETCH, [f"{url}/tasks", {"credentials": "include"}])
    assert status == 200 and '"tasks"' in text
    assert '"tasks"' in page.evaluate(XHR, ["GET", f"{url}/tasks", {}])[1]
    assert "gateway-open" in page.evaluate(EVENT_SOURCE, [f"{url}/events", True])
    assert "gateway-open" in page.evaluate(WEBSOCKET, [f"ws://localhost:{gateway.port}/ws", []])
    assert page.evaluate(FETCH, [f"{url}/tasks", {"credentials": "omit"}])[0] == 401
    # Another page of the same site is not named.
    page.goto(foreign_pages(attacker)["below"])
    assert page.evaluate(FETCH, [f"{url}/tasks", {"credentials": "include"}]) == "refused"
    assert cookie_of(context) == cookie


def test_a_rebound_name_is_refused(
    gateways: Gateways, access: AccessFile, attacker: WebServer, context: BrowserContext
) -> None:
    """For the browser, the attacker's page and the gateway have the same origin."""
    token = access.sign(any=[{}], may=ALL)
    for gateway in gateways:
        log_in(context, gateway, token)
        page = context.new_page()
        rebound = f"http://evil.example:{gateway.port}"
        opened = page.goto(f"{rebound}/healthz")
        assert opened is not None and opened.status == 403
        bearer = {"Authorization": f"Bearer {token}"}
        for path in PROTECTED:
            for headers in ({}, bearer):
                status, text = page.evaluate(FETCH, [path, {"headers": headers}])
                assert status == 403 and "forbidden-host" in text
        assert page.evaluate(FETCH, ["/session", {"method": "POST", "headers": bearer}])[0] == 403
        assert page.evaluate(EVENT_SOURCE, ["/events", True]) == "refused"
        assert page.evaluate(WEBSOCKET, [f"{rebound.replace('http', 'ws')}/ws", []]) == "refused"
        assert page.evaluate(WEBSOCKET, [f"ws://localhost:{gateway.port}/ws", []]) == "refused"
