"""The dashboard as its users have it: a real browser on a real gateway, fed with real messages.

Conditions are awaited with Playwright's `expect`, which polls the page; where a test says that something is
not shown, it first awaits something that was published later.
"""

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from uuid import uuid4

import httpx
import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from tests.browser import chromium
from tests.gateway_process import GatewayProcess
from tests.publisher import Publisher, received, task_event, walk

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
    """Types a filter into the form; returns when the page has asked for it."""
    before = page.url
    page.locator(f"input[name={field}]").fill(patterns)
    expect(page).not_to_have_url(before)


@contextmanager
def bad_gateway(port: int) -> Iterator[None]:
    """What a proxy answers while the gateway behind it is away."""

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


def test_shows_a_task_as_it_goes(page: Page, publisher: Publisher) -> None:
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

    shown.first.get_by_title("all fields").click()
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


def test_tells_why_a_filter_is_refused(page: Page, publisher: Publisher, gateway: GatewayProcess) -> None:
    message = httpx.get(f"{gateway.url}/events", params={"name": "shop.*,"}).json()["error"]["message"]
    filter_by(page, "name", "shop.*,")
    expect_status(page, message)
    expect(page.locator("[aria-invalid=true]")).to_have_attribute("name", "name")

    filter_by(page, "name", "shop.*")
    expect_status(page, LIVE)
    expect(page.locator("[aria-invalid=true]")).to_have_count(0)
    publisher.send(*walk("shop.mended"))
    expect(rows_with(page, "shop.mended")).to_have_count(3)


def test_markup_stays_text(page: Page, publisher: Publisher) -> None:
    markup = '<img src=x onerror="window.isRun = true">'
    event = received(markup, markup, markup) | dict.fromkeys(("args", "hostname", "own"), markup)
    failed = task_event("task-failed", markup, exception=markup, traceback=markup, hostname=markup)
    publisher.send(event, failed, task_event(f"task-{markup}", markup), {"type": markup, markup: markup})

    expect(page.locator("td.type")).to_have_text([markup, f"task-{markup}", "task-failed", "task-received"])
    expect(page.locator("td.name")).to_have_text(["", markup, markup, markup])
    for button in page.get_by_title("all fields").all():
        button.click()
    page.locator("td.uuid button").first.click()
    expect(page.locator("tr.note")).to_contain_text("Filter: uuid=")
    expect_status(page, LIVE)
    expect(page.locator("img")).to_have_count(0)
    assert page.evaluate("window.isRun") is None


def test_heartbeats_when_asked_for(page: Page, publisher: Publisher) -> None:
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


def test_a_burst_neither_freezes_nor_fills_the_page(page: Page, publisher: Publisher) -> None:
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


def test_lives_again_after_a_restart(page: Page, publisher: Publisher, gateway: GatewayProcess) -> None:
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
        ["may be missing", "Begun anew", "ended the stream (drain)"]
    )
    expect(page.locator("#gaps")).to_have_text("gaps 1")


def test_lives_again_after_a_proxy_said_502(
    page: Page, publisher: Publisher, gateway: GatewayProcess
) -> None:
    """An EventSource gives up on that, and for ever; the page does not."""
    gateway.stop()
    with bad_gateway(gateway.port):
        expect_status(page, "reconnecting … (answer 502)")
    gateway.start()
    expect_status(page, LIVE)
    publisher.send(*walk("shop.after"))
    expect(rows_with(page, "shop.after")).to_have_count(3)
    expect(page.locator("tr.note").first).to_contain_text("may be missing here")
