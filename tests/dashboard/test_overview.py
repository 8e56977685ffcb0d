"""The overview: the gateway's numbers, and what it says if there are none. And the shell around each view."""

import re
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from tests.support.dashboard import expect_level, expect_view, guarded, opened
from tests.support.gateway_process import GatewayProcess
from tests.support.publisher import Publisher, received, task_event, walk
from tests.support.rabbitmq import wait_for

RUNS = "!PENDING,!RECEIVED,!RETRY,!REJECTED,!CANCELLED,!SUCCESS,!FAILURE,!REVOKED,!LOST"


@pytest.fixture(scope="module")
def gateway(broker: str, folder: Path) -> Iterator[GatewayProcess]:
    process = GatewayProcess(broker, folder)
    try:
        process.start()
        yield process
    finally:
        process.stop()


@pytest.fixture
def publisher(broker: str) -> Iterator[Publisher]:
    publisher = Publisher(broker)
    yield publisher
    publisher.close()


@pytest.fixture
def page(browser: Browser, gateway: GatewayProcess) -> Iterator[Page]:
    with opened(browser, f"{gateway.url}/") as page:
        expect_level(page, "ok")
        yield page


def test_without_any_event_it_says_what_to_do(browser: Browser, tmp_path: Path) -> None:
    process = GatewayProcess("memory://localhost", tmp_path)
    process.start()
    try:
        with opened(browser, f"{process.url}/") as page:
            expect_view(page, "overview", "empty")
            expect(page.locator("main")).to_contain_text("No worker has been heard.")
            expect(page.locator("main")).to_contain_text("celery -A proj worker -E")
    finally:
        process.stop()


def test_it_has_the_numbers_of_the_gateway(page: Page, publisher: Publisher, gateway: GatewayProcess) -> None:
    name, uid = f"shop.{uuid4().hex[:8]}", str(uuid4())
    heartbeat = {"type": "worker-heartbeat", "hostname": "w1@host", "freq": 5, "active": 1, "processed": 3}
    publisher.send(heartbeat, *walk(name), *walk(name), received(uid, name), task_event("task-started", uid))
    failed = str(uuid4())
    publisher.send(received(failed, name), task_event("task-failed", failed, exception="CardDeclined('no')"))
    row = page.get_by_role("row").filter(has_text=name)
    expect(row).to_contain_text("33 %")
    (item,) = httpx.get(f"{gateway.url}/statistics", params={"name": name}).json()["names"]
    assert (item["running"], item["succeeded"], item["failed"]) == (1, 2, 1)
    expect(row.get_by_role("link", name="1", exact=True)).to_have_attribute(
        "href", f"tasks?name={name}&state={RUNS}"
    )
    expect(page.locator(".card").filter(has_text="Running longest")).to_contain_text(name)
    expect(page.locator(".card").filter(has_text="Failures")).to_contain_text("CardDeclined")
    expect(page.locator(".card").filter(has_text="Workers")).to_contain_text("w1@host")
    page.reload()
    expect(row).to_contain_text("33 %")
    row.get_by_role("link", name="33 %").click()
    expect(page).to_have_url(f"{gateway.url}/tasks?name={name}&state=FAILURE")
    expect_view(page, "tasks")


def test_a_filter_is_shown_and_applies_to_each_list(
    browser: Browser, publisher: Publisher, gateway: GatewayProcess
) -> None:
    name = f"t{uuid4().hex[:8]}"
    for one in (f"{name}.in", f"{name}-out"):
        ran, failed = str(uuid4()), str(uuid4())
        publisher.send(received(ran, one), task_event("task-started", ran), received(failed, one))
        publisher.send(task_event("task-failed", failed, exception=f"E{name}('{one}')"))
    with opened(browser, f"{gateway.url}/?name={name}.*&window=5m") as page:
        running = page.locator(".card").filter(has_text="Running longest")
        failures = page.locator(".card").filter(has_text="Failures")
        for card in (running, failures, page.get_by_role("grid")):
            expect(card).to_contain_text(f"{name}.in")
            expect(card).not_to_contain_text(f"{name}-out")
        expect(failures.get_by_role("link", name="Failures")).to_have_attribute(
            "href", f"failures?name={name}.*"
        )
        page.get_by_role("button", name=f"name:{name}.*").click()
        expect(page).to_have_url(f"{gateway.url}/?window=5m")
        expect(page.get_by_role("grid")).to_contain_text(f"{name}-out")


