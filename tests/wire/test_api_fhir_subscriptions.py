"""Subscriptions over HTTP without an engine: what is taken and refused, versions, searches, scopes."""

from collections.abc import AsyncIterator, Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import httpx
import pytest
from fhir.resources.R4B.bundle import Bundle
from fhir.resources.R4B.capabilitystatement import CapabilityStatement
from fhir.resources.R4B.subscription import Subscription
from structlog.testing import capture_logs
from tests.support.client import http_client
from tests.support.server import Installation, running_installation

SUBSCRIPTION = "/oauth/fhir/Subscription"
EXTENSION = "http://hl7.org/fhir/uv/subscriptions-backport/StructureDefinition"
URL = "https://app.example/hook"
PATIENT = "0199c0de-1111-7c55-8a51-5f0c8d1e2f3a"


@pytest.fixture
async def installation(tmp_path: Path) -> AsyncIterator[Installation]:
    async with running_installation(tmp_path) as installation:
        yield installation


@pytest.fixture
async def key(installation: Installation) -> str:
    return await installation.create_account()


@pytest.fixture
async def client(installation: Installation, key: str) -> AsyncIterator[httpx.AsyncClient]:
    async with http_client(base_url=installation.base_url, headers={"x-api-key": key}) as client:
        yield client


@pytest.fixture
def body(installation: Installation) -> Any:
    """A Subscription that uses every element that is taken."""
    return {
        "resourceType": "Subscription",
        "status": "requested",
        "contact": [{"system": "email", "value": "ops@app.example"}],
        "end": "2999-01-02T03:04:05.678Z",
        "reason": "New documents",
        "criteria": f"{installation.base_url}/oauth/fhir/SubscriptionTopic/document-available",
        "_criteria": {
            "extension": [
                {
                    "url": f"{EXTENSION}/backport-filter-criteria",
                    "valueString": f"DocumentReference?patient=Patient/{PATIENT}&type=http://loinc.org|34133-9",
                }
            ]
        },
        "channel": {
            "extension": [
                {"url": f"{EXTENSION}/backport-heartbeat-period", "valueUnsignedInt": 600},
                {"url": f"{EXTENSION}/backport-timeout", "valueUnsignedInt": 20},
                {"url": f"{EXTENSION}/backport-max-count", "valuePositiveInt": 5},
            ],
            "type": "rest-hook",
            "endpoint": URL,
            "payload": "application/fhir+json",
            "_payload": {"extension": [{"url": f"{EXTENSION}/backport-payload-content", "valueCode": "id-only"}]},
            "header": ["authorization: Bearer its-secret"],
        },
    }


async def create(client: httpx.AsyncClient, body: Any, **changes: Any) -> Any:
    answer = await client.post(SUBSCRIPTION, json={**body, **changes})
    assert answer.status_code == 201, answer.text
    return answer.json()


async def test_everything_that_is_sent_is_kept_and_shown(client: httpx.AsyncClient, body: Any) -> None:
    made = await create(client, body)
    Subscription.model_validate(made)
    expected = deepcopy(body)
    expected["channel"]["header"] = ["authorization: ***"]
    assert {name: made[name] for name in expected} == expected
    assert made["meta"]["profile"] == [f"{EXTENSION}/backport-subscription"]
    assert (await client.get(f"{SUBSCRIPTION}/{made['id']}")).json() == made


async def test_a_longer_timeout_than_there_is_is_the_longest(client: httpx.AsyncClient, body: Any) -> None:
    body["channel"]["extension"][1]["valueUnsignedInt"] = 60
    assert (await create(client, body))["channel"]["extension"][1]["valueUnsignedInt"] == 30


def put(path: str, value: Any) -> Callable[[Any], None]:
    """Set what a path of names and numbers leads to."""

    def change(body: Any) -> None:
        *steps, last = path.split("/")
        for step in steps:
            body = body[int(step) if step.isdigit() else step]
        body[int(last) if last.isdigit() else last] = value

    return change


