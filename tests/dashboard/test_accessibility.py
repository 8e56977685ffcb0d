"""Every view by axe (WCAG 2.2 AA and best practices), in three themes and three widths."""

from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, ElementHandle, Page, expect

from tests.support.dashboard import guarded
from tests.support.dashboard_views import VIEWS, addresses
from tests.support.gateway_process import ROOT
from tests.support.thorough import IS_THOROUGH

AXE = ROOT / "clients" / "dashboard" / "node_modules" / "axe-core" / "axe.min.js"
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
WIDTHS = (320, 900, 1400) if IS_THOROUGH else (320, 1400)
COLOURS = ["color-contrast", "link-in-text-block"]
"""The rules that depend on the theme."""
MAX_PICTURES = 100


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


@pytest.mark.parametrize(
    ("view", "keys", "attribute", "part"),
    [
        ("overview", "", "aria-current", "nav a[aria-current]"),
        ("overview", "", "aria-pressed", ".switches button"),
        ("workflows", "", "aria-pressed", "main button[aria-pressed]"),
        ("task", "", "aria-selected", "[role=tab][aria-selected=true]"),
        ("live", "j", "aria-selected", ".tail-row[aria-selected=true] .cell.type"),
    ],
)
def test_what_is_chosen_looks_other_in_forced_colours(
    page: Page, where: dict[str, str], view: str, keys: str, attribute: str, part: str
) -> None:
    page.set_viewport_size({"width": 1400, "height": 900})
    page.emulate_media(color_scheme="light", forced_colors="active")
    page.goto(where[view])
    page.locator(f"main[data-view={view}]:not([data-state=loading])").wait_for()
    for key in keys:
        page.keyboard.press(key)
    shown = page.locator(part).first.element_handle()
    shown.evaluate("() => document.activeElement.blur()")
    value = "page" if attribute == "aria-current" else "true"
    assert looks(shown, attribute, value) != looks(shown, attribute, "false")


def looks(part: ElementHandle, attribute: str, value: str) -> bytes:
    """Return the steady picture of a part of the page, with an attribute of it or of what it is in."""
    change = "(part, [name, value]) => part.closest(`[${name}]`).setAttribute(name, value)"
    pictures = [b""]
    while len(pictures) < 2 or pictures[-1] != pictures[-2]:
        part.evaluate(change, [attribute, value])
        pictures.append(part.screenshot())
        assert len(pictures) < MAX_PICTURES
    return pictures[-1]


@pytest.mark.parametrize("view", ["live", "tasks", "task", "workflow"])
def test_print_has_the_contents_only(page: Page, where: dict[str, str], view: str) -> None:
    page.emulate_media(forced_colors="none")
    page.goto(where[view])
    page.locator(f"main[data-view={view}]:not([data-state=loading])").wait_for()
    page.emulate_media(media="print")
    try:
        expect(page.locator("h1")).to_be_visible()
        expect(page.locator("main [role=row], main tr, main dl").first).to_be_visible()
        controls = page.locator("nav, input, footer, button:not(.plain, .chip)").filter(visible=True)
        assert controls.all_inner_texts() == []
    finally:
        page.emulate_media(media="screen")


def violations(page: Page, options: dict[str, Any]) -> list[tuple[str, str, list[str]]]:
    """Return the violations that axe finds: the rule, its impact, and the first elements."""
    found = page.evaluate("(options) => axe.run(options)", {"resultTypes": ["violations"], **options})
    return [
        (each["id"], each["impact"], [node["html"][:150] for node in each["nodes"][:3]])
        for each in found["violations"]
    ]
