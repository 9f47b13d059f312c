"""A real browser, which tells of everything that a page must not do: break the policy, fail, leave the site."""

import shutil
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.async_api import Browser, BrowserContext, Page, Request, async_playwright, expect
from tests.support.node_clients import installed_clients

expect.set_options(timeout=30_000)  # a busy machine is no failure
_PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
_TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
WIDE = {"width": 1280, "height": 850}
NARROW = {"width": 320, "height": 800}


@cache
def chromium() -> str:
    """The browser's program; skips the test when there is none."""
    found = next(filter(None, map(shutil.which, _PROGRAMS)), None)
    if found is None:
        pytest.skip("needs Chromium: on Debian and Ubuntu `apt install chromium`")
    return found


@cache
def axe() -> str:
    """The source of axe-core; skips the test when npm is missing."""
    return (installed_clients() / "node_modules" / "axe-core" / "axe.min.js").read_text()


@asynccontextmanager
async def running_browser() -> AsyncIterator[Browser]:
    """Chromium without a window."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium())
        try:
            yield browser
        finally:
            await browser.close()


@dataclass(slots=True)
class Window:
    """A page that is watched; `complaints` is what it must not have done."""

    page: Page
    base_url: str
    complaints: list[str] = field(default_factory=list)

    async def go(self, path: str) -> None:
        """Open a path of the site; it must answer well."""
        answer = await self.page.goto(self.base_url + path)
        assert answer is not None
        assert answer.status == 200, f"{path}: {answer.status}"

    async def check_accessibility(self) -> None:
        """Whether axe-core finds nothing: raises `AssertionError` with what it found."""
        await self.page.evaluate(axe())
        found = await self.page.evaluate(
            "tags => axe.run({runOnly: tags}).then(it => it.violations.map(each => "
            "`${each.id}: ${each.help}: ${each.nodes.map(node => node.html).join(' | ')}`))",
            _TAGS,
        )
        assert found == [], f"{self.page.url}: {found}"

    async def check_width(self) -> None:
        """Whether nothing has to be scrolled sideways but what is in a frame for it (WCAG 1.4.10)."""
        needed = await self.page.evaluate("document.documentElement.scrollWidth")
        has = await self.page.evaluate("innerWidth")
        assert needed <= has, f"{self.page.url} needs {needed} of {has} pixels"

    def check_behaviour(self) -> None:
        """Whether it did nothing that it must not since this was asked last; Chromium tells of a broken policy."""
        found, self.complaints = self.complaints, []
        assert found == [], found


@asynccontextmanager
async def open_window(
    browser: Browser, base_url: str, state: Any = None, allowed_errors: tuple[int, ...] = (), **options: Any
) -> AsyncIterator[Window]:
    """A window of its own, with another's cookies if `state` has them; checked when it closes.

    `allowed_errors`: statuses that the test means to provoke.
    """
    defaults: Mapping[str, Any] = {"viewport": WIDE, "locale": "en-US", "timezone_id": "America/New_York"}
    context = await browser.new_context(**{**defaults, **options}, storage_state=state)
    try:
        window = await _watched(context, base_url, allowed_errors)
        yield window
        window.check_behaviour()
    finally:
        await context.close()


async def _watched(context: BrowserContext, base_url: str, allowed_errors: tuple[int, ...]) -> Window:
    context.set_default_timeout(30_000)
    window = Window(await context.new_page(), base_url)
    expected = tuple(f"the server responded with a status of {status}" for status in allowed_errors)
    window.page.on("console", lambda message: _hear(window, message.type, message.text, expected))
    window.page.on("pageerror", lambda error: window.complaints.append(f"error {error}"))
    window.page.on("dialog", lambda dialog: window.complaints.append(f"dialog {dialog.message}"))
    window.page.on("request", lambda request: _see(window, request))
    return window


def _hear(window: Window, kind: str, text: str, expected: tuple[str, ...]) -> None:
    if kind in {"error", "warning"} and not any(each in text for each in expected):
        window.complaints.append(f"{kind} {text}")


def _see(window: Window, request: Request) -> None:
    parts = urlsplit(request.url)  # the browser's own parts, as its viewer of PDFs, have other schemes
    if parts.scheme in {"http", "https"} and parts.netloc != urlsplit(window.base_url).netloc:
        window.complaints.append(f"request to {request.url}")
