"""The status and the API reference in a real browser: light, dark, narrow, for everybody, within their policy."""

from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser
from tests.support.browser import NARROW, open_window, running_browser
from tests.support.process import ChartwireProcess

pytestmark = pytest.mark.embedded


async def look(browser: Browser, base_url: str, path: str, pictures: Path) -> None:
    """See a page in each look, with all of it unfolded."""
    looks: dict[str, dict[str, Any]] = {
        "light": {"color_scheme": "light"},
        "dark": {"color_scheme": "dark"},
        "narrow": {"viewport": NARROW},
    }
    for name, options in looks.items():
        async with open_window(browser, base_url, **options) as window:
            await window.go(path)
            await window.page.evaluate("document.querySelectorAll('details').forEach(each => { each.open = true })")
            await window.page.screenshot(path=pictures / f"{name}.png")
            await window.check_width()
            await window.check_accessibility()


async def test_the_pages_are_for_everybody(tmp_path: Path) -> None:
    async with running_browser() as browser, ChartwireProcess(tmp_path / "data") as server:
        for path in ("/", "/docs"):
            await look(browser, server.base_url, path, tmp_path)
        async with open_window(browser, server.base_url) as window:
            await window.go("/docs")
            text = await window.page.inner_text("main")
    assert "Present an API key as x-api-key on every call" in text, "CommonMark is rendered, not shown"
    assert "`" not in text
