"""`/settings` as existing clients use it, and `/v1/webhooks`."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, get_args

import httpx
import pytest
from tests.support.client import http_client
from tests.support.server import Installation, running_installation

from chartwire.api.webhooks import FilterKey

URL = "https://receiver.example/hook"
ENDPOINTS = "/v1/webhooks/endpoints"


@pytest.fixture
async def installation(tmp_path: Path) -> AsyncIterator[Installation]:
    async with running_installation(tmp_path) as installation:
        yield installation


@pytest.fixture
async def client(installation: Installation) -> AsyncIterator[httpx.AsyncClient]:
    async with a_client(installation, await installation.create_account()) as client:
        yield client


@pytest.fixture
async def stranger(installation: Installation) -> AsyncIterator[httpx.AsyncClient]:
    async with a_client(installation, await installation.create_account("Other")) as client:
        yield client


def a_client(installation: Installation, key: str) -> httpx.AsyncClient:
    return http_client(base_url=installation.base_url, headers={"x-api-key": key})


async def save(client: httpx.AsyncClient, body: Any) -> Any:
    answer = await client.post("/settings", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def endpoint_of(client: httpx.AsyncClient) -> Any:
    (endpoint,) = (await client.get(ENDPOINTS)).json()["endpoints"]
    return endpoint


async def sent_events(installation: Installation) -> list[str]:
    return await installation.database.read(
        lambda connection: [row.type for row in connection.exec_driver_sql("SELECT type FROM event ORDER BY seq")]
    )


# --- /settings --------------------------------------------------------------------------------------------------------


async def test_new_settings_have_nulls(client: httpx.AsyncClient) -> None:
    settings = (await client.get("/settings")).json()
    assert set(settings) == {"id", "webhookUrl", "webhookKey"}
    assert (settings["webhookUrl"], settings["webhookKey"]) == (None, None)


async def test_every_account_has_the_medical_api(client: httpx.AsyncClient) -> None:
    assert (await client.get("/settings/mapi-access")).json() == {"hasMapiAccess": True}
    assert (await client.get("/settings/mapi-access", headers={"x-api-key": "wrong"})).status_code == 403


async def test_the_key_is_made_with_the_first_url_kept_with_the_next_and_dropped_with_the_last(
    client: httpx.AsyncClient,
) -> None:
    first = await save(client, {"webhookUrl": URL})
    assert len(first["webhookKey"]) == 32
    second = await save(client, {"webhookUrl": f"{URL}/2"})
    assert (second["webhookUrl"], second["webhookKey"]) == (f"{URL}/2", first["webhookKey"])
    assert (await client.get("/settings")).json() == second
    for nothing in ("", None):
        cleared = await save(client, {"webhookUrl": nothing})
        assert (cleared["webhookUrl"], cleared["webhookKey"]) == (None, None)
    assert (await save(client, {"webhookUrl": URL}))["webhookKey"] != first["webhookKey"]


@pytest.mark.parametrize("body", [{}, None])
async def test_what_is_not_given_is_not_changed_and_not_pinged(
    installation: Installation, client: httpx.AsyncClient, body: Any
) -> None:
    saved = await save(client, {"webhookUrl": URL})
    assert await save(client, body) == saved
    assert await sent_events(installation) == ["ping"]


async def test_every_save_of_a_url_pings_it(installation: Installation, client: httpx.AsyncClient) -> None:
    for _ in range(2):
        await save(client, {"webhookUrl": URL})
    await save(client, {"webhookUrl": ""})
    assert await sent_events(installation) == ["ping", "ping"]


@pytest.mark.parametrize(
    "url",
    [
        "receiver.example",
        "ftp://receiver.example/",
        "http://receiver.example/",
        "https://user:secret@receiver.example/",
        "https://127.0.0.1/",
        "https://localhost/",
        "https://2130706433/",
        "https://[::ffff:10.0.0.1]/",
        "https://169.254.169.254/latest/meta-data",
        "https://receiver.example/" + "x" * 2048,
    ],
)
async def test_a_url_that_may_not_be_used_is_refused(client: httpx.AsyncClient, url: str) -> None:
    answer = await client.post("/settings", json={"webhookUrl": url})
    assert answer.status_code == 400
    assert "secret" not in answer.text
    assert (await client.get("/settings")).json()["webhookUrl"] is None
    endpoint = await endpoint_of(client)
    assert (await client.patch(f"{ENDPOINTS}/{endpoint['id']}", json={"url": url})).status_code == 400


async def test_an_unknown_key_is_refused(client: httpx.AsyncClient) -> None:
    answer = await client.post("/settings", json={"webhookUrl": URL, "webhookKey": "mine"})
    assert answer.status_code == 400
    assert (await client.get("/settings")).json()["webhookUrl"] is None


async def test_medical_record_filters_come_back_as_they_were_given(client: httpx.AsyncClient) -> None:
    filters: list[Any] = [{"key": key} for key in get_args(FilterKey)]
    filters[0] |= {"dateFilter": {"from": "2024-01-01"}, "stringFilter": "lab"}
    assert (await save(client, {"mrFilters": filters}))["mrFilters"] == filters
    assert (await save(client, {"webhookUrl": URL}))["mrFilters"] == filters
    for wrong in (filters[:15], [*filters[:15], {"key": "tea-leaves"}]):
        assert (await client.post("/settings", json={"mrFilters": wrong})).status_code == 400
    assert "mrFilters" not in await save(client, {"mrFilters": None})


async def test_the_status_before_anything_was_sent(client: httpx.AsyncClient) -> None:
    assert (await client.get("/settings/webhook")).json() == {
        "webhookEnabled": False,
        "webhookStatusDetail": None,
        "webhookRequestsProcessing": 0,
        "webhookRequestsFailed": 0,
    }


async def test_retry_takes_an_empty_form_and_answers_ok(client: httpx.AsyncClient) -> None:
    headers = {"content-type": "application/x-www-form-urlencoded"}
    answer = await client.post("/settings/webhook/retry", headers=headers)
    assert (answer.status_code, answer.text) == (200, "OK")
    assert answer.headers["content-type"].startswith("text/plain")


# --- /v1/webhooks -----------------------------------------------------------------------------------------------------


async def test_the_endpoint_of_the_settings_is_listed_with_its_defaults(client: httpx.AsyncClient) -> None:
    await save(client, {"webhookUrl": URL})
    endpoint = await endpoint_of(client)
    assert endpoint.pop("createdAt").endswith("Z")
    assert endpoint == {
        "id": endpoint["id"],
        "url": URL,
        "state": "enabled",
        "verified": False,
        "payloadVersion": "2023-04",
        "delivery": "as-available",
        "signatureScheme": "v1",
        "sendWebhookKey": True,
        "isSettings": True,
    }


async def test_a_patch_changes_what_it_names_and_null_is_the_default(client: httpx.AsyncClient) -> None:
    path = f"{ENDPOINTS}/{(await endpoint_of(client))['id']}"
    before = (await client.get(path)).json()
    changes = {
        "payloadVersion": "2025-10",
        "delivery": "on-completion",
        "sendWebhookKey": False,
        "signatureScheme": "v1a",
        "timeoutSeconds": 30,
        "description": "the ward",
        "eventTypes": ["medical.document-download", "webhook.endpoint-disabled"],
    }
    assert (await client.patch(path, json=changes)).json() == {**before, **changes}
    nulls = {"timeoutSeconds": None, "description": None, "eventTypes": None}
    after = (await client.patch(path, json=nulls)).json()
    assert after == {**before, **{key: value for key, value in changes.items() if key not in nulls}}


@pytest.mark.parametrize(
    "changes",
    [
        {"timeoutSeconds": 0},
        {"timeoutSeconds": 31},
        {"payloadVersion": "2024-01"},
        {"payloadVersion": None},
        {"delivery": "sometimes"},
        {"eventTypes": ["nonsense"]},
        {"eventTypes": []},
        {"id": "mine"},
    ],
)
async def test_a_patch_that_makes_no_sense_is_refused(client: httpx.AsyncClient, changes: Any) -> None:
    path = f"{ENDPOINTS}/{(await endpoint_of(client))['id']}"
    before = (await client.get(path)).json()
    assert (await client.patch(path, json=changes)).status_code == 400
    assert (await client.get(path)).json() == before


async def test_a_url_set_by_patch_is_the_one_of_the_settings(
    installation: Installation, client: httpx.AsyncClient
) -> None:
    path = f"{ENDPOINTS}/{(await endpoint_of(client))['id']}"
    assert (await client.patch(path, json={"url": URL})).json()["url"] == URL
    settings = (await client.get("/settings")).json()
    assert settings["webhookUrl"] == URL
    assert settings["webhookKey"]
    assert await sent_events(installation) == ["ping"]
    await client.patch(path, json={"url": None})
    assert (await client.get("/settings")).json()["webhookKey"] is None


async def test_keys_rotate_with_an_overlap(installation: Installation, client: httpx.AsyncClient) -> None:
    old = (await save(client, {"webhookUrl": URL}))["webhookKey"]
    path = f"{ENDPOINTS}/{(await endpoint_of(client))['id']}/keys"
    (key,) = (await client.get(path)).json()["keys"]
    assert key["webhookKey"] == old
    assert key["secret"].startswith("whsec_")
    assert key["publicKey"].startswith("whpk_")
    new, kept = (await client.post(f"{path}/rotate", json={"overlapHours": 1})).json()["keys"]
    assert kept["webhookKey"] == old
    assert "expiresAt" in kept
    assert "expiresAt" not in new
    assert (await client.get("/settings")).json()["webhookKey"] == new["webhookKey"]
    installation.clock.advance(hours=1)
    assert (await client.get(path)).json()["keys"] == [new]
    assert len((await client.post(f"{path}/rotate", json={"overlapHours": 0})).json()["keys"]) == 1
    assert len((await client.post(f"{path}/rotate")).json()["keys"]) == 2  # a day by default


@pytest.mark.parametrize("action", ["keys/rotate", "ping"])
async def test_without_a_url_there_is_nothing_to_rotate_or_to_ping(client: httpx.AsyncClient, action: str) -> None:
    path = f"{ENDPOINTS}/{(await endpoint_of(client))['id']}"
    assert (await client.get(f"{path}/keys")).json() == {"keys": []}
    assert (await client.post(f"{path}/{action}")).status_code == 409


async def test_a_ping_can_be_asked_for(installation: Installation, client: httpx.AsyncClient) -> None:
    await save(client, {"webhookUrl": URL})
    answer = await client.post(f"{ENDPOINTS}/{(await endpoint_of(client))['id']}/ping")
    assert answer.status_code == 202
    assert answer.json()["messageId"]
    assert await sent_events(installation) == ["ping", "ping"]


async def test_a_payload_can_be_expunged_by_its_owner_alone(
    client: httpx.AsyncClient, stranger: httpx.AsyncClient
) -> None:
    await save(client, {"webhookUrl": URL})
    message_id = (await client.post(f"{ENDPOINTS}/{(await endpoint_of(client))['id']}/ping")).json()["messageId"]
    path = f"/v1/webhooks/events/{message_id}/payload"
    assert (await stranger.delete(path)).status_code == 404
    assert (await client.delete(path)).status_code == 204
    assert (await client.delete("/v1/webhooks/events/unknown/payload")).status_code == 404


async def test_another_accounts_endpoint_is_as_absent_as_one_that_is_not(
    client: httpx.AsyncClient, stranger: httpx.AsyncClient
) -> None:
    await save(client, {"webhookUrl": URL})
    path = f"{ENDPOINTS}/{(await endpoint_of(client))['id']}"
    actions = {"": ("GET", "PATCH"), "/keys": ("GET",), "/keys/rotate": ("POST",), "/ping": ("POST",)}
    for method, url in [(method, path + action) for action, methods in actions.items() for method in methods]:
        body = {"description": "mine"} if method == "PATCH" else None
        foreign = await stranger.request(method, url, json=body)
        absent = await stranger.request(method, url.replace(path, f"{ENDPOINTS}/unknown"), json=body)
        assert foreign.status_code == absent.status_code == 404
        assert foreign.json() == absent.json()


async def test_who_changes_where_messages_go_is_in_the_audit_trail(
    installation: Installation, client: httpx.AsyncClient
) -> None:
    await save(client, {"webhookUrl": URL})
    endpoint = await endpoint_of(client)
    await client.patch(f"{ENDPOINTS}/{endpoint['id']}", json={"url": f"{URL}/2"})
    rows = await installation.database.read(
        lambda connection: connection.exec_driver_sql("SELECT actor, action, subject FROM audit ORDER BY seq").all()
    )
    assert [tuple(row)[1:] for row in rows] == [
        ("settings.change", endpoint["id"]),
        ("endpoint.change", endpoint["id"]),
    ]
    assert {row.actor.partition(":")[0] for row in rows} == {"key"}