def test_a_task_in_a_custom_state_runs(page: Page, publisher: Publisher, gateway: GatewayProcess) -> None:
    name = f"t{uuid4().hex[:8]}"
    one, other, rejected = (str(uuid4()) for _ in range(3))
    for uid in (one, other):
        publisher.send(received(uid, name), task_event("task-started", uid))
    publisher.send(task_event("task-crunching", other))
    publisher.send(received(rejected, name), task_event("task-rejected", rejected, requeue=True))
    page.goto(f"{gateway.url}/?name={name}")
    expect(page.locator(".card").filter(has_text="Running longest").locator("li")).to_have_count(2)
    numbers = page.get_by_role("row").filter(has_text=name).locator(".number")
    for at, count_of in ((0, 2), (1, 1)):  # running, waiting
        page.goto(f"{gateway.url}/?name={name}")
        numbers.nth(at).get_by_role("link", name=str(count_of), exact=True).click()
        expect_view(page, "tasks")
        expect(page.get_by_role("row").filter(has_text=name)).to_have_count(count_of)


@pytest.mark.parametrize(("window", "seconds"), [("5m", "1 min 10 s"), ("6h", "12 min"), ("24h", "48 min")])
def test_the_title_of_the_rate_has_its_time(
    page: Page, publisher: Publisher, gateway: GatewayProcess, window: str, seconds: str
) -> None:
    publisher.send(*walk("shop.charge"))
    page.goto(f"{gateway.url}/?window={window}")
    title = page.get_by_role("columnheader", name="/min")
    expect(title).to_have_attribute("title", f"Ended tasks a minute, over at most the last {seconds}")


def test_names_can_be_told_apart_on_a_phone(
    browser: Browser, publisher: Publisher, gateway: GatewayProcess
) -> None:
    stem = f"t{uuid4().hex[:8]}"
    names = [f"{stem}.orders.tasks.{end}_card" for end in ("charge", "refund")]
    for name in names:
        publisher.send(*walk(name))
    publisher.send(*walk(f"{stem}.a"))
    with opened(browser, f"{gateway.url}/?name={stem}*", viewport={"width": 320, "height": 800}) as page:
        rows = page.get_by_role("grid").locator("tbody tr")
        expect(rows).to_have_count(3)
        for name in names:
            link = rows.get_by_role("link", name=name)
            assert link.evaluate(
                "(link) => link.scrollWidth <= link.clientWidth && link.scrollHeight <= link.clientHeight"
            )
        assert rows.evaluate_all("(rows) => new Set(rows.map((row) => row.offsetHeight)).size") == 1
        assert page.evaluate("document.documentElement.scrollWidth") <= 320


def test_the_last_tick_of_a_task_is_whole(page: Page, publisher: Publisher, gateway: GatewayProcess) -> None:
    uid, begin = str(uuid4()), time.time()
    publisher.send(received(uid, "shop.charge") | {"timestamp": begin})
    publisher.send(task_event("task-started", uid) | {"timestamp": begin})
    end = task_event("task-succeeded", uid, result="1", runtime=0.65)
    publisher.send(end | {"timestamp": begin + 0.65})
    page.goto(f"{gateway.url}/tasks/{uid}")
    expect(page.locator(".phases .tick").last).to_contain_text("ms")
    assert page.locator(".phases .tick").evaluate_all(
        "(ticks) => Math.max(...ticks.map((tick) => tick.getBoundingClientRect().right - "
        "tick.ownerSVGElement.getBoundingClientRect().right)) <= 0"
    )


@pytest.mark.parametrize("hours", [-1, 1])
def test_ages_are_right_although_the_clock_of_the_browser_is_wrong(
    browser: Browser, publisher: Publisher, gateway: GatewayProcess, hours: int
) -> None:
    name, uid = f"t{uuid4().hex[:8]}", str(uuid4())
    publisher.send(received(uid, name), task_event("task-started", uid))
    with guarded(browser, gateway.url) as (context, guard):
        context.add_init_script(f"const real = Date.now; Date.now = () => real() + {hours} * 3600000;")
        page = context.new_page()
        page.goto(f"{gateway.url}/?name={name}")
        row = page.locator(".card").filter(has_text="Running longest").locator("li").filter(has_text=name)
        expect(row).to_contain_text(re.compile(r"[1-9]\d* s$"))
        page.goto(f"{gateway.url}/tasks/{uid}")
        expect(page.locator("main")).to_contain_text(re.compile(r"[1-9]\d* s so far"))
        expect(page.locator("main")).not_to_contain_text(re.compile(r"1 h|in \d+ min"))
        guard.check(page)


def test_a_note_about_long_names_fits_on_a_phone(
    browser: Browser, publisher: Publisher, gateway: GatewayProcess
) -> None:
    host = f"w{uuid4().hex}@host-0000.{'very-long-domain-name.' * 4}example.internal"
    publisher.send(
        {"type": "worker-online", "hostname": host, "freq": 0.01, "pid": 1, "timestamp": time.time()}
    )
    publisher.send(*walk("shop.charge"))
    with opened(browser, f"{gateway.url}/", viewport={"width": 320, "height": 800}) as page:
        expect(page.locator(".note")).to_contain_text(host[:30], timeout=40_000)  # silent after 15 s
        assert page.evaluate("document.documentElement.scrollWidth") <= 320


