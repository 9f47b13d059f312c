"""The npm client, unchanged, with the whole server: documents are asked for, messages come, and it accepts them all."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from tests.support.customer import DOCUMENTS_EACH, JANE, SANDBOX, patient_of
from tests.support.engine import Engine, announced, closed, running_engine
from tests.support.node_clients import NodeClient, NodeError, node_client
from tests.support.people import facility_body
from tests.support.process import ChartwireProcess
from tests.support.receiver import Received, Receiver
from tests.support.scripted_network import ScriptedNetwork

from chartwire.errors import IssueCode, PermanentNetworkError
from chartwire.model.webhook import DeliveryMode, PayloadVersion

pytestmark = [pytest.mark.embedded, pytest.mark.asyncio(loop_scope="module")]

POLL_SECONDS = 0.02
METADATA = {"order": "17", "who": 'Zoë \u2028 "O\'Neill" 🩺 </script>', "2": "two", "1": "one"}
"""What tells `JSON.stringify` from other writers: its order of keys, and what it does not escape."""


@dataclass(frozen=True)
class App:
    """A customer's app, written with the npm client."""

    server: ChartwireProcess
    session: aiohttp.ClientSession
    client: NodeClient
    receiver: Receiver
    facility_id: str

    async def call(self, method: str, *args: Any) -> Any:
        """A call of the client."""
        return await self.client.call(method, *args)

    async def add_jane(self) -> str:
        """The id of a patient whom the sandbox knows."""
        patient = await self.call("createPatient", {**patient_of(JANE), "externalId": "jane-1"}, self.facility_id)
        return str(patient["id"])

    async def query(self, patient_id: str, metadata: dict[str, str] | None = None) -> str:
        """Start a document query and wait until all of it was told and answered; returns its request id."""
        given = () if metadata is None else (metadata,)
        progress = await self.call("startDocumentQuery", patient_id, self.facility_id, *given)
        request_id = str(progress["requestId"])
        await self.receiver.wait_for(lambda it: request_id in closed(self.downloads))
        await self.wait_for(nothing_waits, "getWebhookStatus")  # messages overtake each other
        return request_id

    async def wait_for(self, holds: Callable[[Any], bool], method: str, *args: Any) -> Any:
        """Ask until the answer is so, as an app that polls."""
        async with asyncio.timeout(60):
            answer = await self.call(method, *args)
            while not holds(answer):
                await asyncio.sleep(POLL_SECONDS)
                answer = await self.call(method, *args)
        return answer

    @property
    def downloads(self) -> list[Received]:
        """The messages that documents are here."""
        return [each for each in self.receiver.messages if each.json["meta"]["type"] == "medical.document-download"]

    @property
    def links(self) -> list[Received]:
        """The messages with links."""
        return [each for each in self.receiver.messages if each.json["meta"]["type"].endswith("bulk-download-urls")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ChartwireProcess]:
    folder: Path = tmp_path_factory.mktemp("npm")
    async with ChartwireProcess(folder / "data", SANDBOX) as server:
        yield server


@pytest_asyncio.fixture(loop_scope="module")
async def app(server: ChartwireProcess) -> AsyncIterator[App]:
    async with started_app(server) as app:
        yield app


@pytest_asyncio.fixture(loop_scope="module")
async def client() -> AsyncIterator[NodeClient]:
    """The client in a receiver, which calls nothing."""
    async with node_client("none", "http://127.0.0.1") as client:
        yield client


@asynccontextmanager
async def started_app(server: ChartwireProcess) -> AsyncIterator[App]:
    """An app of a new customer, with a receiver that is not saved yet."""
    _, api_key = await server.create_account("Clinic")
    async with (
        Receiver() as receiver,
        aiohttp.ClientSession(base_url=server.base_url, headers={"x-api-key": api_key}) as session,
        node_client(api_key, server.base_url) as client,
    ):
        facility = await client.call("createFacility", facility_body())
        yield App(server, session, client, receiver, facility["id"])


async def choose(app: App, version: str) -> None:
    """Set the payload version of the app's endpoint."""
    async with app.session.get("/v1/webhooks/endpoints") as answer:
        [endpoint] = (await answer.json())["endpoints"]
    path = f"/v1/webhooks/endpoints/{endpoint['id']}"
    async with app.session.patch(path, json={"payloadVersion": version}) as changed:
        assert (await changed.json())["payloadVersion"] == version


