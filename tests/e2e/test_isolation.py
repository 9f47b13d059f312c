"""Two customers of one installation never see, reach or guess anything of each other.

The walk covers every route of the OpenAPI document that takes an id. What a stranger gets for somebody's real id must
be, byte for byte, what anybody gets for an id that does not exist.
"""

from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from string import Formatter
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlsplit

import aiohttp
import pytest
import pytest_asyncio
from tests.support.customer import JANE, SANDBOX, Customer, patient_of, settle, subscription_for
from tests.support.journey import ADDRESS
from tests.support.process import ChartwireProcess
from tests.support.receiver import Receiver

pytestmark = pytest.mark.asyncio(loop_scope="module")

PUBLIC = frozenset(
    {
        *("/", "/healthz", "/readyz", "/metrics", "/oauth/token"),
        *("/.well-known/smart-configuration", "/oauth/fhir/metadata"),
    }
)
"""Routes that need no key and take no id."""

NO_SUCH_ROUTE = '{"message":"Not Found"}'

NOT_IDS = frozenset(
    {
        *("filters", "count", "source", "hieOptOut", "override", "dateFrom", "dateTo", "content", "output"),
        *("conversionType", "type", "expires", "signature", "status", "category", "date", "creation", "_count"),
        *("grant_type", "client_secret", "scope"),
        *("state", "from", "to", "after", "limit", "sort", "wait", "types"),
        *("url", "criteria", "eventsSinceNumber", "eventsUntilNumber"),
    }
)
"""Parameters that name nobody's anything. A parameter that is not here is an id, and needs an entry in `ASKS`."""

FACILITY = {"name": "Clinic", "npi": "1234567893", "address": ADDRESS}
ORGANIZATION = {"name": "Clinic", "type": "hospital", "location": ADDRESS}
PATIENT = patient_of(JANE)


@dataclass(frozen=True)
class Ask:
    """A request with ids of somebody; `{names}` in path, query, body and form are replaced by them.

    The names in `own` are the caller's. `expected` are the statuses for somebody else's ids.
    """

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    body: Any = None
    form: Mapping[str, str] | None = None
    own: frozenset[str] = frozenset()
    expected: frozenset[int] = frozenset({403, 404})

    def __str__(self) -> str:
        return f"{self.method} {self.path} {' '.join(self.query)}"

    @property
    def names(self) -> set[str]:
        """The parameters and members of the body that it gives."""
        in_path = {name for _, name, _, _ in Formatter().parse(self.path) if name}
        return in_path | {*self.query, *(self.form or {}), *(self.body or {})}

    def filled(self, value: Any, ids: Mapping[str, str]) -> Any:
        """A part of the request with ids put in."""
        if isinstance(value, str):
            return value.format_map(ids) if "{" in value else value
        if isinstance(value, Mapping):
            return {key: self.filled(item, ids) for key, item in value.items()}
        return [self.filled(item, ids) for item in value] if isinstance(value, list) else value


def _of_facility(method: str, path: str, **parts: Any) -> Ask:
    """Own patient, somebody's facility: the contract wants 400, whether that facility exists or not."""
    query = {"facilityId": "{facility_id}", **parts.pop("query", {})}
    return Ask(method, path, query=query, own=frozenset({"patient_id"}), expected=frozenset({400, 404}), **parts)


FOUND_NOTHING = frozenset({200})
"""A search that finds nothing of the stranger's is an empty bundle."""

