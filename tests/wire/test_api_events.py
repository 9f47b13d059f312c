"""Lists of what was sent, sending it again, and the list that existing clients know."""

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from sqlalchemy import Connection, update
from tests.support.client import http_client
from tests.support.documents import a_document
from tests.support.server import Installation, running_installation

from chartwire.ids import new_message_id
from chartwire.model.document import QueryStatus
from chartwire.model.message import DocumentPart, Meta, PatientPart, document_message
from chartwire.model.webhook import EventDraft, EventType, Outcome, PayloadVersion, Timing
from chartwire.services.replaying import Replayer
from chartwire.store import claims, deliveries, endpoints, outbox, schema
from chartwire.store.claims import Room
from chartwire.store.deliveries import AttemptResult
from chartwire.store.targets import Targets
from chartwire.store.vault import Vault

V1 = "/v1/webhooks"
URL = "https://receiver.example/hook"
VAULT = Vault(bytes(32))
RETENTION = timedelta(days=40)


class Customer:
    """An account with a URL, whose messages are posted by nobody but the test."""

    def __init__(self, installation: Installation, client: httpx.AsyncClient, account_id: str) -> None:
        self.installation = installation
        self.client = client
        self.account_id = account_id

    async def append(self, kind: EventType = EventType.DOCUMENT_DOWNLOAD) -> str:
        """A message to every endpoint; returns its id."""
        message_id, now = new_message_id(), self.installation.clock()
        url = "https://old.example/link" if kind is EventType.DOCUMENT_BULK_DOWNLOAD_URLS else None
        part = DocumentPart(a_document(self.account_id), "https://here.example/Binary/1", url)
        body = document_message(
            PayloadVersion.V2023_04,
            Meta(message_id, now, kind),
            [PatientPart("p1", QueryStatus.COMPLETED, documents=[part])],
        )

        def unit(connection: Connection) -> None:
            draft = EventDraft(message_id, self.account_id, kind, PayloadVersion.V2023_04, body, ("p1",))
            everyone = endpoints.endpoints_of(connection, self.account_id)
            outbox.append(connection, VAULT, draft, everyone, now, RETENTION)

        await self.installation.database.write(unit)
        return message_id

    async def settle_all(self, outcome: Outcome = Outcome.DELIVERED) -> int:
        """Let everything that is due have one attempt, its last; returns how many that were."""

        def unit(connection: Connection) -> int:
            now = self.installation.clock()
            room = Room(1000, 1000, {})
            claim = claims.claim(connection, Targets(VAULT), room, "lease", now, now + timedelta(minutes=1))
            for claimed in claim.deliveries:
                url = claimed.target.endpoint.url or ""
                timing = Timing(False, 400, 1250, None, 9000)
                result = AttemptResult(url, now, 12, outcome, "as told", 200, b"thanks", timing=timing)
                deliveries.settle(connection, VAULT, [(claimed, result)], now, RETENTION)
            return len(claim.deliveries)

        return await self.installation.database.write(unit)

    async def get(self, path: str, **params: Any) -> Any:
        answer = await self.client.get(path, params=params)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def post(self, path: str, expected: int, body: Any = None) -> Any:
        answer = await self.client.post(path, json=body)
        assert answer.status_code == expected, answer.text
        return answer.json()


@pytest.fixture
async def installation(tmp_path: Path) -> AsyncIterator[Installation]:
    async with running_installation(tmp_path) as installation:
        yield installation


@pytest.fixture
async def customer(installation: Installation) -> AsyncIterator[Customer]:
    key = await installation.create_account()
    async with http_client(base_url=installation.base_url, headers={"x-api-key": key}) as client:
        account_id = (await client.post("/settings", json={"webhookUrl": URL})).json()["id"]
        customer = Customer(installation, client, account_id)
        await customer.settle_all()
        yield customer


# --- lists ------------------------------------------------------------------------------------------------------------


async def test_an_event_is_told_with_what_became_of_it_and_every_attempt(customer: Customer) -> None:
    message_id = await customer.append()
    await customer.settle_all()
    found = await customer.get(f"{V1}/events/{message_id}")
    assert (found["event"]["id"], found["event"]["payloadKept"]) == (message_id, True)
    (delivery,) = found["deliveries"]
    assert (delivery["state"], delivery["outcome"], delivery["attempts"]) == ("delivered", "delivered", 1)
    (attempt,) = (await customer.get(f"{V1}/deliveries/{delivery['id']}/attempts"))["attempts"]
    assert (attempt["url"], attempt["answer"], attempt["durationMillis"]) == (URL, "thanks", 12)
    assert attempt["timing"] == {
        "reusedConnection": False, "dnsMillis": 0.4, "connectMillis": 1.25, "firstByteMillis": 9
    }  # fmt: skip


