"""The document routes over HTTP: queries, lists, links."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import orjson
import pytest
from sqlalchemy import Connection, select, update
from tests.support.client import http_client
from tests.support.documents import NOW, Shelf
from tests.support.server import Installation, running_installation

from chartwire.clock import iso
from chartwire.errors import IssueCode
from chartwire.model.document import DocumentStatus, QueryStatus, RemoteDocument, StepState
from chartwire.model.message import load_schema
from chartwire.model.webhook import EventType, PayloadVersion
from chartwire.store import queries, schema
from chartwire.store.vault import Purpose, Vault

QUERY = "/medical/v1/document/query"
DOCUMENTS = "/medical/v1/document"
P1 = {"patientId": "p1"}


@pytest.fixture
async def installation(tmp_path: Path) -> AsyncIterator[Installation]:
    async with running_installation(tmp_path) as installation:
        yield installation


@pytest.fixture
async def key(installation: Installation) -> str:
    key = await installation.create_account()
    await Shelf(installation).add_patient(key, "p1", external_id="x1")
    return key


@pytest.fixture
async def shelf(installation: Installation) -> Shelf:
    return Shelf(installation)


@pytest.fixture
async def client(installation: Installation, key: str) -> AsyncIterator[httpx.AsyncClient]:
    async with http_client(base_url=installation.base_url, headers={"x-api-key": key}) as client:
        yield client


@pytest.fixture
async def anybody(installation: Installation) -> AsyncIterator[httpx.AsyncClient]:
    """A client without a key."""
    async with http_client(base_url=installation.base_url) as client:
        yield client


async def run(installation: Installation, unit: Any) -> Any:
    return await installation.database.write(unit)


async def set_patient(installation: Installation, **values: Any) -> None:
    await run(installation, lambda connection: connection.execute(update(schema.patient).values(**values)))


async def audited(installation: Installation) -> list[tuple[str, str, str | None, str | None]]:
    """(actor's kind, action, patient, subject) of the audit trail."""

    def read(connection: Connection) -> list[tuple[str, str, str | None, str | None]]:
        rows = connection.execute(select(schema.audit).order_by(schema.audit.c.seq))
        return [(row.actor.partition(":")[0], row.action, row.patient_id, row.subject) for row in rows]

    return await installation.database.read(read)


# --- the query --------------------------------------------------------------------------------------------------------


async def test_a_query_that_never_was_has_no_progress(client: httpx.AsyncClient) -> None:
    answer = await client.get(QUERY, params=P1)
    assert (answer.status_code, answer.content) == (200, b"{}")


async def test_a_started_query_is_processing(installation: Installation, client: httpx.AsyncClient) -> None:
    answer = await client.post(QUERY, params=P1)
    progress = answer.json()
    assert answer.status_code == 200
    assert progress == {
        "requestId": progress["requestId"],
        "startedAt": progress["startedAt"],
        "triggerConsolidated": False,
        "download": {"status": "processing", "total": 0, "successful": 0, "errors": 0},
        "networks": [{"name": "sandbox", "status": "processing"}],
    }
    assert (await client.get(QUERY, params=P1)).json() == progress
    assert ("key", "document.query", "p1", progress["requestId"]) in await audited(installation)


async def test_a_query_under_way_is_not_started_again(client: httpx.AsyncClient, installation: Installation) -> None:
    first = (await client.post(QUERY, params=P1, json={"metadata": {"a": "1"}})).json()
    again = (await client.post(QUERY, params=P1, json={"metadata": {"a": "2"}})).json()
    assert again == first
    kept = await run(installation, lambda connection: queries.find_query(connection, first["requestId"]))
    assert kept.metadata == {"a": "1"}


async def test_of_starts_at_the_same_time_one_begins(client: httpx.AsyncClient, installation: Installation) -> None:
    answers = await asyncio.gather(*(client.post(QUERY, params=P1) for _ in range(8)))
    assert len({answer.json()["requestId"] for answer in answers}) == 1
    count = await run(installation, lambda connection: len(connection.execute(select(schema.document_query)).all()))
    assert count == 1


async def end_query(installation: Installation, request_id: str, outcome: StepState) -> None:
    """Bring a query to its end: one document stored, one given up, or the network failed."""

    def unit(connection: Connection) -> None:
        now = installation.clock()
        lease = timedelta(seconds=60)
        (step,) = queries.claim_network_steps(connection, "sandbox", 1, now, lease)
        issue = IssueCode.TIMEOUT if outcome is StepState.FAILED else None
        queries.settle_network_step(connection, step, outcome, issue)
        if outcome is StepState.DONE:
            queries.add_intake_steps(connection, step, [RemoteDocument(key="a"), RemoteDocument(key="b")], now)
            stored, failed = queries.claim_intake_steps(connection, "sandbox", 2, now, lease)
            queries.settle_intake_step(connection, stored, StepState.DONE)
            queries.settle_intake_step(connection, failed, StepState.FAILED, IssueCode.GONE)
        assert queries.end_query_if_over(connection, request_id, now) is not None

    await run(installation, unit)


async def test_an_ended_query_tells_its_counts_and_that_nothing_is_converted(
    client: httpx.AsyncClient, installation: Installation
) -> None:
    request_id = (await client.post(QUERY, params=P1)).json()["requestId"]
    await end_query(installation, request_id, StepState.DONE)
    progress = (await client.get(QUERY, params=P1)).json()
    assert progress["requestId"] == request_id
    counts = {"status": "completed", "total": 2, "successful": 1, "errors": 1, "webhookSent": True}
    assert progress["download"] == counts
    assert progress["convert"] == {"status": "completed", "total": 0, "successful": 0, "errors": 0}
    assert progress["networks"] == [{"name": "sandbox", "status": "completed"}]
    again = (await client.post(QUERY, params=P1)).json()
    assert again["requestId"] > request_id
    assert again["download"]["status"] == "processing"
    assert "convert" not in again


async def test_a_failed_query_tells_which_network_failed_and_why(
    client: httpx.AsyncClient, installation: Installation
) -> None:
    request_id = (await client.post(QUERY, params=P1)).json()["requestId"]
    await end_query(installation, request_id, StepState.FAILED)
    progress = (await client.get(QUERY, params=P1)).json()
    assert progress["download"]["status"] == "failed"
    assert progress["networks"] == [{"name": "sandbox", "status": "failed", "issue": "timeout"}]


async def test_without_a_network_a_query_is_completed_at_once(tmp_path: Path) -> None:
    async with running_installation(tmp_path, networks=[]) as installation:
        key = await installation.create_account()
        await Shelf(installation).add_patient(key, "p1", opted_out=True)
        async with http_client(base_url=installation.base_url, headers={"x-api-key": key}) as client:
            answer = await client.post(QUERY, params={**P1, "facilityId": "unknown"})
            assert answer.json() == {"download": {"status": "completed"}}
            assert (await client.get(QUERY, params=P1)).json() == {}
            assert (await client.post(QUERY, params={"patientId": "unknown"})).status_code == 404


async def test_an_opted_out_patient_is_not_asked_about(client: httpx.AsyncClient, installation: Installation) -> None:
    await set_patient(installation, opted_out=True)
    answer = await client.post(QUERY, params={**P1, "facilityId": "unknown"})
    assert answer.status_code == 400
    assert answer.json()["detail"] == "Patient has opted out from the networks"


async def test_a_facility_that_is_not_the_patient_s_is_refused(client: httpx.AsyncClient) -> None:
    answer = await client.post(QUERY, params={**P1, "facilityId": "unknown"})
    assert answer.status_code == 400
    assert answer.json()["detail"] == "Patient not associated with given facility"


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("path", [QUERY, DOCUMENTS])
async def test_an_unknown_patient_is_not_found(client: httpx.AsyncClient, method: str, path: str) -> None:
    if (method, path) == ("POST", DOCUMENTS):
        path += "/download-url/bulk"
    answer = await client.request(method, path, params={"patientId": "unknown"})
    assert answer.status_code == 404
    assert answer.json()["detail"] == "Could not find patient"


@pytest.mark.parametrize(
    ("body", "kept"),
    [
        (b"", None),
        (b"null", None),
        (b"{}", None),
        (b'{"other": 1}', None),
        (b'{"metadata": {}}', {}),
        (b'{"metadata": {"k": "v"}, "other": 1}', {"k": "v"}),
        (b'{"k": "v", "l": ""}', {"k": "v", "l": ""}),
        (orjson.dumps({"metadata": {f"k{n:039d}": "v" * 500 for n in range(50)}}), ...),
    ],
)
async def test_metadata_is_taken_in_both_forms(
    client: httpx.AsyncClient, installation: Installation, body: bytes, kept: Any
) -> None:
    answer = await client.post(QUERY, params=P1, content=body)
    assert answer.status_code == 200
    query = await run(installation, lambda connection: queries.find_query(connection, answer.json()["requestId"]))
    assert query.metadata == (orjson.loads(body)["metadata"] if kept is ... else kept)


@pytest.mark.parametrize(
    "metadata",
    [
        None,
        "text",
        ["a"],
        {"secret": 1},
        {"secret": None},
        {"": "v"},
        {"secret" * 7: "v"},
        {"secret": "v" * 501},
        {f"secret{n}": "v" for n in range(51)},
    ],
)
async def test_metadata_against_the_rules_is_refused_without_repeating_it(
    client: httpx.AsyncClient, metadata: Any
) -> None:
    for path in (QUERY, f"{DOCUMENTS}/download-url/bulk"):
        answer = await client.post(path, params=P1, json={"metadata": metadata})
        assert answer.status_code == 400
        assert answer.json()["title"] == "Missing or invalid parameters"
        assert answer.json()["detail"].endswith("on [metadata]")
        assert "secret" not in answer.text


async def test_override_is_kept_with_the_query(client: httpx.AsyncClient, installation: Installation) -> None:
    answer = await client.post(QUERY, params={**P1, "override": "true"})
    query = await run(installation, lambda connection: queries.find_query(connection, answer.json()["requestId"]))
    assert query.override


async def test_query_starts_are_limited(tmp_path: Path) -> None:
    async with running_installation(tmp_path, document_queries_per_minute=2) as installation:
        key = await installation.create_account()
        await Shelf(installation).add_patient(key, "p1")
        async with http_client(base_url=installation.base_url, headers={"x-api-key": key}) as client:
            statuses = [(await client.post(QUERY, params=P1)).status_code for _ in range(3)]
            assert statuses == [200, 200, 429]
            assert (await client.get(QUERY, params=P1)).status_code == 200


# --- the list ---------------------------------------------------------------------------------------------------------


async def test_documents_are_listed_as_fhir(
    client: httpx.AsyncClient, installation: Installation, shelf: Shelf, key: str
) -> None:
    first, second = await shelf.add(key, "p1", b"1"), await shelf.add(key, "p1", b"2")
    answer = await client.get(DOCUMENTS, params=P1)
    listed = answer.json()["documents"]
    assert [each["id"] for each in listed] == [second.id, first.id]
    assert listed[1]["resourceType"] == "DocumentReference"
    assert listed[1]["meta"]["source"] == first.file_name
    location = f"{installation.base_url}/oauth/fhir/Binary/{first.id}"
    assert listed[1]["content"][0]["attachment"]["url"] == location
    assert ("key", "document.list", "p1", None) in await audited(installation)


async def test_flat_documents_come_with_what_clients_of_2023_expect(
    client: httpx.AsyncClient, installation: Installation, shelf: Shelf, key: str
) -> None:
    document = await shelf.add(key, "p1", b"12345")
    flat = {
        "id": document.id,
        "fileName": document.file_name,
        "location": f"{installation.base_url}/oauth/fhir/Binary/{document.id}",
        "description": "Visit note",
        "status": "current",
        "indexed": iso(NOW),
        "mimeType": "application/pdf",
        "size": 5,
        "type": {
            "coding": [{"system": "http://loinc.org", "code": "34133-9", "display": "Summarization of episode note"}],
            "text": "Summary",
        },
    }
    params = {**P1, "output": "dto"}
    assert (await client.get(DOCUMENTS, params=params)).json() == {"queryStatus": "completed", "documents": [flat]}
    progress = (await client.post(QUERY, params=P1)).json()
    during = (await client.get(DOCUMENTS, params=params)).json()
    assert (during["queryStatus"], during["download"]) == ("processing", progress["download"])
    await end_query(installation, progress["requestId"], StepState.FAILED)
    after = (await client.get(DOCUMENTS, params=params)).json()
    assert (after["queryStatus"], after["download"]["status"]) == ("completed", "failed")
    assert after["convert"]["status"] == "completed"
    assert after["documents"] == [flat]


async def test_documents_are_filtered_by_day_and_words(client: httpx.AsyncClient, shelf: Shelf, key: str) -> None:
    await shelf.add(key, "p1", b"1", description="Lab report", indexed=NOW)
    await shelf.add(key, "p1", b"2", description="Visit note", indexed=NOW + timedelta(days=1))

    async def found(**params: str) -> list[str]:
        answer = await client.get(DOCUMENTS, params={**P1, **params})
        return [each["description"] for each in answer.json()["documents"]]

    assert await found(dateFrom="2025-01-02", dateTo="2025-01-02") == ["Lab report"]
    assert await found(dateFrom="2025-01-03") == ["Visit note"]
    assert await found(dateTo="2025-01-03", content="LAB rep") == ["Lab report"]
    assert await found(dateTo="9999-12-31", dateFrom="0001-01-01") == ["Visit note", "Lab report"]
    assert await found(dateFrom="", content="") == ["Visit note", "Lab report"]


@pytest.mark.parametrize(
    "params",
    [
        {"dateFrom": "2025-1-2"},
        {"dateTo": "2025-02-30"},
        {"dateFrom": "1735689600"},
        {"dateFrom": "2025-01-02T00:00:00Z"},
        {"content": "ab"},
        {"output": "xml"},
    ],
)
async def test_a_list_that_is_asked_for_wrongly_is_refused(client: httpx.AsyncClient, params: dict[str, str]) -> None:
    answer = await client.get(DOCUMENTS, params={**P1, **params})
    assert answer.status_code == 400
    assert answer.json()["title"] == "Missing or invalid parameters"


async def test_a_list_needs_a_patient(client: httpx.AsyncClient) -> None:
    answer = await client.get(DOCUMENTS)
    assert (answer.status_code, answer.json()["detail"]) == (400, "Missing patientId query param")


# --- links ------------------------------------------------------------------------------------------------------------


async def link(client: httpx.AsyncClient, file_name: str, **params: str) -> str:
    answer = await client.get(f"{DOCUMENTS}/download-url", params={"fileName": file_name, **params})
    assert answer.status_code == 200, answer.text
    return str(answer.json()["url"])


async def test_a_link_gives_the_document_without_a_key(
    client: httpx.AsyncClient, anybody: httpx.AsyncClient, installation: Installation, shelf: Shelf, key: str
) -> None:
    document = await shelf.add(key, "p1", b"%PDF-1.7 ...")
    url = await link(client, document.file_name)
    answer = await anybody.get(url)
    assert (answer.status_code, answer.content) == (200, b"%PDF-1.7 ...")
    assert answer.headers["content-type"] == "application/pdf"
    assert answer.headers["content-disposition"] == f'inline; filename="{document.file_name}"'
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "private" in answer.headers["cache-control"]
    part = await anybody.get(url, headers={"range": "bytes=1-3"})
    assert (part.status_code, part.content) == (206, b"PDF")
    head = await anybody.head(url)
    assert (head.status_code, head.headers["content-length"], head.content) == (200, "12", b"")
    assert ("link", "document.download", "p1", document.id) in await audited(installation)
    old = await client.get(f"{DOCUMENTS}/downloadUrl", params={"fileName": document.file_name})
    assert (await anybody.get(old.json()["url"])).content == b"%PDF-1.7 ..."


async def test_a_link_expires(
    client: httpx.AsyncClient, anybody: httpx.AsyncClient, installation: Installation, shelf: Shelf, key: str
) -> None:
    installation.clock.stop()
    url = await link(client, (await shelf.add(key, "p1")).file_name)
    installation.clock.advance(seconds=170)
    assert (await anybody.get(url)).status_code == 200
    installation.clock.advance(seconds=11)
    answer = await anybody.get(url)
    assert (answer.status_code, answer.json()["detail"]) == (403, "The link has expired: ask for a new one")


async def test_an_altered_link_reaches_nothing(
    client: httpx.AsyncClient, anybody: httpx.AsyncClient, shelf: Shelf, key: str
) -> None:
    mine, other = await shelf.add(key, "p1", b"1"), await shelf.add(key, "p1", b"2")
    url = await link(client, mine.file_name)
    for altered in (url.replace(mine.id, other.id), url.replace("original", "pdf"), url + "0"):
        answer = await anybody.get(altered)
        assert (answer.status_code, answer.json()["detail"]) == (403, "The link is not valid")
    lacking = await anybody.get(url.partition("&signature")[0])
    assert (lacking.status_code, lacking.json()["detail"]) == (400, "Missing signature query param")


async def test_a_link_to_a_document_that_is_gone_leads_nowhere(
    client: httpx.AsyncClient, anybody: httpx.AsyncClient, installation: Installation, shelf: Shelf, key: str
) -> None:
    url = await link(client, (await shelf.add(key, "p1")).file_name)
    await run(installation, lambda connection: connection.execute(schema.document.delete()))
    assert (await anybody.get(url)).status_code == 404


async def test_a_file_name_of_nobody_is_not_found(client: httpx.AsyncClient) -> None:
    answer = await client.get(f"{DOCUMENTS}/download-url", params={"fileName": "a b/c.xml"})
    assert (answer.status_code, answer.json()["detail"]) == (404, "Could not find document")


@pytest.fixture
def ccda() -> bytes:
    """A small C-CDA document."""
    return (
        b'<?xml version="1.0"?><ClinicalDocument xmlns="urn:hl7-org:v3"><typeId root="2.16.840.1.113883.1.3"'
        b' extension="POCD_HD000040"/><id root="1.2.3"/><code code="34133-9" codeSystem="2.16.840.1.113883.6.1"/>'
        b"<title>Summary of care</title><component><structuredBody><component><section><title>Plan</title>"
        b"<text>Walk &lt;more&gt;</text></section></component></structuredBody></component></ClinicalDocument>"
    )


async def test_a_ccda_document_is_made_readable(
    client: httpx.AsyncClient, anybody: httpx.AsyncClient, shelf: Shelf, key: str, ccda: bytes
) -> None:
    document = await shelf.add(key, "p1", ccda, mime_type="application/xml", file_name="Summary_1.xml")
    page = await anybody.get(await link(client, document.file_name, conversionType="html"))
    assert page.status_code == 200
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert page.headers["content-disposition"] == 'inline; filename="Summary_1.html"'
    assert page.headers["content-security-policy"].startswith("sandbox")
    assert "Summary of care" in page.text
    assert "Walk &lt;more&gt;" in page.text
    pdf = await anybody.get(await link(client, document.file_name, conversionType="pdf"))
    assert pdf.headers["content-type"] == "application/pdf"
    assert pdf.content.startswith(b"%PDF-")


async def test_what_is_not_ccda_is_not_converted(client: httpx.AsyncClient, shelf: Shelf, key: str) -> None:
    pdf = await shelf.add(key, "p1", b"%PDF-")
    xml = await shelf.add(key, "p1", b"<note/>", mime_type="application/xml")
    for document in (pdf, xml):
        params = {"fileName": document.file_name, "conversionType": "html"}
        answer = await client.get(f"{DOCUMENTS}/download-url", params=params)
        assert (answer.status_code, answer.json()["detail"]) == (400, "Only C-CDA documents can be converted")
    hl7 = await client.get(f"{DOCUMENTS}/download-url", params={"fileName": xml.file_name, "conversionType": "hl7"})
    assert hl7.status_code == 400


# --- links by webhook -------------------------------------------------------------------------------------------------


async def written_messages(installation: Installation) -> list[tuple[str, Any]]:
    """(payload version, message) of the outbox."""

    def read(connection: Connection) -> list[tuple[str, Any]]:
        vault = Vault(bytes(32))
        rows = connection.execute(select(schema.event).order_by(schema.event.c.seq)).all()
        return [(row.payload_version, orjson.loads(vault.open(Purpose.PAYLOAD, row.body))) for row in rows]

    return await installation.database.read(read)


async def test_links_to_all_current_documents_are_sent_by_webhook(
    client: httpx.AsyncClient, anybody: httpx.AsyncClient, installation: Installation, shelf: Shelf, key: str
) -> None:
    installation.clock.stop()
    document = await shelf.add(key, "p1", b"1")
    await shelf.add(key, "p1", b"2", status=DocumentStatus.SUPERSEDED)
    answer = await client.post(f"{DOCUMENTS}/download-url/bulk", params=P1, json={"metadata": {"k": "v"}})
    request_id = answer.json()["requestId"]
    assert (answer.status_code, answer.json()) == (200, {"status": "processing", "requestId": request_id})
    ((version, message),) = await written_messages(installation)
    assert version == PayloadVersion.V2023_04
    assert message["meta"]["type"] == EventType.DOCUMENT_BULK_DOWNLOAD_URLS
    assert (message["meta"]["requestId"], message["meta"]["data"]) == (request_id, {"k": "v"})
    (patient,) = message["patients"]
    assert (patient["patientId"], patient["externalId"], patient["status"]) == ("p1", "x1", "completed")
    (told,) = patient["documents"]
    assert told["id"] == document.id
    installation.clock.advance(seconds=590)
    assert (await anybody.get(told["url"])).content == b"1"
    installation.clock.advance(seconds=11)
    assert (await anybody.get(told["url"])).status_code == 403


async def test_each_payload_version_in_use_gets_its_message(
    client: httpx.AsyncClient, installation: Installation, shelf: Shelf, key: str
) -> None:
    await shelf.add(key, "p1")
    await run(installation, lambda connection: connection.execute(_second_endpoint(connection)))
    await client.post(f"{DOCUMENTS}/download-url/bulk", params=P1)
    messages = await written_messages(installation)
    assert [version for version, _ in messages] == [PayloadVersion.V2023_04, PayloadVersion.V2025_10]
    assert len({message["meta"]["messageId"] for _, message in messages}) == 2
    assert len({message["meta"]["requestId"] for _, message in messages}) == 1
    for version, message in messages:
        jsonschema.validate(message, load_schema(PayloadVersion(version), EventType.DOCUMENT_BULK_DOWNLOAD_URLS))


def _second_endpoint(connection: Connection) -> Any:
    row = connection.execute(select(schema.endpoint)).one()._asdict()
    changes = {"seq": None, "id": "second", "is_settings": False, "payload_version": PayloadVersion.V2025_10}
    return schema.endpoint.insert().values({key: value for key, value in {**row, **changes}.items() if key != "seq"})


async def test_a_patient_without_documents_gets_a_message_without_links(
    client: httpx.AsyncClient, installation: Installation
) -> None:
    await client.post(f"{DOCUMENTS}/download-url/bulk", params=P1)
    ((_, message),) = await written_messages(installation)
    assert message["patients"][0]["documents"] == []


# --- other accounts ---------------------------------------------------------------------------------------------------


async def test_nothing_of_another_account_is_found(installation: Installation, shelf: Shelf, key: str) -> None:
    document = await shelf.add(key, "p1")
    stranger = await installation.create_account("Stranger")
    async with http_client(base_url=installation.base_url, headers={"x-api-key": stranger}) as client:
        answers = [
            await client.get(DOCUMENTS, params=P1),
            await client.get(QUERY, params=P1),
            await client.post(QUERY, params=P1),
            await client.post(f"{DOCUMENTS}/download-url/bulk", params=P1),
            await client.get(f"{DOCUMENTS}/download-url", params={"fileName": document.file_name}),
        ]
    assert {answer.status_code for answer in answers} == {404}
    assert QueryStatus.PROCESSING not in "".join(answer.text for answer in answers)
