"""The dashboard with authentication, in a real browser: the form for a token, sessions, and what they reveal.

The pages are of `http://localhost` and `http://127.0.0.1`, where Chromium accepts the session's cookie
although it is `Secure`; a page of another host name requires HTTPS.
"""

import re
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
from playwright.sync_api import Browser, BrowserContext, Locator, Page, expect

from celery_gateway.http.dashboard import POLICY, load
from tests.support import certificates
from tests.support.access_file import AccessFile
from tests.support.browser import chromium
from tests.support.gateway_process import GatewayProcess
from tests.support.publisher import Publisher, walk
from tests.support.rabbitmq import wait_for
from tests.support.wire import Wire

LIVE = "live"
MAY = ("events", "state", "workers", "dashboard")
ROOT_PATH = "/celery"
OTHER_HOST = "gateway.test"
BY_SSE = (
    "const Real = WebSocket; window.WebSocket = class extends Real {"
    " constructor(url) { super(String(url).replace('/ws', '/no-such-path')); } };"
)


@pytest.fixture(scope="module")
def access(folder: Path) -> AccessFile:
    return AccessFile(folder)


@pytest.fixture(scope="module")
def gateway(broker: str, wire: Wire, folder: Path, access: AccessFile) -> Iterator[GatewayProcess]:
    """A gateway with authentication; at the end its log has no token."""
    options = ("--auth", str(access.path), "--root-path", ROOT_PATH, "--allow-host", OTHER_HOST)
    process = GatewayProcess(broker, folder, options=options)
    try:
        process.start()
        yield process
    finally:
        process.stop()
    log = process.log.read_text()
    assert "listening on" in log
    assert [token for token in access.issued if token in log] == []


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium(f"--host-resolver-rules=MAP {OTHER_HOST} 127.0.0.1") as browser:
        yield browser


@dataclass
class Seen:
    """What the pages of a context have sent and logged."""

    urls: list[str] = field(default_factory=list)
    referers: list[str] = field(default_factory=list)
    logged: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


@pytest.fixture
def seen() -> Seen:
    return Seen()


@pytest.fixture
def context(browser: Browser, seen: Seen, access: AccessFile) -> Iterator[BrowserContext]:
    """No token is in anything that its pages have sent, logged or stored, and no exception is uncaught."""
    expect.set_options(timeout=15_000)
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    context.on("request", lambda request: seen.urls.append(request.url))
    context.on("request", lambda request: seen.referers.append(request.headers.get("referer", "")))
    context.on("console", lambda message: seen.logged.append(message.text))
    context.on("weberror", lambda error: seen.errors.append(str(error.error)))
    yield context
    for page in context.pages:
        stored = page.evaluate("JSON.stringify([localStorage, sessionStorage, document.cookie])")
        assert stored == '[{},{},""]'
        shown = page.content() + page.url + "".join(page.locator("#token").all_inner_texts())
        shown += page.title() + "".join(field.input_value() for field in page.locator("#token").all())
        assert [token for token in access.issued if token in shown] == []
    asked = [url for url in seen.urls if "access_token=" not in url]  # those are of the tests
    said = "\n".join([*asked, *seen.referers, *seen.logged])
    assert [token for token in access.issued if token in said] == []
    context.close()
    assert seen.errors == []
    assert [text for text in seen.logged if "Content Security Policy" in text] == []


def expect_status(page: Page, text: str) -> None:
    expect(page.locator(".status-line")).to_contain_text(text)


def rows_with(page: Page, text: str) -> Locator:
    return page.locator(".tail-mover .tail-row:not(.tail-note):not([hidden])").filter(has_text=text)


def log_in(page: Page, token: str) -> None:
    page.get_by_label("Token").fill(token)
    page.get_by_role("button", name="Sign in").click()


def expect_form(page: Page, problem: str = "") -> None:
    expect(page.get_by_label("Token")).to_be_visible()
    expect(page.get_by_role("alert")).to_contain_text(problem)


def expect_only_the_form(page: Page) -> None:
    """What is wrong is said once, and not in the words of the protocol."""
    expect(page.locator(".band, .error-box")).to_have_count(0)
    expect(page.locator("body")).not_to_contain_text("Authorization")


def open_live(context: BrowserContext, gateway: GatewayProcess, token: str) -> Page:
    page = context.new_page()
    page.goto(f"{gateway.url}/events")
    log_in(page, token)
    expect_status(page, LIVE)
    return page