BAD = (
    (put("resourceType", "Patient"), 400, "resourceType"),
    (put("status", "waiting"), 400, "status"),
    (put("status", "error"), 422, "status"),
    (put("reason", ""), 400, "reason"),
    (put("end", "2999-01-02"), 400, "end"),
    (put("end", "2001-01-01T00:00:00Z"), 422, "end"),
    (put("criteria", "DocumentReference?status=current"), 422, "criteria"),
    (put("surprise", "secret"), 400, ""),
    (put("_criteria/extension/0/valueString", "Patient?_id=1"), 422, "criteria.extension"),
    (put("_criteria/extension/0/valueString", "DocumentReference?description=secret"), 422, "criteria.extension"),
    (put("_criteria/extension/0/valueString", "DocumentReference?status=secret"), 422, "criteria.extension"),
    (put("_criteria/extension/0/valueString", "DocumentReference?patient="), 422, "criteria.extension"),
    (put("_criteria/extension/0/url", "http://hl7.org/fhir/5.0/filterBy"), 422, "criteria.extension"),
    (put("channel/type", "websocket"), 422, "channel.type"),
    (put("channel/_type", {"extension": [{"url": f"{EXTENSION}/backport-channel-type"}]}), 422, "channel.type"),
    (put("channel/payload", "application/fhir+xml"), 422, "channel.payload"),
    (put("channel/_payload/extension/0/valueCode", "all"), 422, "channel.payload.extension"),
    (put("channel/_payload/extension", []), 400, "channel.payload.extension"),
    (put("channel/endpoint", "http://10.0.0.1/hook"), 422, "channel.endpoint"),
    (put("channel/endpoint", 7), 400, "channel.endpoint"),
    (put("channel/header/0", "no colon"), 422, "channel.header"),
    (put("channel/header/0", "host: secret.example"), 422, "channel.header"),
    (put("channel/header/0", "authorization: ***"), 422, "channel.header"),
    (put("channel/extension/0/valueUnsignedInt", 9), 422, "channel.extension"),
    (put("channel/extension/0/valueUnsignedInt", -1), 400, "channel.extension.valueUnsignedInt"),
    (put("channel/extension/2/url", f"{EXTENSION}/backport-timeout"), 422, "channel.extension"),
)


@pytest.mark.parametrize(("change", "status", "element"), BAD, ids=range(len(BAD)))
async def test_what_is_not_taken_is_named_and_changes_nothing(
    client: httpx.AsyncClient, body: Any, change: Callable[[Any], None], status: int, element: str
) -> None:
    change(body)
    answer = await client.post(SUBSCRIPTION, json=body)
    assert answer.status_code == status, answer.text
    (issue,) = answer.json()["issue"]
    (expression,) = issue["expression"]
    assert expression.partition("(")[0] == ".".join(filter(None, ("Subscription", element))), answer.text
    assert "secret" not in answer.text
    assert (await client.get(SUBSCRIPTION)).json()["total"] == 0
    assert len((await client.get("/v1/webhooks/endpoints")).json()["endpoints"]) == 1


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"7", b'"x"', b"<Subscription/>"])
async def test_what_is_no_resource_is_refused(client: httpx.AsyncClient, content: bytes) -> None:
    for method, path in (("POST", SUBSCRIPTION), ("PUT", f"{SUBSCRIPTION}/1")):
        answer = await client.request(method, path, content=content, headers={"content-type": "application/fhir+json"})
        assert (answer.status_code, answer.json()["resourceType"]) == (400, "OperationOutcome")


async def test_a_change_is_for_the_version_it_names(client: httpx.AsyncClient, body: Any) -> None:
    made = await create(client, body)
    path = f"{SUBSCRIPTION}/{made['id']}"
    assert (await client.get(path)).headers["etag"] == 'W/"1"'
    changed = {**made, "reason": "Other reasons"}
    answer = await client.put(path, json=changed, headers={"if-match": 'W/"1"'})
    assert (answer.status_code, answer.headers["etag"]) == (200, 'W/"2"')
    assert (answer.json()["reason"], answer.json()["meta"]["versionId"]) == ("Other reasons", "2")
    stale = await client.put(path, json=made, headers={"if-match": 'W/"1"'})
    assert (stale.status_code, stale.json()["issue"][0]["code"]) == (412, "conflict")
    assert (await client.get(path)).json() == answer.json()
    elsewhere = await client.put(f"{SUBSCRIPTION}/nobody", json={**made, "id": "nobody"})
    assert elsewhere.status_code == 404
    assert (await client.put(path, json={**made, "id": "other"})).status_code == 400


