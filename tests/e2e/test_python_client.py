"""The Python client, unchanged; a receiver as they were written in 2023; the Standard Webhooks library."""

import asyncio
import hmac
import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from aiohttp import web
from standardwebhooks import Webhook, WebhookVerificationError
from tests.support.client import http_client
from tests.support.customer import DOCUMENTS_EACH, SANDBOX
from tests.support.engine import announced, closed
from tests.support.people import NPIS
from tests.support.process import ChartwireProcess
from tests.support.receiver import Received, Receiver

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # Python warns of the client's own source when it is compiled
    from metriport import Address, UsState
    from metriport.client import AsyncMetriport
    from metriport.core.api_error import ApiError
    from metriport.medical import (
        BaseFacility,
        BasePatient,
        Contact,
        ConversionType,
        Demographics,
        DocumentQueryStatus,
        OrganizationCreate,
        OrgType,
        PersonalIdentifier_DriversLicense,
        WebhookPatientDocumentDataPayload,
    )

pytestmark = [pytest.mark.embedded, pytest.mark.asyncio(loop_scope="module")]

ADDRESS = Address(
    addressLine1="123 Arsenal St", addressLine2="#4818", city="Phoenix", state=UsState.AZ, zip="85007", country="USA"
)
JANE = BasePatient(
    firstName="Jane",
    lastName="Smith",
    dob="1996-02-10",
    genderAtBirth="F",
    personalIdentifiers=[PersonalIdentifier_DriversLicense(type="driversLicense", state=UsState.AZ, value="51227265")],
    address=[ADDRESS],
    contact=[Contact(phone="6025550142", email="jane@example.com")],
    externalId="jane-1",
)
POLL_SECONDS = 0.02
METADATA = {"order": "17", "metadataVersion": "2"}


@dataclass(frozen=True)
class App:
    """A customer's app: the client, and the same key for what the client has no methods for."""

    client: AsyncMetriport
    session: aiohttp.ClientSession

    @property
    def medical(self) -> Any:
        """The client's methods."""
        return self.client.medical

    async def save_webhook(self, url: str) -> str:
        """Save a receiver's URL as a dashboard does; returns the webhook key."""
        async with self.session.post("/settings", json={"webhookUrl": url}) as answer:
            return str((await answer.json())["webhookKey"])

    async def add_jane(self) -> tuple[str, str]:
        """Ids of a facility and of a patient whom the sandbox knows."""
        facility = await self.medical.facility.create(request=facility_named("Elm Clinic"))
        patient = await self.medical.patient.create(facility_id=facility.id, request=JANE)
        return facility.id, patient.id


def facility_named(name: str, npi: str = NPIS[0]) -> BaseFacility:
    """A facility as the client sends it."""
    return BaseFacility(name=name, npi=npi, active=True, address=ADDRESS)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ChartwireProcess]:
    async with ChartwireProcess(tmp_path_factory.mktemp("python") / "data", SANDBOX) as server:
        yield server


@pytest_asyncio.fixture(loop_scope="module")
async def app(server: ChartwireProcess) -> AsyncIterator[App]:
    """An app of a new customer. The slash at the end of its base URL makes every path begin with two."""
    _, api_key = await server.create_account("Clinic")
    async with (
        http_client() as transport,
        aiohttp.ClientSession(base_url=server.base_url, headers={"x-api-key": api_key}) as session,
    ):
        base_url = f"{server.base_url}/"
        yield App(AsyncMetriport(base_url=base_url, api_key=api_key, httpx_client=transport), session)


