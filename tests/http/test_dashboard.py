"""The dashboard in a real browser, on a real gateway, with real messages.

Conditions are awaited with Playwright's `expect`, which polls the page. Before a test checks that something
is not shown, it awaits something that was published later.
"""

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from uuid import uuid4

import httpx
import pytest
from playwright.sync_api import Browser, Locator, Page, Route, expect

from celery_gateway.http.dashboard import load
from tests.support.browser import chromium
from tests.support.gateway_process import GatewayProcess
from tests.support.publisher import Publisher, received, task_event, walk

MAX_ROWS = 300
LIVE = "live"
BURST = 5_000
MAX_FREEZE_MS = 1_500


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def publisher(broker: str) -> Iterator[Publisher]:
    publisher = Publisher(broker)
    yield publisher
    publisher.close()


@pytest.fixture
def page(browser: Browser, gateway: GatewayProcess) -> Iterator[Page]:
    """The dashboard, connected. An uncaught exception in its code fails the test."""
    expect.set_options(timeout=15_000)
    errors: list[object] = []
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    page = context.new_page()
    page.on("pageerror", lambda error: errors.append(error))
    page.goto(f"{gateway.url}/")
    expect_status(page, LIVE)
    yield page
    context.close()
    assert errors == []


def expect_status(page: Page, text: str) -> None:
    expect(page.get_by_role("status")).to_contain_text(text)


def rows_with(page: Page, text: str) -> Locator:
    return page.locator("#rows tr").filter(has_text=text)


def filter_by(page: Page, field: str, patterns: str) -> None:
    """Type a filter into the form; return when the page has applied it."""
    before = page.url
    page.locator(f"input[name={field}]").fill(patterns)
    expect(page).not_to_have_url(before)


