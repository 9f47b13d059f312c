"""Every page of the console in a real browser: light, dark, narrow, for everybody, within its policy."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, expect
from tests.support.browser import NARROW, Window, open_window, running_browser
from tests.support.ccda import a_ccda
from tests.support.customer import SANDBOX, Customer, settle
from tests.support.process import ChartwireProcess
from tests.support.receiver import Answer, Receiver

pytestmark = [pytest.mark.embedded, pytest.mark.asyncio(loop_scope="module")]

EMAIL = "ada@clinic.example"
SETTINGS = {
    **SANDBOX,
    "CHARTWIRE_WEBHOOK_RETRY_SECONDS": "[0]",
    "CHARTWIRE_DOCUMENT_RETRY_SECONDS": "0",
    "CHARTWIRE_DOCUMENT_ATTEMPTS": "12",
    "CHARTWIRE_OIDC_ISSUER": "http://127.0.0.1:1",  # where no provider answers
    "CHARTWIRE_OIDC_CLIENT_ID": "chartwire",
}


@dataclass(frozen=True, slots=True)
class Scene:
    """A customer of whom one delivery has failed, seen by an owner in three windows."""

    server: ChartwireProcess
    browser: Browser
    customer: Customer
    failed_event_id: str
    held_ids: tuple[str, ...]
    state: Any
    windows: dict[str, Window]
    pictures: Path

    def path(self, page: str) -> str:
        """The address of a page, with the ids that it needs."""
        documents = {each["mimeType"]: each["id"] for each in self.customer.documents}
        return "/console" + page.format(
            endpoint=self.customer.endpoint_id,
            event=self.customer.event_id,
            failed=self.failed_event_id,
            held=self.held_ids[0],
            patient=self.customer.patient_id,
            xml=documents["application/xml"],
            pdf=documents["application/pdf"],
            jpeg=documents["image/jpeg"],
            tiff=documents["image/tiff"],
        )


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scene(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Scene]:
    folder = tmp_path_factory.mktemp("console")
    async with AsyncExitStack() as stack:
        browser = await stack.enter_async_context(running_browser())
        networks = {"CHARTWIRE_NETWORKS": json.dumps([*json.loads(SANDBOX["CHARTWIRE_NETWORKS"]), *others(folder)])}
        server = await stack.enter_async_context(ChartwireProcess(folder / "data", SETTINGS | networks))
        receiver = await stack.enter_async_context(Receiver())
        customer = await settle(server, receiver, "Bay clinic")
        made = await server.run("member", "create", "--account", customer.account_id, "--email", EMAIL, "--json")
        async with open_window(browser, server.base_url) as window:
            await sign_in(window, json.loads(made)["password"])
            failed = await fail_once(window, receiver, customer)
            held = await ids_of_held(window)
            state = await window.page.context.storage_state()
        looks: dict[str, dict[str, Any]] = {
            "light": {},
            "dark": {"color_scheme": "dark"},
            "narrow": {"viewport": NARROW},
        }
        windows = {
            name: await stack.enter_async_context(open_window(browser, server.base_url, state, **look))
            for name, look in looks.items()
        }
        yield Scene(server, browser, customer, failed, held, state, windows, folder)


def others(folder: Path) -> list[dict[str, Any]]:
    """A network that takes the customer's patient for somebody else, and one that is away."""
    shelf = folder / "shelf" / "Smith_Jane_1996-02-10"
    shelf.mkdir(parents=True)
    for name in ("first", "second"):
        (shelf / f"{name}.xml").write_bytes(a_ccda(born="19620517", text=name))
    return [
        {"kind": "folder", "name": "shelf", "path": str(shelf.parent), "check_patient": True},
        {"kind": "fhir", "name": "mercy", "base_url": "http://127.0.0.1:1/fhir"},
    ]


async def ids_of_held(window: Window) -> tuple[str, ...]:
    """The ids of the documents that are held."""
    await window.go("/console/quarantine")
    links = window.page.locator("tbody th a.break")
    await expect(links).to_have_count(2)
    return tuple([str(await link.get_attribute("href")).rpartition("/")[2] for link in await links.all()])


