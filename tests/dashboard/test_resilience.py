"""The dashboard while the broker, the gateway or the network is broken: it is green only if all works."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.support.dashboard import expect_level, expect_view, opened
from tests.support.gateway_process import GatewayProcess
from tests.support.proxy import Proxy
from tests.support.publisher import Publisher, received, task_event, walk
from tests.support.rabbitmq import RabbitMQ, free_port

BROKER_SECONDS = 3
FROZEN_SECONDS = 22
"""The page is amber 20 s after the last byte; keep-alives are sent each 15 s."""


@pytest.fixture(scope="module")
def network(rabbitmq: RabbitMQ) -> Iterator[Proxy]:
    """The network between the gateway and its broker."""
    with Proxy(rabbitmq.port) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def gateway(broker: str, network: Proxy, folder: Path) -> Iterator[GatewayProcess]:
    process = GatewayProcess(network.url(broker), folder, port=free_port())
    try:
        process.start()
        yield process
    finally:
        process.stop()


@pytest.fixture
def page(browser: Browser, gateway: GatewayProcess) -> Iterator[Page]:
    with opened(browser, f"{gateway.url}/") as page:
        expect_level(page, "ok")
        yield page


def test_a_broker_that_is_away_is_not_green(page: Page, network: Proxy) -> None:
    network.refuse()
    try:
        expect(page.locator(".status.level-ok")).to_have_count(0, timeout=BROKER_SECONDS * 1_000)
        expect(page.locator(".status")).to_contain_text("cannot be reached")
    finally:
        network.resume()
    expect_level(page, "ok", 40)


def test_a_frozen_gateway_is_not_green(page: Page, gateway: GatewayProcess) -> None:
    os.kill(gateway.pid, signal.SIGSTOP)
    try:
        expect_level(page, "warn", FROZEN_SECONDS)
        expect(page.locator(".status")).to_contain_text("last heard")
    finally:
        os.kill(gateway.pid, signal.SIGCONT)
    expect_level(page, "ok", 40)


def test_a_restart_keeps_what_the_page_knows(browser: Browser, gateway: GatewayProcess, broker: str) -> None:
    publisher = Publisher(broker)
    publisher.send(*walk("shop.before", uid="before-the-restart"), received("runs-on", "shop.pack"))
    with opened(browser, f"{gateway.url}/tasks/runs-on") as page:
        expect_view(page, "task")
        gateway.stop()
        expect(page.locator(".status.level-ok")).to_have_count(0)
        expect(page.locator("main")).to_contain_text("shop.pack")
        gateway.start()
        expect_level(page, "ok", 40)
        publisher.send(task_event("task-succeeded", "runs-on", result="'done'", runtime=1.5))
        expect(page.locator("main .state-done").first).to_be_visible()
    publisher.close()


def test_a_view_opened_while_the_gateway_is_away_is_shown_later(page: Page, gateway: GatewayProcess) -> None:
    gateway.stop()
    expect(page.locator(".status.level-ok")).to_have_count(0)
    page.get_by_role("navigation").get_by_role("link", name="Live").click()
    expect_view(page, "broken", "error")
    gateway.start()
    expect(page.locator("main[data-view=live]")).to_be_visible(timeout=40_000)
    assert page.url == f"{gateway.url}/events"