def test_the_page_without_a_session(gateway: GatewayProcess, access: AccessFile) -> None:
    """It is 401 with a form for people, a problem for programs."""

    def get(accept: str, token: str = "") -> httpx.Response:
        headers = {"Accept": accept} | ({"Authorization": f"Bearer {token}"} if token else {})
        return httpx.get(f"{gateway.url}/", headers=headers)

    pages = {
        (401, "login"): get("text/html"),
        (403, "forbidden"): get("text/html", access.sign(any=[{}], may=["events"])),
        (200, "token"): get("text/html", access.sign(any=[{}], may=["dashboard"])),
    }
    for (status, kind), response in pages.items():
        assert response.status_code == status
        assert response.text == load().page(kind)  # type: ignore[arg-type]
        assert f'data-access="{kind}"' in response.text
        assert response.headers["Content-Security-Policy"] == POLICY
    assert pages[401, "login"].headers["WWW-Authenticate"] == 'Bearer realm="celery-gateway"'
    response = get("*/*")
    assert (response.status_code, response.json()["error"]["code"]) == (401, "unauthorized")


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
@pytest.mark.parametrize("path", ["/", f"{ROOT_PATH}/"])
def test_sign_in(
    context: BrowserContext,
    seen: Seen,
    gateway: GatewayProcess,
    access: AccessFile,
    publisher: Publisher,
    host: str,
    path: str,
) -> None:
    url = f"http://{host}:{gateway.port}{path}"
    page = context.new_page()
    response = page.goto(f"{url}events?name=shop.*")
    assert response is not None
    assert response.status == 401
    expect_form(page)
    expect(page.locator("header")).to_have_count(0)
    expect(page.locator("main[data-view=login]")).to_be_visible()
    expect(page.get_by_label("Token")).to_be_focused()
    assert page.locator("#token").get_attribute("autocomplete") == "off"
    assert page.locator("#token").get_attribute("type") == "password"

    log_in(page, f" Bearer {access.sign(any=[{}], may=MAY)}\n")
    expect_status(page, LIVE)
    expect(page.get_by_label("Token")).to_have_count(0)
    name = f"seen.{uuid4().hex[:8]}"
    publisher.send(*walk(f"shop.{name}"), *walk(f"mail.{name}"))
    expect(rows_with(page, f"shop.{name}")).to_have_count(3)
    expect(rows_with(page, f"mail.{name}")).to_have_count(0)
    assert f"{url}session" in seen.urls
    (cookie,) = context.cookies()
    assert (cookie["name"], cookie["path"]) == ("__Host-celery_gateway", "/")
    assert (cookie["httpOnly"], cookie["secure"], cookie["sameSite"]) == (True, True, "Lax")

    response = page.reload()
    assert response is not None
    assert response.status == 200
    expect_status(page, LIVE)
    expect(page.get_by_role("button", name="Sign out")).to_be_visible()


def test_tokens_that_are_refused(
    context: BrowserContext, gateway: GatewayProcess, access: AccessFile
) -> None:
    page = context.new_page()
    page.goto(f"{gateway.url}/")
    expired, signed_at = access.sign(0.001, any=[{}], may=MAY), time.time()
    assert wait_for(lambda: time.time() > signed_at + 1, 5), "it ends at a whole second"
    for token, problem in (
        (f"cgw_{'x' * 43}", "the token is unknown, or was removed"),
        ("two words", "This is not a token"),
        ("tokén", "This is not a token"),
        (access.sign(any=[{}], may=["events"]), 'its scope must have "dashboard" in "may"'),
        (expired, ""),
    ):
        log_in(page, token)
        expect_form(page, problem)
        expect(page.locator("header")).to_have_count(0)
        assert page.locator("#token").input_value() == ""
    expect_form(page, "expired")
    assert context.cookies() == []
    gateway.stop()
    log_in(page, access.sign(any=[{}], may=MAY))
    expect_form(page, "The gateway does not respond.")
    gateway.start()
    log_in(page, access.sign(any=[{}], may=MAY))
    expect_status(page, LIVE)


def test_a_session_without_the_dashboard(
    context: BrowserContext, gateway: GatewayProcess, access: AccessFile
) -> None:
    """A session that an application has started, for its own page."""
    page = context.new_page()
    page.goto(f"{gateway.url}/")
    start = "(token) => fetch('session', { method: 'POST', headers: { Authorization: `Bearer ${token}` } })"
    page.evaluate(start, access.sign(any=[{}], may=["events"]))
    response = page.reload()
    assert response is not None
    assert response.status == 403
    expect_form(page, 'its scope must have "dashboard" in "may"')
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("button", name="Sign out")).to_have_count(0)
    expect_form(page)
    assert context.cookies() == []
    page.evaluate(start, access.sign(any=[{}], may=["events"]))
    page.reload()
    expect_form(page, 'its scope must have "dashboard" in "may"')
    log_in(page, access.sign(any=[{}], may=MAY))
    expect_status(page, LIVE)