async def sign_in(window: Window, password: str) -> None:
    """Sign in as the owner."""
    await window.go("/console/sign-in")
    await window.page.get_by_label("E-mail address").fill(EMAIL)
    await window.page.get_by_label("Password").fill(password)
    await window.page.get_by_role("button", name="Sign in").click()
    await expect(window.page.get_by_role("heading", name="Home")).to_be_visible()


async def fail_once(window: Window, receiver: Receiver, customer: Customer) -> str:
    """Let the receiver refuse a sample; returns its id."""
    receiver.answers.append(Answer(500, b'{"error": "the database is down"}'))
    await window.go(f"/console/webhooks/{customer.endpoint_id}")
    await window.page.get_by_role("button", name="Send", exact=True).click()
    await expect(window.page.get_by_text("the database is down")).to_be_visible()
    return window.page.url.rpartition("/")[2]


PAGES = (
    "",
    "/webhooks",
    "/webhooks/new",
    "/webhooks/{endpoint}",
    "/events",
    "/events?state=failed",
    "/attempts",
    "/attempts?sort=-duration&outcome=http_error",
    "/documents",
    "/documents?text=nothing",
    "/events/{event}",
    "/events/{failed}",
    "/replays",
    "/replays?state=failed&endpoint={endpoint}",
    "/patients",
    "/patients?text=nobody",
    "/patients/new",
    "/patients/{patient}",
    "/documents/{xml}",
    "/documents/{pdf}",
    "/documents/{jpeg}",
    "/documents/{tiff}",
    "/quarantine",
    "/quarantine/{held}",
    "/quarantine/untaken",
    "/keys",
    "/networks",
    "/operations",
    "/disclosures",
    "/disclosures?patient={patient}",
    "/audit",
    "/audit?action=document.",
    "/members",
    "/me",
)


@pytest.mark.parametrize("page", PAGES)
async def test_a_page_is_fit_for_everybody(scene: Scene, page: str) -> None:
    for look, window in scene.windows.items():
        await window.go(scene.path(page))
        await expect(window.page.locator("h1")).to_have_count(1)
        await window.check_width()
        await window.check_accessibility()
        name = page.strip("/").translate(str.maketrans("/?&={}", "------")) or "home"
        await window.page.screenshot(path=scene.pictures / f"{name}-{look}.png", full_page=True)
        window.check_behaviour()


async def test_the_pages_before_signing_in_are_fit_too(scene: Scene) -> None:
    for look in ({"viewport": NARROW}, {"color_scheme": "dark"}):
        async with open_window(scene.browser, scene.server.base_url, allowed_errors=(403, 503), **look) as window:
            await window.go("/console/sign-in")
            await window.check_accessibility()
            await window.page.get_by_label("E-mail address").fill("nobody@clinic.example")
            await window.page.get_by_label("Password").fill("something wrong")
            await window.page.keyboard.press("Enter")
            await expect(window.page.get_by_role("alert")).to_contain_text("not right")
            await window.check_width()
            await window.check_accessibility()
            await window.page.get_by_role("link", name="Single sign-on").click()
            await expect(window.page.get_by_role("alert")).to_contain_text("meanwhile a password works")
            await window.check_width()
            await window.check_accessibility()


async def test_the_whole_way_goes_by_keyboard(scene: Scene) -> None:
    page = scene.windows["narrow"].page
    await scene.windows["narrow"].go("/console")
    await page.keyboard.press("Tab")
    await expect(page.get_by_role("link", name="Skip to content")).to_be_focused()
    await page.keyboard.press("Enter")
    await expect(page.locator("main")).to_be_focused()
    await scene.windows["narrow"].go("/console")
    for _ in range(3):
        await page.keyboard.press("Tab")
    await page.keyboard.press("Enter")  # the menu opens
    await page.get_by_role("link", name="Events").focus()
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("heading", name="Events")).to_be_visible()


