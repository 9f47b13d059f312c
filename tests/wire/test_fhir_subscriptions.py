"""FHIR subscriptions over real sockets: handshake, notifications, heartbeats, operations, failure and recovery."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fhir.resources.R4B.bundle import Bundle
from fhir.resources.R4B.subscription import Subscription
from sqlalchemy import Connection, text
from tests.support.client import http_client
from tests.support.engine import Engine, closed, make_settings
from tests.support.patience import PATIENCE_SECONDS
from tests.support.profile import database_url, make_tables
from tests.support.receiver import Answer, Received, Receiver
from tests.support.scripted_network import ScriptedNetwork, as_network
from tests.support.server import MovableClock

from chartwire.model.document import CodeableConcept, Coding, JsonObject
from chartwire.model.registry import Address
from chartwire.services.registry import FacilityDraft
from chartwire.store import registry
from chartwire.store.profile import run_once
from chartwire.wiring import start_installation

BASE = "http://chartwire.test/oauth/fhir"
TOPIC = f"{BASE}/SubscriptionTopic/document-available"
EXTENSION = "http://hl7.org/fhir/uv/subscriptions-backport/StructureDefinition"
FHIR_JSON = "application/fhir+json"
LOINC = "http://loinc.org"
NOTE = CodeableConcept((Coding(LOINC, "11506-3", "Progress note"),))
SUMMARY = CodeableConcept((Coding(LOINC, "34133-9", "Summary"),))


def subscription(
    url: str,
    content: str = "id-only",
    *,
    filters: tuple[str, ...] = (),
    heartbeat: int | None = None,
    max_count: int | None = None,
    **changes: Any,
) -> JsonObject:
    """A Subscription as a client sends it."""
    numbers = [("heartbeat-period", "valueUnsignedInt", heartbeat), ("max-count", "valuePositiveInt", max_count)]
    extension = [{"url": f"{EXTENSION}/backport-{name}", kind: value} for name, kind, value in numbers if value]
    criteria = [{"url": f"{EXTENSION}/backport-filter-criteria", "valueString": each} for each in filters]
    payload = {"extension": [{"url": f"{EXTENSION}/backport-payload-content", "valueCode": content}]}
    channel = {"type": "rest-hook", "endpoint": url, "payload": FHIR_JSON, "_payload": payload}
    return {
        "resourceType": "Subscription",
        "status": "requested",
        "reason": "New documents",
        "criteria": TOPIC,
        **({"_criteria": {"extension": criteria}} if criteria else {}),
        "channel": {**channel, **({"extension": extension} if extension else {})},
        **changes,
    }


@dataclass
class Scene:
    """An installation with its engine, asked over HTTP, telling a receiver that only subscriptions know."""

    engine: Engine
    client: httpx.AsyncClient
    app: FastAPI
    folder: Path
    clock: MovableClock
    network: ScriptedNetwork
    receiver: Receiver
    added: int = 0
    keys: dict[str, str] = field(default_factory=dict)

    async def subscribe(self, content: str = "id-only", *, until: str = "active", **parts: Any) -> str:
        """Subscribe and wait for a status; returns the id."""
        answer = await self.client.post(
            "/oauth/fhir/Subscription", json=subscription(self.receiver.url, content, **parts)
        )
        assert answer.status_code == 201, answer.text
        Subscription.model_validate_json(answer.content)
        created: str = answer.json()["id"]
        assert answer.headers["location"] == f"{BASE}/Subscription/{created}"
        await self.wait_for_status(created, until)
        return created

    async def read(self, subscription_id: str) -> Any:
        answer = await self.client.get(f"/oauth/fhir/Subscription/{subscription_id}")
        assert answer.status_code == 200, answer.text
        Subscription.model_validate_json(answer.content)
        return answer.json()

    async def put(self, subscription_id: str, **changes: Any) -> Any:
        """Read, change, write back."""
        known = await self.read(subscription_id)
        answer = await self.client.put(f"/oauth/fhir/Subscription/{subscription_id}", json={**known, **changes})
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def wait_for_status(self, subscription_id: str, status: str) -> Any:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while (known := await self.read(subscription_id))["status"] != status:
                pass
        return known

    async def bring(self, count: int = 1, patient_id: str | None = None, **listed: Any) -> str:
        """Let a patient have documents found and stored; returns the patient's id."""
        patient_id = patient_id or await self.engine.add_patient()
        self.network.documents.clear()
        for _ in range(count):
            self.added += 1
            self.network.add(f"k{self.added}", **listed)
        request_id = await self.engine.start_query(patient_id)
        await self.engine.receiver.wait_for(lambda it: request_id in closed(it.messages))
        return patient_id

    def notifications(self, kind: str = "event-notification", of: str | None = None) -> list[Received]:
        """What was received of a type, for one subscription or all; in the order of their event numbers."""
        found = [
            each
            for each in self.receiver.requests
            if value(each.json, "type") == kind
            and (of is None or value(each.json, "subscription")["reference"] == f"{BASE}/Subscription/{of}")
        ]
        return sorted(found, key=lambda each: min(numbers(each.json), default=0))

    async def wait_for(self, count: int, kind: str = "event-notification", of: str | None = None) -> list[Received]:
        """The notifications of a type once there are so many events, or so many of another type."""

        def enough(_: Receiver) -> bool:
            found = self.notifications(kind, of)
            return sum(len(numbers(each.json)) or 1 for each in found) >= count

        await self.receiver.wait_for(enough)
        return self.notifications(kind, of)

    async def rows(self, sql: str) -> list[Any]:
        """Read the database beside the server."""
        return await asyncio.to_thread(
            run_once, database_url(self.folder), lambda connection: list(connection.execute(text(sql)))
        )