async def check_signatures(client: NodeClient, key: str, requests: list[Received]) -> None:
    """The client verifies each request as it came, and as its first versions did: parsed and written again."""
    assert requests
    for request in requests:
        body, signature = request.body.decode(), request.headers["x-metriport-signature"]
        assert await client.call("verifyWebhookSignature", key, body, signature)
        assert await client.call("reserialise", body) == body
        assert not await client.call("verifyWebhookSignature", key, body + " ", signature)
        request.verify(key)


async def test_settings_are_saved_cleared_and_saved_again(app: App) -> None:
    empty = await app.call("getSettings")
    assert empty["id"]
    assert (empty["webhookUrl"], empty["webhookKey"]) == (None, None)
    saved = await app.call("updateSettings", app.receiver.url)
    assert saved["webhookUrl"] == app.receiver.url
    await app.receiver.wait_for(lambda it: bool(it.pings))
    again = await app.call("updateSettings", app.receiver.url)
    assert again["webhookKey"] == saved["webhookKey"]
    cleared = await app.call("updateSettings", "")
    assert (cleared["webhookUrl"], cleared["webhookKey"]) == (None, None)
    renewed = await app.call("updateSettings", app.receiver.url)
    assert renewed["webhookKey"] not in {None, saved["webhookKey"]}
    assert await app.call("getSettings") == renewed


async def test_what_failed_is_counted_and_retried(app: App) -> None:
    """Without a URL nothing can be told; once there is one, the client asks for everything again."""
    patient_id = await app.add_jane()
    await app.call("startDocumentQuery", patient_id, app.facility_id)
    await app.wait_for(has_ended, "getDocumentQueryStatus", patient_id)
    status = await app.call("getWebhookStatus")
    assert (status["webhookEnabled"], status["webhookRequestsProcessing"]) == (False, 0)
    assert status["webhookRequestsFailed"] >= len(("documents", "the end"))
    key = (await app.call("updateSettings", app.receiver.url))["webhookKey"]
    assert await app.call("retryWebhookRequests") is None
    # What is retried is no longer failed, before its answer is settled: settled is what no longer waits either.
    now = await app.wait_for(nothing_waits, "getWebhookStatus")
    assert (now["webhookEnabled"], now["webhookStatusDetail"], now["webhookRequestsFailed"]) == (True, "OK", 0)
    assert len(app.receiver.messages) == status["webhookRequestsFailed"]
    assert len(set(announced(app.downloads))) == DOCUMENTS_EACH
    await check_signatures(app.client, key, app.receiver.messages)


def has_ended(progress: Any) -> bool:
    """Whether a document query is over."""
    return bool(progress["download"]["status"] == "completed")


def nothing_waits(status: Any) -> bool:
    """Whether all that was to be told has been, and what was answered is written down."""
    return bool(status["webhookRequestsProcessing"] == 0)


@pytest.mark.parametrize("version", ["2023-04", "2025-10"])
async def test_documents_come_are_listed_and_fetched(app: App, version: str) -> None:
    key = (await app.call("updateSettings", app.receiver.url))["webhookKey"]
    await choose(app, version)
    patient_id = await app.add_jane()
    assert await app.call("getDocumentQueryStatus", patient_id) == {}
    request_id = await app.query(patient_id, METADATA)
    progress = await app.call("getDocumentQueryStatus", patient_id)
    assert progress["requestId"] == request_id
    assert (progress["download"]["total"], progress["download"]["successful"]) == (DOCUMENTS_EACH, DOCUMENTS_EACH)

    flat = await app.call("listDocumentsAsDTO", patient_id)
    fhir = (await app.call("listDocuments", patient_id, {"dateFrom": "1990-01-01"}))["documents"]
    assert sorted(announced(app.downloads)) == sorted(each["id"] for each in flat)
    assert [each["id"] for each in fhir] == [each["id"] for each in flat]
    assert {each["resourceType"] for each in fhir} == {"DocumentReference"}
    await check_downloads(app, flat)
    await check_bulk_links(app, patient_id, flat)

    for message in app.receiver.messages:
        assert message.json["meta"]["data"] == METADATA
        assert [patient["externalId"] for patient in message.json["patients"]] == ["jane-1"]
    assert len([message for message in app.downloads if not message.documents]) == 1
    await check_signatures(app.client, key, app.receiver.requests)
    if version == "2025-10":
        await check_parses(app.client, app.receiver.requests)


