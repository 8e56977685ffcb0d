"""The dashboard below a path: kept or stripped by a proxy, or mounted in another application."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, expect

from tests.support.dashboard import expect_level, expect_view, opened
from tests.support.gateway_process import GatewayProcess
from tests.support.nginx import Nginx
from tests.support.portable_server import PortableServer
from tests.support.publisher import Publisher, walk
from tests.support.rabbitmq import wait_for

STRIPPED = {"nginx.conf": {"sub-path-kept.conf": "sub-path-stripped.conf"}}
TASK = "task with spaces, 100% & ?#"


@pytest.fixture(scope="module", params=["kept", "stripped", "mounted"])
def url(request: pytest.FixtureRequest, broker: str, folder: Path) -> Iterator[str]:
    """The URL of a gateway with a task, without a final slash."""
    ends = []
    try:
        if request.param == "mounted":
            server = PortableServer(broker, folder, server="uvicorn")
            ends.append(server.stop)
            server.start()
            url = server.url
        else:
            options = ("--root-path", "/celery") if request.param == "kept" else ()
            gateway = GatewayProcess(broker, folder, options=options)
            ends.append(gateway.stop)
            gateway.start()
            replace = None if request.param == "kept" else STRIPPED
            nginx = Nginx(folder / f"nginx-{request.param}", gateway.port, replace=replace)
            ends.append(nginx.stop)
            nginx.start()
            url = nginx.url
        publisher = Publisher(broker)
        publisher.send(*walk("shop.charge", uid=TASK, root_id=TASK))
        publisher.close()
        wait_for(lambda: httpx.get(f"{url}/tasks").json()["tasks"] != [], 20)
        yield url
    finally:
        for end in reversed(ends):
            end()


def test_every_page_works_below_a_path(browser: Browser, url: str) -> None:
    with opened(browser, f"{url}/") as page:
        expect_view(page, "overview")
        expect_level(page, "ok")
        page.get_by_role("link", name="Tasks", exact=True).click()
        expect_view(page, "tasks")
        expect(page).to_have_url(f"{url}/tasks")
        page.get_by_role("link", name="shop.charge").first.click()
        expect_view(page, "task")
        expect(page).to_have_url(f"{url}/tasks/task%20with%20spaces,%20100%25%20%26%20%3F%23")
        page.reload()
        expect_view(page, "task")
        expect(page.locator("main")).to_contain_text("SUCCESS")
        page.get_by_role("link", name="Workflows", exact=True).click()
        expect_view(page, "workflows", "empty")
        page.go_back()
        expect_view(page, "task")
