"""A whole journey in which much goes wrong, and nothing of a patient in logs, metrics, errors, or bare on the disk.

Every word that is looked for is unlike any other in the project, so that finding it means that it has leaked.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import aiohttp
import pytest
import pytest_asyncio
from sqlalchemy import Column, Connection, select
from tests.support.customer import SANDBOX
from tests.support.engine import closed
from tests.support.fhir_stub import FhirStub, break_off, bundle, inline, raw, reference, says, serve_stub
from tests.support.people import address_body, facility_body, patient_body
from tests.support.ports import free_port
from tests.support.process import ChartwireProcess
from tests.support.profile import database_url
from tests.support.receiver import Answer, Receiver

from chartwire.store.profile import run_once
from chartwire.store.schema import attempt, event

pytestmark = pytest.mark.asyncio(loop_scope="module")

PERSON = {
    "firstName": "Zephyrine",
    "lastName": "Quillonbrax",
    "dob": "1931-07-19",
    "externalId": "mrn-88417-oxalis",
    "address": [address_body(addressLine1="9417 Obsidiana Passage", city="Wexmoorley")],
    "contact": [{"phone": "9175550931", "email": "zephyrine@quillonbrax.example"}],
    "personalIdentifiers": [
        {"type": "ssn", "value": "517938264"},
        {"type": "driversLicense", "state": "CA", "value": "DL-Vantablack-77"},
    ],
}
REMOTE_PATIENT = "remote-pat-tourmaline"
TITLE, DESCRIPTION, AUTHOR = "Consult-on-Fulguration", "Suspected-Hyperquaxia", "Dr-Ottoline-Marchbanks"
CONTENT = b"Findings: bilateral wombat-sign; plan: continue Zorbinafil 40 mg. " * 200
CCDA = b"<ClinicalDocument xmlns='urn:hl7-org:v3'><title>Syzygial-Palsy</title></ClinicalDocument>"
METADATA = {"chart": "folder-Heliotropium"}
NETWORK_TOKEN = "tok-network-Gnomonic"
RECEIVER_PATH = "hook-Perspicacity"
WRONG_KEY = "cw_wrong-Bartholomew"
RECEIVERS_ANSWER = b"I could not store Zephyrine Quillonbrax, born 1931-07-19"
INVENTED = frozenset(
    {
        *("Zephyrine", "Quillonbrax", "1931-07-19", "mrn-88417-oxalis", "Obsidiana", "Wexmoorley", "9175550931"),
        *("517938264", "Vantablack", REMOTE_PATIENT, TITLE, DESCRIPTION, AUTHOR, "wombat-sign", "Zorbinafil"),
        *("Syzygial", "Heliotropium", "Gnomonic", RECEIVER_PATH, "Bartholomew", "remote-doc-"),
    }
)
"""What must not be found; the ids and keys that come up on the way are added."""
ONLY_SEALED = frozenset({"wombat-sign", "Zorbinafil", "Syzygial", "Gnomonic"})
"""What must not be found on the disk either, in any file of the server; keys are added."""


@dataclass
class Journey:
    """A customer's calls; keeps every refusal, and every word that must not be found."""

    server: ChartwireProcess
    session: aiohttp.ClientSession
    receiver: Receiver
    secrets: set[str] = field(default_factory=lambda: set(INVENTED))
    only_sealed: set[str] = field(default_factory=lambda: set(ONLY_SEALED))
    refusals: list[str] = field(default_factory=list)

    async def ask(self, method: str, path: str, **more: Any) -> Any:
        """An answer's JSON; the body of an error is kept."""
        async with self.session.request(method, path, **more) as answer:
            text = await answer.text(errors="replace")
            if answer.status >= 400:
                self.refusals.append(f"{dict(answer.headers)} {text}")
            return json.loads(text) if answer.content_type.endswith("json") else text

    def keep(self, *secrets: str) -> None:
        """Something that must not be found from now on."""
        self.secrets.update(secrets)

    def keep_key(self, key: str) -> None:
        """A key, which must not be on the disk as it is."""
        self.secrets.add(key)
        self.only_sealed.add(key)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def journey(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Journey]:
    """The journey, when it is over; its server still runs."""
    folder = tmp_path_factory.mktemp("privacy")
    async with serve_stub() as mercy, Receiver() as receiver:
        _fill(mercy)
        async with (
            ChartwireProcess(folder / "data", _settings(mercy, folder)) as server,
            aiohttp.ClientSession(base_url=server.base_url) as session,
        ):
            account_id, api_key = await server.create_account("Clinic")
            session.headers["x-api-key"] = api_key
            journey = Journey(server, session, receiver)
            journey.keep_key(api_key)
            patient_id = await _go(journey)
            await _get_tokens(journey, account_id, api_key)
            await _ask_wrongly(journey, patient_id)
            await _tell_nobody(journey, patient_id)
            yield journey


