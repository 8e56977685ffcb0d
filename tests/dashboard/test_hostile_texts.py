"""Texts from events in every view: they are shown, and do nothing."""

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest
from playwright.sync_api import Browser

from tests.support.dashboard import HOSTILE, opened
from tests.support.gateway_process import GatewayProcess
from tests.support.publisher import Publisher, received, task_event
from tests.support.rabbitmq import wait_for

TEXTS = (
    HOSTILE,
    "'\"><svg onload=window.pwned=1>",
    "javascript:window.pwned=1",
    "\u2028\u2029\u200b\u2066\x00\x1f\x7f\x9b\ufeff",
    "${window.pwned=1}{{constructor.constructor('window.pwned=1')()}}",
    "../../../etc/passwd?a=b#c%2e%2e",
    "long " * 30_000,
)
"""Markup, URLs, invisible and control characters, templates, paths, and a text of 150 kB."""
ROOT_ID = "root-<b>&amp;?#/%2F"
ACTIVE = "script, img, iframe, object, embed, svg[onload], base, meta, link"
PATHS = {
    "overview": "",
    "live": "events?since=earliest",
    "tasks": "tasks",
    "workflows": "workflows",
    "workflow": f"workflows/{quote(ROOT_ID, safe='')}",
    "workers": "workers",
    "queues": "queues",
    "failures": "failures",
}


@pytest.fixture(scope="module")
def gateway(broker: str, folder: Path) -> Iterator[GatewayProcess]:
    """A gateway whose events have these texts in each of their fields."""
    process = GatewayProcess(broker, folder)
    publisher = Publisher(broker)
    try:
        process.start()
        for number, text in enumerate(TEXTS):
            short, host = text[:200], f"{text[:100]}@host-{number}"
            publisher.send(
                {"type": "worker-online", "hostname": host, "pid": 1, "clock": 1, "sw_ident": short}
                | {"timestamp": 1.0, "utcoffset": 0, "freq": 2.0, "sw_ver": short, "sw_sys": short},
                task_event("task-sent", f"t{number}", queue=short)
                | {"name": short, "root_id": ROOT_ID, "parent_id": None, "args": text, "kwargs": text},
                received(f"t{number}", short, ROOT_ID) | {"hostname": host, "args": text, "kwargs": text},
                task_event("task-started", f"t{number}", hostname=host),
                task_event("task-progress", f"t{number}", hostname=host, message=text, current=1, total=2),
                task_event("task-failed", f"t{number}", hostname=host, exception=text, traceback=text),
                received(text[:300], short, ROOT_ID) | {"hostname": host},
                {"type": text[:60], "hostname": host, "timestamp": 1.0, text[:40]: text},
            )
        wait_for(lambda: _failed(process) == len(TEXTS), 30)
        yield process
    finally:
        publisher.close()
        process.stop()


def _failed(gateway: GatewayProcess) -> int:
    counts = httpx.get(f"{gateway.url}/tasks/counts?by=state").json()["counts"]["state"]
    return int(counts.get("FAILURE", 0))


@pytest.mark.parametrize("view", PATHS)
def test_a_view_shows_texts_and_executes_nothing(
    browser: Browser, gateway: GatewayProcess, view: str
) -> None:
    with opened(browser, f"{gateway.url}/{PATHS[view]}") as page:
        page.locator(f"main[data-view={view}]:not([data-state=loading])").wait_for()
        before = page.locator(ACTIVE).count()
        page.wait_for_timeout(700)
        assert page.locator(ACTIVE).count() == before
        assert page.locator("main :is(script, img, iframe, object, embed)").count() == 0
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_a_task_and_a_worker_of_each_text(browser: Browser, gateway: GatewayProcess) -> None:
    workers = httpx.get(f"{gateway.url}/workers").json()["workers"]
    tasks = httpx.get(f"{gateway.url}/tasks?fields=uuid&limit=1000").json()["tasks"]
    paths = [f"workers/{quote(each['hostname'], safe='')}" for each in workers]
    paths += [f"tasks/{quote(each['uuid'], safe='')}" for each in tasks]
    assert len(paths) > 2 * len(TEXTS)
    with opened(browser, f"{gateway.url}/queues") as page:
        for path in paths:
            page.goto(f"{gateway.url}/{path}")
            page.locator("main[data-view]:not([data-state=loading])").wait_for()
            assert page.locator("main :is(script, img, iframe, object, embed)").count() == 0
            assert page.evaluate("window.pwned") is None
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), path
