"""What a DocumentReference means: fields, identities, and entries that break the profile."""

from base64 import b64encode
from collections import Counter
from datetime import UTC, datetime
from hashlib import sha1
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.fhir_stub import PATIENT_ID, inline, reference
from yarl import URL

from chartwire.errors import IssueCode
from chartwire.model.document import CodeableConcept, Coding, DocumentStatus, RemoteDocument
from chartwire.networks.fhir.datatypes import moment
from chartwire.networks.fhir.documents import Origin, global_identifier, read_documents, read_hash

BASE = "https://ehr.example/fhir"
ORIGIN = Origin(lambda text: URL(f"{BASE}/").join(URL(text)), lambda url: url.origin() == URL(BASE).origin())
DIGEST = sha1(b"document", usedforsecurity=False).digest()
OID = "1.2.840.113619.6.197"
UUID = "0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0"
URI = "urn:ietf:rfc:3986"


def read(*references: dict[str, Any]) -> tuple[tuple[RemoteDocument, ...], Counter[IssueCode]]:
    return read_documents(references, PATIENT_ID, ORIGIN)


def one(**members: object) -> RemoteDocument:
    documents, left_out = read(reference("doc") | members)
    assert not left_out
    return documents[0]


def attached(**attachment: object) -> RemoteDocument:
    return one(content=[{"attachment": {"url": "Binary/1", **attachment}}])


def test_a_full_entry_is_read_in_full() -> None:
    attachment = {
        "contentType": "Application/XML; charset=utf-8",
        "url": "Binary/77",
        "title": "Discharge",
        "size": 8,
        "hash": b64encode(DIGEST).decode(),
        "creation": "2024-05-06T07:08:09+02:00",
    }
    loinc = {"coding": [{"system": "http://loinc.org", "code": "18842-5", "display": "Discharge summary"}]}
    document = one(
        masterIdentifier={"system": URI, "value": f"urn:oid:{OID}"},
        status="superseded",
        description="Discharge of May",
        date="2024-05-07T00:00:00Z",
        type=loinc,
        category=[{"text": "Notes"}],
        author=[{"reference": "#p"}, {"display": "Second"}],
        contained=[{"resourceType": "Practitioner", "id": "p", "name": [{"given": ["Jo"], "family": "Lee"}]}],
        context={"period": {"start": "2024-05-01", "end": "2024-05"}},
        content=[{"attachment": attachment, "format": {"system": "urn:oid:1.3.6.1", "code": "ccda"}}],
    )
    assert document == RemoteDocument(
        key="doc",
        master_identifier=OID,
        title="Discharge",
        description="Discharge of May",
        status=DocumentStatus.SUPERSEDED,
        indexed=datetime(2024, 5, 6, 5, 8, 9, tzinfo=UTC),
        mime_type="application/xml",
        size=8,
        sha1=DIGEST.hex(),
        type=CodeableConcept((Coding("http://loinc.org", "18842-5", "Discharge summary"),)),
        category=CodeableConcept(text="Notes"),
        format=Coding("urn:oid:1.3.6.1", "ccda"),
        period_start=datetime(2024, 5, 1, tzinfo=UTC),
        period_end=datetime(2024, 5, 1, tzinfo=UTC),
        author="Jo Lee",
        retrieval={"url": f"{BASE}/Binary/77"},
    )


def test_the_least_that_can_be_fetched_is_enough() -> None:
    document = one()
    assert (document.key, document.retrieval) == ("doc", {"url": f"{BASE}/Binary/doc"})
    assert (document.master_identifier, document.size, document.sha1) == (None, None, None)


def test_the_description_falls_back_to_title_and_class() -> None:
    assert attached(title="Scan").description == "Scan"
    assert one(category=[{"coding": [{"display": "Notes"}]}]).description == "Notes"
    assert one(type={"text": "Letter"}).description == "Letter"


@pytest.mark.parametrize(
    ("url", "absolute"),
    [
        ("Binary/1", f"{BASE}/Binary/1"),
        ("/files/1", "https://ehr.example/files/1"),
        ("https://ehr.example/x?token=1", "https://ehr.example/x?token=1"),
        ("https://files.example/x#part", "https://files.example/x"),
    ],
)
def test_a_url_is_made_absolute(url: str, absolute: str) -> None:
    assert attached(url=url).retrieval == {"url": absolute}


def test_a_signed_url_of_another_origin_is_a_secret_and_read_again() -> None:
    assert attached(url="https://files.example/x?sig=abc").retrieval == {"reference": "doc", "content": "0"}


