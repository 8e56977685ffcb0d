"""The tail: rows, the filter in the address, what holds it, and what it says of lost events."""

import re
import time
from collections.abc import Iterator
from uuid import uuid4

import httpx
import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from tests.support.dashboard import HOSTILE, expect_view, guarded, opened
from tests.support.gateway_process import GatewayProcess
from tests.support.publisher import Publisher, received, task_event, walk
from tests.support.rabbitmq import wait_for

BY_SSE = (
    "const Real = WebSocket; window.WebSocket = class extends Real {"
    " constructor(url) { super(String(url).replace('/ws', '/no-such-path')); } };"
)
SOCKETS = (
    "window.sockets = []; const Real = WebSocket; window.WebSocket = class extends Real {"
    " constructor(...given) { super(...given); sockets.push(this); } };"
)
FLOOD = (
    "(number) => { for (let n = 0; n < number; n++) sockets.at(-1).onmessage({ data: JSON.stringify("
    "{ type: 'task-sent', id: 'e-1', uuid: `flood-${n}`, name: 'flood', time: '2026-11-28T12:00:00Z' }) }); }"
)
"""Gives the page many events at once: the gateway would take minutes."""
RATES = (
    "window.rates = []; new MutationObserver(() => {"
    " const shown = document.querySelector('.tools .num')?.textContent; if (shown) rates.push(shown); })"
    ".observe(document, { subtree: true, childList: true, characterData: true });"
)
"""Keeps each rate that the page has shown."""
MAX_RATE = 200
MAX_NODES_OF_ROWS = 100


@pytest.fixture
def publisher(broker: str) -> Iterator[Publisher]:
    publisher = Publisher(broker)
    yield publisher
    publisher.close()


@pytest.fixture
def name() -> str:
    """A name of tasks that no other test has: the page begins with the events of the last minute."""
    return f"t{uuid4().hex[:8]}"


@pytest.fixture
def page(browser: Browser, gateway: GatewayProcess) -> Iterator[Page]:
    with opened(browser, f"{gateway.url}/events") as page:
        expect(page.locator(".status.level-ok")).to_be_visible()
        yield page


def rows(page: Page, text: str) -> Locator:
    return page.locator(".tail-mover .tail-row:not(.tail-note):not([hidden])").filter(has_text=text)


def cell(page: Page, text: str, field: str) -> Locator:
    return rows(page, text).first.locator(f".cell.{field} bdi")


def test_a_task_is_shown_with_its_events(page: Page, publisher: Publisher, name: str) -> None:
    uid, root = str(uuid4()), str(uuid4())
    publisher.send(
        received(uid, name, root) | {"args": "(17,)"},
        task_event("task-started", uid),
        task_event("task-progress", uid, current=3, total=8, message="thumbnails"),
        task_event("task-failed", uid, exception="CardDeclined('no')", traceback="Traceback …\n  line 7"),
    )
    shown = rows(page, name)
    expect(shown).to_have_count(4)
    details = {each.locator(".cell.state").inner_text(): each for each in shown.all()}
    assert {state: row.locator(".cell.detail").inner_text() for state, row in details.items()} == {
        "RECEIVED": "(17,)",
        "STARTED": "",
        "PROGRESS": "3 of 8 thumbnails",
        "FAILURE": "CardDeclined('no')",
    }
    failed = details["FAILURE"]
    expect(failed.locator(".cell.uuid a")).to_have_attribute("href", f"tasks/{uid}")
    expect(failed.locator(".cell.root_id a")).to_have_attribute("href", f"workflows/{root}")

    failed.locator(".cell.detail").click()
    panel = page.get_by_role("complementary", name="Event task-failed")
    expect(panel).to_contain_text("Traceback …\n  line 7")
    page.keyboard.press("Escape")
    expect(panel).to_have_count(0)
    failed.locator(".cell.uuid a").click()
    expect_view(page, "task")
    page.go_back()
    expect(rows(page, name)).to_have_count(4)