async def test_times_are_in_the_viewers_zone_with_the_exact_utc_beside(scene: Scene) -> None:
    page = scene.windows["light"].page
    await scene.windows["light"].go(scene.path("/events"))
    time = page.locator("td time").first
    exact = await time.get_attribute("datetime")
    assert exact is not None
    shown = await page.evaluate(
        "it => new Intl.DateTimeFormat('en-US', {dateStyle: 'medium', timeStyle: 'medium', "
        "timeZone: 'America/New_York'}).format(new Date(it))",
        exact,
    )
    await expect(time).to_have_text(shown)
    assert await time.get_attribute("title") == exact.removesuffix("Z").replace("T", " ") + " UTC"


async def test_a_failure_is_explained_and_can_be_tried_by_hand(scene: Scene) -> None:
    window = scene.windows["light"]
    await window.go(scene.path("/events/{failed}"))
    text = await window.page.locator("main").inner_text()
    assert "answered with an error of its own" in text
    assert "401 and 403 mostly mean" in text
    await window.page.get_by_text("Copy as curl").first.click()
    curl = await window.page.locator("pre[id^=curl-code]").first.inner_text()
    assert curl.startswith("curl -i http://localhost:")
    assert "webhook-signature: v1," in curl
    assert scene.customer.webhook_key not in text + curl


async def test_a_body_is_hidden_until_it_is_revealed_and_that_is_written_down(scene: Scene) -> None:
    window = scene.windows["light"]
    await window.go(scene.path("/events/{event}"))
    assert scene.customer.external_id not in await window.page.content()
    await window.page.get_by_role("button", name="Reveal the body").click()
    await expect(window.page.locator("#payload")).to_contain_text(scene.customer.external_id)
    await window.check_accessibility()
    await window.go("/console/audit?action=event.read")
    await expect(window.page.locator("tbody tr").first).to_contain_text(EMAIL)


async def test_a_ccda_is_read_in_a_frame_that_can_do_nothing(scene: Scene) -> None:
    window = scene.windows["light"]
    await window.go(scene.path("/documents/{xml}"))
    frame = window.page.frame_locator("iframe.viewer")
    await expect(frame.locator("h1")).to_be_visible()
    assert await frame.locator("table").count() > 0
    answer = await window.page.request.get(window.base_url + scene.path("/documents/{xml}/view"))
    assert answer.headers["content-security-policy"].startswith("sandbox; default-src 'none'; style-src 'sha256-")
    window.check_behaviour()


async def test_a_held_document_is_decided_of_with_a_reason(scene: Scene) -> None:
    window = scene.windows["narrow"]
    await window.go(f"/console/quarantine/{scene.held_ids[1]}")
    await expect(window.page.get_by_role("row", name="Birth date")).to_contain_text("1962-05-17")
    await window.page.get_by_label("Why").fill("Another Jane Smith")
    await window.page.get_by_role("button", name="Throw it away").click()
    await expect(window.page.get_by_role("heading", name="What was decided")).to_be_visible()
    await expect(window.page.locator("main")).to_contain_text("Another Jane Smith")
    await expect(window.page.get_by_role("button", name="Let it in")).to_have_count(0)
    await window.check_width()
    await window.check_accessibility()
    window.check_behaviour()


async def test_a_network_that_is_away_is_told_with_the_reason(scene: Scene) -> None:
    window = scene.windows["light"]
    await window.go("/console")
    await expect(window.page.get_by_role("list").filter(has_text="The network mercy is away")).to_be_visible()
    await window.page.get_by_role("link", name="Look at it").last.click()
    row = window.page.get_by_role("row", name="mercy")
    await expect(row).to_contain_text("Away")
    await expect(row).to_contain_text(
        re.compile(r"12 failures in a row \(unreachable\), away since .* The circuit is half-open")
    )
    await window.check_accessibility()