def _settings(mercy: FhirStub, folder: Path) -> dict[str, str]:
    """Four networks: one that has documents, one that refuses with health data, one that answers rubbish, one down."""
    token = folder / "token"
    token.write_text(NETWORK_TOKEN)
    bases = {
        "mercy": mercy.base_url,
        "angry": f"{mercy.origin}/angry",
        "odd": f"{mercy.origin}/odd",
        "down": f"http://127.0.0.1:{free_port()}/fhir",
    }
    bearer = {"kind": "fhir", "auth": "bearer", "bearer_token_file": str(token), "match": "operation"}
    return {
        **SANDBOX,
        "CHARTWIRE_NETWORKS": json.dumps([{**bearer, "name": name, "base_url": url} for name, url in bases.items()]),
        "CHARTWIRE_LOG_LEVEL": "debug",
        "CHARTWIRE_DOCUMENT_ATTEMPTS": "2",
        "CHARTWIRE_DOCUMENT_RETRY_SECONDS": "0.01",
        "CHARTWIRE_WEBHOOK_RETRY_SECONDS": "[0, 0.05, 0.05]",
    }


def _fill(mercy: FhirStub) -> None:
    """Documents that arrive, that do not, and errors whose texts name the patient."""
    described = {
        "description": DESCRIPTION,
        "author": [{"display": AUTHOR}],
        "type": {"text": TITLE, "coding": [{"system": "http://loinc.org", "code": "34133-9", "display": TITLE}]},
    }
    grade = {"url": "http://hl7.org/fhir/StructureDefinition/match-grade", "valueCode": "certain"}
    names = [{"family": PERSON["lastName"], "given": [PERSON["firstName"]]}]
    person = {"resourceType": "Patient", "id": REMOTE_PATIENT, "name": names, "birthDate": PERSON["dob"]}
    entry = {"resource": person, "search": {"mode": "match", "score": 1, "extension": [grade]}}
    subject = {"subject": {"reference": f"Patient/{REMOTE_PATIENT}"}}
    listed = [
        {**reference(f"remote-doc-{name}"), **subject, **described} for name in ("text", "ccda", "lost", "cut", "wrong")
    ]
    listed.append({**inline("remote-doc-inline", CONTENT[:-66]), **subject, **described})
    complaint = {"severity": "error", "code": "processing", "diagnostics": RECEIVERS_ANSWER.decode()}
    refusal = says({"resourceType": "OperationOutcome", "issue": [complaint]}, 500)
    mercy.on("POST", "Patient/$match", says({"resourceType": "Bundle", "type": "searchset", "entry": [entry]}))
    mercy.on("POST", "DocumentReference/_search", says(bundle(*listed)))
    mercy.on("GET", "DocumentReference/remote-doc-inline", says(listed[-1]))
    mercy.on("GET", "Binary/remote-doc-text", raw(CONTENT, "text/plain"))
    mercy.on("GET", "Binary/remote-doc-ccda", raw(CCDA, "application/xml"))
    mercy.on("GET", "Binary/remote-doc-cut", break_off)
    mercy.on("GET", "Binary/remote-doc-wrong", refusal)
    mercy.on("POST", "/angry/Patient/$match", refusal)
    mercy.on("POST", "/odd/Patient/$match", raw(b'{"resourceType": "Zephyrine', "application/fhir+json"))


