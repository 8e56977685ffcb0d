"""The dashboard's views of workflows: the list, and one workflow as a tree and over time."""

import re
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from uuid import uuid4

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.support.dashboard import HOSTILE, expect_view, opened
from tests.support.events_of_tasks import Event, done, failing, sent, taken, then
from tests.support.thorough import variants
from tests.support.viewed_gateway import ViewedGateway, viewed_gateway

Open = Callable[..., Page]

MAX_NODES = 1_500
LARGE = 2_000
OPEN_SECONDS = 0.5
GROW_SECONDS = 3.0
"""CPU time of the page's main thread to open a workflow of LARGE tasks, and to add 800 to it."""
OPEN = """async (link) => {
    const start = performance.now();
    link.click();
    while (!document.querySelector(".wf-rows [role=row]")) await new Promise(requestAnimationFrame);
    return performance.now() - start;
}"""
"""Follows a link to a workflow; returns the milliseconds until its first row."""


@pytest.fixture(scope="module")
def served() -> Iterator[ViewedGateway]:
    with viewed_gateway() as served:
        yield served


@pytest.fixture
def visit(browser: Browser, served: ViewedGateway) -> Iterator[Open]:
    """`visit("/workflows")`: a page at this path; options are those of a context."""
    with ExitStack() as stack:
        yield lambda path, **options: stack.enter_context(opened(browser, served.url + path, **options))


@pytest.fixture
def root() -> str:
    return str(uuid4())


def checkout(root: str, now: float, packs: int = 30) -> list[Event]:
    """Return the events of a root with a charge in two attempts, many equal tasks, and one that waits.

    Of the equal tasks the one with the number 7 fails, and the last one runs.
    """
    charge = f"{root}-charge"
    events = [
        *done(root, "shop.checkout", now - 30),
        taken(charge, "shop.charge", now - 29, root, root),
        then("started", charge, now - 28),
        then("retried", charge, now - 27, exception="Slow()"),
        *done(charge, "shop.charge", now - 25, root, root, retries=1),
    ]
    for number in range(packs - 1):
        make = failing if number == 7 else done
        events += make(f"{root}-{number}", "shop.pack", now - 20 + number * 0.1, root, charge)
    events += [
        taken(f"{root}-{packs - 1}", "shop.pack", now - 10, root, charge),
        then("started", f"{root}-{packs - 1}", now - 9),
        sent(f"{root}-ship", "shop.ship", now - 8, root, root),
    ]
    return events


def keys(page: Page) -> list[str | None]:
    return [each.get_attribute("data-key") for each in page.locator(".wf-rows [role=row]").all()]


def test_the_list_of_workflows(visit: Open, served: ViewedGateway, root: str) -> None:
    now = time.time()
    served.put(*checkout(root, now), *done(f"{root}-single", "shop.single", now))
    served.put(
        *done(f"{root}-ended", "shop.ended", now - 9),
        *done(f"{root}-e1", "shop.x", now - 8, f"{root}-ended", f"{root}-ended"),
    )
    page = visit("/workflows")
    expect_view(page, "workflows")
    mine = page.locator(f"tr[data-key='{root}']")
    expect(mine).to_contain_text("running")
    expect(mine).to_contain_text(re.compile(r"31 of 33"))
    expect(page.locator(f"tr[data-key='{root}-single']")).to_have_count(0)
    page.get_by_role("button", name="succeeded").click()
    expect(page.locator(f"tr[data-key='{root}-ended']")).to_contain_text("2 of 2")
    expect(mine).to_have_count(0)
    page.get_by_role("checkbox", name="single tasks").click()
    expect(page.locator(f"tr[data-key='{root}-single']")).to_have_count(1)
    expect(page).to_have_url(re.compile(r"total%3E=1"))
    page.locator(f"tr[data-key='{root}-ended']").get_by_role("link").click()
    expect_view(page, "workflow")
    expect(page.locator(".wf-summary")).to_contain_text("2 of 2 ready")


def test_the_tree_its_folds_and_its_failures(visit: Open, served: ViewedGateway, root: str) -> None:
    served.put(*checkout(root, time.time()))
    page = visit(f"/workflows/{root}")
    expect_view(page, "workflow")
    expect(page.locator(".wf-summary")).to_contain_text("31 of 33 ready")
    assert keys(page) == [root, f"{root}-charge", f"{root}-7", f"{root}-charge×shop.pack", f"{root}-ship"]
    grid = page.get_by_role("treegrid")
    expect(grid).to_have_attribute("aria-rowcount", "6")
    levels = [each.get_attribute("aria-level") for each in page.locator(".wf-rows [role=row]").all()]
    assert levels == ["1", "2", "3", "3", "2"]
    group = page.locator(f"[data-key='{root}-charge×shop.pack']")
    expect(group).to_contain_text("×29")
    expect(group).to_contain_text("28 of 29")
    expect(group).to_have_attribute("aria-expanded", "false")
    group.get_by_role("button", name="Open").click()
    expect(grid).to_have_attribute("aria-rowcount", "35")
    group.get_by_role("button", name="Close").click()
    expect(grid).to_have_attribute("aria-rowcount", "6")
    charge = page.locator(f"[data-key='{root}-charge']")
    expect(charge).to_contain_text("try 2")
    expect(charge.locator("rect.run")).to_have_count(2)
    expect(page.locator(f"[data-key='{root}-ship'] rect.queue")).to_have_count(1)
    expect(charge.get_by_label("critical path")).to_be_visible()

    page.get_by_role("button", name="Hide idle").click()
    expect(page.locator(f"[data-key='{root}-ship']")).to_have_count(0)
    assert keys(page) == [root, f"{root}-charge", f"{root}-7", f"{root}-29"]