def status_of(bundle: Any) -> list[JsonObject]:
    """The parameters of the status in a notification, which is its first entry."""
    first: JsonObject = bundle["entry"][0]["resource"]
    assert first["resourceType"] == "Parameters"
    parameters: list[JsonObject] = first["parameter"]
    return parameters


def value(bundle: Any, name: str) -> Any:
    """The value of one parameter of the status; None if it is not there."""
    found = [each for each in status_of(bundle) if each["name"] == name]
    return next((each[key] for each in found for key in each if key.startswith("value")), None)


def events(bundle: Any) -> list[dict[str, Any]]:
    """The events that a notification tells of, each as its parts by name."""
    return [
        {part["name"]: next(part[key] for key in part if key.startswith("value")) for part in each["part"]}
        for each in status_of(bundle)
        if each["name"] == "notification-event"
    ]


def numbers(bundle: Any) -> list[int]:
    return [int(event["event-number"]) for event in events(bundle)]


def check_notification(received: Received) -> Any:
    """A notification is a good history Bundle, and keeps the guide's own rules; returns it."""
    Bundle.model_validate_json(received.body)
    bundle = received.json
    assert received.headers["content-type"] == FHIR_JSON
    assert (bundle["resourceType"], bundle["type"], bundle["id"]) == ("Bundle", "history", received.message_id)
    head = bundle["entry"][0]
    assert head["resource"]["meta"]["profile"] == [f"{EXTENSION}/backport-subscription-status-r4"]
    subscription_url = value(bundle, "subscription")["reference"]
    assert head["request"] == {"method": "GET", "url": f"{subscription_url}/$status"}
    assert head["fullUrl"] == f"urn:uuid:{head['resource']['id']}"
    assert all(entry["request"] and entry["response"] and entry["fullUrl"] for entry in bundle["entry"])
    names = [each["name"] for each in status_of(bundle)]
    assert all(names.count(name) == 1 for name in ("subscription", "status", "type"))
    assert int(value(bundle, "events-since-subscription-start")) >= max(numbers(bundle), default=0)
    return bundle


@asynccontextmanager
async def running(folder: Path, clock: MovableClock, network: ScriptedNetwork) -> AsyncIterator[Scene]:
    """A whole installation, with a webhook of its own beside the receiver of subscriptions."""
    settings = make_settings(folder, [as_network(network)], webhook_retry_seconds=[0.1] * 5, coalesce_milliseconds=20)
    make_tables(settings.data_dir)

    def account(connection: Connection) -> tuple[str, str]:
        known = registry.create_account(connection, "Clinic", clock())
        return known.id, registry.create_api_key(connection, known.id, "test", clock())[1]

    account_id, key = run_once(settings.database, account)
    async with (
        Receiver() as webhook,
        Receiver() as receiver,
        start_installation(settings, clock, [as_network(network)]) as app,
    ):
        services = app.state.services
        address = Address("1 Elm St", "Ukiah", "CA", "95482")
        facility = await services.registry.create_facility(account_id, FacilityDraft("C", "1234567893", address))
        saved = await services.webhooks.save_url(account_id, webhook.url)
        engine = Engine(services, webhook, account_id, facility.id, str(saved.key))
        transport = httpx.ASGITransport(app)
        async with http_client(
            transport=transport, base_url="http://chartwire.test", headers={"x-api-key": key}
        ) as client:
            yield Scene(engine, client, app, folder, clock, network, receiver)


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    async with running(tmp_path, MovableClock(), ScriptedNetwork("mercy")) as scene:
        yield scene


