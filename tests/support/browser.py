"""Debian's Chromium under Playwright, for the tests that need a page to be real."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome")
ARGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)


@contextmanager
def chromium(*more: str) -> Iterator[Browser]:
    """A browser with further arguments, closed at the end of the block; fails where none is installed."""
    executable = next(filter(None, map(shutil.which, NAMES)), None)
    if executable is None:
        pytest.fail(
            f"none of {', '.join(NAMES)} is installed: run tests/support/setup-system.sh, as `make test` does"
        )
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=[*ARGS, *more])
        try:
            yield browser
        finally:
            browser.close()