ASKS = (
    Ask("PUT", "/medical/v1/organization/{organization_id}", body=ORGANIZATION),
    Ask("GET", "/medical/v1/facility/{facility_id}"),
    Ask("PUT", "/medical/v1/facility/{facility_id}", body=FACILITY),
    Ask("DELETE", "/medical/v1/facility/{facility_id}"),
    Ask("POST", "/medical/v1/patient", query={"facilityId": "{facility_id}"}, body=PATIENT),
    Ask("GET", "/medical/v1/patient", query={"facilityId": "{facility_id}"}),
    Ask("GET", "/medical/v1/patient", query={"fromItem": "{patient_id}"}, expected=FOUND_NOTHING),
    Ask("GET", "/medical/v1/patient", query={"toItem": "{patient_id}"}, expected=FOUND_NOTHING),
    Ask("GET", "/medical/v1/patient", query={"filters": "{patient_id}"}, expected=FOUND_NOTHING),
    Ask("GET", "/medical/v1/patient/external-id", query={"externalId": "{external_id}"}),
    Ask("GET", "/medical/v1/patient/{patient_id}"),
    Ask("PUT", "/medical/v1/patient/{patient_id}", body=PATIENT),
    Ask("PUT", "/medical/v1/patient/{patient_id}", query={"facilityId": "{facility_id}"}, body=PATIENT),
    _of_facility("PUT", "/medical/v1/patient/{patient_id}", body=PATIENT),
    Ask("DELETE", "/medical/v1/patient/{patient_id}"),
    Ask("DELETE", "/medical/v1/patient/{patient_id}", query={"facilityId": "{facility_id}"}),
    _of_facility("DELETE", "/medical/v1/patient/{patient_id}"),
    Ask("GET", "/medical/v1/patient/{patient_id}/facility"),
    Ask("POST", "/medical/v1/patient/{patient_id}/facility", body={"facilityIds": ["{facility_id}"]}),
    Ask(
        "POST",
        "/medical/v1/patient/{patient_id}/facility",
        body={"facilityIds": ["{facility_id}"]},
        own=frozenset({"patient_id"}),
    ),
    Ask("GET", "/medical/v1/patient/{patient_id}/hie-opt-out"),
    Ask("PUT", "/medical/v1/patient/{patient_id}/hie-opt-out", query={"hieOptOut": "true"}),
    Ask("GET", "/medical/v1/document", query={"patientId": "{patient_id}"}),
    Ask("GET", "/medical/v1/document", query={"patientId": "{patient_id}", "output": "dto"}),
    Ask("POST", "/medical/v1/document/query", query={"patientId": "{patient_id}"}),
    Ask("POST", "/medical/v1/document/query", query={"patientId": "{patient_id}", "facilityId": "{facility_id}"}),
    _of_facility("POST", "/medical/v1/document/query", query={"patientId": "{patient_id}"}),
    Ask("GET", "/medical/v1/document/query", query={"patientId": "{patient_id}"}),
    Ask("GET", "/medical/v1/document/downloadUrl", query={"fileName": "{file_name}"}),
    Ask("GET", "/medical/v1/document/download-url", query={"fileName": "{file_name}"}),
    Ask("GET", "/medical/v1/document/download-url", query={"fileName": "{file_name}", "conversionType": "pdf"}),
    Ask("POST", "/medical/v1/document/download-url/bulk", query={"patientId": "{patient_id}"}),
    Ask("GET", "/oauth/fhir/Binary/{document_id}"),
    Ask("HEAD", "/oauth/fhir/Binary/{document_id}"),
    Ask("GET", "/oauth/fhir/DocumentReference/{document_id}"),
    *(
        ask
        for name, value in (
            ("patient", "{patient_id}"),
            ("patient", "Patient/{patient_id}"),
            ("patient.identifier", "{patient_id}"),
            ("patient.identifier", "{external_id}"),
            ("_id", "{document_id}"),
            ("identifier", "urn:uuid:{document_id}"),
        )
        for ask in (
            Ask("GET", "/oauth/fhir/DocumentReference", query={name: value}, expected=FOUND_NOTHING),
            Ask("POST", "/oauth/fhir/DocumentReference/_search", form={name: value}, expected=FOUND_NOTHING),
        )
    ),
    *(
        Ask(method, f"/oauth/fhir/Subscription/{{subscription_id}}{operation}")
        for operation in ("", "/$status", "/$events")
        for method in (("GET", "POST") if operation else ("GET", "DELETE"))
    ),
    Ask(
        "PUT",
        "/oauth/fhir/Subscription/{subscription_id}",
        body={**subscription_for("", "https://example.com/"), "criteria": "{topic}", "id": "{subscription_id}"},
        own=frozenset({"topic"}),
    ),
    Ask("GET", "/oauth/fhir/Subscription", query={"_id": "{subscription_id}"}, expected=FOUND_NOTHING),
    Ask("GET", "/oauth/fhir/Subscription/$status", query={"id": "{subscription_id}"}, expected=FOUND_NOTHING),
    Ask("GET", "/v1/webhooks/endpoints/{endpoint_id}"),
    Ask("PATCH", "/v1/webhooks/endpoints/{endpoint_id}", body={"description": "mine now"}),
    Ask("GET", "/v1/webhooks/endpoints/{endpoint_id}/keys"),
    Ask("POST", "/v1/webhooks/endpoints/{endpoint_id}/keys/rotate"),
    Ask("POST", "/v1/webhooks/endpoints/{endpoint_id}/ping"),
    Ask("DELETE", "/v1/webhooks/endpoints/{endpoint_id}"),
    Ask("POST", "/v1/webhooks/endpoints/{endpoint_id}/disable"),
    Ask("POST", "/v1/webhooks/endpoints/{endpoint_id}/enable"),
    Ask("POST", "/v1/webhooks/endpoints/{endpoint_id}/test", body={"type": "ping"}),
    Ask("GET", "/v1/webhooks/events", query={"endpointId": "{endpoint_id}"}, expected=FOUND_NOTHING),
    Ask("GET", "/v1/webhooks/deliveries", query={"endpointId": "{endpoint_id}"}, expected=FOUND_NOTHING),
    Ask("GET", "/v1/webhooks/events/{event_id}"),
    Ask("GET", "/v1/webhooks/events/{event_id}/payload"),
    Ask("DELETE", "/v1/webhooks/events/{event_id}/payload"),
    Ask("GET", "/v1/webhooks/deliveries/{delivery_id}/attempts"),
    Ask("POST", "/v1/webhooks/deliveries/{delivery_id}/resend"),
    Ask("POST", "/v1/webhooks/replays", body={"endpointId": "{endpoint_id}"}),
    Ask("POST", "/v1/webhooks/replays/preview", body={"endpointId": "{endpoint_id}"}),
    Ask("GET", "/settings/webhook/request", query={"fromItem": "{event_id}"}, expected=FOUND_NOTHING),
    Ask("GET", "/settings/webhook/request", query={"toItem": "{event_id}"}, expected=FOUND_NOTHING),
    Ask("POST", "/settings/webhook/request/{event_id}/retry"),
)