# --- activation -------------------------------------------------------------------------------------------------------


async def test_a_subscription_is_active_once_its_handshake_is_answered(scene: Scene) -> None:
    gate = asyncio.Event()
    scene.receiver.answers.append(Answer(gate=gate))
    made = await scene.subscribe(until="requested")
    (handshake,) = await scene.wait_for(1, "handshake")
    bundle = check_notification(handshake)
    assert (value(bundle, "status"), value(bundle, "events-since-subscription-start")) == ("requested", "0")
    assert value(bundle, "topic") == TOPIC
    assert len(bundle["entry"]) == 1
    assert (await scene.read(made))["status"] == "requested"
    gate.set()
    known = await scene.wait_for_status(made, "active")
    assert known["meta"]["versionId"] == "2"
    assert "error" not in known


async def test_what_is_sent_carries_standard_webhooks_under_the_key_that_the_owner_reads(scene: Scene) -> None:
    made = await scene.subscribe()
    answer = await scene.client.get(f"/v1/webhooks/endpoints/{made}/keys")
    key = answer.json()["keys"][0]["webhookKey"]
    (handshake,) = scene.notifications("handshake")
    handshake.verify(key)
    assert "x-webhook-key" not in handshake.headers


async def test_a_handshake_that_fails_is_not_repeated_and_says_why(scene: Scene) -> None:
    scene.receiver.answers.append(Answer(500))
    made = await scene.subscribe(until="error")
    assert (await scene.read(made))["error"] == "Request failed with status code 500"
    assert len(scene.notifications("handshake")) == 1
    await scene.put(made, status="requested")
    known = await scene.wait_for_status(made, "active")
    assert "error" not in known
    assert len(scene.notifications("handshake")) == 2


async def test_what_happens_before_the_handshake_is_answered_is_told_after_it(scene: Scene) -> None:
    scene.receiver.answers.append(Answer(503))
    made = await scene.subscribe(until="error")
    await scene.bring(2)
    assert not scene.notifications()
    assert (await scene.client.post("/settings/webhook/retry")).status_code == 200
    await scene.put(made, status="requested")
    told = await scene.wait_for(2)
    assert [number for each in told for number in numbers(check_notification(each))] == [1, 2]
    assert value(told[0].json, "status") == "active"


# --- what a notification tells ----------------------------------------------------------------------------------------


async def test_id_only_names_documents_and_patients(scene: Scene) -> None:
    await scene.subscribe("id-only")
    patient_id = await scene.bring()
    (received,) = await scene.wait_for(1)
    bundle = check_notification(received)
    (event,) = events(bundle)
    assert len(bundle["entry"]) == 1
    assert event["event-number"] == "1"
    assert event["additional-context"] == {"reference": f"{BASE}/Patient/{patient_id}", "type": "Patient"}
    focus = await scene.client.get(event["focus"]["reference"])
    assert focus.json()["subject"]["reference"] == f"Patient/{patient_id}"


async def test_full_resource_brings_what_can_be_read_here(scene: Scene) -> None:
    await scene.subscribe("full-resource")
    await scene.bring(3)
    received = await scene.wait_for(3)
    assert [number for each in received for number in numbers(check_notification(each))] == [1, 2, 3]
    for each in received:
        foci = [event["focus"]["reference"] for event in events(each.json)]
        entries = each.json["entry"][1:]
        assert [entry["fullUrl"] for entry in entries] == foci
        for entry in entries:
            assert entry["request"] == {"method": "POST", "url": "DocumentReference"}
            assert entry["resource"] == (await scene.client.get(entry["fullUrl"])).json()
            bytes_there = await scene.client.get(entry["resource"]["content"][0]["attachment"]["url"])
            assert bytes_there.content.startswith(b"document k")


