"""Pages of the dashboard in a browser, guarded: what a page may never do fails its test."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from playwright.sync_api import Browser, BrowserContext, Page, Request, expect

WAIT_MS = 15_000
HOSTILE = '<img src=x onerror="window.pwned=1"><script>window.pwned=1</script>\u202egnp.exe\x1b[31m'
"""A text from an event: markup, a character that reverses text, and a control sequence."""
_WATCH = """
    window.violations = [];
    document.addEventListener("securitypolicyviolation", (event) =>
        window.violations.push(`${event.violatedDirective}: ${event.blockedURI} ${event.sample}`));
"""


class Guard:
    """Collects what the pages of a context may not do."""

    def __init__(self, context: BrowserContext, url: str) -> None:
        self.faults: list[str] = []
        self._origin = urlsplit(url)[:2]
        context.add_init_script(_WATCH)
        context.on("page", self._watch)
        context.on("request", self._on_request)

    def _watch(self, page: Page) -> None:
        page.on("pageerror", lambda error: self.faults.append(f"uncaught: {error}"))

    def _on_request(self, request: Request) -> None:
        where = urlsplit(request.url)
        if where.scheme not in ("data", "blob") and where[:2] != self._origin:
            self.faults.append(f"request to another origin: {request.url}")

    def check(self, page: Page) -> None:
        """Check a page before it is closed."""
        self.faults += page.evaluate("window.violations ?? []")
        if page.evaluate("window.pwned") is not None:
            self.faults.append("a text of an event was executed")


@contextmanager
def opened(browser: Browser, url: str, **options: Any) -> Iterator[Page]:
    """Open a page in its own context. It fails at the end if the page did what it may not.

    Args:
        options: of ``new_context``, such as ``viewport``.
    """
    expect.set_options(timeout=WAIT_MS)
    with guarded(browser, url, **options) as (context, guard):
        page = context.new_page()
        page.goto(url)
        yield page
        guard.check(page)


@contextmanager
def guarded(browser: Browser, url: str, **options: Any) -> Iterator[tuple[BrowserContext, Guard]]:
    """Open a context for pages of a URL's origin, guarded."""
    context = browser.new_context(**{"viewport": {"width": 1300, "height": 900}, **options})
    guard = Guard(context, url)
    try:
        yield context, guard
    finally:
        context.close()
    assert guard.faults == []


def expect_view(page: Page, name: str, state: str = "ready") -> None:
    """Wait until a view is shown, in a state."""
    expect(page.locator(f"main[data-view={name}]")).to_have_attribute("data-state", state)


def expect_level(page: Page, level: str, timeout_seconds: float = WAIT_MS / 1_000) -> None:
    """Wait until the status line has a level: ``ok``, ``quiet``, ``warn`` or ``bad``."""
    expect(page.locator(f".status.level-{level}")).to_be_visible(timeout=timeout_seconds * 1_000)