def test_a_click_filters_and_an_alt_click_leaves_out(page: Page, publisher: Publisher, name: str) -> None:
    publisher.send(*walk(f"{name}.a"), *walk(f"{name}.b"))
    expect(rows(page, name)).to_have_count(6)
    cell(page, f"{name}.a", "name").click()
    expect(page).to_have_url(re.compile(rf"/events\?name={name}\.a$"))
    expect(rows(page, f"{name}.b")).to_have_count(0)
    expect(rows(page, f"{name}.a")).to_have_count(3)
    expect(page.locator(".tail-note.filter")).to_have_count(1)
    expect(page.locator(".tail-note.filter")).to_contain_text("the matching rows of the filter before")
    publisher.send(*walk(f"{name}.a"), *walk(f"{name}.b"))
    page.mouse.move(0, 0)
    expect(rows(page, f"{name}.a")).to_have_count(6)
    expect(rows(page, f"{name}.b")).to_have_count(0)

    page.go_back()
    expect(page).to_have_url(re.compile("/events$"))
    cell(page, f"{name}.a", "name").click(modifiers=["Alt"])
    expect(page).to_have_url(re.compile(rf"name=!{name}\.a$"))
    publisher.send(*walk(f"{name}.a"), *walk(f"{name}.c"))
    page.mouse.move(0, 0)
    expect(rows(page, f"{name}.c")).to_have_count(3)
    expect(rows(page, f"{name}.a")).to_have_count(0)


def test_the_filter_bar_and_the_address_are_the_same(
    page: Page, publisher: Publisher, gateway: GatewayProcess, name: str
) -> None:
    publisher.send(*walk(f"{name}.before"), *walk(f"mail.{name}"))
    expect(rows(page, name)).to_have_count(6)
    bar = page.get_by_role("combobox", name="Filter events")
    bar.fill(f"name:{name}.*,!{name}.internal type:task-succeeded")
    bar.press("Enter")
    expect(page).to_have_url(f"{gateway.url}/events?name={name}.*,!{name}.internal&type=task-succeeded")
    expect(rows(page, name)).to_have_count(1)
    publisher.send(*walk(f"{name}.internal"), *walk(f"{name}.after"))
    expect(rows(page, f"{name}.after")).to_have_count(1)
    expect(rows(page, f"{name}.internal")).to_have_count(0)
    page.reload()
    expect(rows(page, name)).to_have_count(2)
    expect(bar).to_have_value(f"name:{name}.*,!{name}.internal type:task-succeeded")

    bar.fill("nmae:shop.*")
    bar.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("there is no filter nmae")
    bar.fill("")
    bar.press("Enter")
    expect(page).to_have_url(f"{gateway.url}/events")


def test_an_address_with_unknown_parameters_shows_no_events(
    browser: Browser, gateway: GatewayProcess
) -> None:
    with opened(browser, f"{gateway.url}/events?nmae=shop.*&limit=3&state=FAILURE") as page:
        expect_view(page, "live", "error")
        expect(page.get_by_role("link", name="Take away nmae")).to_be_visible()
        page.get_by_role("link", name="Take away all").click()
        expect(page).to_have_url(f"{gateway.url}/events?state=FAILURE")
        expect(page.locator(".tail")).to_be_visible()


def test_the_error_of_the_gateway_is_shown(browser: Browser, gateway: GatewayProcess) -> None:
    with opened(browser, f"{gateway.url}/events?since=yesterday") as page:
        expect_view(page, "live", "error")
        expect(page.get_by_role("alert")).to_contain_text("yesterday")


def test_nothing_moves_while_a_row_is_looked_at(page: Page, publisher: Publisher, name: str) -> None:
    publisher.send(*walk(f"{name}.seen"))
    expect(rows(page, f"{name}.seen")).to_have_count(3)
    row = rows(page, f"{name}.seen").first
    row.locator(".cell.time").hover()
    before = row.bounding_box()
    publisher.send(*walk(f"{name}.unseen"))
    expect(page.get_by_role("button", name="Follow (3 new)")).to_be_visible()
    assert row.bounding_box() == before
    expect(rows(page, f"{name}.unseen")).to_have_count(0)
    page.mouse.move(0, 0)
    publisher.send(*walk(f"{name}.later"))
    expect(rows(page, f"{name}.unseen")).to_have_count(3)
    expect(rows(page, f"{name}.later")).to_have_count(3)

    page.keyboard.press("j")
    expect(page.locator(".tail-row[aria-selected=true]")).to_be_focused()
    publisher.send(*walk(f"{name}.selected"))
    expect(page.get_by_role("button", name="Follow (3 new)")).to_be_visible()
    page.keyboard.press("Escape")
    expect(rows(page, f"{name}.selected")).to_have_count(3)

    page.keyboard.press("Space")
    expect(page.get_by_role("button", name="Follow")).to_have_attribute("aria-pressed", "true")
    publisher.send(*walk(f"{name}.held"))
    expect(page.get_by_role("button", name="Follow (3 new)")).to_be_visible()
    page.keyboard.press("Space")
    expect(rows(page, f"{name}.held")).to_have_count(3)