async def test_empty_says_nothing_but_that_something_happened(scene: Scene) -> None:
    await scene.subscribe("empty")
    patient_id = await scene.bring()
    (received,) = await scene.wait_for(1)
    bundle = check_notification(received)
    assert [set(event) for event in events(bundle)] == [{"event-number", "timestamp"}]
    assert value(bundle, "topic") is None
    assert patient_id.encode() not in received.body
    assert b"DocumentReference" not in received.body
    await settled(scene)
    query = "SELECT patient_id FROM audit WHERE action = 'webhook.attempt' AND subject LIKE '%{}'"
    made = value(bundle, "subscription")["reference"].rpartition("/")[2]
    assert await scene.rows(query.format(made)) == [(None,)] * 2  # the handshake and this


async def test_no_notification_has_more_events_than_max_count(scene: Scene) -> None:
    small, large = await scene.subscribe(max_count=2), await scene.subscribe()
    await scene.bring(7)
    assert all(len(numbers(each.json)) <= 2 for each in await scene.wait_for(7, of=small))
    for each in (small, large):
        told = [number for it in await scene.wait_for(7, of=each) for number in numbers(it.json)]
        assert told == [1, 2, 3, 4, 5, 6, 7]


async def test_filters_choose_by_patient_type_and_status(scene: Scene) -> None:
    jane, joe = await scene.engine.add_patient(), await scene.engine.add_patient()
    of_jane = await scene.subscribe(filters=(f"DocumentReference?patient=Patient/{jane}",))
    notes = await scene.subscribe(
        filters=(f"DocumentReference?type={LOINC}|11506-3", "DocumentReference?status=current"),
    )
    superseded = await scene.subscribe(filters=("DocumentReference?status=superseded",))
    both = await scene.subscribe(filters=(f"DocumentReference?patient={jane}&type=11506-3",))
    await scene.bring(1, jane, type=SUMMARY)
    await scene.bring(1, jane, type=NOTE)
    await scene.bring(2, joe, type=NOTE)
    told = {each: await scene.wait_for(count, of=each) for each, count in ((of_jane, 2), (notes, 3), (both, 1))}
    assert {key: [number for each in found for number in numbers(each.json)] for key, found in told.items()} == {
        of_jane: [1, 2],
        notes: [1, 2, 3],
        both: [1],
    }
    assert not scene.notifications(of=superseded)
    assert (await scene.read(superseded))["_criteria"]["extension"][0]["valueString"].endswith("status=superseded")


async def test_a_query_that_asks_for_silence_is_no_event(scene: Scene) -> None:
    await scene.subscribe()
    scene.network.add("silent")
    patient_id = await scene.engine.add_patient()
    await scene.engine.start_query(patient_id, {"disableWHFlag": "true"})
    async with asyncio.timeout(PATIENCE_SECONDS):
        while (await scene.engine.progress(patient_id)).download.status.value != "completed":
            pass
    await scene.bring()
    (received,) = await scene.wait_for(1)
    assert numbers(received.json) == [1]
    assert value(received.json, "events-since-subscription-start") == "1"


async def test_headers_are_sent_and_not_shown_and_survive_a_change(scene: Scene) -> None:
    body = subscription(scene.receiver.url)
    body["channel"]["header"] = ["Authorization: Bearer its-secret", "X-Tenant: 7"]
    answer = await scene.client.post("/oauth/fhir/Subscription", json=body)
    assert answer.json()["channel"]["header"] == ["authorization: ***", "x-tenant: ***"]
    made = answer.json()["id"]
    known = await scene.wait_for_status(made, "active")
    channel = {**known["channel"], "header": ["authorization: ***"]}
    await scene.put(made, status="requested", channel=channel)
    first, second = await scene.wait_for(2, "handshake")
    assert (first.headers["authorization"], first.headers["x-tenant"]) == ("Bearer its-secret", "7")
    assert second.headers["authorization"] == "Bearer its-secret"
    assert "x-tenant" not in second.headers


# --- time -------------------------------------------------------------------------------------------------------------


