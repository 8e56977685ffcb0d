"""Every control of every view is pressed: none throws, and none leads to a page that does not work.

Then what single controls show: the actions, a traceback, the lines to paste.
"""

import re
import subprocess
import sys
import time
from pathlib import Path
from uuid import uuid4

import pytest
from playwright.sync_api import Browser, Locator, Page, TimeoutError, expect

from tests.support.dashboard import opened
from tests.support.dashboard_views import VIEWS, addresses
from tests.support.events_of_tasks import failing
from tests.support.gateway_process import GatewayProcess
from tests.support.publisher import Publisher, received
from tests.support.viewed_gateway import viewed_gateway

CONTROLS = "button:not(.skip), summary, select, input[type=checkbox], [role=tab], [role=switch]"
MAX_CONTROLS = 20
"""How many controls of a view are pressed, counted by their names."""

TRACEBACK = """Traceback (most recent call last):
  File "/srv/demo/tasks.py", line 88, in charge
    raise PaymentTimeout(f"order {order}: the acquirer of the card did not answer within {seconds} s")
          ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
demo.errors.PaymentTimeout: order 10485
"""


@pytest.fixture(scope="module")
def where(demo: str) -> dict[str, str]:
    return addresses(demo)


def names(page: Page) -> list[str]:
    """The controls that can be seen, by a name that does not change with the numbers in it."""
    found = (
        page.locator(CONTROLS)
        .filter(visible=True)
        .evaluate_all(
            "(all) => all.map((each) =>"
            " `${each.tagName}|${each.getAttribute('aria-label') ?? each.textContent}`)"
        )
    )
    return [re.sub(r"[\d.,]+", "#", name) for name in found]


def control(page: Page, name: str) -> Locator | None:
    """The first control of this name, as it is now."""
    for index, each in enumerate(names(page)):
        if each == name:
            return page.locator(CONTROLS).filter(visible=True).nth(index)
    return None


def press(page: Page, found: Locator) -> None:
    """Press a control; a dialog that the control before has opened is closed first."""
    try:
        found.click(timeout=1_000)
    except TimeoutError:
        page.keyboard.press("Escape")
        found.click(timeout=5_000)


@pytest.mark.parametrize("view", VIEWS)
def test_every_control_can_be_pressed(browser: Browser, where: dict[str, str], view: str) -> None:
    with opened(browser, where[view]) as page:
        root = page.locator(f"main[data-view={view}]:not([data-state=loading])")
        root.wait_for()
        page.on("dialog", lambda dialog: dialog.dismiss())
        pressed: set[str] = set()
        while len(pressed) < MAX_CONTROLS:
            name = next((each for each in names(page) if each not in pressed), None)
            if name is None:
                break
            pressed.add(name)
            found = control(page, name)
            if found is None:
                continue
            if name.startswith("SELECT"):
                found.select_option(index=found.locator("option").count() - 1)
            else:
                press(page, found)
            expect(page.locator("main[data-view]")).not_to_have_attribute("data-state", "error")
            if page.locator(f"main[data-view={view}]").count() == 0:
                page.goto(where[view])
                root.wait_for()
            elif page.get_by_role("dialog").count():
                page.keyboard.press("Escape")
        assert pressed


def test_an_action_and_its_outcome_are_two_sentences(
    browser: Browser, broker: str, folder: Path, publisher: Publisher
) -> None:
    process = GatewayProcess(broker, folder, options=["--allow", "revoke"])
    try:
        process.start()
        uid = uuid4().hex
        publisher.send([received(uid, "shop.pay")])
        with opened(browser, f"{process.url}/tasks/{uid}") as page:
            page.get_by_role("button", name="Revoke…").click()
            page.get_by_role("dialog").get_by_role("button", name="Revoke").click()
            expect(page.locator(".actions [role=status]")).to_contain_text("1 task still waits. Revoked ")
    finally:
        process.stop()


def test_the_markers_below_a_source_line_stay_below_it(browser: Browser) -> None:
    with viewed_gateway() as served:
        served.put(*failing("t", "shop.charge", time.time(), traceback=TRACEBACK))
        with opened(browser, f"{served.url}/tasks/t", viewport={"width": 375, "height": 800}) as page:
            code = page.locator(".frame pre")
            expect(code).to_contain_text("^^^^")
            assert code.evaluate("(pre) => pre.scrollWidth > pre.clientWidth"), "a line is wrapped"
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
            code.focus()
            expect(code).to_be_focused()


def test_the_lines_of_python_print_a_task_that_has_ended(browser: Browser, where: dict[str, str]) -> None:
    with opened(browser, where["task"]) as page:
        page.get_by_role("tab", name="Watch it").click()
        page.get_by_role("button", name="Python").click()
        lines = page.locator("[data-lines=python]").inner_text()
    done = subprocess.run([sys.executable, "-c", lines], capture_output=True, text=True, timeout=30)
    assert done.stderr == ""
    assert re.fullmatch(r"task-failed \S+ FAILURE\n", done.stdout)