ELSEWHERE = {
    ("GET", "/download/{document_id}", "document_id"): "test_an_altered_link_opens_nothing",
    ("HEAD", "/download/{document_id}", "document_id"): "test_an_altered_link_opens_nothing",
    ("GET", "/oauth/fhir/DocumentReference", "_page"): "test_a_page_of_another_customer_is_empty",
    ("POST", "/oauth/fhir/DocumentReference/_search", "_page"): "test_a_page_of_another_customer_is_empty",
    ("GET", "/oauth/fhir/Subscription", "_page"): "test_a_page_of_subscriptions_holds_the_own_alone",
    ("POST", "/oauth/token", "client_id"): "test_an_id_of_another_customer_gets_no_token",
    (
        "GET",
        "/v1/webhooks/replays/{replay_id}",
        "replay_id",
    ): "test_a_replay_of_another_customer_is_hidden",
    ("POST", "/v1/webhooks/replays/{replay_id}/cancel", "replay_id"): "test_a_replay_of_another_customer_is_hidden",
    ("GET", "/v1/events", "name"): "test_a_reader_of_another_customer_is_hidden",
    ("GET", "/v1/events/cursors/{name}", "name"): "test_a_reader_of_another_customer_is_hidden",
    ("PUT", "/v1/events/cursors/{name}", "name"): "test_a_reader_of_another_customer_is_hidden",
    ("DELETE", "/v1/events/cursors/{name}", "name"): "test_a_reader_of_another_customer_is_hidden",
}
"""Ids that ask for a test of their own."""

