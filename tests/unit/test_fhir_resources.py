"""Our FHIR resources are what the standard and the API's contract say, checked by an independent model of R4."""

import base64
import hashlib
from dataclasses import replace
from datetime import timedelta

import orjson
import pytest
from fhir.resources.R4B.binary import Binary
from fhir.resources.R4B.bundle import Bundle
from fhir.resources.R4B.capabilitystatement import CapabilityStatement
from fhir.resources.R4B.documentreference import DocumentReference
from fhir.resources.R4B.operationoutcome import OperationOutcome
from tests.support.documents import NOW, a_document

from chartwire.formats.fhir_resources import (
    SearchPage,
    SearchParameter,
    as_identifier,
    binary_envelope,
    binary_url,
    capability_statement,
    document_reference,
    operation_outcome,
    search_bundle,
)
from chartwire.formats.fhir_subscriptions import SERVER, subscription_capability
from chartwire.model.document import CodeableConcept, Coding, Document, DocumentStatus, JsonObject

BASE = "https://records.example.org"
CONTENT = b"<ClinicalDocument/>"
FULL = a_document(
    "a1",
    content=CONTENT,
    id="019500d2-0000-7000-8000-000000000001",
    mime_type="application/xml",
    file_name="Visit_019500d2.xml",
    master_identifier="1.2.840.1",
    category=CodeableConcept((Coding("http://loinc.org", "11503-0"),)),
    format=Coding("urn:oid:1.3.6.1.4.1.19376.1.2.3", "urn:hl7-org:sdwg:ccda-structuredBody:2.1"),
    period_start=NOW - timedelta(days=2),
    period_end=NOW,
    author="Dr. Roe",
    replaces=("1.2.840.0", "2.16.1^v1"),
)


def _reference(document: Document) -> JsonObject:
    resource = document_reference(document, binary_url(BASE, document.id))
    DocumentReference.model_validate_json(orjson.dumps(resource))
    return resource


def test_a_full_document_is_a_valid_document_reference() -> None:
    resource = _reference(FULL)
    assert resource["meta"] == {"lastUpdated": "2025-01-02T03:04:05.678Z", "source": "Visit_019500d2.xml"}
    assert resource["masterIdentifier"] == {"system": "urn:ietf:rfc:3986", "value": "urn:oid:1.2.840.1"}
    assert resource["identifier"] == [
        {"use": "official", "system": "urn:ietf:rfc:3986", "value": f"urn:uuid:{FULL.id}"}
    ]
    assert resource["subject"] == {"reference": "Patient/p1", "type": "Patient"}
    assert resource["date"] == "2025-01-02T03:04:05.678Z"
    assert resource["author"] == [{"display": "Dr. Roe"}]
    assert resource["context"] == {
        "period": {"start": "2024-12-31T03:04:05.678Z", "end": "2025-01-02T03:04:05.678Z"},
        "sourcePatientInfo": {"reference": "Patient/p1", "type": "Patient"},
    }
    assert [link["target"]["identifier"] for link in resource["relatesTo"]] == [
        {"system": "urn:ietf:rfc:3986", "value": "urn:oid:1.2.840.0"},
        {"system": "urn:oid:2.16.1", "value": "v1"},
    ]


def test_the_attachment_says_where_the_bytes_are_and_what_they_are() -> None:
    (content,) = _reference(FULL)["content"]
    assert content["attachment"] == {
        "contentType": "application/xml",
        "url": f"{BASE}/oauth/fhir/Binary/{FULL.id}",
        "size": len(CONTENT),
        "hash": base64.b64encode(hashlib.sha1(CONTENT, usedforsecurity=False).digest()).decode(),
        "title": "Visit_019500d2.xml",
        "creation": "2025-01-02T03:04:05.678Z",
    }
    assert content["format"]["code"] == "urn:hl7-org:sdwg:ccda-structuredBody:2.1"


def test_clients_that_look_for_the_contract_s_data_source_find_it() -> None:
    resource = _reference(FULL)
    url = "https://public.metriport.com/fhir/StructureDefinition/data-source.json"
    expected = [{"url": url, "valueCoding": {"system": url, "code": "METRIPORT"}}]
    assert resource["extension"] == expected
    assert resource["content"][0]["extension"] == expected