async def test_a_heartbeat_is_sent_when_nothing_else_was_for_a_period(scene: Scene) -> None:
    scene.clock.stop()
    made = await scene.subscribe(heartbeat=600)
    scene.clock.advance(seconds=599)
    await scene.bring()
    await scene.wait_for(1)
    await settled(scene)
    scene.clock.advance(seconds=599)  # 599 s after the notification: nothing is due
    await scene.bring()
    await scene.wait_for(2)
    await settled(scene)
    assert not scene.notifications("heartbeat")
    scene.clock.advance(seconds=600)
    (heartbeat,) = await scene.wait_for(1, "heartbeat")
    bundle = check_notification(heartbeat)
    assert (value(bundle, "status"), value(bundle, "events-since-subscription-start")) == ("active", "2")
    assert not events(bundle)
    await settled(scene)
    scene.clock.advance(seconds=600)
    assert len(await scene.wait_for(2, "heartbeat", of=made)) == 2


async def settled(scene: Scene) -> None:
    """Return once nothing is being sent: what an answer means has been written down."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while (await scene.rows("SELECT count(*) FROM delivery WHERE state = 'waiting'"))[0][0]:
            pass


async def test_a_subscription_ends_when_it_says_so(scene: Scene) -> None:
    scene.clock.stop()
    made = await scene.subscribe(end="2999-01-01T00:00:00Z")
    soon = scene.clock()
    scene.clock.advance(days=-1)
    await scene.put(made, status="active", end=soon.isoformat())
    assert len(scene.notifications("handshake")) == 1, "what is active stays so without another handshake"
    scene.clock.advance(days=1)
    known = await scene.read(made)
    assert (known["status"], known["error"]) == ("off", "The subscription has ended")
    await scene.bring()
    await settled(scene)
    assert not scene.notifications()
    async with asyncio.timeout(PATIENCE_SECONDS):
        while await scene.rows("SELECT 1 FROM subscription WHERE due_at IS NOT NULL"):
            pass


# --- failure and recovery ---------------------------------------------------------------------------------------------


async def test_a_notification_that_fails_is_repeated_under_its_id(scene: Scene) -> None:
    made = await scene.subscribe()
    scene.receiver.answers.extend([Answer(500), Answer(500)])
    await scene.bring()
    told = await scene.wait_for(3)
    assert len({each.message_id for each in told}) == 1
    assert {tuple(numbers(each.json)) for each in told} == {(1,)}
    async with asyncio.timeout(PATIENCE_SECONDS):
        while "error" in (known := await scene.read(made)):
            pass
    assert known["status"] == "active"


async def test_410_turns_it_off_and_asking_again_tells_what_was_held(scene: Scene) -> None:
    made = await scene.subscribe()
    scene.receiver.answers.append(Answer(410))
    await scene.bring()
    known = await scene.wait_for_status(made, "off")
    assert known["error"] == "Request failed with status code 410"
    await scene.bring()
    assert len(scene.notifications()) == 1
    await scene.put(made, status="requested")
    await scene.wait_for_status(made, "active")
    told = await scene.wait_for(3)  # the first, the first again, and what came while it was off
    assert sorted(number for each in told for number in numbers(each.json)) == [1, 1, 2]


async def test_off_and_deleted_ones_are_told_nothing(scene: Scene) -> None:
    off, gone = await scene.subscribe(), await scene.subscribe()
    assert (await scene.put(off, status="off"))["status"] == "off"
    assert (await scene.client.delete(f"/oauth/fhir/Subscription/{gone}")).status_code == 204
    assert (await scene.client.get(f"/oauth/fhir/Subscription/{gone}")).status_code == 404
    await scene.bring()
    await settled(scene)
    assert not scene.notifications()
    assert "error" not in await scene.read(off)
    await scene.put(off, status="active")
    await scene.wait_for_status(off, "active")
    await scene.bring()
    (told,) = await scene.wait_for(1)
    assert numbers(told.json) == [1]


async def test_it_can_be_replayed_as_every_delivery_can(scene: Scene) -> None:
    made = await scene.subscribe()
    await scene.bring()
    (first,) = await scene.wait_for(1)
    await settled(scene)
    answer = await scene.client.post("/v1/webhooks/replays", json={"endpointId": made})
    assert answer.json()["total"] == 1, "the handshake is not repeated"
    _, again = await scene.wait_for(2)
    assert (again.body, again.message_id) == (first.body, first.message_id)
    listed = (await scene.client.get("/v1/webhooks/deliveries", params={"endpointId": made})).json()["deliveries"]
    assert {each["type"] for each in listed} == {"subscription.handshake", "subscription.event-notification"}


# --- operations -------------------------------------------------------------------------------------------------------


async def test_status_tells_how_each_stands(scene: Scene) -> None:
    good = await scene.subscribe()
    await scene.bring(2)
    await scene.wait_for(2)
    scene.receiver.answers.append(Answer(400))
    bad = await scene.subscribe(until="error")
    answer = await scene.client.get(f"/oauth/fhir/Subscription/{good}/$status")
    Bundle.model_validate_json(answer.content)
    bundle = answer.json()
    assert (bundle["type"], len(bundle["entry"])) == ("searchset", 1)
    assert [value(bundle, name) for name in ("status", "type")] == ["active", "query-status"]
    assert value(bundle, "events-since-subscription-start") == "2"
    everything = (await scene.client.get("/oauth/fhir/Subscription/$status")).json()
    assert len(everything["entry"]) == 2
    parameters = {"resourceType": "Parameters", "parameter": [{"name": "status", "valueCode": "error"}]}
    posted = await scene.client.post("/oauth/fhir/Subscription/$status", json=parameters)
    by_id = await scene.client.get("/oauth/fhir/Subscription/$status", params={"id": f"{bad},nobody"})
    for found in (posted.json(), by_id.json()):
        assert value(found, "subscription")["reference"].endswith(bad)
        assert value(found, "error") == {"text": "Request failed with status code 400"}


async def test_events_can_be_asked_for_by_number_and_in_any_content(scene: Scene) -> None:
    made = await scene.subscribe("id-only")
    await scene.bring(5)
    path = f"/oauth/fhir/Subscription/{made}/$events"
    everything = await scene.client.get(path)
    Bundle.model_validate_json(everything.content)
    assert numbers(everything.json()) == [1, 2, 3, 4, 5]
    assert value(everything.json(), "type") == "query-event"
    some = await scene.client.get(path, params={"eventsSinceNumber": "2", "eventsUntilNumber": "3"})
    assert numbers(some.json()) == [2, 3]
    assert value(some.json(), "events-since-subscription-start") == "5"
    assert numbers((await scene.client.get(path, params={"eventsUntilNumber": "0"})).json()) == []
    asked = [{"name": "eventsSinceNumber", "valueString": "5"}, {"name": "content", "valueCode": "full-resource"}]
    full = await scene.client.post(path, json={"resourceType": "Parameters", "parameter": asked})
    assert [entry["resource"]["resourceType"] for entry in full.json()["entry"]] == ["Parameters", "DocumentReference"]
    empty = await scene.client.get(path, params={"content": "empty"})
    assert b"DocumentReference" not in empty.content
    seen = "SELECT count(*) FROM audit WHERE action = 'subscription.events' AND patient_id IS NOT NULL"
    assert await scene.rows(seen) == [(3,)]
    for bad in ({"eventsSinceNumber": "x"}, {"content": "all"}, {"eventsUntilNumber": "-1"}):
        assert (await scene.client.get(path, params=bad)).status_code == 400


# --- privacy ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", ["id-only", "full-resource"])
async def test_a_deleted_patient_leaves_numbers_behind(scene: Scene, content: str) -> None:
    scene.receiver.answers.append(Answer(500))
    made = await scene.subscribe(content, until="error")
    gone, stays = await scene.engine.add_patient(), await scene.engine.add_patient()
    scene.network.add("first")
    for patient_id in (gone, stays):  # both may share a notification
        await scene.bring(2, patient_id)
    deleted = await scene.client.delete(f"/medical/v1/patient/{gone}")
    assert deleted.status_code in {200, 204}, deleted.text
    await scene.put(made, status="requested")
    await scene.wait_for_status(made, "active")
    told = await scene.wait_for(2)
    assert all(gone.encode() not in each.body for each in told)
    kept = (await scene.client.get(f"/oauth/fhir/Subscription/{made}/$events")).json()
    assert numbers(kept) == [1, 2, 3, 4]
    assert [("focus" in event) for event in events(kept)] == [False, False, True, True]