LISTS = {
    *("/medical/v1/facility", "/medical/v1/patient", "/settings/webhook/request", "/oauth/fhir/Subscription"),
    *("/v1/events", "/v1/webhooks/deliveries", "/v1/webhooks/endpoints", "/v1/webhooks/events", "/v1/webhooks/replays"),
}
"""Routes whose answers would hold everybody's, if any did."""


@dataclass(frozen=True)
class Answer:
    """What came back; `headers` without those that change from one second to the next."""

    status: int
    body: str
    headers: Mapping[str, str]


@dataclass(frozen=True)
class Scene:
    """An installation with two customers who do the same things."""

    server: ChartwireProcess
    receiver: Receiver
    session: aiohttp.ClientSession
    owner: Customer
    stranger: Customer
    before: dict[str, str] = field(default_factory=dict)
    """What the owner read before anybody else came."""

    async def send(self, ask: Ask, ids: Mapping[str, str], headers: Mapping[str, str]) -> Answer:
        """The answer to an ask with these ids; they are taken out of the answer where it repeats the question."""
        async with self.session.request(
            ask.method,
            ask.path.format_map(ids),
            params=ask.filled(ask.query, ids),
            json=ask.filled(ask.body, ids),
            data=ask.filled(ask.form, ids),
            headers=headers,
        ) as answer:
            kept = {name.lower(): value for name, value in answer.headers.items() if name.lower() != "date"}
            return Answer(answer.status, await answer.text(errors="replace"), kept)

    async def read_everything(self, who: Customer) -> dict[str, str]:
        """What a customer reads of all that a stranger might have changed."""
        patient = f"/medical/v1/patient/{who.patient_id}"
        return {
            path: str(await self.get(path, who))
            for path in (
                *("/medical/v1/organization", "/medical/v1/facility", "/medical/v1/patient", "/settings"),
                *(f"{patient}/hie-opt-out", f"/medical/v1/document/query?patientId={who.patient_id}"),
                f"/oauth/fhir/Subscription/{who.subscription_id}",
                *("/settings/webhook", "/v1/webhooks/endpoints", f"/v1/webhooks/endpoints/{who.endpoint_id}/keys"),
            )
        }

    async def get(self, path: str, who: Customer, **params: str) -> Any:
        """What a customer reads at a path."""
        async with self.session.get(path, params=params, headers=key_of(who)) as answer:
            assert answer.status == 200
            return await answer.json()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scene(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Scene]:
    folder: Path = tmp_path_factory.mktemp("isolation")
    async with (
        Receiver() as receiver,
        ChartwireProcess(folder / "data", SANDBOX) as server,
        aiohttp.ClientSession(base_url=server.base_url) as session,
    ):
        owner, stranger = await settle(server, receiver, "Owner"), await settle(server, receiver, "Stranger")
        scene = Scene(server, receiver, session, owner, stranger)
        scene.before.update(await scene.read_everything(owner))
        yield scene


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def openapi(scene: Scene) -> dict[str, Any]:
    async with scene.session.get("/openapi.json") as answer:
        document: dict[str, Any] = await answer.json()
    return document


def key_of(customer: Customer) -> dict[str, str]:
    return {"x-api-key": customer.api_key}


def ids_of(customer: Customer) -> dict[str, str]:
    """Every id of a customer, by the name that asks use."""
    named = {each.name: getattr(customer, each.name) for each in fields(customer) if each.name.endswith("_id")}
    more = {name: getattr(customer, name) for name in ("delivery_id", "document_id", "file_name")}
    return {**named, **more, "topic": customer.topic}