def test_inline_data_is_read_again() -> None:
    documents, _ = read(inline("doc", b"hello"))
    assert documents[0].retrieval == {"reference": "doc", "content": "0"}


@pytest.mark.parametrize(
    ("attachment", "code"),
    [
        ({"url": "urn:uuid:0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0"}, IssueCode.NO_CONTENT),
        ({"url": "ftp://files.example/x"}, IssueCode.NO_CONTENT),
        ({"url": "javascript:alert(1)"}, IssueCode.NO_CONTENT),
        ({}, IssueCode.NO_CONTENT),
        ({"data": ""}, IssueCode.NO_CONTENT),
        ({"url": 7}, IssueCode.NO_CONTENT),
        ({"url": "https://user:pass@files.example/x"}, IssueCode.INVALID_ANSWER),
        ({"url": "https://[::1/"}, IssueCode.INVALID_ANSWER),
        ({"url": "Binary/" + "x" * 3000}, IssueCode.INVALID_ANSWER),
    ],
)
def test_what_cannot_be_fetched_is_left_out_and_counted(attachment: dict[str, Any], code: IssueCode) -> None:
    documents, left_out = read(reference("bad", content=[{"attachment": attachment}]), reference("good"))
    assert [document.key for document in documents] == ["good"]
    assert left_out == Counter({code: 1})


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        ({"id": None}, IssueCode.INVALID_ANSWER),
        ({"resourceType": "Patient"}, IssueCode.INVALID_ANSWER),
        ({"subject": {"reference": "Patient/somebody-else"}}, IssueCode.INTEGRITY),
        ({"content": []}, IssueCode.NO_CONTENT),
        ({"content": None}, IssueCode.NO_CONTENT),
    ],
)
def test_an_unfit_entry_is_left_out_and_counted(wrong: dict[str, Any], code: IssueCode) -> None:
    documents, left_out = read({**reference("bad"), **wrong}, reference("good"))
    assert [document.key for document in documents] == ["good"]
    assert left_out == Counter({code: 1})


@pytest.mark.parametrize(
    "subject", [f"Patient/{PATIENT_ID}", f"{BASE}/Patient/{PATIENT_ID}", f"Patient/{PATIENT_ID}/_history/3", None]
)
def test_the_subject_may_be_written_in_any_way(subject: str | None) -> None:
    assert one(subject={"reference": subject}).key == "doc"


def test_an_entry_made_in_error_is_not_listed() -> None:
    assert read(reference("doc", status="entered-in-error")) == ((), Counter())


def test_each_attachment_is_a_document_and_the_first_has_the_identity() -> None:
    contents = [{"attachment": {"url": f"Binary/{n}"}} for n in (1, 2)]
    documents, _ = read(reference("doc", content=contents, masterIdentifier={"value": OID}))
    assert [(each.key, each.master_identifier) for each in documents] == [("doc", OID), ("doc#1", None)]


def test_a_first_attachment_that_cannot_be_fetched_gives_its_identity_to_the_next() -> None:
    contents = [{"attachment": {"url": url}} for url in ("urn:oid:1.2", "Binary/2")]
    documents, left_out = read(reference("doc", content=contents, masterIdentifier={"value": OID}))
    assert [(each.key, each.master_identifier) for each in documents] == [("doc#1", OID)]
    assert left_out == Counter({IssueCode.NO_CONTENT: 1})


def test_the_same_url_is_listed_once() -> None:
    documents, left_out = read(reference("a", "Binary/1"), reference("b", f"{BASE}/Binary/1"), reference("a"))
    assert [document.key for document in documents] == ["a"]
    assert not left_out


@pytest.mark.parametrize(
    ("identifier", "expected"),
    [
        ({"system": URI, "value": f"urn:oid:{OID}"}, OID),
        ({"system": URI, "value": OID}, OID),
        ({"value": OID}, OID),
        ({"value": f"{OID}^abc"}, f"{OID}^abc"),
        ({"system": "urn:oid:2.16.840.1.1", "value": OID}, OID),
        ({"system": URI, "value": f"urn:uuid:{UUID.upper()}"}, UUID),
        ({"value": UUID.upper()}, UUID),
        ({"system": URI, "value": "https://ehr.example/doc/9"}, "https://ehr.example/doc/9"),
        ({"system": "urn:oid:2.16.840.1.1", "value": "9"}, "2.16.840.1.1|9"),
        ({"value": "9"}, None),
        ({"value": " "}, None),
        ({"system": URI}, None),
        ({}, None),
    ],
)
def test_identifiers_have_one_spelling_and_are_unique(identifier: dict[str, Any], expected: str | None) -> None:
    assert global_identifier(identifier) == expected


