"""Endpoints beside that of `/settings`: made, limited, tested, disabled, deleted."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, get_args

import httpx
import orjson
import pytest
from jsonschema import Draft202012Validator
from sqlalchemy import text
from tests.support.client import http_client
from tests.support.server import Installation, running_installation

from chartwire.model.message import load_schema
from chartwire.model.webhook import EventType, MessageType, MessageVersion, PayloadVersion
from chartwire.store.vault import Purpose, Vault

ENDPOINTS = "/v1/webhooks/endpoints"
URL = "https://receiver.example/hook"
LIMITS: dict[str, Any] = {
    "payloadVersion": "2025-10",
    "eventTypes": ["medical.document-download"],
    "retrySeconds": [1, 60.5],
    "maxInFlight": 3,
    "ratePerSecond": 7,
    "description": "the ward",
}


@pytest.fixture
async def installation(tmp_path: Path) -> AsyncIterator[Installation]:
    async with running_installation(tmp_path) as installation:
        yield installation


@pytest.fixture
async def client(installation: Installation) -> AsyncIterator[httpx.AsyncClient]:
    key = await installation.create_account()
    async with http_client(base_url=installation.base_url, headers={"x-api-key": key}) as client:
        yield client


async def create(client: httpx.AsyncClient, **body: Any) -> Any:
    answer = await client.post(ENDPOINTS, json={"url": URL, **body})
    assert answer.status_code == 201, answer.text
    return answer.json()


async def rows(installation: Installation, sql: str, **values: str) -> list[Any]:
    return await installation.database.read(
        lambda connection: [tuple(row) for row in connection.execute(text(sql), values)]
    )


async def test_a_new_endpoint_has_a_key_of_its_own_its_limits_and_a_ping(
    installation: Installation, client: httpx.AsyncClient
) -> None:
    endpoint = await create(client, **LIMITS)
    assert {key: endpoint[key] for key in LIMITS} == LIMITS
    assert (endpoint["url"], endpoint["state"], endpoint["isSettings"]) == (URL, "enabled", False)
    assert (await client.get(f"{ENDPOINTS}/{endpoint['id']}")).json() == endpoint
    assert len((await client.get(f"{ENDPOINTS}/{endpoint['id']}/keys")).json()["keys"]) == 1
    assert await rows(installation, "SELECT type FROM event") == [("ping",)]
    assert len((await client.get(ENDPOINTS)).json()["endpoints"]) == 2
    assert (await client.get("/settings")).json()["webhookUrl"] is None


async def test_limits_go_back_to_the_defaults_with_null(client: httpx.AsyncClient) -> None:
    endpoint = await create(client, **LIMITS)
    nulls = {"retrySeconds": None, "maxInFlight": None, "ratePerSecond": None}
    changed = (await client.patch(f"{ENDPOINTS}/{endpoint['id']}", json=nulls)).json()
    assert changed == {key: value for key, value in endpoint.items() if key not in nulls}


@pytest.mark.parametrize(
    "body",
    [
        {"url": None},
        {"url": ""},
        {"url": "https://10.0.0.1/"},
        {"eventTypes": []},
        {"eventTypes": ["ping"] * 21},
        {"retrySeconds": [0]},
        {"retrySeconds": [1] * 31},
        {"maxInFlight": 0},
        {"ratePerSecond": 0},
        {"ratePerSecond": 1001},
        {"headers": {"Host": "other.example"}},
        {"headers": {"content-type": "text/plain"}},
        {"headers": {"Webhook-Signature": "v1,x"}},
        {"headers": {"X-Metriport-Signature": "0"}},
        {"headers": {"x-webhook-key": "0"}},
        {"headers": {"Transfer-Encoding": "chunked"}},
        {"headers": {"connection": "close"}},
        {"headers": {"x-a": "1\r\nx-b: 2"}},
        {"headers": {"x-a": "caf\u00e9"}},
        {"headers": {"x-a": ""}},
        {"headers": {"x a": "1"}},
        {"headers": {"X-A": "1", "x-a": "2"}},
        {"headers": {f"x-{number}": "1" for number in range(21)}},
    ],
)
async def test_what_may_not_be_set_is_refused_and_nothing_is_made(client: httpx.AsyncClient, body: Any) -> None:
    answer = await client.post(ENDPOINTS, json={"url": URL, **body})
    assert answer.status_code == 400
    assert len((await client.get(ENDPOINTS)).json()["endpoints"]) == 1


async def test_values_of_headers_are_sealed_and_not_shown(
    installation: Installation, client: httpx.AsyncClient
) -> None:
    endpoint = await create(client, headers={"Authorization": "Bearer hush", "x-tenant": "7"})
    assert endpoint["headerNames"] == ["authorization", "x-tenant"]
    ((kept,),) = await rows(installation, "SELECT headers FROM endpoint WHERE id = :id", id=endpoint["id"])
    assert "hush" not in kept
    cleared = (await client.patch(f"{ENDPOINTS}/{endpoint['id']}", json={"headers": None})).json()
    assert "headerNames" not in cleared


async def test_disabling_and_enabling_are_told_and_can_be_repeated(client: httpx.AsyncClient) -> None:
    path = f"{ENDPOINTS}/{(await create(client))['id']}"
    for action in ("disable", "disable", "enable", "enable"):
        answer = await client.post(f"{path}/{action}")
        assert (answer.status_code, answer.json()["state"]) == (200, f"{action}d")


async def test_an_endpoint_without_a_url_cannot_be_enabled(client: httpx.AsyncClient) -> None:
    (endpoint,) = (await client.get(ENDPOINTS)).json()["endpoints"]
    assert (await client.post(f"{ENDPOINTS}/{endpoint['id']}/enable")).status_code == 409
    assert (await client.delete(f"{ENDPOINTS}/{endpoint['id']}")).status_code == 409


async def test_a_deleted_endpoint_is_gone_with_its_secrets_and_its_history_stays(
    installation: Installation, client: httpx.AsyncClient
) -> None:
    endpoint = await create(client, headers={"authorization": "Bearer hush"})
    path = f"{ENDPOINTS}/{endpoint['id']}"
    assert (await client.delete(path)).status_code == 204
    for answer in (
        await client.get(path),
        await client.delete(path),
        await client.post(f"{path}/enable"),
        await client.post(f"{path}/ping"),
        await client.get(f"{path}/keys"),
    ):
        assert answer.status_code == 404
    assert len((await client.get(ENDPOINTS)).json()["endpoints"]) == 1
    assert await rows(installation, "SELECT count(*) FROM signing_key") == [(0,)]
    assert await rows(installation, "SELECT state FROM delivery") == [("dropped",)]
    assert await rows(installation, "SELECT headers, url FROM endpoint WHERE id = :id", id=endpoint["id"]) == [
        (None, None)
    ]


@pytest.mark.parametrize("version", get_args(MessageVersion))
@pytest.mark.parametrize("event_type", get_args(MessageType))
async def test_a_sample_of_every_type_is_sent_as_its_schema_says(
    installation: Installation, client: httpx.AsyncClient, version: PayloadVersion, event_type: EventType
) -> None:
    endpoint = await create(client, payloadVersion=version, eventTypes=["medical.document-download"])
    answer = await client.post(f"{ENDPOINTS}/{endpoint['id']}/test", json={"type": event_type})
    assert answer.status_code == 202
    message_id = answer.json()["messageId"]
    ((sealed,),) = await rows(installation, "SELECT body FROM event WHERE id = :id", id=message_id)
    message = orjson.loads(Vault(bytes(32)).open(Purpose.PAYLOAD, sealed))
    Draft202012Validator(load_schema(version, event_type)).validate(message)
    assert message["meta"]["messageId"] == message_id
    sent = "SELECT state FROM delivery JOIN event ON event.seq = event_seq WHERE event.id = :id"
    assert await rows(installation, sent, id=message_id) == [("waiting",)]


async def test_the_trace_of_a_request_is_kept_with_the_message(
    installation: Installation, client: httpx.AsyncClient
) -> None:
    path = f"{ENDPOINTS}/{(await create(client))['id']}/test"
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    for header in (trace, "nonsense"):
        answer = await client.post(path, json={"type": "ping"}, headers={"traceparent": header})
        assert answer.status_code == 202
    assert await rows(installation, "SELECT trace FROM event ORDER BY seq") == [(None,), (trace,), (None,)]


async def test_a_sample_needs_an_enabled_endpoint_and_a_known_type(client: httpx.AsyncClient) -> None:
    path = f"{ENDPOINTS}/{(await create(client))['id']}"
    refused = await client.post(f"{path}/test", json={"type": "tea"})
    assert refused.status_code == 400
    assert refused.json()["detail"].startswith("Input should be 'ping', 'medical.document-download', 'medical.")
    await client.post(f"{path}/disable")
    assert (await client.post(f"{path}/test", json={"type": "ping"})).status_code == 409