async def check_downloads(app: App, flat: list[Any]) -> None:
    """Each document is fetched by the link that the client gets for its name."""
    for document in flat:
        link = (await app.call("getDocumentUrl", document["fileName"]))["url"]
        async with aiohttp.request("GET", link) as answer:
            assert answer.content_type == document["mimeType"]
            assert len(await answer.read()) == document["size"]
    xml = next(each for each in flat if each["mimeType"] == "application/xml")
    for conversion, start in (("html", b"<!DOCTYPE html>"), ("pdf", b"%PDF-")):
        link = (await app.call("getDocumentUrl", xml["fileName"], conversion))["url"]
        async with aiohttp.request("GET", link) as answer:
            assert (await answer.read()).lower().startswith(start.lower())
    with pytest.raises(NodeError) as absent:
        await app.call("getDocumentUrl", "nothing.pdf")
    assert absent.value.status == 404


async def check_bulk_links(app: App, patient_id: str, flat: list[Any]) -> None:
    """The links to all current documents come in one message, and work."""
    current = [each["id"] for each in flat if each["status"] == "current"]
    started = await app.call("startBulkGetDocumentUrl", patient_id, METADATA)
    await app.receiver.wait_for(lambda _: bool(app.links))
    [message] = app.links
    assert started == {"status": "processing", "requestId": message.json["meta"]["requestId"]}
    assert sorted(each["id"] for each in message.documents) == sorted(current)
    for document in message.documents:
        async with aiohttp.request("GET", document["url"]) as answer:
            assert len(await answer.read()) == int(document["size"])


async def check_parses(client: NodeClient, requests: list[Received]) -> None:
    """The client's own parser takes each request."""
    assert requests
    for request in requests:
        parsed = await client.call("parseWebhookResponse", request.json, True)
        assert parsed["meta"]["messageId"] == request.message_id


async def test_a_patient_whom_nobody_knows_is_told_too(app: App) -> None:
    key = (await app.call("updateSettings", app.receiver.url))["webhookKey"]
    await choose(app, "2025-10")
    patient = await app.call("createPatient", {**patient_of(JANE), "firstName": "Nobody"}, app.facility_id)
    await app.query(patient["id"])
    [message] = app.downloads
    assert (message.documents, message.json["patients"][0]["status"]) == ([], "completed")
    await check_parses(app.client, app.receiver.requests)
    await check_signatures(app.client, key, app.receiver.requests)


@pytest.mark.parametrize("mode", DeliveryMode)
async def test_a_query_that_failed_is_parsed(client: NodeClient, tmp_path: Path, mode: DeliveryMode) -> None:
    network = ScriptedNetwork("mercy", failures={"": [PermanentNetworkError(IssueCode.FORBIDDEN)]})
    async with Receiver() as receiver, running_engine(tmp_path, [network], receiver) as engine:
        await _choose(engine, mode)
        await engine.wait_for_end(await engine.start_query(await engine.add_patient(), METADATA))
        [message] = receiver.messages
        assert (message.documents, message.json["patients"][0]["status"]) == ([], "failed")
        await check_parses(client, receiver.requests)
        await check_signatures(client, engine.webhook_key, receiver.requests)


async def test_one_message_with_all_documents_is_parsed(client: NodeClient, tmp_path: Path) -> None:
    network = ScriptedNetwork("mercy")
    for number in range(30):
        network.add(f"key-{number}", title=f"Título {number} \u2028", description='"a" \\ b')
    async with Receiver() as receiver, running_engine(tmp_path, [network], receiver) as engine:
        await _choose(engine, DeliveryMode.ON_COMPLETION)
        request_id = await engine.start_query(await engine.add_patient(), METADATA)
        await receiver.wait_for(lambda it: bool(it.messages))
        [message] = receiver.messages
        assert (len(message.documents), message.json["meta"]["requestId"]) == (30, request_id)
        await check_parses(client, receiver.requests)
        await check_signatures(client, engine.webhook_key, receiver.requests)


async def _choose(engine: Engine, mode: DeliveryMode) -> None:
    webhooks = engine.services.webhooks
    [endpoint] = await webhooks.list_endpoints(engine.account_id)
    changes = {"payload_version": PayloadVersion.V2025_10, "delivery": mode}
    await webhooks.change_endpoint(engine.account_id, endpoint.id, changes)  # type: ignore[arg-type]  # as the API's body
