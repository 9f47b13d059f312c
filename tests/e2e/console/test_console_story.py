"""A new user from the first start to the end of a first outage, in a browser and nothing else."""

import json
import re
from pathlib import Path

import pytest
from playwright.async_api import Page, expect
from tests.support.browser import Window, open_window, running_browser
from tests.support.customer import SANDBOX
from tests.support.engine import announced, closed
from tests.support.process import ChartwireProcess
from tests.support.receiver import Answer, Receiver

from chartwire.clock import system_clock
from chartwire.services.members import setup_token
from chartwire.settings import Settings
from chartwire.store.opening import open_vault

pytestmark = pytest.mark.embedded


SETTINGS = {
    **SANDBOX,
    "CHARTWIRE_NETWORKS": json.dumps([{"kind": "sandbox", "spread_seconds": 1}]),
    "CHARTWIRE_WEBHOOK_RETRY_SECONDS": "[0, 0.1]",  # what fails has failed at once, not after three days
}
DOCUMENTS_EACH = 7


async def press(page: Page, name: str) -> None:
    """Press a button."""
    await page.get_by_role("button", name=name).click()


async def follow(page: Page, name: str) -> None:
    """Follow a link."""
    await page.get_by_role("link", name=name, exact=True).first.click()


async def set_up(page: Page, link: str) -> None:
    """Open the link that the server printed, and become the owner."""
    await page.goto(link)
    await page.get_by_label("What the account is called").fill("Bay clinic")
    await page.get_by_label("Your e-mail address").fill("ada@clinic.example")
    await page.get_by_label("A password").fill("correct horse battery staple")
    await press(page, "Set up Chartwire")
    await expect(page.get_by_role("heading", name="First steps")).to_be_visible()


async def connect(page: Page, receiver: Receiver) -> None:
    """Add the receiver's URL, and see that it answers."""
    await follow(page, "Add its URL")
    await page.get_by_label("URL of your receiver").fill(receiver.url)
    await press(page, "Save and ping")
    await expect(page.get_by_role("status")).to_contain_text("is being pinged")
    await press(page, "Ping now")
    await expect(page.get_by_role("heading", name="Attempt 1 Delivered 200")).to_be_visible()
    await expect(page.get_by_label("Answer to attempt 1")).to_contain_text("pong")


async def see_documents_arrive(page: Page, receiver: Receiver) -> None:
    """Ask, and watch: nothing is pressed and nothing is loaded again."""
    await follow(page, "Home")
    await press(page, "Ask for an invented patient")
    await expect(page.get_by_role("status")).to_contain_text("appear here as they arrive")
    await expect(page.locator(".arrivals li")).to_have_count(DOCUMENTS_EACH)
    await receiver.wait_for(lambda it: len(announced(it.messages)) == DOCUMENTS_EACH)


async def see_everything_fail(window: Window, receiver: Receiver) -> None:
    """Watch the second query's messages until the last attempt of the last of them is written down."""
    await receiver.wait_for(lambda it: len(closed(it.messages)) == 2)  # all messages there will be are written by now
    await window.go("/console/events?state=waiting")
    await expect(window.page.get_by_text("Nothing here.")).to_be_visible()


async def find_out_why(page: Page) -> None:
    """From the first page to the reason: three clicks."""
    await follow(page, "Home")
    await follow(page, "Find out why")
    await page.locator("main").get_by_role("link", name="Documents").first.click()
    await expect(
        page.get_by_text("The receiver was reached and answered with an error of its own.").first
    ).to_be_visible()
    await expect(page.get_by_label("Answer to attempt 2")).to_have_text("disk full on db-3")


async def replay_what_was_missed(page: Page) -> None:
    """Choose what has failed, look how much that is, send it again."""
    await follow(page, "Replays")
    await page.get_by_label("State").select_option("failed")
    await expect(page.locator("#count")).to_contain_text("would be sent again")
    await expect(page).to_have_url(re.compile("state=failed"))
    await page.get_by_role("button", name="Replay ").click()
    await expect(page.locator("#progress")).to_contain_text("Completed")


async def test_from_the_first_start_to_the_end_of_an_outage(tmp_path: Path) -> None:
    async with (
        running_browser() as browser,
        Receiver() as receiver,
        ChartwireProcess(tmp_path / "data", SETTINGS) as server,
        open_window(browser, server.base_url) as window,
    ):
        page = window.page
        token = setup_token(open_vault(Settings(data_dir=tmp_path / "data"), system_clock))
        await set_up(page, f"{server.base_url}/console/setup?token={token}")
        await connect(page, receiver)
        await see_documents_arrive(page, receiver)
        had = set(announced(receiver.messages))

        receiver.answers.extend([Answer(500, b"disk full on db-3")] * 200)  # it breaks
        await press(page, "Ask for an invented patient")
        await expect(page.locator(".arrivals li")).to_have_count(12)
        await expect(page.get_by_text("A receiver fails.")).to_be_visible()
        await see_everything_fail(window, receiver)
        await find_out_why(page)

        receiver.answers.clear()  # it is mended
        missed = set(announced(receiver.messages)) - had
        receiver.requests.clear()
        await replay_what_was_missed(page)
        await receiver.wait_for(lambda it: set(announced(it.messages)) >= missed)
        assert len(missed) == DOCUMENTS_EACH
        await follow(page, "Home")
        await expect(page.get_by_text("Nothing. Everything that was to be delivered is")).to_be_visible()
        await window.check_accessibility()
