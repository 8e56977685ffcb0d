"""The dashboard in a real browser.

A package, so that its fixtures end with its last test: Playwright's event loop excludes asyncio tests.
"""
