"""Many tabs of one browser: all of them load and are live, over one connection."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from tests.support.dashboard import expect_level, expect_view, guarded
from tests.support.gateway_process import GatewayProcess
from tests.support.publisher import Publisher, task_event, walk
from tests.support.rabbitmq import wait_for

TABS = 8
"""Browsers open at most six connections to a host."""
WAIT_SECONDS = 60


@pytest.fixture(scope="module")
def gateway(broker: str, folder: Path) -> Iterator[GatewayProcess]:
    process = GatewayProcess(broker, folder)
    try:
        process.start()
        yield process
    finally:
        process.stop()


def subscriptions(gateway: GatewayProcess) -> int:
    text = httpx.get(f"{gateway.url}/metrics").text
    line = next(line for line in text.splitlines() if line.startswith("celery_gateway_subscriptions "))
    return int(float(line.split()[1]))


def test_eight_tabs_are_live_over_one_connection(
    browser: Browser, gateway: GatewayProcess, broker: str
) -> None:
    with guarded(browser, gateway.url) as (context, guard):
        pages = [context.new_page() for _ in range(TABS)]
        for page in pages:
            page.goto(f"{gateway.url}/tasks")
            expect_level(page, "ok")
        assert subscriptions(gateway) == 1

        publisher = Publisher(broker)
        publisher.send(*walk("shop.everywhere"))
        publisher.close()
        for page in pages:
            page.bring_to_front()
            expect(page.locator("main")).to_contain_text("shop.everywhere")

        pages[0].close()  # it may have been the one with the connection
        publisher = Publisher(broker)
        publisher.send(*walk("shop.afterwards"))
        publisher.close()
        for page in pages[1:]:
            page.bring_to_front()
            expect(page.locator("main")).to_contain_text("shop.afterwards", timeout=30_000)
            guard.check(page)


def hide(page: Page, is_hidden: bool) -> None:
    """Make the page believe that nobody can see it, or that somebody can: a test's pages are all in sight."""
    page.evaluate(
        """(isHidden) => {
            Object.defineProperty(document, "hidden", { configurable: true, get: () => isHidden });
            document.dispatchEvent(new Event("visibilitychange"));
        }""",
        is_hidden,
    )


def test_eight_pages_of_tasks_load_and_those_out_of_sight_have_no_stream(
    browser: Browser, gateway: GatewayProcess, broker: str
) -> None:
    uids = [f"page-{number}" for number in range(TABS)]
    publisher = Publisher(broker)
    for number, uid in enumerate(uids):
        ended = walk("shop.page", uid=uid)
        publisher.send(*(ended[:-1] if number % 2 else ended))
    publisher.close()
    before = subscriptions(gateway)
    with guarded(browser, gateway.url) as (context, guard):
        pages = [context.new_page() for _ in uids]
        for page, uid in zip(pages, uids, strict=True):
            page.goto(f"{gateway.url}/tasks/{uid}")
            expect_view(page, "task")
            expect(page.locator(".task-events")).to_contain_text("task-started")
        for page in pages:
            hide(page, True)
        assert wait_for(lambda: subscriptions(gateway) == before + 1, WAIT_SECONDS)

        publisher = Publisher(broker)
        publisher.send(task_event("task-progress", uids[1], current=1, total=2))
        publisher.close()
        expect(pages[1].locator(".outcome")).to_contain_text("PROGRESS")
        expect(pages[1].locator(".task-events")).not_to_contain_text("task-progress")
        hide(pages[1], False)
        expect(pages[1].locator(".task-events")).to_contain_text("task-progress")
        expect(pages[1].locator(".task-events").get_by_text("task-started")).to_have_count(1)
        for page in pages:
            guard.check(page)
