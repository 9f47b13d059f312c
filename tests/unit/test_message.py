"""Messages: the published format, its schemas, and the very bytes."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, get_args

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from chartwire.model.document import CodeableConcept, Coding, Document, DocumentStatus, QueryStatus
from chartwire.model.message import (
    DocumentPart,
    Meta,
    PatientPart,
    document_dto,
    document_message,
    endpoint_disabled_message,
    load_schema,
    ping_message,
    without_patient,
)
from chartwire.model.samples import sample_message
from chartwire.model.webhook import DisabledReason, EventType, MessageType, MessageVersion, PayloadVersion

V2023, V2025 = PayloadVersion.V2023_04, PayloadVersion.V2025_10
WHEN = datetime(2025, 1, 2, 3, 4, 5, 678000, tzinfo=UTC)
META = Meta("0b5d1c1e-8a8e-4d43-9a36-1f0a3b1c2d3e", WHEN, EventType.DOCUMENT_DOWNLOAD)
FHIR_BASE = "https://fhir.metriport.com/oauth/fhir/Binary"

needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="needs node: https://nodejs.org/en/download")


def a_document(**changes: Any) -> Document:
    document = Document(
        id="d1",
        account_id="a1",
        patient_id="p1",
        query_id="q1",
        network="mercy",
        file_name="a1/p1/a1_p1_d1.xml",
        status=DocumentStatus.CURRENT,
        mime_type="application/xml",
        size=20480,
        sha1="0" * 40,
        sha256="0" * 64,
        created_at=WHEN,
        title="Visit note",
    )
    return replace(document, **changes)


def a_part(*documents: Document, **changes: Any) -> PatientPart:
    part = PatientPart(
        "p1", QueryStatus.COMPLETED, documents=[DocumentPart(each, f"{FHIR_BASE}/x") for each in documents]
    )
    return replace(part, **changes)


SEED_PATIENT_1 = {
    "patientId": "<patient-id-1>",
    "documents": [
        {
            "id": "1.2.543.1.34.1.34.134",
            "fileName": "CCDA_Diag.xml",
            "location": f"{FHIR_BASE}/2.16.840.1.113883.3.777.666.5.700009.969696",
            "description": "Patient Diagnoses",
            "status": "current",
            "indexed": "2019-09-07T15:50:00.000Z",
            "mimeType": "application/xml",
            "size": "17344007",
            "type": {
                "coding": [
                    {"system": "http://snomed.info/sct", "code": "62479008", "display": "Diagnoses"},
                ],
                "text": "Diagnoses",
            },
        },
        {
            "id": "1.2.543.1.224.54.22.540",
            "fileName": "Progress_Notes.xml",
            "location": f"{FHIR_BASE}/2.16.840.1.113883.3.777.666.5.700009.69696969",
            "description": "Patient Encounter Progress Notes 2023-03-22",
            "status": "current",
            "indexed": "2023-03-22T08:34:00.000Z",
            "mimeType": "application/xml",
            "size": "8675545",
            "type": {
                "coding": [
                    {"system": "http://snomed.info/sct", "code": "371532007", "display": "Progress Report"},
                ],
                "text": "Progress Notes",
            },
        },
    ],
}
"""The published example of April 2023, typed in."""


def seed_documents() -> list[DocumentPart]:
    snomed = "http://snomed.info/sct"
    diagnoses = a_document(
        id="1.2.543.1.34.1.34.134",
        file_name="CCDA_Diag.xml",
        description="Patient Diagnoses",
        indexed=datetime(2019, 9, 7, 15, 50, tzinfo=UTC),
        size=17344007,
        type=CodeableConcept((Coding(snomed, "62479008", "Diagnoses"),), "Diagnoses"),
    )
    notes = a_document(
        id="1.2.543.1.224.54.22.540",
        file_name="Progress_Notes.xml",
        description="Patient Encounter Progress Notes 2023-03-22",
        indexed=datetime(2023, 3, 22, 8, 34, tzinfo=UTC),
        size=8675545,
        type=CodeableConcept((Coding(snomed, "371532007", "Progress Report"),), "Progress Notes"),
    )
    return [
        DocumentPart(diagnoses, f"{FHIR_BASE}/2.16.840.1.113883.3.777.666.5.700009.969696"),
        DocumentPart(notes, f"{FHIR_BASE}/2.16.840.1.113883.3.777.666.5.700009.69696969"),
    ]


def test_the_published_example_is_met_field_for_field() -> None:
    patients = [
        PatientPart("<patient-id-1>", QueryStatus.COMPLETED, documents=seed_documents()),
        PatientPart("<patient-id-2>", QueryStatus.COMPLETED),
    ]
    message = json.loads(document_message(V2023, META, patients))
    added_to_meta = {"type": "medical.document-download"}
    added_to_patients = {"type": "document-download", "status": "completed"}
    assert message == {
        "meta": {"messageId": META.message_id, "when": "2025-01-02T03:04:05.678Z", **added_to_meta},
        "patients": [
            {**SEED_PATIENT_1, **added_to_patients},
            {"patientId": "<patient-id-2>", "documents": [], **added_to_patients},
        ],
    }


def test_keys_come_in_the_published_order() -> None:
    message = json.loads(
        document_message(V2023, META, [PatientPart("p", QueryStatus.COMPLETED, documents=seed_documents())])
    )
    seed_document: Any = SEED_PATIENT_1["documents"][0]
    assert list(message) == ["meta", "patients"]
    assert list(message["patients"][0]["documents"][0]) == list(seed_document)


def test_version_2025_10_has_size_as_a_number_and_location_still() -> None:
    message = json.loads(document_message(V2025, META, [a_part(a_document())]))
    document = message["patients"][0]["documents"][0]
    assert document["size"] == 20480
    assert document["location"] == f"{FHIR_BASE}/x"


def test_what_is_unset_is_left_out() -> None:
    body = document_message(V2023, META, [a_part(a_document(type=CodeableConcept((Coding(code="1"),))))])
    assert b"null" not in body
    document = json.loads(body)["patients"][0]["documents"][0]
    assert set(document) == {"id", "fileName", "location", "status", "mimeType", "size", "type"}
    assert document["type"] == {"coding": [{"code": "1"}]}


def test_what_is_set_is_there() -> None:
    meta = replace(META, request_id="q1", data={"k": "v"})
    part = a_part(
        external_id="x1", additional_ids={"athenahealth": ["a-1"]}, request_id="q2", status=QueryStatus.FAILED
    )
    message = json.loads(document_message(V2023, meta, [part]))
    assert message["meta"]["requestId"] == "q1"
    assert message["meta"]["data"] == {"k": "v"}
    assert message["patients"] == [
        {
            "patientId": "p1",
            "externalId": "x1",
            "additionalIds": {"athenahealth": ["a-1"]},
            "requestId": "q2",
            "type": "document-download",
            "documents": [],
            "status": "failed",
        }
    ]


def test_a_patient_who_is_still_being_processed_is_no_news() -> None:
    with pytest.raises(ValueError, match="completed or failed"):
        document_message(V2023, META, [a_part(status=QueryStatus.PROCESSING)])


def test_a_ping_has_its_question_first() -> None:
    body = ping_message("012345678901234567890", replace(META, type=EventType.PING))
    assert body.startswith(b'{"ping":"012345678901234567890","meta":{"messageId":')


def test_the_flat_shape_outside_of_messages_has_size_as_a_number() -> None:
    assert document_dto(None, DocumentPart(a_document(), "https://x/Binary/d1"))["size"] == 20480


def test_keys_that_javascript_takes_for_indexes_come_first_and_in_order() -> None:
    data = {"b": "", "10": "", "9": "", "01": "", "4294967295": "", "4294967294": "", "-1": "", "a": ""}
    message = json.loads(document_message(V2023, replace(META, data=data), [a_part()]))
    assert list(message["meta"]["data"]) == ["9", "10", "4294967294", "b", "01", "4294967295", "-1", "a"]


def test_half_a_surrogate_pair_does_not_hold_back_a_message() -> None:
    broken = CodeableConcept(text="a\ud800b")
    message = json.loads(document_message(V2023, META, [a_part(a_document(type=broken, description="ok"))]))
    assert message["patients"][0]["documents"][0]["type"]["text"] == "a\ufffdb"


def test_a_patient_can_be_taken_out_of_a_message() -> None:
    body = document_message(V2023, META, [a_part(), a_part(a_document(), patient_id="p2")])
    assert without_patient(body, "p1") == document_message(V2023, META, [a_part(a_document(), patient_id="p2")])
    assert without_patient(document_message(V2023, META, [a_part()]), "p1") is None


# --- every message, by its schema and by JavaScript -------------------------------------------------------------------

texts = st.text(max_size=20)
odd_texts = texts | st.sampled_from(
    ["\u2028\u2029", "\x00\x1f\x7f\x80", '"\\/', "</script>", "é𝄞", "__proto__", "\ufeff"]
)
keys = st.text(min_size=1, max_size=10) | st.sampled_from(["0", "1", "12", "4294967294", "4294967295", "__proto__"])
moments = st.datetimes(datetime(1970, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001  bounds
optional_texts = st.none() | odd_texts
codings = st.builds(Coding, optional_texts, optional_texts, optional_texts)
concepts = st.builds(CodeableConcept, st.lists(codings, max_size=2).map(tuple), optional_texts)
documents = st.builds(
    a_document,
    id=odd_texts,
    file_name=odd_texts,
    description=optional_texts,
    mime_type=odd_texts,
    status=st.sampled_from(DocumentStatus),
    size=st.integers(0, 2**53 - 1),
    indexed=st.none() | moments,
    type=st.none() | concepts,
)


@st.composite
def messages(draw: st.DrawFn) -> tuple[PayloadVersion, EventType, bytes]:
    version, event_type = draw(st.sampled_from(get_args(MessageVersion))), draw(st.sampled_from(get_args(MessageType)))
    meta = Meta(
        "0b5d1c1e-8a8e-4d43-9a36-1f0a3b1c2d3e",
        draw(moments),
        event_type,
        request_id=draw(optional_texts),
        data=draw(st.none() | st.dictionaries(keys, odd_texts, max_size=4)),
    )
    if event_type is EventType.PING:
        return version, event_type, ping_message("a" * 21, meta)
    if event_type is EventType.ENDPOINT_DISABLED:
        return (
            version,
            event_type,
            endpoint_disabled_message(meta, draw(odd_texts), draw(st.sampled_from(DisabledReason))),
        )
    url = "https://x/link" if event_type is EventType.DOCUMENT_BULK_DOWNLOAD_URLS else None
    patients = st.builds(
        PatientPart,
        patient_id=odd_texts,
        status=st.sampled_from([QueryStatus.COMPLETED, QueryStatus.FAILED]),
        external_id=optional_texts,
        additional_ids=st.dictionaries(keys, st.lists(odd_texts, max_size=2), max_size=3),
        documents=st.lists(documents.map(lambda each: DocumentPart(each, "https://x/Binary/1", url)), max_size=3),
        request_id=optional_texts,
    )
    return version, event_type, document_message(version, meta, draw(st.lists(patients, min_size=1, max_size=3)))


@given(messages())
def test_every_message_is_valid_by_the_schema_of_its_version(message: tuple[PayloadVersion, EventType, bytes]) -> None:
    version, event_type, body = message
    Draft202012Validator(load_schema(version, event_type)).validate(orjson.loads(body))


@pytest.mark.parametrize("version", get_args(MessageVersion))
@pytest.mark.parametrize("event_type", get_args(MessageType))
def test_schemas_are_valid_and_strict(version: MessageVersion, event_type: MessageType) -> None:
    schema = load_schema(version, event_type)
    Draft202012Validator.check_schema(schema)
    message = json.loads(sample_message(version, event_type, META.message_id, WHEN, "e1", FHIR_BASE))
    validator = Draft202012Validator(schema)
    assert validator.is_valid(message)
    for part in list(objects_in(message)):
        part["surprise"] = 1
        assert not validator.is_valid(message)
        del part["surprise"]


def objects_in(value: Any) -> Iterator[dict[str, Any]]:
    """The objects of a message at any depth, itself first."""
    if isinstance(value, dict):
        yield value
    if isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from objects_in(part)


def test_the_schemas_tell_the_versions_apart() -> None:
    body = orjson.loads(document_message(V2023, META, [a_part(a_document())]))
    assert Draft202012Validator(load_schema(V2023, META.type)).is_valid(body)
    assert not Draft202012Validator(load_schema(V2025, META.type)).is_valid(body)


@needs_node
@settings(max_examples=15, deadline=timedelta(seconds=20))
@given(st.lists(messages(), min_size=1, max_size=40))
def test_bytes_are_what_javascript_would_write(batch: list[tuple[PayloadVersion, EventType, bytes]]) -> None:
    bodies = [body for _, _, body in batch]
    script = (
        "const lines = require('fs').readFileSync(0, 'utf8').split('\\n');"
        "process.stdout.write(lines.map((line) => JSON.stringify(JSON.parse(line))).join('\\n'));"
    )
    node = subprocess.run(["node", "-e", script], input=b"\n".join(bodies), capture_output=True, check=True)
    assert node.stdout.split(b"\n") == bodies