async def test_the_registry(app: App) -> None:
    organization = await app.medical.organization.create(
        request=OrganizationCreate(name="Elm Health", type=OrgType.AMBULATORY, location=ADDRESS)
    )
    assert await app.medical.organization.get() == organization
    async with app.session.get("/medical/v1/organization") as answer:
        etag = (await answer.json())["eTag"]
    changes = {"name": "Oak Health", "type": OrgType.HOSPITAL, "location": ADDRESS}
    changed = await app.medical.organization.update(organization.id, **changes, e_tag=etag)
    assert (changed.name, changed.type) == ("Oak Health", OrgType.HOSPITAL)
    with pytest.raises(ApiError) as stale:  # this client sends the eTag in a header of that name
        await app.medical.organization.update(organization.id, **changes, e_tag=etag)
    assert stale.value.status_code == 412

    facility = await app.medical.facility.create(request=facility_named("Elm Clinic", NPIS[1]))
    assert await app.medical.facility.get(facility.id) == facility
    renamed = await app.medical.facility.update(facility.id, request=facility_named("Oak Clinic", NPIS[1]))
    assert (await app.medical.facility.list()).facilities == [renamed]

    patient = await app.medical.patient.create(facility_id=facility.id, request=JANE)
    assert (patient.external_id, patient.facility_ids) == ("jane-1", [facility.id])
    assert await app.medical.patient.get(patient.id) == patient
    assert (await app.medical.patient.list(facility_id=facility.id)).patients == [patient]
    assert (await app.medical.patient.list()).patients == [patient]
    assert await app.medical.patient.match(request=Demographics(**JANE.dict())) == patient
    moved = JANE.copy(update={"last_name": "Brown"})
    updated = await app.medical.patient.update(patient.id, facility_id=facility.id, request=moved)
    assert (updated.id, updated.last_name) == (patient.id, "Brown")
    await app.medical.patient.delete(patient.id, facility_id=facility.id)
    with pytest.raises(ApiError) as gone:
        await app.medical.patient.get(patient.id)
    assert (gone.value.status_code, gone.value.body["detail"]) == (404, "Could not find patient")


@pytest.mark.parametrize("version", ["2023-04", "2025-10"])
async def test_documents_are_asked_for_and_told(app: App, version: str) -> None:
    async with Receiver() as receiver:
        receiver.webhook_key = await app.save_webhook(receiver.url)
        await _choose(app, version)
        facility_id, patient_id = await app.add_jane()
        started = await app.medical.document.start_query(
            patient_id=patient_id, facility_id=facility_id, request=METADATA
        )
        assert started.download.status is DocumentQueryStatus.PROCESSING
        await _until_told(app, receiver, started.request_id)

        listed = (await app.medical.document.list(patient_id=patient_id, date_from="1990-01-01")).documents
        assert sorted(announced(receiver.messages)) == sorted(each.id for each in listed)
        assert len(listed) == DOCUMENTS_EACH
        await _check_downloads(app, listed)

        bulk = await app.medical.document.start_bulk_get_document_url(patient_id=patient_id, request=METADATA)
        await receiver.wait_for(lambda it: bulk.request_id in {_request_id(message) for message in it.messages})
        assert bulk.status is DocumentQueryStatus.PROCESSING
        assert receiver.refused == 0
        for message in receiver.messages:
            parsed = WebhookPatientDocumentDataPayload.parse_obj(message.json)
            assert parsed.meta.data == METADATA
            assert {patient.type for patient in parsed.patients} <= {"document-download", "document-bulk-download-urls"}


async def _until_told(app: App, receiver: Receiver, request_id: str) -> None:
    """Wait until all of a query was told and answered: its messages overtake each other."""
    await receiver.wait_for(lambda it: request_id in closed(it.messages))
    await _until_nothing_waits(app)


async def _until_nothing_waits(app: App) -> None:
    async with asyncio.timeout(60):
        while True:
            async with app.session.get("/settings/webhook") as answer:
                if (await answer.json())["webhookRequestsProcessing"] == 0:
                    return
            await asyncio.sleep(POLL_SECONDS)


async def _choose(app: App, version: str) -> None:
    async with app.session.get("/v1/webhooks/endpoints") as answer:
        [endpoint] = (await answer.json())["endpoints"]
    path = f"/v1/webhooks/endpoints/{endpoint['id']}"
    async with app.session.patch(path, json={"payloadVersion": version}) as changed:
        assert changed.status == 200


async def _check_downloads(app: App, listed: list[Any]) -> None:
    for document in listed:
        attachment = document.content[0].attachment
        link = await app.medical.document.get_url(file_name=attachment.title)
        async with aiohttp.request("GET", link.url) as answer:
            assert len(await answer.read()) == attachment.size
        async with app.session.get(attachment.url) as answer:  # its `location`, with the customer's own key
            assert len(await answer.read()) == attachment.size
    xml = next(each for each in listed if each.content[0].attachment.content_type == "application/xml")
    for kind, media_type in ((ConversionType.HTML, "text/html"), (ConversionType.PDF, "application/pdf")):
        link = await app.medical.document.get_url(file_name=xml.content[0].attachment.title, conversion_type=kind)
        async with aiohttp.request("GET", link.url) as answer:
            assert answer.content_type == media_type