async def test_a_document_is_taken_along(scene: Scene) -> None:
    window = scene.windows["light"]
    await window.go(scene.path("/documents/{pdf}"))
    async with window.page.expect_download() as started:
        await window.page.get_by_role("link", name="Download").click()
    taken = await started.value
    content = await asyncio.to_thread(Path(await taken.path()).read_bytes)
    assert content.startswith(b"%PDF-")


async def test_a_key_is_shown_once_and_rotated_with_an_overlap(scene: Scene) -> None:
    window = scene.windows["light"]
    await window.go(scene.path("/webhooks/{endpoint}"))
    assert scene.customer.webhook_key not in await window.page.content()
    await window.page.get_by_role("button", name="Show the key").click()
    await expect(window.page.locator("#key-1")).to_have_text(scene.customer.webhook_key)
    await window.check_accessibility()
    await window.page.evaluate("window.confirm = () => true")
    await window.page.get_by_role("button", name="Rotate").click()
    await expect(window.page.locator("#key-2")).to_have_text(scene.customer.webhook_key)
    await expect(window.page.locator("[data-until]").last).to_have_text("in 24 hr.")
    assert scene.customer.webhook_key != await window.page.locator("#key-1").inner_text()


async def test_an_api_key_is_made_shown_once_and_revoked(scene: Scene) -> None:
    window = scene.windows["light"]
    await window.go("/console/keys")
    await window.page.get_by_label("What it is for").fill("Scheduling")
    await window.page.get_by_role("button", name="Make a key").click()
    secret = await window.page.locator("#secret").inner_text()
    headers = {"x-api-key": secret}
    assert (await window.page.request.get(f"{window.base_url}/settings", headers=headers)).status == 200
    await window.go("/console/keys")
    assert secret not in await window.page.content()
    await window.page.evaluate("window.confirm = () => true")
    await window.page.get_by_role("row", name="Scheduling").get_by_role("button", name="Revoke").click()
    await expect(window.page.get_by_role("status")).to_contain_text("refused from now on")
    assert (await window.page.request.get(f"{window.base_url}/settings", headers=headers)).status == 403


async def test_consent_is_taken_back_and_given(scene: Scene) -> None:
    window = scene.windows["light"]
    await window.go(scene.path("/patients/{patient}"))
    await window.page.get_by_role("button", name="Opt out").click()
    await expect(window.page.get_by_text("Networks are not asked about this patient.")).to_be_visible()
    await expect(window.page.get_by_role("button", name="Ask the networks now")).to_have_count(0)
    await window.page.get_by_role("button", name="Opt in").click()
    await expect(window.page.get_by_role("button", name="Ask the networks now")).to_be_visible()


async def test_a_patient_is_added_and_found(scene: Scene) -> None:
    window = scene.windows["light"]
    await window.go("/console/patients/new")
    for label, value in (
        ("First name", "Nilufar"),
        ("Last name", "Okonkwo"),
        ("Street", "1 Elm St"),
        ("City", "Ukiah"),
    ):
        await window.page.get_by_label(label).fill(value)
    await window.page.get_by_label("Date of birth").fill("1980-02-03")
    await window.page.get_by_label("Zip").fill("95482")
    await window.page.get_by_role("button", name="Add the patient").click()
    await expect(window.page.get_by_role("heading", name="Nilufar Okonkwo")).to_be_visible()
    await window.go("/console/patients")
    await window.page.get_by_role("searchbox", name="Search").fill("okonkwo")
    await window.page.keyboard.press("Enter")
    await expect(window.page.locator("tbody tr")).to_have_count(1)


async def test_without_scripts_everything_but_the_live_parts_works(scene: Scene) -> None:
    async with open_window(scene.browser, scene.server.base_url, scene.state, java_script_enabled=False) as window:
        await window.go(scene.path("/webhooks/{endpoint}"))
        await window.page.get_by_role("button", name="Ping now").click()
        await expect(window.page.get_by_role("heading", name="Ping")).to_be_visible()
        await window.go("/console/replays?state=failed")
        await expect(window.page.locator("#count")).to_contain_text("would be sent again")