def test_held_rows_stay_however_many_come(
    browser: Browser, publisher: Publisher, gateway: GatewayProcess, name: str
) -> None:
    with guarded(browser, gateway.url) as (context, guard):
        context.add_init_script(SOCKETS)
        page = context.new_page()
        page.goto(f"{gateway.url}/events")
        expect(page.locator(".status.level-ok")).to_be_visible()
        publisher.send(*walk(name))
        expect(rows(page, name)).to_have_count(3)
        page.keyboard.press("Space")
        before = rows(page, name).first.bounding_box()
        page.evaluate(FLOOD, 25_000)
        expect(page.get_by_role("button", name=re.compile(r"Follow \(25,0\d\d new\)"))).to_be_visible()
        expect(rows(page, name)).to_have_count(3)
        assert rows(page, name).first.bounding_box() == before
        page.keyboard.press("Space")
        expect(rows(page, "flood").first).to_be_visible()
        page.locator(".tail").evaluate("(box) => box.scrollTo(0, box.scrollHeight)")
        expect(page.locator(".tail-note")).to_contain_text("not kept: the page keeps the newest 10,000")
        guard.check(page)


def test_the_keyboard_alone(page: Page, publisher: Publisher, gateway: GatewayProcess, name: str) -> None:
    uid, root = str(uuid4()), str(uuid4())
    publisher.send(received(uid, name, root), task_event("task-failed", uid, exception="E()"))
    publisher.send(*walk(f"{name}.last"))
    expect(rows(page, name)).to_have_count(5)
    page.keyboard.press("f")
    expect(page.locator(".tail-row[aria-selected=true]")).to_contain_text("task-failed")
    expect(page.get_by_role("complementary")).to_contain_text(uid)
    page.keyboard.press("j")
    expect(page.locator(".tail-row[aria-selected=true]")).to_contain_text("task-received")
    page.keyboard.press("w")
    expect(page).to_have_url(f"{gateway.url}/workflows/{root}")
    page.go_back()
    expect(rows(page, name)).to_have_count(5)
    page.keyboard.press("f")
    expect(page.locator(".tail-row[aria-selected=true]")).to_contain_text("task-failed")
    page.keyboard.press("Enter")
    expect(page).to_have_url(f"{gateway.url}/tasks/{uid}")


def test_hostile_texts_are_texts(page: Page, publisher: Publisher, name: str) -> None:
    markup = f"{name}{HOSTILE}"
    event = received(markup, markup, markup) | dict.fromkeys(("args", "hostname", "own"), markup)
    failed = task_event("task-failed", markup, exception=markup, traceback=markup, hostname=markup)
    odd = {"toString": 1, "valueOf": None}
    strange = dict.fromkeys(("exception", "current", "total", "result", "args", "state", "hostname"), odd)
    publisher.send(
        event, failed, {"type": markup, markup: markup}, task_event("task-own", f"{name}-odd", **strange)
    )
    expect(rows(page, name)).to_have_count(4)
    for row in rows(page, name).all():
        row.locator(".cell.time").click()
        expect(page.get_by_role("complementary")).to_contain_text(name)
        page.keyboard.press("Escape")
    rows(page, f"{name}<img").filter(has_text="task-failed").locator(".cell.name bdi").click()
    expect(page.locator(".tail-note.filter")).to_contain_text("<img src=x")
    assert "\u202e" not in page.locator("body").inner_text()
    assert page.locator("main img, main script, main iframe").count() == 0


