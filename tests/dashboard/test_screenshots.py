"""A picture of each view of the demo, in `build/screenshots`; `make screenshots` writes `docs/assets`."""

import os
import struct
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from tests.support.dashboard import opened
from tests.support.dashboard_views import VIEWS, addresses
from tests.support.gateway_process import ROOT
from tests.support.thorough import variants

WRITES = bool(os.environ.get("SCREENSHOTS"))
FOLDER = ROOT / ("docs/assets" if WRITES else "build/screenshots")
SIZE = {"width": 1200, "height": 760}
SETTLE_MS = 1_500
MIN_BYTES = 15_000
"""A picture of an empty page is smaller."""


@pytest.fixture(scope="module")
def where(demo: str) -> dict[str, str]:
    return addresses(demo)


@pytest.mark.parametrize("view", VIEWS if WRITES else variants(4, VIEWS))
def test_a_picture_of_each_view(browser: Browser, where: dict[str, str], view: str) -> None:
    with opened(browser, where[view], viewport=SIZE, color_scheme="light") as page:
        page.locator(f"main[data-view={view}][data-state=ready]").wait_for()
        picture = taken(page, FOLDER / f"dashboard-{view}.png")
    assert struct.unpack(">II", picture[16:24]) == (SIZE["width"], SIZE["height"])
    assert len(picture) > MIN_BYTES


def taken(page: Page, file: Path) -> bytes:
    """Take a picture once the view has moved on for a moment, as a user would see it."""
    page.wait_for_timeout(SETTLE_MS)
    file.parent.mkdir(parents=True, exist_ok=True)
    return page.screenshot(path=file)
