"""Whatever a network or a customer writes into any field stays text, in a real browser."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import quote

import pytest
import pytest_asyncio
from playwright.async_api import Page
from sqlalchemy import Connection, insert, select, update
from tests.support.browser import Window, open_window, running_browser
from tests.support.console import PASSWORD, add_account, add_member
from tests.support.documents import LIMIT, NOW, Shelf, a_document, a_held_document, add_patient, chunks
from tests.support.people import ELM_STREET
from tests.support.server import Installation, running_installation

from chartwire.model.document import (
    CodeableConcept,
    Coding,
    DocumentQuery,
    NetworkStep,
    QueryStatus,
    RemoteDocument,
)
from chartwire.model.matching import Stated
from chartwire.model.webhook import DeliveryState, EventType, Outcome
from chartwire.store import audit, documents, quarantine, queries, schema
from chartwire.store.vault import Purpose, Vault

pytestmark = [pytest.mark.embedded, pytest.mark.asyncio(loop_scope="module")]

MARKUP = "<script>window.struck=1</script><img src=x onerror=window.struck=1>'\"><svg onload=window.struck=1>{{7*7}}"
"""Breaks out of text, of attributes in either quotes, and of templates, if anything lets it."""
CCDA = (
    '<ClinicalDocument xmlns="urn:hl7-org:v3"><title>{0}</title><component><structuredBody><component><section>'
    "<title>{0}</title><text><paragraph>{0}</paragraph>"
    '<linkHtml href="javascript:window.struck=1">go</linkHtml></text></section></component></structuredBody>'
    "</component></ClinicalDocument>"
).format(MARKUP.replace("&", "&amp;").replace("<", "&lt;"))
EMAIL = "ada@clinic.example"


@dataclass(frozen=True, slots=True)
class Scene:
    """An account in which everything that can be written by somebody else is hostile."""

    window: Window
    ids: dict[str, str]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scene(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Scene]:
    folder: Path = tmp_path_factory.mktemp("hostile")
    async with running_installation(folder) as installation, running_browser() as browser:
        ids = await fill(installation)
        async with open_window(browser, installation.base_url) as window:
            await window.go("/console/sign-in")
            await window.page.get_by_label("E-mail address").fill(EMAIL)
            await window.page.get_by_label("Password").fill(PASSWORD)
            await window.page.get_by_role("button", name="Sign in").click()
            await window.page.wait_for_url("**/console")
            yield Scene(window, ids)


async def fill(installation: Installation) -> dict[str, str]:
    """Write the markup into every field of an account; returns ids to look at it by."""
    account_id = await add_account(installation, MARKUP)
    await add_member(installation, account_id, EMAIL)
    services = installation.parts[0]
    changes = {"url": "https://app.example/hook", "description": MARKUP}
    endpoint = await services.webhooks.create_endpoint(account_id, "operator", changes)  # type: ignore[arg-type]  # a part of it
    event_id = await services.webhooks.send_sample(account_id, endpoint.id, EventType.DOCUMENT_DOWNLOAD)
    await services.console.keys.create(account_id, "operator", MARKUP)
    ccda, text = CCDA.encode(), MARKUP.encode()
    for content in (ccda, text):
        await Shelf(installation).blobs.put(chunks(content), LIMIT)

    def unit(connection: Connection) -> dict[str, str]:
        person = {"first_name": MARKUP, "last_name": MARKUP, "address": (replace(ELM_STREET, city=MARKUP),)}
        add_patient(connection, account_id, "p1", person=person, external_id=MARKUP)
        connection.execute(update(schema.facility).values(name=MARKUP))
        hostile = {
            "title": MARKUP, "description": MARKUP, "author": MARKUP, "network": MARKUP[:40], "declared_type": MARKUP,
            "type": CodeableConcept((Coding(MARKUP, MARKUP, MARKUP),), MARKUP),
        }  # fmt: skip
        shown = a_document(account_id, "p1", ccda, mime_type="application/xml", **hostile)
        plain = a_document(account_id, "p1", text, mime_type="text/plain", file_name=MARKUP, **hostile)
        documents.insert_document(connection, shown)
        documents.insert_document(connection, plain)
        _answer_hostile(connection, event_id)
        audit.record(connection, NOW, account_id, MARKUP[:80], MARKUP[:40], "p1", MARKUP, MARKUP[:40])
        sent = f"event/{MARKUP}/endpoint/{endpoint.id}"
        audit.record(connection, NOW, account_id, "engine", "webhook.attempt", "p1", sent, MARKUP[:40])
        remote = RemoteDocument(key=MARKUP, title=MARKUP, author=MARKUP, master_identifier=MARKUP, mime_type=MARKUP)
        held = a_held_document(
            account_id, remote=remote, stated=Stated(MARKUP, MARKUP), declared_type=MARKUP, network=MARKUP[:40]
        )
        quarantine.hold(connection, held)
        query = DocumentQuery("q1", account_id, "p1", None, QueryStatus.COMPLETED, NOW)
        queries.start_query(connection, query, [])
        step = NetworkStep("q1", account_id, "p1", MARKUP[:40], 0, "")
        queries.add_intake_steps(connection, step, [remote], NOW)
        connection.execute(update(schema.intake_step).values(state="failed", issue="gone"))
        return {"endpoint": endpoint.id, "event": event_id, "ccda": shown.id, "text": plain.id, "held": held.id}

    return await installation.database.write(unit)


def _answer_hostile(connection: Connection, event_id: str) -> None:
    """What the receiver answered to an event, and what is said of its endpoint since."""
    event, delivery = schema.event.c, schema.delivery.c
    seq = connection.execute(
        select(delivery.seq).join(schema.event, event.seq == delivery.event_seq).where(event.id == event_id)
    ).scalar_one()
    connection.execute(update(schema.delivery).values(state=DeliveryState.FAILED, outcome=Outcome.HTTP_ERROR))
    connection.execute(update(schema.endpoint).values(status_detail=MARKUP, failures_in_row=1))
    connection.execute(
        insert(schema.attempt).values(
            delivery_seq=seq,
            number=1,
            started_at=NOW,
            duration_ms=1,
            outcome=Outcome.HTTP_ERROR,
            http_status=500,
            url=f"https://app.example/{MARKUP}",
            answer=Vault(bytes(32)).seal(Purpose.ANSWER, MARKUP.encode()),
        )
    )


PAGES = (
    "",
    "/webhooks",
    "/webhooks/{endpoint}",
    "/events",
    "/events/{event}",
    "/attempts",
    "/documents",
    "/replays",
    "/patients",
    "/patients/new",
    "/patients/p1",
    "/documents/{ccda}",
    "/documents/{text}",
    "/quarantine",
    "/quarantine/{held}",
    "/quarantine/untaken",
    "/keys",
    "/networks",
    "/operations",
    "/disclosures?patient=p1",
    "/audit",
)
FREE_OF_IT = {"/networks", "/operations"}
"""Pages that hold little of what others write: the rest of the test is as much for them."""


@pytest.mark.parametrize("path", PAGES)
async def test_markup_in_any_field_stays_text(scene: Scene, path: str) -> None:
    page = scene.window.page
    await scene.window.go("/console" + path.format(**scene.ids))
    await check_harmless(page)
    if path not in FREE_OF_IT:
        assert MARKUP[:30] in await page.locator("body").inner_text() or "<script>" in await inputs(page), path
    scene.window.check_behaviour()


@pytest.mark.parametrize(
    "query",
    [
        "/patients?text={}",
        "/audit?actor={}&action={}&patient={}",
        "/events?endpoint={}",
        "/patients?facility={}",
        "/documents?text={}&patient={}&network={}",
        "/keys?text={}",
        "/members?text={}",
        "/webhooks?text={}",
        "/networks?text={}",
    ],
)
async def test_markup_in_an_address_stays_text(scene: Scene, query: str) -> None:
    page = scene.window.page
    quoted = quote(MARKUP)
    await page.goto(scene.window.base_url + "/console" + query.replace("{}", quoted))
    await check_harmless(page)
    assert not [each for each in scene.window.complaints if "404" not in each]
    scene.window.complaints.clear()


async def test_the_text_of_a_document_is_shown_as_it_is(scene: Scene) -> None:
    await scene.window.go(f"/console/documents/{scene.ids['text']}")
    frame = scene.window.page.frame_locator("iframe.viewer")
    assert await frame.locator("body").inner_text() == MARKUP
    await scene.window.go(f"/console/documents/{scene.ids['ccda']}")
    ccda = scene.window.page.frame_locator("iframe.viewer")
    assert await ccda.locator("h1").inner_text() == MARKUP
    assert await ccda.locator("script, img, svg, a[href]").count() == 0
    scene.window.check_behaviour()


async def check_harmless(page: Page) -> None:
    """Nothing of the markup has become an element, let alone run."""
    assert await page.evaluate("window.struck === undefined")
    assert await page.locator("img[src=x], svg[onload], main script").count() == 0
    assert "49" not in await page.locator("h1").first.inner_text()


async def inputs(page: Page) -> str:
    """What the fields of all forms hold."""
    values: list[str] = await page.evaluate(
        "[...document.querySelectorAll('input, option')].map(it => it.value + it.text)"
    )
    return "\n".join(values)