async def test_a_search_chooses_and_goes_on_page_by_page(client: httpx.AsyncClient, body: Any) -> None:
    made = [await create(client, body, status=status) for status in ("off", "requested", "off")]
    body["channel"]["endpoint"] = "https://other.example/a,b"
    made.append(await create(client, body))
    ids = [each["id"] for each in made]

    async def found(**parameters: str) -> list[int]:
        answer = await client.get(SUBSCRIPTION, params=parameters)
        Bundle.model_validate_json(answer.content)
        return [ids.index(entry["resource"]["id"]) for entry in answer.json().get("entry", [])]

    assert await found() == [0, 1, 2, 3]
    assert await found(status="off") == [0, 2]
    assert await found(status="off,requested", url=URL) == [0, 1, 2]
    assert await found(url="https://other.example/a,b") == [3]
    assert await found(criteria=body["criteria"]) == [0, 1, 2, 3]
    assert await found(criteria="http://example.org/other") == []
    assert await found(_id=f"{ids[1]},nobody") == [1]
    assert await found(_count="0") == []
    page = (await client.get(SUBSCRIPTION, params={"status": "off", "_count": "1"})).json()
    assert page["total"] == 2
    following = next(link["url"] for link in page["link"] if link["relation"] == "next")
    rest = (await client.get(following)).json()
    assert [entry["resource"]["id"] for entry in rest["entry"]] == [ids[2]]
    assert [link["relation"] for link in rest["link"]] == ["self"]


async def test_a_token_may_do_what_its_scopes_say(installation: Installation, key: str, body: Any) -> None:
    account_id, _ = await installation.parts[0].registry.authenticate(key) or ("", "")

    async def ask(scope: str, content: str) -> int:
        form = {"grant_type": "client_credentials", "client_id": account_id, "client_secret": key, "scope": scope}
        async with http_client(base_url=installation.base_url) as client:
            token = (await client.post("/oauth/token", data=form)).json()["access_token"]
            body["channel"]["_payload"]["extension"][0]["valueCode"] = content
            headers = {"authorization": f"Bearer {token}"}
            return (await client.post(SUBSCRIPTION, json=body, headers=headers)).status_code

    manage, read = "system/Subscription.cruds", "system/DocumentReference.rs"
    assert await ask(f"{manage} {read}", "full-resource") == 201
    assert await ask(manage, "empty") == 201
    assert await ask(manage, "id-only") == 403
    assert await ask(f"{read} fhir/document", "empty") == 403


async def test_its_endpoint_is_seen_and_changed_only_where_fhir_has_no_word_for_it(
    client: httpx.AsyncClient, body: Any
) -> None:
    made = await create(client, body)
    path = f"/v1/webhooks/endpoints/{made['id']}"
    endpoint = (await client.get(path)).json()
    assert (endpoint["url"], endpoint["payloadVersion"], endpoint["headerNames"]) == (URL, "fhir-r4", ["authorization"])
    assert (await client.patch(path, json={"maxInFlight": 1, "retrySeconds": [1, 2]})).json()["maxInFlight"] == 1
    rotated = await client.post(f"{path}/keys/rotate")
    assert len(rotated.json()["keys"]) == 2
    for refused in (
        await client.patch(path, json={"url": "https://other.example/"}),
        await client.patch(path, json={"maxInFlight": 2, "eventTypes": ["ping"]}),
        await client.post(f"{path}/ping"),
        await client.post(f"{path}/test", json={"type": "ping"}),
        await client.post(f"{path}/disable"),
        await client.post(f"{path}/enable"),
        await client.delete(path),
    ):
        assert refused.status_code == 409
    for bad in ({"payloadVersion": "fhir-r4"}, {"eventTypes": ["subscription.handshake"]}):
        assert (await client.post("/v1/webhooks/endpoints", json={"url": URL, **bad})).status_code == 400
    assert (await client.get(path)).json()["maxInFlight"] == 1


async def test_what_it_can_do_is_in_the_capability_statement(client: httpx.AsyncClient, body: Any) -> None:
    answer = await client.get("/oauth/fhir/metadata")
    CapabilityStatement.model_validate_json(answer.content)
    statement = answer.json()
    assert statement["instantiates"] == [
        f"{EXTENSION.rpartition('/')[0]}/CapabilityStatement/backport-subscription-server-r4"
    ]
    (described,) = [each for each in statement["rest"][0]["resource"] if each["type"] == "Subscription"]
    assert described["extension"][0]["valueCanonical"] == body["criteria"]
    assert [each["name"] for each in described["operation"]] == ["status", "events"]


async def test_nothing_of_it_is_logged(client: httpx.AsyncClient, body: Any) -> None:
    with capture_logs() as logs:
        made = await create(client, body)
        await client.get(f"{SUBSCRIPTION}/{made['id']}/$events")
        await client.post(SUBSCRIPTION, json={**body, "criteria": PATIENT})
    told = str(logs)
    assert not [each for each in (PATIENT, URL, "its-secret", made["id"]) if each in told]