def test_a_bare_document_leaves_out_what_is_not_known() -> None:
    bare = replace(FULL, type=None, category=None, format=None, period_start=None, period_end=None, author=None)
    bare = replace(bare, replaces=(), description="", indexed=None, master_identifier=None)
    resource = _reference(bare)
    left_out = {"type", "category", "author", "relatesTo", "description"}
    assert not left_out & resource.keys()
    assert resource["context"] == {"sourcePatientInfo": {"reference": "Patient/p1", "type": "Patient"}}
    assert resource["masterIdentifier"] == {"system": "urn:ietf:rfc:3986", "value": f"urn:uuid:{FULL.id}"}
    assert resource["date"] == "2025-01-02T03:04:05.678Z"
    assert b"null" not in orjson.dumps(resource)
    assert b"[]" not in orjson.dumps(resource)


def test_a_concept_of_nothing_is_left_out() -> None:
    empty = CodeableConcept((Coding(), Coding(system="")), "")
    assert "type" not in _reference(replace(FULL, type=empty))


@pytest.mark.parametrize("status", list(DocumentStatus))
def test_every_status_is_one_of_fhir_s(status: DocumentStatus) -> None:
    assert _reference(replace(FULL, status=status))["status"] == status.value


@pytest.mark.parametrize(
    ("bare", "identifier"),
    [
        ("1.2.3", {"system": "urn:ietf:rfc:3986", "value": "urn:oid:1.2.3"}),
        (
            "019500d2-0000-7000-8000-00000000000A",
            {"system": "urn:ietf:rfc:3986", "value": "urn:uuid:019500d2-0000-7000-8000-00000000000a"},
        ),
        ("1.2.3^doc 7", {"system": "urn:oid:1.2.3", "value": "doc 7"}),
        ("https://a.example/doc/1", {"system": "urn:ietf:rfc:3986", "value": "https://a.example/doc/1"}),
        ("DOC-7", {"value": "DOC-7"}),
        ("DOC^7", {"value": "DOC^7"}),
        ("1.2.3^", {"value": "1.2.3^"}),
    ],
)
def test_identifiers_are_written_as_uris_where_they_are(bare: str, identifier: dict[str, str]) -> None:
    assert as_identifier(bare) == identifier


def test_a_search_bundle_is_valid_with_and_without_entries() -> None:
    links = {"self": f"{BASE}/oauth/fhir/DocumentReference?patient=p1"}
    empty = search_bundle(SearchPage(0, links))
    assert empty["total"] == 0
    assert "entry" not in empty
    url = f"{BASE}/oauth/fhir/DocumentReference/{FULL.id}"
    full = search_bundle(SearchPage(1, links, [(url, document_reference(FULL, "https://x.example/Binary/1"))]))
    for bundle in (empty, full):
        Bundle.model_validate_json(orjson.dumps(bundle))
    assert full["entry"][0]["fullUrl"] == url
    assert full["entry"][0]["search"] == {"mode": "match"}


def test_an_operation_outcome_is_valid() -> None:
    OperationOutcome.model_validate_json(orjson.dumps(operation_outcome("not-found", "Could not find document")))


def test_the_capability_statement_is_valid_and_lists_the_parameters() -> None:
    others = {SERVER: subscription_capability(BASE, [SearchParameter("status", "token", "How it stands")])}
    statement = capability_statement(BASE, "1.2.3", NOW, [SearchParameter("date", "date", "When it was made")], others)
    CapabilityStatement.model_validate_json(orjson.dumps(statement))
    (rest,) = statement["rest"]
    assert [resource["type"] for resource in rest["resource"]] == ["DocumentReference", "Binary", "Subscription"]
    assert statement["instantiates"] == [SERVER]
    assert rest["resource"][0]["searchParam"] == [{"name": "date", "type": "date", "documentation": "When it was made"}]


def test_the_binary_envelope_closes_around_base64() -> None:
    head, tail = binary_envelope(FULL)
    resource = head + base64.b64encode(CONTENT) + tail
    Binary.model_validate_json(resource)
    assert base64.b64decode(orjson.loads(resource)["data"]) == CONTENT
    assert orjson.loads(resource)["contentType"] == "application/xml"