async def test_a_payload_is_read_as_it_was_sent_and_that_is_audited(customer: Customer) -> None:
    message_id = await customer.append()
    body = await customer.get(f"{V1}/events/{message_id}/payload")
    assert body["meta"]["messageId"] == message_id
    trail = await customer.installation.database.read(
        lambda connection: [
            tuple(row) for row in connection.exec_driver_sql("SELECT patient_id FROM audit WHERE action = 'event.read'")
        ]
    )
    assert trail == [("p1",)]
    await customer.client.delete(f"{V1}/events/{message_id}/payload")
    assert (await customer.client.get(f"{V1}/events/{message_id}/payload")).status_code == 404
    assert not (await customer.get(f"{V1}/events/{message_id}"))["event"]["payloadKept"]


@pytest.mark.parametrize("kind", ["events", "deliveries"])
async def test_a_list_is_walked_page_by_page_while_more_is_added(customer: Customer, kind: str) -> None:
    sent = [await customer.append() for _ in range(7)]
    seen: list[str] = []
    after: dict[str, str] = {}
    while True:
        page = await customer.get(f"{V1}/{kind}", limit=3, type=EventType.DOCUMENT_DOWNLOAD.value, **after)
        seen += [item["id"].partition("_")[0] for item in page[kind]]
        await customer.append()
        if "next" not in page:
            break
        after = {"after": page["next"]}
    assert seen == sent[::-1]


async def test_lists_are_filtered_by_type_endpoint_state_and_time(customer: Customer) -> None:
    first = await customer.append()
    await customer.settle_all(Outcome.HTTP_ERROR)
    customer.installation.clock.advance(hours=1)
    between = customer.installation.clock().isoformat()
    second = await customer.append(EventType.DOCUMENT_BULK_DOWNLOAD_URLS)
    (endpoint,) = (await customer.get(f"{V1}/endpoints"))["endpoints"]

    async def ids(**params: Any) -> list[str]:
        events = [event["id"] for event in (await customer.get(f"{V1}/events", **params))["events"]]
        listed = (await customer.get(f"{V1}/deliveries", **params))["deliveries"]
        assert [delivery["eventId"] for delivery in listed] == events
        return events

    assert await ids(state="failed") == [first]
    assert await ids(state=["failed", "waiting"]) == [second, first]
    assert await ids(type="medical.document-bulk-download-urls") == [second]
    assert (await ids(**{"from": between})) == [second]
    assert await ids(to=between, type="medical.document-download") == [first]
    assert (await ids(endpointId=endpoint["id"]))[:2] == [second, first]
    assert await ids(endpointId="somebody-elses") == []


@pytest.mark.parametrize(
    "params",
    [{"limit": 0}, {"limit": 501}, {"after": "tea"}, {"state": "lost"}, {"type": "tea"}, {"from": "yesterday"}],
)
async def test_a_list_that_cannot_be_is_refused(customer: Customer, params: dict[str, Any]) -> None:
    assert (await customer.client.get(f"{V1}/events", params=params)).status_code == 400


# --- again ------------------------------------------------------------------------------------------------------------


async def test_one_is_sent_again_under_its_id_with_fresh_links(customer: Customer) -> None:
    message_id = await customer.append(EventType.DOCUMENT_BULK_DOWNLOAD_URLS)
    await customer.settle_all(Outcome.HTTP_ERROR)
    (delivery,) = (await customer.get(f"{V1}/events/{message_id}"))["deliveries"]
    again = await customer.post(f"{V1}/deliveries/{delivery['id']}/resend", 202)
    assert (again["state"], again["attempts"]) == ("waiting", 0)
    payload = await customer.get(f"{V1}/events/{message_id}/payload")
    url = payload["patients"][0]["documents"][0]["url"]
    assert url.startswith(f"{customer.installation.base_url}/download/")
    assert parse_qs(urlsplit(url).query)["expires"]
    assert payload["meta"]["messageId"] == message_id
    await customer.post(f"{V1}/deliveries/{delivery['id']}/resend", 409)
    assert await customer.settle_all() == 1
    attempts = (await customer.get(f"{V1}/deliveries/{delivery['id']}/attempts"))["attempts"]
    assert [attempt["number"] for attempt in attempts] == [1, 2]


async def test_what_is_forgotten_or_unknown_is_not_sent_again(customer: Customer) -> None:
    message_id = await customer.append()
    await customer.settle_all()
    (delivery,) = (await customer.get(f"{V1}/events/{message_id}"))["deliveries"]
    await customer.client.delete(f"{V1}/events/{message_id}/payload")
    await customer.post(f"{V1}/deliveries/{delivery['id']}/resend", 409)
    await customer.post(f"{V1}/deliveries/{message_id}_nobody/resend", 404)