def test_the_window_is_in_the_address(page: Page, gateway: GatewayProcess, publisher: Publisher) -> None:
    publisher.send(*walk("shop.charge"))
    page.get_by_label("window").select_option("5m")
    expect(page).to_have_url(f"{gateway.url}/?window=5m")
    page.get_by_text("Show as table").click()
    expect(page.locator(".plain-table tbody tr")).to_have_count(30)
    page.reload()
    expect(page.get_by_label("window")).to_have_value("5m")


def test_the_search_opens_tasks_and_a_uuid_its_task(
    page: Page, publisher: Publisher, gateway: GatewayProcess
) -> None:
    name, uid = f"shop.{uuid4().hex[:8]}", str(uuid4())
    publisher.send(received(uid, name), task_event("task-failed", uid, exception="E()"))
    page.keyboard.press("/")
    bar = page.get_by_role("combobox", name="Search tasks")
    expect(bar).to_be_focused()
    page.keyboard.type("state:fail")
    expect(page.get_by_role("option").first).to_contain_text("state:FAILURE")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Tab")
    expect(bar).to_have_value("state:FAILURE ")
    page.keyboard.type(f"name:{name} runtime<5")
    page.keyboard.press("Enter")
    expect(page).to_have_url(f"{gateway.url}/tasks?state=FAILURE&name={name}&runtime%3C5")
    expect(bar).to_have_value(f"state:FAILURE name:{name} runtime<5")
    bar.fill("nmae:x")
    bar.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("there is no filter nmae")
    bar.fill(f" {uid} ")
    bar.press("Enter")
    expect(page).to_have_url(f"{gateway.url}/tasks/{uid}")
    expect_view(page, "task")


def test_views_by_keys_links_and_the_history(page: Page, gateway: GatewayProcess) -> None:
    for key, view, path in (("2", "live", "events"), ("3", "tasks", "tasks"), ("5", "workers", "workers")):
        page.keyboard.press(key)
        expect(page.locator("main")).to_have_attribute("data-view", view)
        expect(page).to_have_url(f"{gateway.url}/{path}")
        expect(page.locator("nav [aria-current]")).to_have_attribute("href", path)
    page.go_back()
    expect(page.locator("main")).to_have_attribute("data-view", "tasks")
    page.go_forward()
    expect(page.locator("main")).to_have_attribute("data-view", "workers")
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_contain_text("Next failure")
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    with page.context.expect_page() as other:
        page.get_by_role("link", name="Live").click(modifiers=["Control"])
    expect(other.value.locator("main")).to_have_attribute("data-view", "live")
    expect(page).to_have_url(f"{gateway.url}/workers")


def test_times_in_utc(browser: Browser, gateway: GatewayProcess, publisher: Publisher) -> None:
    name = f"t{uuid4().hex[:8]}"
    with opened(browser, f"{gateway.url}/events", timezone_id="Asia/Kathmandu") as page:
        publisher.send(*walk(name))
        time = page.locator(".tail-mover .tail-row").filter(has_text=name).first.locator(".cell.time")
        expect(time).not_to_be_empty()
        local = time.inner_text()
        page.get_by_role("button", name="UTC").click()
        expect(time).not_to_have_text(local)
        utc = time.inner_text()
        minutes = [int(text[:2]) * 60 + int(text[3:5]) for text in (local, utc)]
        assert (minutes[0] - minutes[1]) % 1440 == 345
        page.reload()
        expect(page.get_by_role("button", name="UTC")).to_have_attribute("aria-pressed", "true")


def test_a_hidden_tab_counts_failures_in_its_title(
    browser: Browser, gateway: GatewayProcess, publisher: Publisher
) -> None:
    """Headless tabs are never hidden: the page is told so."""
    name = f"t{uuid4().hex[:8]}"
    with guarded(browser, gateway.url) as (context, guard):
        page = context.new_page()
        page.goto(f"{gateway.url}/events")
        expect_level(page, "ok")
        hide = "Object.defineProperty(document, 'hidden', { value: %s, configurable: true });"
        page.evaluate(hide % "true" + "document.dispatchEvent(new Event('visibilitychange'))")
        numbers = count(1)

        def is_counted() -> bool:
            """Fail another task: the page may not have listened to the first one yet."""
            uid = f"{name}-{next(numbers)}"
            publisher.send(received(uid, name), task_event("task-failed", uid))
            page.wait_for_timeout(200)
            return re.fullmatch(r"\(\d+\) Live · Celery Gateway", page.title()) is not None

        assert wait_for(is_counted, 15)
        page.evaluate(hide % "false" + "document.dispatchEvent(new Event('visibilitychange'))")
        expect(page).to_have_title("Live · Celery Gateway")
        guard.check(page)


def test_unknown_addresses(browser: Browser, gateway: GatewayProcess) -> None:
    with opened(browser, f"{gateway.url}/tasks?nmae=x") as page:
        expect_view(page, "tasks", "error")
        page.get_by_role("link", name="Take away nmae").click()
        expect(page).to_have_url(f"{gateway.url}/tasks")