def test_the_next_failure_and_the_panel(visit: Open, served: ViewedGateway, root: str) -> None:
    served.put(*checkout(root, time.time()))
    page = visit(f"/workflows/{root}")
    expect_view(page, "workflow")
    page.keyboard.press("f")
    panel = page.get_by_role("complementary", name="Task")
    expect(panel).to_contain_text("ValueError('no')")
    expect(page.locator(f"[data-key='{root}-7']")).to_have_attribute("aria-selected", "true")
    expect(page).to_have_url(re.compile(f"task={root}-7"))
    page.keyboard.press("Escape")
    expect(panel).to_have_count(0)
    page.locator(f"[data-key='{root}-charge'] .wf-chart").click()
    expect(panel).to_contain_text("after 2 tries")


def test_by_keyboard(visit: Open, served: ViewedGateway, root: str) -> None:
    served.put(*checkout(root, time.time()))
    page = visit(f"/workflows/{root}")
    expect_view(page, "workflow")
    assert page.locator(".wf-grid [tabindex='0']").count() == 1
    page.keyboard.press("j")
    expect(page.locator(f"[data-key='{root}']")).to_be_focused()
    for key, focused in (
        ("j", "-charge"),
        ("ArrowRight", "-7"),
        ("End", "-ship"),
        ("k", "-charge×shop.pack"),
        ("ArrowLeft", "-charge"),
    ):
        page.keyboard.press(key)
        expect(page.locator(f"[data-key='{root}{focused}']")).to_be_focused()
    page.keyboard.press("ArrowLeft")
    expect(page.get_by_role("treegrid")).to_have_attribute("aria-rowcount", "4")
    page.keyboard.press("Enter")
    expect(page.get_by_role("complementary", name="Task")).to_be_visible()
    page.keyboard.press("Enter")
    expect_view(page, "task")


def test_a_part_of_the_time(visit: Open, served: ViewedGateway, root: str) -> None:
    served.put(*checkout(root, time.time()))
    page = visit(f"/workflows/{root}")
    expect_view(page, "workflow")
    follow = page.get_by_role("button", name="Follow")
    expect(follow).to_have_attribute("aria-pressed", "true")
    expect(page.locator(f"[data-key='{root}'] rect")).to_have_count(2)
    strip = page.locator("svg.strip")
    box = strip.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] * 0.5, box["y"] + 10)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.9, box["y"] + 10, steps=4)
    page.mouse.up()
    expect(strip.locator(".window")).to_have_count(1)
    expect(page.locator(f"[data-key='{root}'] rect")).to_have_count(0)  # it ended before
    expect(follow).to_have_attribute("aria-pressed", "false")
    for _ in range(8):
        page.keyboard.press("[")
    expect(page.locator(f"[data-key='{root}'] rect")).to_have_count(2)
    page.get_by_role("button", name="All of the time").click()
    expect(strip.locator(".window")).to_have_count(0)
    page.keyboard.press("Space")
    expect(follow).to_have_attribute("aria-pressed", "false")


def test_as_a_table(visit: Open, served: ViewedGateway, root: str) -> None:
    served.put(*checkout(root, time.time()))
    page = visit(f"/workflows/{root}")
    page.get_by_role("button", name="Show as table").click()
    expect(page).to_have_url(re.compile("view=tree"))
    expect(page.locator(f"[data-key='{root}-charge'] [role=gridcell]")).to_have_count(8)
    expect(page.get_by_role("columnheader", name="Waited")).to_be_visible()


def test_a_gap_is_hatched(visit: Open, served: ViewedGateway, root: str) -> None:
    now = time.time()
    served.put(*done(root, "shop.checkout", now - 3), taken(f"{root}-1", "shop.x", now - 2, root, root))
    page = visit(f"/workflows/{root}")
    expect_view(page, "workflow")
    expect(page.locator("main rect.gap")).to_have_count(0)
    served.gap()
    expect(page.locator(".wf-back rect.gap")).to_have_count(1)
    expect(page.locator("svg.strip rect.gap title")).to_contain_text("not connected to its broker")