def _request_id(message: Received) -> str | None:
    return message.json["meta"].get("requestId")  # type: ignore[no-any-return]  # a message is JSON


async def test_asking_for_the_status_starts_a_query_and_then_tells_of_it(app: App) -> None:
    """The client posts where it should get: the first call is a start, and no second query is begun meanwhile."""
    async with Receiver() as receiver:
        await app.save_webhook(receiver.url)
        _, patient_id = await app.add_jane()
        started = await app.medical.document.get_query_status(patient_id=patient_id)
        assert started.request_id is not None
        await _until_told(app, receiver, started.request_id)
        assert len(announced(receiver.messages)) == DOCUMENTS_EACH


@dataclass
class OldReceiver:
    """A receiver as customers wrote it in 2023: it compares the plain key and switches on `patients[].type`."""

    key: str = ""
    url: str = ""
    refused: int = 0
    documents: dict[str, dict[str, Any]] = field(default_factory=dict)
    is_over: asyncio.Event = field(default_factory=asyncio.Event)

    async def handle(self, request: web.Request) -> web.Response:
        """Answer as the samples of that year do."""
        if not hmac.compare_digest(request.headers.get("x-webhook-key", ""), self.key):
            self.refused += 1
            return web.Response(status=401)
        body = await request.json()
        if "ping" in body:
            return web.json_response({"pong": body["ping"]})
        for patient in body["patients"]:
            if patient["type"] == "document-download":
                self.take(patient)
        return web.Response()

    def take(self, patient: dict[str, Any]) -> None:
        """Keep the documents of one patient; none means that there will be no more."""
        assert patient["status"] == "completed"
        self.documents |= {document["id"]: document for document in patient["documents"]}
        if not patient["documents"]:
            self.is_over.set()


@asynccontextmanager
async def old_receiver() -> AsyncIterator[OldReceiver]:
    """Such a receiver, which listens."""
    receiver = OldReceiver()
    application = web.Application()
    application.router.add_post("/hook", receiver.handle)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    receiver.url = f"http://localhost:{runner.addresses[0][1]}/hook"
    try:
        yield receiver
    finally:
        await runner.cleanup()


async def test_a_receiver_of_2023_is_served(app: App) -> None:
    async with old_receiver() as old:
        facility_id, patient_id = await app.add_jane()
        old.key = await app.save_webhook(old.url)
        await app.medical.document.start_query(patient_id=patient_id, facility_id=facility_id)
        async with asyncio.timeout(60):
            await old.is_over.wait()
        await _until_nothing_waits(app)
        assert len(old.documents) == DOCUMENTS_EACH
        for document in old.documents.values():
            async with app.session.get(document["location"]) as answer:
                content = await answer.read()
            assert document["size"] == str(len(content))
            assert document["type"]["coding"]


async def test_the_standard_webhooks_library_verifies(app: App) -> None:
    async with Receiver() as receiver:
        await app.save_webhook(receiver.url)
        async with app.session.get("/v1/webhooks/endpoints") as answer:
            [endpoint] = (await answer.json())["endpoints"]
        async with app.session.get(f"/v1/webhooks/endpoints/{endpoint['id']}/keys") as answer:
            [key] = (await answer.json())["keys"]
        _, patient_id = await app.add_jane()
        started = await app.medical.document.get_query_status(patient_id=patient_id)
        await receiver.wait_for(lambda it: started.request_id in closed(it.messages) and bool(it.pings))
        library = Webhook(key["secret"])
        for request in receiver.requests:
            assert library.verify(request.body, dict(request.headers)) == request.json
            for altered in (request.body + b" ", request.body.replace(b"meta", b"atem", 1)):
                with pytest.raises(WebhookVerificationError):
                    library.verify(altered, dict(request.headers))
            with pytest.raises(WebhookVerificationError):
                library.verify(request.body, {**request.headers, "webhook-id": "another"})