async def _go(journey: Journey) -> str:
    """From a facility to documents that are fetched, with a receiver that fails at first; the patient's id."""
    journey.receiver.answers.extend(Answer(500, RECEIVERS_ANSWER) for _ in range(2))
    settings = await journey.ask("POST", "/settings", json={"webhookUrl": f"{journey.receiver.url}/{RECEIVER_PATH}"})
    journey.keep_key(settings["webhookKey"])
    facility = await journey.ask("POST", "/medical/v1/facility", json=facility_body())
    body = patient_body(**PERSON)
    patient = await journey.ask("POST", f"/medical/v1/patient?facilityId={facility['id']}", json=body)
    of_patient = {"patientId": patient["id"]}
    started = await journey.ask("POST", "/medical/v1/document/query", params=of_patient, json={"metadata": METADATA})
    await journey.receiver.wait_for(lambda it: started["requestId"] in closed(it.messages))
    listed = await journey.ask("GET", "/medical/v1/document", params={**of_patient, "output": "dto"})
    assert len(listed["documents"]) == len(("text", "ccda", "inline")), listed
    await journey.ask("GET", "/medical/v1/patient", params={"filters": "Quillonbrax", "count": "1"})
    await journey.ask("POST", "/medical/v1/patient/match", json=body)
    for document in listed["documents"]:
        journey.keep(document["id"], document["fileName"])
        assert await journey.ask("GET", urlsplit(document["location"]).path)
        await _download(journey, document["fileName"])
    journey.keep(patient["id"])
    return str(patient["id"])


async def _download(journey: Journey, file_name: str) -> None:
    """By links: as it is, and converted, which some documents cannot be."""
    for conversion in ({}, {"conversionType": "html"}, {"conversionType": "pdf"}):
        asked = {"fileName": file_name, **conversion}
        link = (await journey.ask("GET", "/medical/v1/document/download-url", params=asked)).get("url")
        if link is not None:
            journey.keep(*parse_qs(urlsplit(link).query)["signature"])
            await journey.ask("GET", link)


async def _get_tokens(journey: Journey, account_id: str, api_key: str) -> None:
    """A token for the FHIR face, and refusals of secrets that are nearly right."""
    form = {"grant_type": "client_credentials", "client_id": account_id, "client_secret": api_key}
    granted = await journey.ask("POST", "/oauth/token", data=form)
    journey.keep_key(granted["access_token"])
    bearer = {"authorization": f"Bearer {granted['access_token']}", "x-api-key": ""}
    search = {"patient.identifier": PERSON["externalId"], "_count": "1"}
    assert (await journey.ask("GET", "/oauth/fhir/DocumentReference", params=search, headers=bearer))["entry"]
    altered = {"authorization": bearer["authorization"] + "x", "x-api-key": ""}
    await journey.ask("GET", "/oauth/fhir/DocumentReference", params=search, headers=altered)
    await journey.ask("POST", "/oauth/token", data={**form, "client_secret": WRONG_KEY})
    await journey.ask("GET", "/settings", headers={"x-api-key": WRONG_KEY})