def test_a_workflow_that_is_not_known(visit: Open, served: ViewedGateway, root: str) -> None:
    page = visit(f"/workflows/{root}")
    expect_view(page, "workflow", "empty")
    expect(page.locator("[data-code=workflow-unknown]")).to_be_visible()
    served.put(*checkout(root, time.time()))
    expect_view(page, "workflow")


def test_the_id_of_a_task_that_is_not_the_root(visit: Open, served: ViewedGateway, root: str) -> None:
    served.put(*checkout(root, time.time()))
    page = visit(f"/workflows/{root}-charge")
    expect_view(page, "workflow", "empty")
    page.locator(".empty").get_by_role("link").click()
    expect(page.locator(".wf-summary")).to_be_visible()


def test_an_evicted_workflow(browser: Browser, root: str) -> None:
    with viewed_gateway(max_tasks=10) as small:
        small.put(*done(root, "shop.checkout", time.time()))
        for _ in range(40):
            small.put(*done(str(uuid4()), "shop.other", time.time()))
        with opened(browser, f"{small.url}/workflows/{root}") as page:
            expect_view(page, "workflow", "empty")
            expect(page.locator("[data-code=workflow-evicted]")).to_be_visible()


def test_untrusted_texts(visit: Open, served: ViewedGateway, root: str) -> None:
    hostile = HOSTILE
    now = time.time()
    served.put(*done(root, hostile, now - 9))
    for number in range(25):
        served.put(*done(f"{root}-{number}", hostile, now - 8, root, root, hostname=hostile))
    text = f'Traceback (most recent call last):\n  File "{hostile}", line 1, in {hostile}\n{hostile}\n'
    served.put(
        *failing(f"{hostile}{root}", "x" * 100_000, now - 7, root, root, exception=hostile, traceback=text)
    )
    page = visit(f"/workflows/{root}")
    expect_view(page, "workflow")
    expect(page.locator(".wf-rows")).to_contain_text("\\u{202e}")
    page.keyboard.press("f")
    expect(page.get_by_role("complementary", name="Task")).to_contain_text("\\u{202e}")
    assert (
        page.evaluate("document.querySelectorAll('main :is(img, script, iframe, object, style)').length") == 0
    )
    assert page.evaluate("document.querySelectorAll('script').length") == 1
    assert "\u202e" not in page.locator("body").inner_text()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def tree(root: str, now: float, first: int, end: int) -> list[Event]:
    """Return the events of the tasks of some numbers: each has up to eight children, of 40 names."""
    events: list[Event] = []
    for number in range(first, end):
        parent = f"{root}-{(number - 1) // 8}" if number else root
        about = (f"shop.step{number % 40}", now - 30 + number * 0.01, root, parent)
        events += (
            done(f"{root}-{number}", *about)
            if number % 5
            else [taken(f"{root}-{number}", *about), then("started", f"{root}-{number}", about[1] + 0.2)]
        )
    return events


@pytest.mark.timing
@pytest.mark.parametrize("size", variants(1, [LARGE, 20_000]))
def test_a_large_workflow_opens_and_grows(visit: Open, served: ViewedGateway, root: str, size: int) -> None:
    now = time.time()
    served.put(*done(root, "shop.import", now - 31))
    for first in range(0, size, 500):
        served.put(*tree(root, now, first, first + 500))
    page = visit("/workflows")
    used = cpu_of(page)
    link = page.locator(f"tr[data-key='{root}']").get_by_role("link")
    expect(link).to_be_visible()
    before = used()
    seconds = link.evaluate(OPEN) / 1000
    opening = used() - before
    before = used()
    for first in range(size, size + 800, 40):
        served.put(*tree(root, now, first, first + 40))
        expect(page.locator(".wf-summary")).to_contain_text(f"of {first + 41:,} ready")
    growing = used() - before
    expect(page.get_by_role("treegrid")).to_have_attribute("aria-rowcount", f"{size + 802}")
    page.locator(".wf-grid").evaluate("(grid) => (grid.scrollTop = grid.scrollHeight)")
    expect(page.locator(f"[aria-rowindex='{size + 802}']")).to_be_visible()
    print(f"opened in {seconds:.2f} s, {opening:.2f} s of CPU; 800 more tasks: {growing:.2f} s of CPU")
    assert page.evaluate("document.querySelectorAll('*').length") < MAX_NODES
    assert opening < OPEN_SECONDS * size / LARGE
    assert growing < GROW_SECONDS * size / LARGE


def cpu_of(page: Page) -> Callable[[], float]:
    """Return a function that returns the CPU time of the page's main thread, in seconds."""
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})

    def used() -> float:
        metrics = session.send("Performance.getMetrics")["metrics"]
        return float(next(each["value"] for each in metrics if each["name"] == "TaskDuration"))

    return used