async def test_a_replay_sends_what_was_counted_in_batches_and_tells_how_far_it_is(customer: Customer) -> None:
    for _ in range(7):
        await customer.append()
    await customer.settle_all()
    failed = [await customer.append() for _ in range(5)]
    await customer.settle_all(Outcome.HTTP_ERROR)
    chosen = {"states": ["failed"]}
    assert (await customer.post(f"{V1}/replays/preview", 200, chosen))["count"] == 5
    assert (await customer.post(f"{V1}/replays/preview", 200, {}))["count"] == 12
    replay = await customer.post(f"{V1}/replays", 202, chosen)
    assert (replay["state"], replay["total"], replay["replayed"]) == ("running", 5, 0)
    await customer.append()
    await customer.settle_all(Outcome.HTTP_ERROR)  # came later: not part of it
    replayer = Replayer(
        customer.installation.database, VAULT, customer.installation.clock, customer.installation.settings, batch=2
    )
    await replayer.work_off()
    done = await customer.get(f"{V1}/replays/{replay['id']}")
    assert (done["state"], done["replayed"]) == ("completed", 5)
    assert (await customer.get(f"{V1}/replays"))["replays"] == [done]
    waiting = (await customer.get(f"{V1}/deliveries", state="waiting"))["deliveries"]
    assert [delivery["eventId"] for delivery in waiting] == failed[::-1]


async def test_a_replay_that_fails_holds_up_no_other(customer: Customer) -> None:
    altered = await customer.append(EventType.DOCUMENT_BULK_DOWNLOAD_URLS)
    await customer.append()
    await customer.settle_all()
    break_it = update(schema.event).where(schema.event.c.id == altered).values(body=b"not what was sealed")
    await customer.installation.database.write(lambda connection: connection.execute(break_it))
    broken = await customer.post(f"{V1}/replays", 202, {"types": [EventType.DOCUMENT_BULK_DOWNLOAD_URLS]})
    sound = await customer.post(f"{V1}/replays", 202, {"types": [EventType.DOCUMENT_DOWNLOAD]})
    await Replayer(
        customer.installation.database, VAULT, customer.installation.clock, customer.installation.settings
    ).work_off()
    states = {replay["id"]: replay["state"] for replay in (await customer.get(f"{V1}/replays"))["replays"]}
    assert states == {broken["id"]: "running", sound["id"]: "completed"}


async def test_ten_replays_of_an_account_run_at_one_time(customer: Customer) -> None:
    await customer.append()
    await customer.settle_all()
    begun = [await customer.post(f"{V1}/replays", 202, {}) for _ in range(10)]
    await customer.post(f"{V1}/replays", 409, {})
    await customer.post(f"{V1}/replays/{begun[0]['id']}/cancel", 200)
    await customer.post(f"{V1}/replays", 202, {})


async def test_a_cancelled_replay_sends_nothing_more(customer: Customer) -> None:
    await customer.append()
    await customer.settle_all()
    replay = await customer.post(f"{V1}/replays", 202, {})
    cancelled = await customer.post(f"{V1}/replays/{replay['id']}/cancel", 200)
    assert cancelled["state"] == "cancelled"
    await Replayer(
        customer.installation.database, VAULT, customer.installation.clock, customer.installation.settings
    ).work_off()
    assert (await customer.get(f"{V1}/deliveries", state="waiting"))["deliveries"] == []


# --- /settings/webhook/request ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("sort", ["createdAt", "id"])
async def test_requests_are_paged_forth_and_back_along_their_links(customer: Customer, sort: str) -> None:
    sent = [await customer.append() for _ in range(5)]
    expected = sent[::-1] if sort == "createdAt" else sorted(sent, reverse=True)
    first = await customer.get("/settings/webhook/request", count=2, sort=sort)
    second = (await customer.client.get(first["meta"]["nextPage"])).json()
    third = (await customer.client.get(second["meta"]["nextPage"])).json()
    listed = [request["id"] for page in (first, second, third) for request in page["requests"]]
    assert listed == expected
    assert first["meta"]["itemsInTotal"] == 5
    assert "nextPage" not in third["meta"]
    assert "prevPage" not in first["meta"]
    back = (await customer.client.get(third["meta"]["prevPage"])).json()
    assert back["requests"] == second["requests"]


async def test_a_request_says_how_it_went(customer: Customer) -> None:
    message_id = await customer.append()
    (request,) = (await customer.get("/settings/webhook/request"))["requests"]
    assert (request["id"], request["status"], request["cxId"]) == (message_id, "processing", customer.account_id)
    await customer.settle_all(Outcome.TIMEOUT)
    (request,) = (await customer.get("/settings/webhook/request"))["requests"]
    assert (request["status"], request["requestUrl"], request["durationMillis"]) == ("failure", URL, 12)
    customer.installation.clock.advance(days=31)
    assert (await customer.get("/settings/webhook/request"))["requests"] == []


async def test_a_request_is_repeated_under_a_new_id_and_the_payload_answered(customer: Customer) -> None:
    message_id = await customer.append(EventType.DOCUMENT_BULK_DOWNLOAD_URLS)
    await customer.settle_all()
    payload = await customer.post(f"/settings/webhook/request/{message_id}/retry", 200)
    fresh = payload["meta"]["messageId"]
    assert fresh != message_id
    assert payload["patients"][0]["documents"][0]["url"].startswith(customer.installation.base_url)
    assert await customer.get(f"{V1}/events/{fresh}/payload") == payload
    assert await customer.settle_all() == 1
    await customer.post("/settings/webhook/request/unknown/retry", 404)
