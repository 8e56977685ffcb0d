"""Every control of every view is pressed: none throws, and none leads to a page that does not work."""

import re

import pytest
from playwright.sync_api import Browser, Locator, Page, TimeoutError, expect

from tests.support.dashboard import opened
from tests.support.dashboard_views import VIEWS, addresses

CONTROLS = "button:not(.skip), summary, select, input[type=checkbox], [role=tab], [role=switch]"
MAX_CONTROLS = 20
"""How many controls of a view are pressed, counted by their names."""


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