def test_only_rows_in_sight_are_in_the_page(page: Page, publisher: Publisher, name: str) -> None:
    """And what is beyond the highest rate is counted, not dropped without a word."""
    for batch in range(20):
        publisher.send(*[event for _ in range(20) for event in walk(f"{name}.{batch}")])
    publisher.send(*walk(f"{name}.last"))
    expect(page.locator(".tail-mover .tail-row").filter(has_text="not shown").first).to_be_visible()
    assert page.locator(".tail-mover .tail-row").count() < MAX_NODES_OF_ROWS
    box = page.locator(".tail")
    box.evaluate("(box) => box.scrollTo(0, 100 * 24)")
    expect(rows(page, name).first).to_be_visible()
    assert page.locator(".tail-mover .tail-row").count() < MAX_NODES_OF_ROWS
    page.get_by_role("button", name="Clear").click()
    expect(rows(page, name)).to_have_count(0)
    expect(page.locator("main [role=note]")).to_contain_text("No event to show.")


def test_events_from_before_are_no_rate(
    browser: Browser, publisher: Publisher, gateway: GatewayProcess, name: str
) -> None:
    publisher.send(*[event for _ in range(MAX_RATE // 2) for event in walk(name)])
    counts = f"{gateway.url}/tasks/counts?by=state&name={name}&state=SUCCESS"
    wait_for(lambda: httpx.get(counts).json()["counts"]["state"] == {"SUCCESS": MAX_RATE // 2}, 20)
    all_in_sight = {"width": 1300, "height": 10_000}
    with guarded(browser, gateway.url, viewport=all_in_sight) as (context, guard):
        context.add_init_script(RATES)
        page = context.new_page()
        page.goto(f"{gateway.url}/events")
        expect(page.locator(".tail-note.skipped").first).to_contain_text("older events not shown")
        publisher.send(*walk(f"{name}.now"))
        expect(page.locator(".tools .num")).not_to_have_text("0/s")
        rates = page.evaluate("rates")
        assert [each for each in rates if not 0 <= float(each.removesuffix("/s")) <= len(walk())] == []
        guard.check(page)


def test_a_restart_is_told_and_nothing_shown_is_lost(
    page: Page, publisher: Publisher, gateway: GatewayProcess, name: str
) -> None:
    publisher.send(*walk(f"{name}.before"))
    expect(rows(page, f"{name}.before")).to_have_count(3)
    gateway.stop()
    expect(page.locator(".status.level-ok")).to_have_count(0)
    gateway.start()
    expect(page.locator(".status.level-ok")).to_be_visible(timeout=40_000)
    expect(page.locator(".tail-note.gap")).not_to_have_count(0)
    publisher.send(*walk(f"{name}.after"))
    expect(rows(page, f"{name}.after")).to_have_count(3)
    expect(rows(page, f"{name}.before")).to_have_count(3)


def test_sse_is_the_fallback_behind_a_proxy_without_websockets(
    browser: Browser, publisher: Publisher, gateway: GatewayProcess, name: str
) -> None:
    with guarded(browser, gateway.url) as (context, guard):
        context.add_init_script(BY_SSE)
        page = context.new_page()
        page.goto(f"{gateway.url}/events")
        expect(page.locator(".status.level-ok")).to_be_visible()
        publisher.send(*walk(name))
        expect(rows(page, name)).to_have_count(3)
        guard.check(page)


def test_heartbeats_are_shown_if_they_are_asked_for(
    browser: Browser, publisher: Publisher, gateway: GatewayProcess, name: str
) -> None:
    heartbeat = {
        "type": "worker-heartbeat",
        "hostname": f"{name}@host",
        "timestamp": time.time(),
        "active": 2,
    }
    with opened(browser, f"{gateway.url}/events?type=worker-*") as page:
        expect(page.locator(".status.level-ok")).to_be_visible()
        publisher.send(heartbeat, *walk(name))
        expect(rows(page, f"{name}@host")).to_contain_text("active=2")
    with opened(browser, f"{gateway.url}/events") as page:
        expect(rows(page, name)).to_have_count(3)
        cell(page, "task-succeeded", "type").click(modifiers=["Alt"])
        expect(page).to_have_url(re.compile(r"\?type=!task-succeeded$"))
        expect(rows(page, "task-succeeded")).to_have_count(0)
        publisher.send(heartbeat, *walk(f"{name}.later"))
        page.mouse.move(0, 0)
        expect(rows(page, f"{name}.later")).to_have_count(2)
        expect(rows(page, "worker-heartbeat")).to_have_count(0)
