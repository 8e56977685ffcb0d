"""Many tabs of one browser: all of them load and are live, over one connection."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, expect

from tests.support.dashboard import expect_level, guarded
from tests.support.gateway_process import GatewayProcess
from tests.support.publisher import Publisher, walk

TABS = 8
"""Browsers open at most six connections to a host."""


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