@contextmanager
def bad_gateway(port: int) -> Iterator[None]:
    """Run a proxy without its gateway: it responds with 502."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(502)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", port), Handler) as server:
        Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        try:
            yield
        finally:
            server.shutdown()


def test_a_task_is_shown_with_its_events(page: Page, publisher: Publisher) -> None:
    uid, root = str(uuid4()), str(uuid4())
    sent_at = time.time()
    publisher.send(
        received(uid, "shop.charge", root) | {"args": "(17,)", "timestamp": sent_at},
        task_event("task-started", uid),
        task_event("task-progress", uid, current=3, total=8, message="thumbnails"),
        task_event("task-failed", uid, exception="CardDeclined('no')", traceback="Traceback …\n  line 7"),
    )

    shown = rows_with(page, uid[:8])
    expect(shown).to_have_count(4)
    expect(shown.locator(".type")).to_have_text(
        ["task-failed", "task-progress", "task-started", "task-received"]
    )
    expect(shown.locator(".name")).to_have_text(["shop.charge"] * 4)
    expect(shown.locator(".state")).to_have_text(["FAILURE", "PROGRESS", "STARTED", "RECEIVED"])
    expect(shown.locator(".root_id")).to_have_text([root[:8]] * 4)
    expect(shown.locator(".hostname")).to_have_text(["w1@host"] * 4)
    expect(shown.locator(".detail")).to_have_text(["CardDeclined('no')", "3 of 8 thumbnails", "", "(17,)"])
    expect(shown.get_by_role("progressbar")).to_have_attribute("value", "3")
    rfc3339 = datetime.fromtimestamp(sent_at, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    expect(shown.last.locator(".time")).to_have_attribute("title", rfc3339)
    expect(page.get_by_role("button", name="FAILURE")).to_have_text("FAILURE 1")
    expect(page.get_by_role("button", name="STARTED")).to_have_text("STARTED 0")

    shown.first.get_by_title("Show all fields").click()
    expect(page.locator("tr.whole")).to_contain_text("traceback: Traceback …\n  line 7")


def test_filter_by_typing(page: Page, publisher: Publisher, gateway: GatewayProcess) -> None:
    publisher.send(*walk("mail.send"), *walk("shop.before"))
    expect(rows_with(page, "shop.before")).to_have_count(3)

    filter_by(page, "name", "shop.*,!shop.internal.*")
    expect_status(page, LIVE)
    expect(rows_with(page, "shop.before")).to_have_count(3)
    expect(rows_with(page, "mail.send")).to_have_count(0)
    publisher.send(*walk("shop.internal.sync"), *walk("mail.send"), *walk("shop.after"))
    expect(rows_with(page, "shop.after")).to_have_count(3)
    expect(rows_with(page, "mail.send")).to_have_count(0)
    expect(page.locator("td.name").filter(has_text="internal")).to_have_count(0)

    expect(page).to_have_url(f"{gateway.url}/?name=shop.*,!shop.internal.*")
    expect(page.locator("#curl")).to_have_text(
        f"curl -N '{gateway.url}/events?name=shop.*,!shop.internal.*&type=!worker-heartbeat'"
    )
    page.reload()
    expect_status(page, LIVE)
    expect(page.get_by_label("name", exact=True)).to_have_value("shop.*,!shop.internal.*")
    publisher.send(*walk("mail.send"), *walk("shop.reloaded"))
    expect(rows_with(page, "shop.reloaded")).to_have_count(3)
    expect(rows_with(page, "mail.send")).to_have_count(0)


def test_filter_by_clicking(page: Page, publisher: Publisher) -> None:
    root = str(uuid4())
    publisher.send(*walk("shop.checkout", uid=root), *walk("mail.send"))
    expect(rows_with(page, "mail.send")).to_have_count(3)

    rows_with(page, "shop.checkout").first.locator(".root_id button").click()
    expect(page).to_have_url(re.compile(f"root_id={root}$"))
    expect_status(page, LIVE)
    publisher.send(*walk("mail.send"), *walk("shop.ship", root_id=root))
    expect(rows_with(page, "shop.ship")).to_have_count(3)
    expect(rows_with(page, "shop.checkout")).to_have_count(3)
    expect(rows_with(page, "mail.send")).to_have_count(0)

    page.go_back()
    expect(page.locator("input[name=root_id]")).to_have_value("")
    expect_status(page, LIVE)
    publisher.send(*walk("mail.again"))
    expect(rows_with(page, "mail.again")).to_have_count(3)


def test_the_error_of_an_invalid_filter_is_shown(
    page: Page, publisher: Publisher, gateway: GatewayProcess
) -> None:
    message = httpx.get(f"{gateway.url}/events", params={"name": "shop.*,"}).json()["error"]["message"]
    filter_by(page, "name", "shop.*,")
    expect_status(page, message)
    expect(page.locator("[aria-invalid=true]")).to_have_attribute("name", "name")

    filter_by(page, "name", "shop.*")
    expect_status(page, LIVE)
    expect(page.locator("[aria-invalid=true]")).to_have_count(0)
    publisher.send(*walk("shop.mended"))
    expect(rows_with(page, "shop.mended")).to_have_count(3)


def test_markup_is_shown_as_text(page: Page, publisher: Publisher) -> None:
    markup = '<img src=x onerror="window.isRun = true">'
    event = received(markup, markup, markup) | dict.fromkeys(("args", "hostname", "own"), markup)
    failed = task_event("task-failed", markup, exception=markup, traceback=markup, hostname=markup)
    publisher.send(event, failed, task_event(f"task-{markup}", markup), {"type": markup, markup: markup})

    expect(page.locator("td.type")).to_have_text([markup, f"task-{markup}", "task-failed", "task-received"])
    expect(page.locator("td.name")).to_have_text(["", markup, markup, markup])
    for button in page.get_by_title("Show all fields").all():
        button.click()
    page.locator("td.uuid button").first.click()
    expect(page.locator("tr.note")).to_contain_text("Filter: uuid=")
    expect_status(page, LIVE)
    expect(page.locator("img")).to_have_count(0)
    assert page.evaluate("window.isRun") is None


NAMES = ["__proto__", "constructor", "prototype", "toString", "hasOwnProperty"]
UNREADABLE = {"toString": 1, "valueOf": None}
"""JavaScript throws when it converts this to a string or a number."""


def test_fields_of_any_name_and_type_are_shown(page: Page, publisher: Publisher) -> None:
    reversing = "gnp.\u202eexe"
    odd = {
        field: UNREADABLE for field in ("exception", "current", "total", "args", "retries", "eta", "message")
    }
    publisher.send(
        *(received(name, name, name) | {"hostname": name} for name in NAMES),
        *(task_event("task-own", name, **{name: {"polluted": True}, "state": name}) for name in NAMES),
        received("odd", "shop.odd"),
        task_event("task-own", "odd", **odd),
        task_event("task-failed", "odd", exception=UNREADABLE, traceback=UNREADABLE),
        received("reversed", reversing),
        *walk("shop.last"),
    )
    expect(rows_with(page, "shop.last")).to_have_count(3)
    for name in NAMES:
        assert page.locator("td.name").get_by_text(name, exact=True).count() >= 1, name
        assert page.locator("td.uuid").get_by_text(name, exact=True).count() == 2, name
        assert rows_with(page, f'{name}={{"polluted":true}}').count() == 1, name
    assert page.locator("td.uuid").get_by_text("odd", exact=True).count() == 3
    assert rows_with(page, '{"toString":1').count() == 2
    expect(rows_with(page, "gnp.\\u{202e}exe")).to_have_count(1)
    assert "\u202e" not in page.content()
    assert page.evaluate("({}).polluted === undefined && Object.keys(Object.prototype).length === 0")
    page.evaluate("toggleFilter('name', '__proto__')")
    expect_status(page, LIVE)
    expect(page.locator("#rows tr:not(.note)").first).to_contain_text("__proto__")
    page.get_by_role("button", name="Reset filter").click()
    expect(page.locator("input[name=name]")).to_have_value("")
    expect(rows_with(page, "shop.last")).to_have_count(3)


def test_large_events_do_not_fill_the_memory(page: Page) -> None:
    """600 events with a result and a traceback of 250,000 characters each, as from the stream."""
    devtools = page.context.new_cdp_session(page)
    heap = "JSHeapUsedSize"
    devtools.send("Performance.enable")
    page.evaluate(
        """() => {
            const time = "2026-11-28T12:00:00Z";
            const event = (number, fields) => onMessage(read(JSON.stringify({
                type: "task-failed", id: `e-${number}`, uuid: `u-${number}`, time, ...fields })));
            const long = (text) => text.repeat(250_000);
            for (let number = 0; number < 600; number++) {
                event(number, { name: "big", result: number + long("r"), traceback: number + long("t") });
            }
            for (let number = 600; number < 700; number++) {
                const list = Array(100_000).fill(7);
                event(number, { uuid: long("u"), hostname: long("h"), state: long("S"), name: long("n"),
                                [long("f")]: 1, list });
            }
            const names = Array.from({ length: 20_000 }, (_, index) => `field${index}`);
            event(700, Object.fromEntries(names.map((name) => [name, "x"])));
            event(701, { result: long("r"), traceback: `begin${long("t")}the end` });
        }"""
    )
    expect(page.locator("#rows tr").first).to_contain_text("u-701")
    expect(page.locator("#rows tr")).to_have_count(MAX_ROWS)
    page.locator("#rows tr").first.get_by_title("Show all fields").click()
    whole = page.locator("tr.whole")
    expect(whole).to_contain_text("characters omitted")
    expect(whole.locator("pre")).to_contain_text(re.compile("begin.*the end", re.DOTALL))
    expect(whole.get_by_role("link")).to_have_attribute("href", "events/e-701")
    assert page.evaluate("document.body.textContent.length + document.body.innerHTML.length") < 12_000_000
    devtools.send("HeapProfiler.collectGarbage")
    metrics = {each["name"]: each["value"] for each in devtools.send("Performance.getMetrics")["metrics"]}
    assert metrics[heap] < 80e6, f"{metrics[heap] / 1e6:.0f} MB"
    assert page.evaluate("kept <= MAX_KEPT && kept === entries.reduce((sum, entry) => sum + entry[SIZE], 0)")


def test_a_filter_with_many_wildcards_takes_linear_time(page: Page) -> None:
    page.evaluate(
        """() => {
            const passes = matcher({ name: "*a".repeat(200) + "*b" });
            if (!passes({ name: "a".repeat(300) + "b" })) throw new Error("no match");
            if (passes({ name: "a".repeat(1e6) })) throw new Error("a match");
            const cases = [
                ["a*b?", "axxbc", true], ["a*b?", "axxb", false], ["*", "", true], ["a.c", "abc", false],
                ["\\\\*", "*", true], ["\\\\*", "a", false], ["!a*", "b", true], ["!a*", "ab", false],
            ];
            for (const [pattern, text, expected] of cases) {
                if (matcher({ name: pattern })({ name: text }) !== expected) throw new Error(pattern);
            }
        }"""
    )  # within the test's time


def test_the_page_works_under_its_content_security_policy(
    browser: Browser, publisher: Publisher, gateway: GatewayProcess
) -> None:
    """Only the script and the style of the page are allowed, no other inline ones."""
    dashboard = load()
    assert "unsafe" not in dashboard.policy
    context = browser.new_context()
    page = context.new_page()
    logged: list[str] = []
    page.on("console", lambda message: logged.append(message.text))
    foreign = "<script>window.isRun = true</script><img src=x onerror='window.isRun = true'>"
    for body, is_own in (
        (dashboard.html, True),
        (dashboard.html.replace("</main>", f"</main>{foreign}"), False),
    ):
        headers = {"Content-Security-Policy": dashboard.policy, "Content-Type": "text/html"}
        page.route(f"{gateway.url}/", partial(Route.fulfill, body=body, headers=headers))
        page.goto(f"{gateway.url}/")
        expect_status(page, LIVE)
        name = f"shop.own{is_own}"
        publisher.send(*walk(name))
        expect(rows_with(page, name)).to_have_count(3)
        assert page.evaluate("getComputedStyle(document.querySelector('h1')).margin") == "0px"
        assert page.evaluate("window.isRun") is None
        assert [text for text in logged if "Content Security Policy" in text] == [] or not is_own
        page.unroute(f"{gateway.url}/")
    assert any("Content Security Policy" in text for text in logged)
    context.close()


@pytest.mark.parametrize("form", ["?name=shop.*&access_token=secret", "?name=shop.*#token=secret"])
def test_without_authentication_a_token_in_the_address_is_only_removed(
    browser: Browser, gateway: GatewayProcess, form: str
) -> None:
    """The server ignores it too: there is no session, and no form for a token."""
    context = browser.new_context()
    page = context.new_page()
    requested: list[str] = []
    page.on("request", lambda request: requested.append(request.url))
    page.goto(f"{gateway.url}/{form}")
    expect_status(page, LIVE)
    expect(page).to_have_url(f"{gateway.url}/?name=shop.*")
    expect(page.get_by_label("Token")).to_be_hidden()
    expect(page.get_by_role("button", name="Log out")).to_be_hidden()
    expect(page.locator("#curl")).to_contain_text("curl -N 'http")
    assert [url for url in requested if "session" in url] == []
    assert "secret" not in page.content()
    context.close()


def test_heartbeats_are_shown_on_request(page: Page, publisher: Publisher) -> None:
    heartbeat = {"type": "worker-heartbeat", "hostname": "w7@host", "timestamp": time.time(), "active": 2}
    publisher.send(heartbeat, *walk("shop.first"))
    expect(rows_with(page, "shop.first")).to_have_count(3)
    expect(rows_with(page, "worker-heartbeat")).to_have_count(0)
    expect(page.locator("#workers")).to_have_text("workers 1")

    page.get_by_label("heartbeats").check()
    expect(page).to_have_url(re.compile("heartbeats=on$"))
    expect_status(page, LIVE)
    publisher.send(heartbeat)
    expect(rows_with(page, "worker-heartbeat")).to_contain_text("active=2")
    expect(page.locator("#workers")).to_have_text("workers 2")


def test_pause_and_clear(page: Page, publisher: Publisher) -> None:
    publisher.send(*walk("shop.seen"))
    expect(rows_with(page, "shop.seen")).to_have_count(3)

    page.get_by_role("button", name="Pause").click()
    publisher.send(*walk("shop.unseen"))
    expect(page.locator("#pause")).to_have_text("Resume (3 new)")
    expect(rows_with(page, "shop.unseen")).to_have_count(0)
    page.locator("#pause").click()
    expect(rows_with(page, "shop.unseen")).to_have_count(3)
    expect(rows_with(page, "shop.seen")).to_have_count(3)

    page.get_by_role("button", name="Clear").click()
    expect(page.locator("#rows tr")).to_have_count(0)
    publisher.send(*walk("shop.later"))
    expect(page.locator("#rows tr")).to_have_count(3)


@pytest.mark.timing
def test_a_burst_does_not_freeze_the_page(page: Page, publisher: Publisher) -> None:
    page.evaluate(
        """() => {
            window.longestMs = 0;
            let last = performance.now();
            setInterval(() => {
                const now = performance.now();
                window.longestMs = Math.max(window.longestMs, now - last);
                last = now;
            }, 10);
        }"""
    )
    events = [event for _ in range(BURST // 3 + 1) for event in walk("shop.burst")][: BURST - 1]
    last = walk("shop.last")[0]
    publisher.send(*(events[start : start + 24] for start in range(0, len(events), 24)), last)

    expect(page.locator("#numbers")).to_contain_text(f"{MAX_ROWS} of {BURST:,} shown")
    expect(page.locator("#rows tr")).to_have_count(MAX_ROWS)
    expect(page.locator("#rows tr").first).to_contain_text("shop.last")
    assert page.evaluate("window.longestMs") < MAX_FREEZE_MS
    expect(page.locator("#gaps")).to_be_empty()


def test_seven_dashboards_in_one_browser_are_all_live(
    page: Page, publisher: Publisher, gateway: GatewayProcess
) -> None:
    """A browser has six HTTP/1.1 connections to a host, for all of its tabs."""
    others = [page.context.new_page() for _ in range(7)]
    for other in others:
        other.goto(f"{gateway.url}/")
        expect_status(other, LIVE)
    publisher.send(*walk("shop.seven"))
    for each in (page, *others):
        expect(rows_with(each, "shop.seven")).to_have_count(3)


def test_sse_is_the_fallback_behind_a_proxy_without_websockets(
    browser: Browser, publisher: Publisher, gateway: GatewayProcess
) -> None:
    context = browser.new_context()
    context.add_init_script(
        "const Real = WebSocket; window.WebSocket = class extends Real {"
        " constructor(url) { super(String(url).replace('/ws', '/no-such-path')); } };"
    )
    page = context.new_page()
    page.goto(f"{gateway.url}/")
    expect_status(page, LIVE)
    publisher.send(*walk("shop.fallback"))
    expect(rows_with(page, "shop.fallback")).to_have_count(3)
    context.close()


def test_the_page_reconnects_after_a_restart(
    page: Page, publisher: Publisher, gateway: GatewayProcess
) -> None:
    publisher.send(*walk("shop.before"))
    expect(rows_with(page, "shop.before")).to_have_count(3)

    gateway.stop()
    expect_status(page, "reconnecting")
    gateway.start()
    expect_status(page, LIVE)
    publisher.send(*walk("shop.after"))
    expect(rows_with(page, "shop.after")).to_have_count(3)
    expect(rows_with(page, "shop.before")).to_have_count(3)
    expect(page.locator("tr.note")).to_contain_text(
        ["may have been lost", "could not be resumed", "closed the stream (drain)"]
    )
    expect(page.locator("#gaps")).to_have_text("gaps 1")


def test_the_page_reconnects_after_a_502_of_a_proxy(
    page: Page, publisher: Publisher, gateway: GatewayProcess
) -> None:
    """An EventSource does not reconnect after a 502; the page does."""
    gateway.stop()
    with bad_gateway(gateway.port):
        expect_status(page, "reconnecting … (HTTP 502)")
    gateway.start()
    expect_status(page, LIVE)
    publisher.send(*walk("shop.after"))
    expect(rows_with(page, "shop.after")).to_have_count(3)
    expect(page.locator("tr.note").first).to_contain_text("may have been lost here")