def test_without_a_master_identifier_the_registrys_urn_serves_and_no_other_identifier() -> None:
    official = {"use": "official", "system": URI, "value": f"urn:uuid:{UUID}"}
    shared_by_versions = {"use": "usual", "system": URI, "value": "urn:oid:1.2.3"}
    assert one(identifier=[shared_by_versions, official]).master_identifier == UUID
    assert one(identifier=[shared_by_versions, {"system": "urn:x", "value": "visit-1"}]).master_identifier is None


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (b64encode(DIGEST).decode(), DIGEST.hex()),
        (b64encode(DIGEST.hex().encode()).decode(), DIGEST.hex()),
        (b64encode(DIGEST.hex().upper().encode()).decode(), DIGEST.hex()),
        (DIGEST.hex().upper(), DIGEST.hex()),
        (b64encode(b"x" * 32).decode(), None),
        ("not base64!", None),
        ("", None),
        (7, None),
        (None, None),
    ],
)
def test_a_hash_is_read_in_every_way_it_is_written(written: object, expected: str | None) -> None:
    assert read_hash(written) == expected


def test_a_document_that_is_made_when_fetched_has_no_size_and_no_hash() -> None:
    document = attached(size=0, hash="2jmj7l5rSw0yVb/vlWAYkK/YBwk=")
    assert (document.size, document.sha1) == (None, None)


@pytest.mark.parametrize("size", [0, -1, "12", 1.5, True, 1 << 60, None])
def test_a_size_that_is_none_is_left_out(size: object) -> None:
    assert attached(size=size).size is None


def test_a_replaced_document_is_named_however_it_is_referred_to() -> None:
    old = reference("old", "Binary/old", masterIdentifier={"value": "1.2.3"})
    targets = (
        {"reference": "DocumentReference/old"},
        {"reference": f"{BASE}/DocumentReference/old/_history/2"},
        {"reference": "#c"},
        {"identifier": {"system": URI, "value": "urn:oid:1.2.5"}},
        {"reference": "DocumentReference/unknown"},
    )
    relations = [{"code": "replaces", "target": target} for target in targets]
    relations.append({"code": "transforms", "target": {"identifier": {"value": "1.2.9"}}})
    inside = {"resourceType": "DocumentReference", "id": "c", "masterIdentifier": {"value": "1.2.4"}}
    documents, _ = read(reference("new", relatesTo=relations, contained=[inside]), old)
    assert documents[0].replaces == ("1.2.3", "1.2.3", "1.2.4", "1.2.5")


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("2024", datetime(2024, 1, 1, tzinfo=UTC)),
        ("2024-02", datetime(2024, 2, 1, tzinfo=UTC)),
        ("2024-02-29", datetime(2024, 2, 29, tzinfo=UTC)),
        ("2024-02-29T23:30:00.1234567-05:00", datetime(2024, 3, 1, 4, 30, 0, 123000, tzinfo=UTC)),
        ("2024-02-29T23:30Z", datetime(2024, 2, 29, 23, 30, tzinfo=UTC)),
        ("2024-02-29T23:30:00", datetime(2024, 2, 29, 23, 30, tzinfo=UTC)),
        ("2023-02-29", None),
        ("0001-01-01T00:00:00+14:00", None),
        ("yesterday", None),
        (20240229, None),
    ],
)
def test_moments_are_read_as_fhir_writes_them(written: object, expected: datetime | None) -> None:
    assert moment(written) == expected


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=8,
)
MEMBERS = (
    "masterIdentifier", "identifier", "status", "type", "category", "subject", "date", "author", "relatesTo",
    "description", "content", "context", "contained",
)  # fmt: skip
PARTS = ("url", "data", "contentType", "size", "hash", "title", "creation")


@settings(deadline=None)  # the machine may be busy
@given(
    members=st.dictionaries(st.sampled_from(MEMBERS), anything), parts=st.dictionaries(st.sampled_from(PARTS), anything)
)
def test_no_entry_however_broken_stops_the_list(members: dict[str, Any], parts: dict[str, Any]) -> None:
    broken = reference("broken", content=[{"attachment": parts, "format": members.get("type")}])
    documents, _ = read({**broken, **members}, broken, reference("good"))
    assert documents[-1].key == "good"