@pytest.mark.parametrize("shared", [True, False])
def test_a_token_without_state(
    context: BrowserContext, gateway: GatewayProcess, access: AccessFile, publisher: Publisher, shared: bool
) -> None:
    """It shows events and workers; only the views of tasks say what they need."""
    if not shared:
        context.add_init_script("delete Navigator.prototype.locks")
    page = open_live(context, gateway, access.sign(any=[{}], may=["events", "workers", "dashboard"]))
    name = f"shop.{uuid4().hex[:8]}"
    worker = f"{name}@host"
    publisher.send(
        {"type": "worker-online", "hostname": worker, "timestamp": time.time(), "pid": 1, "freq": 60},
        *walk(name),
    )
    expect(rows_with(page, name).filter(has_text="task-")).to_have_count(3)
    for view, shown in (("Workers", worker), ("Tasks", 'must have "state" in "may"'), ("Live", name)):
        page.get_by_role("link", name=view, exact=True).click()
        expect(page.get_by_role("main")).to_contain_text(shown)
        expect(page.get_by_label("Token")).to_have_count(0)
        expect_status(page, LIVE)
    page.goto(f"{gateway.url}/workers")
    expect(page.get_by_role("main")).to_contain_text(worker)
    expect_status(page, LIVE)


def test_a_token_without_workers(
    context: BrowserContext, gateway: GatewayProcess, access: AccessFile, publisher: Publisher
) -> None:
    publisher.send(*walk(f"shop.{uuid4().hex[:8]}"))
    open_live(context, gateway, access.sign(any=[{}], may=["events", "state", "dashboard"]))
    page = context.pages[0]
    page.get_by_role("link", name="Overview", exact=True).click()
    expect(page.locator(".cards")).to_contain_text('must have "workers" in "may"')
    expect(page.get_by_role("heading", name="Queues")).to_have_count(0)
    expect(page.locator(".cards .skeleton")).to_have_count(0)
    expect_status(page, LIVE)


@pytest.mark.parametrize("form", ["{url}#token={token}", "{url}events?name=shop.*&access_token={token}"])
def test_the_token_of_the_address_is_removed_before_anything_else(
    context: BrowserContext, gateway: GatewayProcess, access: AccessFile, form: str
) -> None:
    context.add_init_script(
        "const real = window.fetch; window.addresses = [];"
        " window.fetch = (...given) => (window.addresses.push(location.href), real(...given));"
    )
    page = context.new_page()
    url = f"{gateway.url}/"
    page.goto(form.format(url=url, token=access.sign(any=[{}], may=MAY)))
    expect_status(page, LIVE)
    expect(page).to_have_url(url + ("events?name=shop.*" if "name" in form else ""))
    assert page.evaluate("window.addresses.length && window.addresses.every((url) => !url.includes('token'))")
    assert page.evaluate("history.length") <= 2
    expect(page.get_by_role("button", name="Sign out")).to_be_visible()
    page.reload()
    expect_status(page, LIVE)

    page.evaluate("(token) => void (location.hash = `token=${token}`)", access.sign(any=[{}], may=MAY))
    expect(page).not_to_have_url(re.compile("token="))
    expect_status(page, LIVE)
    page.evaluate("location.hash = 'token=cgw_wrong'")
    expect_form(page, "the token is unknown")
    expect(page).to_have_url(url + ("events?name=shop.*" if "name" in form else ""))
    expect_status(page, LIVE)


def test_a_wrong_token_in_the_address(context: BrowserContext, gateway: GatewayProcess) -> None:
    page = context.new_page()
    for form in ("?access_token=wrong", "#token=wrong"):
        page.goto(f"{gateway.url}/{form}")
        expect_form(page, "the token is unknown")
        expect(page).to_have_url(f"{gateway.url}/")


@pytest.mark.parametrize("transport", ["websocket", "sse"])
def test_a_session_ends_and_nothing_that_is_displayed_is_lost(
    context: BrowserContext,
    gateway: GatewayProcess,
    access: AccessFile,
    publisher: Publisher,
    transport: str,
) -> None:
    if transport == "sse":
        context.add_init_script(BY_SSE)
    name = f"shop.{uuid4().hex[:8]}"
    page = open_live(context, gateway, access.sign(10, any=[{}], may=MAY))
    publisher.send(*walk(f"{name}.before"))
    expect(rows_with(page, f"{name}.before")).to_have_count(3)
    expect_form(page, "The session has ended.")
    expect_status(page, "not connected")
    expect_only_the_form(page)
    expect(rows_with(page, f"{name}.before")).to_have_count(3)
    publisher.send(*walk(f"{name}.while"))
    log_in(page, access.sign(any=[{}], may=MAY))
    expect_status(page, LIVE)
    publisher.send(*walk(f"{name}.after"))
    expect(rows_with(page, f"{name}.after")).to_have_count(3)
    expect(rows_with(page, name)).to_have_count(9)
    expect(page.locator(".tail-note.gap")).to_have_count(0)
    expect(page.get_by_label("Token")).to_have_count(0)


