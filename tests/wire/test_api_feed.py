"""Events pulled: in order, the same bytes as are posted, waited for, acknowledged under a name."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.support.client import http_client
from tests.support.patience import PATIENCE_SECONDS
from tests.support.server import Installation, running_installation

from chartwire.ids import new_message_id
from chartwire.model.document import QueryStatus
from chartwire.model.message import Meta, PatientPart, document_message
from chartwire.model.webhook import EventDraft, EventType, PayloadVersion
from chartwire.services import feed
from chartwire.store import endpoints, outbox
from chartwire.store.vault import Vault

FEED = "/v1/events"


@pytest.fixture
async def installation(tmp_path: Path) -> AsyncIterator[Installation]:
    async with running_installation(tmp_path) as installation:
        yield installation


@pytest.fixture
async def client(installation: Installation) -> AsyncIterator[httpx.AsyncClient]:
    key = await installation.create_account()
    async with http_client(base_url=installation.base_url, headers={"x-api-key": key}) as client:
        yield client


class Teller:
    """Commits messages to an account that has no URL, and remembers their bytes."""

    def __init__(self, installation: Installation, account_id: str) -> None:
        self.installation = installation
        self.account_id = account_id
        self.bodies: dict[str, str] = {}

    async def tell(self, kind: EventType = EventType.DOCUMENT_DOWNLOAD) -> str:
        message_id, now = new_message_id(), self.installation.clock()
        body = document_message(
            PayloadVersion.V2023_04, Meta(message_id, now, kind), [PatientPart("p1", QueryStatus.COMPLETED)]
        )
        draft = EventDraft(message_id, self.account_id, kind, PayloadVersion.V2023_04, body, ("p1",))
        await self.installation.database.write(
            lambda connection: outbox.append(
                connection,
                Vault(bytes(32)),
                draft,
                endpoints.endpoints_of(connection, self.account_id),
                now,
                timedelta(days=30),
            )
        )
        self.bodies[message_id] = body.decode()
        return message_id


@pytest.fixture
async def teller(installation: Installation, client: httpx.AsyncClient) -> Teller:
    return Teller(installation, (await client.get("/settings")).json()["id"])


async def pull(client: httpx.AsyncClient, **params: Any) -> Any:
    answer = await client.get(FEED, params=params)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_events_come_in_order_with_the_bytes_that_are_posted(client: httpx.AsyncClient, teller: Teller) -> None:
    told = [await teller.tell() for _ in range(5)]
    first = await pull(client, limit=3)
    rest = await pull(client, after=first["cursor"])
    events = first["events"] + rest["events"]
    assert [event["id"] for event in events] == told
    assert {event["id"]: event["payload"] for event in events} == teller.bodies
    assert (await pull(client, after=rest["cursor"]))["events"] == []
    assert (await pull(client, after="end"))["events"] == []


async def test_pings_are_left_out_and_types_can_be_chosen(client: httpx.AsyncClient, teller: Teller) -> None:
    await client.post("/settings", json={"webhookUrl": "https://receiver.example/"})
    await teller.tell()
    links = await teller.tell(EventType.DOCUMENT_BULK_DOWNLOAD_URLS)
    assert len((await pull(client))["events"]) == 2
    chosen = await pull(client, types="medical.document-bulk-download-urls")
    assert [event["id"] for event in chosen["events"]] == [links]
    assert [event["type"] for event in (await pull(client, types="ping"))["events"]] == ["ping"]


async def test_a_reader_that_waits_is_answered_as_soon_as_something_is_committed(
    client: httpx.AsyncClient, teller: Teller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "_POLL_SECONDS", 3600.0)  # nothing is looked for that no bell tells of
    end = (await pull(client, after="end"))["cursor"]
    waiting = asyncio.create_task(pull(client, after=end, wait=PATIENCE_SECONDS))
    while not teller.installation.parts[0].feed.waiting:  # noqa: ASYNC110  a server's inside has no event for tests
        await asyncio.sleep(0)
    message_id = await teller.tell()
    page = await asyncio.wait_for(waiting, PATIENCE_SECONDS / 2)  # at the end of its wait it would look once more
    assert [event["id"] for event in page["events"]] == [message_id]


async def test_a_reader_that_waits_in_vain_is_told_so(client: httpx.AsyncClient) -> None:
    assert (await pull(client, wait=0.05))["events"] == []


async def test_a_named_reader_goes_on_where_it_acknowledged(client: httpx.AsyncClient, teller: Teller) -> None:
    told = [await teller.tell() for _ in range(4)]
    page = await pull(client, name="app", limit=2)
    again = await pull(client, name="app", limit=2)
    assert [event["id"] for event in again["events"]] == told[:2]  # nothing was acknowledged
    assert (await client.put(f"{FEED}/cursors/app", json={"cursor": page["cursor"]})).status_code == 204
    assert [event["id"] for event in (await pull(client, name="app"))["events"]] == told[2:]
    assert (await client.put(f"{FEED}/cursors/app", json={"cursor": "start"})).status_code == 204
    assert len((await pull(client, name="app"))["events"]) == 4
    assert (await client.delete(f"{FEED}/cursors/app")).status_code == 204
    assert (await client.get(f"{FEED}/cursors/app")).status_code == 404


async def test_what_was_forgotten_is_listed_without_its_payload_and_reading_is_audited(
    client: httpx.AsyncClient, teller: Teller
) -> None:
    message_id = await teller.tell()
    await client.delete(f"/v1/webhooks/events/{message_id}/payload")
    (event,) = (await pull(client))["events"]
    assert (event["id"], "payload" in event) == (message_id, False)
    entries = await teller.installation.database.read(
        lambda connection: [
            tuple(row)
            for row in connection.exec_driver_sql("SELECT patient_id, subject FROM audit WHERE action = 'event.pull'")
        ]
    )
    assert entries == [("p1", message_id)]


@pytest.mark.parametrize(
    "params",
    [
        {"after": "tea"},
        {"wait": 61},
        {"limit": 0},
        {"types": "tea"},
        {"name": "a/b"},
        {"after": "end", "name": "a"},
    ],
)
async def test_a_question_that_cannot_be_is_refused(client: httpx.AsyncClient, params: dict[str, Any]) -> None:
    assert (await client.get(FEED, params=params)).status_code == 400


async def test_a_page_of_a_list_is_no_cursor_of_the_feed(client: httpx.AsyncClient, teller: Teller) -> None:
    for _ in range(2):
        await teller.tell()
    word = (await client.get("/v1/webhooks/events", params={"limit": 1})).json()["next"]
    assert (await client.get(FEED, params={"after": word})).status_code == 400