async def _ask_wrongly(journey: Journey, patient_id: str) -> None:
    """Requests with health data where none is understood."""
    patient, document = f"/medical/v1/patient/{patient_id}", "/medical/v1/document"
    wrong_bodies = (
        {**patient_body(**PERSON), "dob": "19th of July 1931-07-19"},
        {**patient_body(**PERSON), "genderAtBirth": "Zephyrine"},
        {**patient_body(**PERSON), "address": [{"addressLine1": "9417 Obsidiana Passage", "zip": "Wexmoorley"}]},
        {**patient_body(**PERSON), "contact": [{"phone": "9175550931-517938264", "email": "Quillonbrax"}]},
        {**patient_body(**PERSON), "personalIdentifiers": [{"type": "Vantablack", "value": "517938264"}]},
        ["Zephyrine", "Quillonbrax"],
        "Zephyrine Quillonbrax",
    )
    for body in wrong_bodies:
        await journey.ask("PUT", patient, json=body)
        await journey.ask("POST", "/medical/v1/patient/match", json=body)
    for raw_body in (b'{"firstName": "Zephyrine', b"firstName=Zephyrine&lastName=Quillonbrax", b"Zephyrine\xff\x00"):
        await journey.ask("PUT", patient, data=raw_body)
        await journey.ask("POST", "/oauth/token", data=raw_body)
    await journey.ask("POST", f"{document}/query?patientId={patient_id}", json={"metadata": {"Heliotropium" * 9: "x"}})
    await journey.ask("POST", "/settings", json={"webhookUrl": f"http://10.0.0.1/{RECEIVER_PATH}"})
    await journey.ask("POST", "/settings", json={"webhookUrl": f"ftp://Zephyrine:Quillonbrax@{RECEIVER_PATH}"})
    await journey.ask("POST", "/settings", json={"Quillonbrax": "Zephyrine"})
    for path in (
        f"{document}?patientId={patient_id}&dateFrom=Zephyrine",
        f"{document}?patientId={patient_id}&content=Qu&patientId=Quillonbrax",
        f"{document}/download-url?fileName={TITLE}.pdf",
        f"{document}/download-url?fileName={TITLE}.pdf&conversionType=Zephyrine",
        f"{patient}?If=Zephyrine",
        f"{patient}/Quillonbrax",
        "/medical/v1/patient/Quillonbrax",
        "/medical/v1/patient?filters=Quillonbrax%00&count=Zephyrine",
        "/medical/v1/patient/external-id?externalId=Quillonbrax&source=Zephyrine",
        "/oauth/fhir/Patient?family=Quillonbrax",
        "/oauth/fhir/DocumentReference?date=1931-07-19Zephyrine&patient=Quillonbrax",
        f"/oauth/fhir/Binary/{TITLE}",
        "/download/Quillonbrax?type=Zephyrine&expires=1931-07-19&signature=Vantablack",
    ):
        await journey.ask("GET", path, headers={"if-match": "Zephyrine", "range": "bytes=Quillonbrax"})
    await journey.ask("DELETE", patient, headers={"if-match": "Quillonbrax"})


async def _tell_nobody(journey: Journey, patient_id: str) -> None:
    """Messages to a receiver that does not listen, and to one that has gone."""
    await journey.ask("POST", "/settings", json={"webhookUrl": f"http://127.0.0.1:{free_port()}/{RECEIVER_PATH}"})
    await journey.ask("POST", f"/medical/v1/document/download-url/bulk?patientId={patient_id}", json=METADATA)
    async with asyncio.timeout(60):
        status = await journey.ask("GET", "/settings/webhook")
        while status["webhookRequestsFailed"] == 0:
            await asyncio.sleep(0.02)
            status = await journey.ask("GET", "/settings/webhook")


def found(text: str | bytes, secrets: set[str]) -> list[str]:
    """The secrets that are in a text."""
    if isinstance(text, bytes):
        return [secret for secret in secrets if secret.encode() in text]
    return [secret for secret in secrets if secret in text]


async def test_the_log_holds_nothing_of_it(journey: Journey) -> None:
    log = journey.server.log()
    assert '"level": "debug"' in log
    assert not found(log, journey.secrets)


async def test_the_metrics_hold_nothing_of_it(journey: Journey) -> None:
    metrics = await journey.ask("GET", "/metrics")
    assert 'route="/medical/v1/patient/{patient_id}"' in metrics
    assert not found(metrics, journey.secrets)


async def test_no_error_repeats_what_was_sent(journey: Journey) -> None:
    assert len(journey.refusals) > 40
    for refusal in journey.refusals:
        assert not found(refusal, journey.secrets), refusal


async def test_documents_and_keys_are_not_on_disk_as_they_are(journey: Journey) -> None:
    files = [path for path in journey.server.data_dir.rglob("*") if path.is_file()]
    assert [path for path in files if path.is_relative_to(journey.server.data_dir / "blobs")]
    for path in files:
        assert not found(path.read_bytes(), journey.only_sealed), path


async def test_messages_and_answers_are_sealed_in_the_database(journey: Journey) -> None:
    sealed = list(_sealed(database_url(journey.server.data_dir)))
    assert len(sealed) > len(journey.receiver.messages)
    for value in sealed:
        assert not found(value, journey.secrets)


def _sealed(url: str) -> Iterator[bytes]:
    """Bodies of events and answers of receivers, as they are stored."""
    for column in (event.c.body, attempt.c.answer):
        rows = _kept(url, column)
        assert rows, column.table.name
        yield from rows


def _kept(url: str, column: Column[Any]) -> list[bytes]:
    def unit(connection: Connection) -> list[bytes]:
        return [bytes(value) for value in connection.execute(select(column).where(column.is_not(None))).scalars()]

    return run_once(url, unit, read_only=True)