def test_sign_out_in_two_tabs(
    context: BrowserContext, gateway: GatewayProcess, access: AccessFile, publisher: Publisher
) -> None:
    page = open_live(context, gateway, access.sign(any=[{}], may=MAY))
    other = context.new_page()
    other.goto(f"{gateway.url}/events")
    expect_status(other, LIVE)
    name = f"shop.{uuid4().hex[:8]}"
    publisher.send(*walk(name))
    for each in (page, other):
        expect(rows_with(each, name)).to_have_count(3)

    page.get_by_role("button", name="Sign out").click()
    expect_form(page)
    expect(page.locator("main[data-view=login]")).to_be_visible()
    expect(page.locator(".tail-row")).to_have_count(0)
    expect_form(other, "The session has ended.")
    expect(rows_with(other, name)).to_have_count(3)
    other.get_by_role("link", name="Tasks", exact=True).click()
    expect(other.locator("main[data-view=tasks]")).to_have_attribute("data-state", "error")
    expect_only_the_form(other)
    assert context.cookies() == []

    log_in(page, access.sign(any=[{}], may=MAY))
    expect_status(page, LIVE)
    log_in(other, access.sign(any=[{}], may=MAY))
    expect_status(other, LIVE)
    expect(other.get_by_label("Token")).to_have_count(0)


def test_a_static_token_is_removed(
    context: BrowserContext, gateway: GatewayProcess, access: AccessFile, publisher: Publisher
) -> None:
    token = access.create("operator", MAY)
    headers = {"Authorization": f"Bearer {token}"}
    assert wait_for(lambda: httpx.get(f"{gateway.url}/", headers=headers).status_code == 200, 10)
    page = open_live(context, gateway, token)
    name = f"shop.{uuid4().hex[:8]}"
    publisher.send(*walk(name))
    expect(rows_with(page, name)).to_have_count(3)
    access.remove("operator")
    expect_form(page, "The session has ended.")
    expect(rows_with(page, name)).to_have_count(3)
    log_in(page, token)
    expect_form(page, "the token is unknown, or was removed")


def test_a_token_without_events(context: BrowserContext, gateway: GatewayProcess, access: AccessFile) -> None:
    page = context.new_page()
    page.goto(f"{gateway.url}/")
    log_in(page, access.sign(any=[{}], may=["dashboard"]))
    expect(page.locator(".status")).to_contain_text('its scope must have "events" in "may"')
    expect(page.locator("main")).to_contain_text('must have "state" in "may"')


def test_without_https_there_is_no_session(
    context: BrowserContext, seen: Seen, gateway: GatewayProcess, access: AccessFile
) -> None:
    page = context.new_page()
    page.goto(f"http://{OTHER_HOST}:{gateway.port}/")
    log_in(page, access.sign(any=[{}], may=MAY))
    expect_form(page, "A session requires HTTPS, except on localhost")
    assert not any(url.endswith("/session") for url in seen.urls), "the token is not sent"


def test_over_https(browser: Browser, broker: str, folder: Path, access: AccessFile) -> None:
    """Of any host name, and with a WebSocket over TLS."""
    expect.set_options(timeout=15_000)
    certificate = certificates.create(folder)
    options = ("--auth", str(access.path), "--allow-host", OTHER_HOST, *certificate.options)
    process = GatewayProcess(broker, folder, options=options)

    def is_ready() -> bool:
        with suppress(httpx.TransportError):
            url = f"https://127.0.0.1:{process.port}/readyz"
            return httpx.get(url, verify=certificate.client()).status_code == 200
        return False

    context = browser.new_context(ignore_https_errors=True)
    try:
        process.launch()
        assert wait_for(is_ready, 20), process.tail()
        page = context.new_page()
        page.goto(f"https://{OTHER_HOST}:{process.port}/")
        log_in(page, access.sign(any=[{}], may=MAY))
        expect_status(page, LIVE)
        page.reload()
        expect_status(page, LIVE)
        page.get_by_role("button", name="Sign out").click()
        expect_form(page)
    finally:
        context.close()
        process.stop()


def test_the_browser_does_not_keep_the_cookie(
    context: BrowserContext, gateway: GatewayProcess, access: AccessFile
) -> None:
    page = context.new_page()
    page.goto(f"{gateway.url}/")
    page.route("**/session", lambda route: route.fulfill(status=204))
    log_in(page, access.sign(any=[{}], may=MAY))
    expect_form(page, "The browser did not keep the session's cookie")
