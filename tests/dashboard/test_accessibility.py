"""Every view by axe (WCAG 2.2 AA and best practices), in three themes and three widths."""

from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from tests.support.dashboard import guarded
from tests.support.dashboard_views import VIEWS, addresses
from tests.support.gateway_process import ROOT
from tests.support.thorough import IS_THOROUGH

AXE = ROOT / "clients" / "dashboard" / "node_modules" / "axe-core" / "axe.min.js"
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
WIDTHS = (320, 900, 1400) if IS_THOROUGH else (320, 1400)
COLOURS = ["color-contrast", "link-in-text-block"]
"""The rules that depend on the theme."""


@pytest.fixture(scope="module")
def where(demo: str) -> dict[str, str]:
    return addresses(demo)


@pytest.fixture(scope="module")
def page(browser: Browser, where: dict[str, str]) -> Iterator[Page]:
    with guarded(browser, where["overview"], bypass_csp=True, color_scheme="light") as (context, _):
        yield context.new_page()


@pytest.mark.parametrize("view", VIEWS)
def test_a_view_has_no_violation_and_fits(page: Page, where: dict[str, str], view: str) -> None:
    page.emulate_media(color_scheme="light", forced_colors="none")
    page.set_viewport_size({"width": WIDTHS[0], "height": 900})
    page.goto(where[view])
    page.locator(f"main[data-view={view}]:not([data-state=loading])").wait_for()
    page.add_script_tag(path=AXE)
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 900})
        assert violations(page, {"runOnly": RULES}) == [], f"{view} at {width} px"
        wide = page.evaluate("document.documentElement.scrollWidth")
        assert wide <= width, f"{view} scrolls sideways at {width} px"
    for width in WIDTHS[-1:]:
        page.set_viewport_size({"width": width, "height": 900})
        page.emulate_media(color_scheme="dark", forced_colors="none")
        assert violations(page, {"runOnly": COLOURS}) == [], f"{view}, dark, at {width} px"
        page.emulate_media(color_scheme="light", forced_colors="active")
        assert violations(page, {"runOnly": COLOURS}) == [], f"{view}, forced colours, at {width} px"


def violations(page: Page, options: dict[str, Any]) -> list[tuple[str, str, list[str]]]:
    """Return the violations that axe finds: the rule, its impact, and the first elements."""
    found = page.evaluate("(options) => axe.run(options)", {"resultTypes": ["violations"], **options})
    return [
        (each["id"], each["impact"], [node["html"][:150] for node in each["nodes"][:3]])
        for each in found["violations"]
    ]