def absent_ids(customer: Customer) -> dict[str, str]:
    """Ids that nobody has, each as like to the customer's as can be: it sorts to the same place, too."""
    return {name: altered(value) for name, value in ids_of(customer).items()}


def altered(text: str) -> str:
    """Like it, but for the last character."""
    return text[:-1] + ("1" if text[-1] == "0" else "0")


def without(answer: Answer, ids: Mapping[str, str]) -> Answer:
    """The answer with the asked ids made anonymous: a search's `self` link repeats the question."""
    body = answer.body
    for name, value in ids.items():
        body = body.replace(value, f"<{name}>")
    return Answer(answer.status, body, {**answer.headers, "content-length": str(len(body))})


def operations(openapi: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in openapi["paths"].items():
        for method, operation in methods.items():
            yield method.upper(), path, operation


def ids_in(openapi: dict[str, Any], operation: dict[str, Any]) -> set[str]:
    """Parameters and members of bodies that name something of somebody."""
    given = {each["name"] for each in operation.get("parameters", []) if each["in"] in {"path", "query"}}
    bodies = operation.get("requestBody", {}).get("content", {})
    given |= members(openapi, bodies.get("application/x-www-form-urlencoded"))
    in_json = {name for name in members(openapi, bodies.get("application/json")) if name.endswith(("Id", "Ids"))}
    in_json.discard("externalId")  # in a body it says what the customer's own id is to be
    return (given | in_json) - NOT_IDS


def members(openapi: dict[str, Any], schema: Any) -> set[str]:
    """The names of all properties in a schema, at any depth."""
    if isinstance(schema, list):
        return {name for item in schema for name in members(openapi, item)}
    if not isinstance(schema, dict):
        return set()
    if "$ref" in schema:
        return members(openapi, openapi["components"]["schemas"][schema["$ref"].rpartition("/")[2]])
    return set(schema.get("properties", {})) | {name for item in schema.values() for name in members(openapi, item)}


async def test_every_route_with_an_id_is_walked(openapi: dict[str, Any]) -> None:
    wanted = {
        (method, path, name) for method, path, operation in operations(openapi) for name in ids_in(openapi, operation)
    }
    known = {(ask.method, ask.path, name) for ask in ASKS for name in ask.names} | set(ELSEWHERE)
    assert not wanted - known, "a route takes an id: add an entry to ASKS"
    assert not {(method, path) for method, path, _ in known} - {(method, path) for method, path, _ in wanted}
    assert set(ELSEWHERE.values()) <= set(globals())


@pytest.mark.parametrize("ask", ASKS, ids=str)
async def test_the_id_of_another_customer_is_as_one_that_is_absent(scene: Scene, ask: Ask) -> None:
    own = {name: ids_of(scene.stranger)[name] for name in ask.own}
    theirs = {**ids_of(scene.owner), **own}
    absent = {**absent_ids(scene.owner), **own}
    for headers in (key_of(scene.stranger), {"authorization": f"Bearer {scene.stranger.api_key}"}):
        answer = without(await scene.send(ask, theirs, headers), theirs)
        assert answer.status in ask.expected
        assert answer == without(await scene.send(ask, absent, headers), absent)
        assert answer.body != NO_SUCH_ROUTE
        assert not [each for each in scene.owner.ids if each in answer.body]
    assert await scene.read_everything(scene.owner) == scene.before


async def test_a_reader_of_another_customer_is_hidden(scene: Scene) -> None:
    path = "/v1/events/cursors/mine"
    page = await scene.get("/v1/events", scene.owner)
    async with scene.session.put(path, json={"cursor": page["cursor"]}, headers=key_of(scene.owner)) as answer:
        assert answer.status == 204
    for method in ("GET", "DELETE"):
        async with scene.session.request(method, path, headers=key_of(scene.stranger)) as answer:
            assert answer.status == 404
    async with scene.session.put(path, json={"cursor": page["cursor"]}, headers=key_of(scene.stranger)) as answer:
        assert answer.status == 400
    theirs = await scene.get("/v1/events", scene.stranger, name="mine")
    assert not {event["id"] for event in page["events"]} & {event["id"] for event in theirs["events"]}
    assert (await scene.get(path, scene.owner))["name"] == "mine"


async def test_a_replay_of_another_customer_is_hidden(scene: Scene) -> None:
    path, body = "/v1/webhooks/replays", {"from": "2000-01-01T00:00:00Z", "to": "2000-01-02T00:00:00Z"}
    async with scene.session.post(path, json=body, headers=key_of(scene.owner)) as started:
        replay_id = (await started.json())["id"]
    for ask in (Ask("GET", f"{path}/{{replay_id}}"), Ask("POST", f"{path}/{{replay_id}}/cancel")):
        theirs, absent = {"replay_id": replay_id}, {"replay_id": altered(replay_id)}
        answer = await scene.send(ask, theirs, key_of(scene.stranger))
        assert answer.status == 404
        assert answer == await scene.send(ask, absent, key_of(scene.stranger))


@pytest.mark.parametrize("ask", ASKS, ids=str)
async def test_without_a_key_nothing_is_told_of_an_id(scene: Scene, ask: Ask) -> None:
    for headers in ({}, {"x-api-key": "cw_unknown"}, {"authorization": "Bearer cw_unknown"}):
        answer = await scene.send(ask, ids_of(scene.owner), headers)
        assert answer.status in {401, 403}
        assert answer == await scene.send(ask, absent_ids(scene.owner), headers)


async def test_every_route_but_the_public_ones_asks_for_a_key(scene: Scene, openapi: dict[str, Any]) -> None:
    for method, path, _ in operations(openapi):
        async with scene.session.request(method, path) as answer:
            if path not in PUBLIC:
                assert answer.status in {400, 401, 403} if path.startswith("/download/") else {401, 403}, path


async def test_what_the_walk_asks_is_answered_to_the_owner(scene: Scene) -> None:
    """Otherwise the walk would prove nothing: a misspelt request is refused to everybody."""
    customer = await settle(scene.server, scene.receiver, "Third")
    in_order = sorted(ASKS, key=lambda ask: ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE").index(ask.method))
    for ask in in_order:
        answer = await scene.send(ask, ids_of(customer), key_of(customer))
        deleted_before = ask.method == "DELETE" and answer.status in {400, 404, 409}
        assert answer.status < 300 or deleted_before, f"{ask}: {answer.status} {answer.body}"


async def test_lists_hold_the_own_alone(scene: Scene, openapi: dict[str, Any]) -> None:
    answered = set()
    for method, path, operation in operations(openapi):
        has_needs = any(each.get("required") for each in operation.get("parameters", []))
        if method == "GET" and "security" in operation and not has_needs:
            async with scene.session.get(path, headers=key_of(scene.stranger)) as answer:
                body = await answer.text()
            assert not [each for each in scene.owner.ids if each in body], path
            answered |= {path} if answer.status == 200 else set()
    assert answered >= LISTS


async def test_the_same_person_is_a_patient_of_each_customer(scene: Scene) -> None:
    for customer in (scene.owner, scene.stranger):
        async with scene.session.post("/medical/v1/patient/match", json=PATIENT, headers=key_of(customer)) as answer:
            assert (await answer.json())["id"] == customer.patient_id


async def test_an_altered_link_opens_nothing(scene: Scene) -> None:
    link, other = urlsplit(scene.owner.download_url), urlsplit(scene.stranger.download_url)
    query, others = dict(parse_qsl(link.query)), dict(parse_qsl(other.query))
    changed = [
        (other.path, query),
        (altered(link.path), query),
        (link.path, {**query, "type": "pdf"}),
        (link.path, {**query, "type": "everything"}),
        (link.path, {**query, "expires": str(int(query["expires"]) + 1)}),
        (link.path, {**query, "expires": "9" * 40}),
        (link.path, {**query, "signature": others["signature"]}),
        (link.path, {**query, "signature": query["signature"].upper() + "é"}),
        (link.path, {**query, "signature": altered(query["signature"])}),
    ]
    for method in ("GET", "HEAD"):
        refused = {await fetch(scene, method, path, parameters) for path, parameters in changed}
        assert len(refused) == 1, refused
        assert {status for status, _ in refused} == {403}
        assert (await fetch(scene, method, link.path, query))[0] == 200


async def test_a_page_of_another_customer_is_empty(scene: Scene) -> None:
    path = "/oauth/fhir/DocumentReference"
    first = await scene.get(path, scene.owner, patient=scene.owner.patient_id, _count="1")
    following = next(link["url"] for link in first["link"] if link["relation"] == "next")
    page = parse_qs(urlsplit(following).query)["_page"][0]
    assert len((await scene.get(path, scene.owner, _page=page))["entry"]) == 1
    assert not (await scene.get(path, scene.stranger, _page=page)).get("entry")
    search = scene.session.post(f"{path}/_search", data={"_page": page}, headers=key_of(scene.stranger))
    async with search as answer:
        assert not (await answer.json()).get("entry")


async def test_a_page_of_subscriptions_holds_the_own_alone(scene: Scene) -> None:
    path = "/oauth/fhir/Subscription"
    async with scene.session.post(
        path, json=subscription_for(scene.server.base_url, scene.receiver.url), headers=key_of(scene.owner)
    ) as made:
        made_id = (await made.json())["id"]
    first = await scene.get(path, scene.owner, _count="1")
    following = next(link["url"] for link in first["link"] if link["relation"] == "next")
    page = parse_qs(urlsplit(following).query)["_page"][0]
    assert len((await scene.get(path, scene.owner, _page=page))["entry"]) == 1
    theirs = await scene.get(path, scene.stranger, _page=page)
    assert [entry["resource"]["id"] for entry in theirs.get("entry", [])] in ([], [scene.stranger.subscription_id])
    async with scene.session.delete(f"{path}/{made_id}", headers=key_of(scene.owner)) as gone:
        assert gone.status == 204


async def test_an_id_of_another_customer_gets_no_token(scene: Scene) -> None:
    refused = set()
    for client_id in (scene.owner.account_id, altered(scene.owner.account_id), ""):
        form = {
            "grant_type": "client_credentials",
            "client_id": client_id,
            "client_secret": scene.stranger.api_key,
        }
        async with scene.session.post("/oauth/token", data=form) as answer:
            refused.add((answer.status, await answer.text()))
    assert len(refused) == 1, refused
    assert {status for status, _ in refused} == {401}


ASKS_OF_FHIR = [ask for ask in ASKS if ask.path.startswith("/oauth/fhir/") and ask.method != "DELETE"]


@pytest.mark.parametrize("ask", ASKS_OF_FHIR, ids=str)
async def test_an_access_token_reaches_the_own_alone(scene: Scene, ask: Ask) -> None:
    form = {
        "grant_type": "client_credentials",
        "client_id": scene.stranger.account_id,
        "client_secret": scene.stranger.api_key,
    }
    async with scene.session.post("/oauth/token", data=form) as granted:
        headers = {"authorization": f"Bearer {(await granted.json())['access_token']}"}
    own = {name: ids_of(scene.stranger)[name] for name in ask.own}
    theirs, absent = {**ids_of(scene.owner), **own}, {**absent_ids(scene.owner), **own}
    answer = without(await scene.send(ask, theirs, headers), theirs)
    assert answer.status in ask.expected
    assert answer == without(await scene.send(ask, absent, headers), absent)
    assert (await scene.send(ask, ids_of(scene.stranger), headers)).status == 200


async def fetch(scene: Scene, method: str, path: str, parameters: Mapping[str, str]) -> tuple[int, str]:
    """Status and text of a download."""
    async with scene.session.request(method, path, params=parameters) as answer:
        return answer.status, await answer.text(errors="replace")
