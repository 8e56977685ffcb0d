"""The dashboard without a mouse: from the search to a traceback, and back."""

from playwright.sync_api import Browser, Page, expect

from tests.support.dashboard import expect_view, opened


def focused(page: Page) -> str:
    tag: str = page.evaluate("document.activeElement?.tagName ?? ''")
    return tag


def test_from_the_search_to_a_traceback(browser: Browser, demo: str) -> None:
    with opened(browser, f"{demo}/") as page:
        expect_view(page, "overview")
        page.keyboard.press("/")
        expect(page.get_by_role("combobox").or_(page.get_by_role("searchbox")).first).to_be_focused()
        page.keyboard.type("state:FAILURE")
        page.keyboard.press("Escape")  # closes the list of completions
        page.keyboard.press("Enter")
        expect_view(page, "tasks")
        expect(page).to_have_url(f"{demo}/tasks?state=FAILURE")

        page.keyboard.press("j")
        page.keyboard.press("j")
        page.keyboard.press("k")
        page.keyboard.press("Enter")
        expect_view(page, "task")
        expect(page.get_by_role("heading", name="Traceback")).to_be_visible()
        assert focused(page) != "BODY"

        page.go_back()
        expect_view(page, "tasks")
        page.keyboard.press("?")
        expect(page.get_by_role("dialog")).to_be_visible()
        page.keyboard.press("Escape")
        expect(page.get_by_role("dialog")).to_have_count(0)
        for key, view in {
            "1": "overview",
            "2": "live",
            "4": "workflows",
            "5": "workers",
            "3": "tasks",
        }.items():
            page.keyboard.press(key)
            expect(page.locator(f"main[data-view={view}]")).to_be_visible()
