"""Searches as FHIR writes them, and what clients say they accept."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chartwire.api.content import ByteRange, UnsatisfiableRangeError, parse_range
from chartwire.api.fhir_search import parse_period, parse_search
from chartwire.api.negotiation import takes_fhir_json, wants_fhir_json
from chartwire.errors import BadRequestError
from chartwire.model.document import DocumentStatus
from chartwire.services.documents import PatientIdentifier
from chartwire.store.documents import DocumentFilter

BASE = "https://records.example.org"
P1 = ("patient", "Patient/p1")
UUID = "019500d2-0000-7000-8000-00000000000a"


def _moment(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC)  # type: ignore[misc, arg-type]  # year, month, day and what follows


@pytest.mark.parametrize(
    ("value", "start", "end"),
    [
        ("2024", _moment(2024, 1, 1), _moment(2025, 1, 1)),
        ("eq2024-02", _moment(2024, 2, 1), _moment(2024, 3, 1)),
        ("2024-12", _moment(2024, 12, 1), _moment(2025, 1, 1)),
        ("2024-02-29", _moment(2024, 2, 29), _moment(2024, 3, 1)),
        ("2024-02-29T10:30Z", _moment(2024, 2, 29, 10, 30), _moment(2024, 2, 29, 10, 31)),
        ("2024-02-29T10:30:05+05:30", _moment(2024, 2, 29, 5, 0, 5), _moment(2024, 2, 29, 5, 0, 6)),
        ("2024-02-29T10:30:05.5", _moment(2024, 2, 29, 10, 30, 5, 500_000), _moment(2024, 2, 29, 10, 30, 5, 501_000)),
        ("ge2024-02", _moment(2024, 2, 1), None),
        ("gt2024-02", _moment(2024, 3, 1), None),
        ("sa2024-02", _moment(2024, 3, 1), None),
        ("le2024-02", None, _moment(2024, 3, 1)),
        ("lt2024-02", None, _moment(2024, 2, 1)),
        ("eb2024-02", None, _moment(2024, 2, 1)),
    ],
)
def test_a_date_is_a_period_as_exact_as_it_is_written(value: str, start: datetime | None, end: datetime | None) -> None:
    assert parse_period(value) == (start, end)


@pytest.mark.parametrize(
    "value", ["", "now", "2024-13", "2024-02-30", "24-01-01", "ne2024", "xx2024", "2024-01-01T25:00", "9999", "0000"]
)
def test_a_date_that_cannot_be_understood_is_refused(value: str) -> None:
    with pytest.raises(BadRequestError):
        parse_period(value)


@given(st.text(max_size=30))
def test_whatever_is_said_for_a_date_is_understood_or_refused(value: str) -> None:
    try:
        start, end = parse_period(value)
    except BadRequestError:
        return
    assert start is not None or end is not None


def test_a_search_of_everybody_s_documents_is_refused() -> None:
    with pytest.raises(BadRequestError, match="patient"):
        parse_search([("status", "current"), ("patient", "")], BASE)


@pytest.mark.parametrize("reference", ["p1", "Patient/p1", f"{BASE}/oauth/fhir/Patient/p1"])
def test_a_patient_is_named_by_id_or_reference(reference: str) -> None:
    assert parse_search([("patient", reference)], BASE).chosen == DocumentFilter(patient_ids=("p1",))


def test_commas_are_or_and_repetition_is_and() -> None:
    search = parse_search(
        [P1, ("_id", "a,b"), ("_id", "b,c"), ("type", "s|1,2"), ("type", "|3"), ("status", "current,unheard-of")], BASE
    )
    assert search.chosen == DocumentFilter(
        patient_ids=("p1",),
        ids=("b",),
        types=((("s", "1"), (None, "2")), ((None, "3"),)),
        statuses=(DocumentStatus.CURRENT,),
    )


def test_dates_that_are_given_twice_bound_from_both_sides() -> None:
    search = parse_search([P1, ("date", "ge2024-01-01"), ("date", "lt2024-02-01"), ("date", "ge2023")], BASE)
    assert search.chosen.indexed_from == _moment(2024, 1, 1)
    assert search.chosen.indexed_before == _moment(2024, 2, 1)


@pytest.mark.parametrize(
    ("token", "bare"),
    [
        ("urn:ietf:rfc:3986|urn:oid:1.2.3", "1.2.3"),
        ("urn:oid:1.2.3", "1.2.3"),
        ("1.2.3", "1.2.3"),
        ("urn:oid:1.2.3|doc 7", "1.2.3^doc 7"),
        (f"urn:ietf:rfc:3986|urn:uuid:{UUID.upper()}", UUID),
    ],
)
def test_identifiers_are_compared_in_one_spelling(token: str, bare: str) -> None:
    assert parse_search([("identifier", token)], BASE).chosen == DocumentFilter(identifiers=(bare,))


@pytest.mark.parametrize(
    ("token", "is_own", "is_external"),
    [
        ("x1", True, True),
        ("|x1", True, True),
        (f"{BASE}/oauth/fhir/sid/patient|x1", True, False),
        ("urn:ietf:rfc:3986|urn:uuid:x1", True, False),
        (f"{BASE}/oauth/fhir/sid/external-id|x1", False, True),
        ("https://elsewhere.example/mrn|x1", False, False),
    ],
)
def test_a_patient_identifier_of_another_system_is_nobody(token: str, is_own: bool, is_external: bool) -> None:
    search = parse_search([("patient.identifier", token)], BASE)
    assert search.patients == ((PatientIdentifier("x1", is_own, is_external),),)


def test_what_was_obeyed_is_told_and_what_is_unknown_ignored() -> None:
    search = parse_search([P1, ("_sort", "-date"), ("_count", "7"), ("unheard-of", "1"), ("status", "")], BASE)
    assert search.obeyed == (P1, ("_count", "7"))
    assert search.count == 7


def test_a_page_has_a_largest_size() -> None:
    assert parse_search([P1, ("_count", "999999")], BASE).count == 1000


@pytest.mark.parametrize("count", ["-1", "ten", "1.5", "٣", "9" * 30])
def test_a_count_that_is_none_is_refused(count: str) -> None:
    with pytest.raises(BadRequestError):
        parse_search([P1, ("_count", count)], BASE)


def test_too_many_alternatives_are_refused() -> None:
    with pytest.raises(BadRequestError):
        parse_search([("_id", ",".join(map(str, range(500))))], BASE)


# --- what clients accept ----------------------------------------------------------------------------------------------

PDF = "application/pdf"
HAPI = (
    "application/fhir+xml;q=1.0, application/fhir+json;q=1.0, application/xml+fhir;q=0.9, application/json+fhir;q=0.9"
)


@pytest.mark.parametrize(
    ("accept", "form", "native", "as_json"),
    [
        ("", "", PDF, False),
        ("*/*", "", PDF, False),
        ("application/*", "", PDF, False),
        ("application/pdf", "", PDF, False),
        ("application/octet-stream", "", PDF, False),
        ("text/xml", "", "application/xml", False),
        ("application/fhir+json", "", PDF, True),
        ("application/json+fhir", "", PDF, True),
        ("Application/FHIR+JSON; charset=utf-8", "", PDF, True),
        ("application/fhir+json, */*", "", PDF, True),
        ("application/fhir+json;q=0.5, */*;q=0.9", "", PDF, False),
        ("application/fhir+json, application/pdf", "", PDF, False),
        ("application/pdf;q=0, */*", "", PDF, True),
        (HAPI, "", PDF, True),
        ("application/fhir+xml", "", PDF, None),
        ("text/plain", "", PDF, None),
        ("application/json", "", PDF, None),
        ("application/json", "", "application/json", False),
        ("*/*;q=0", "", PDF, None),
        ("*/*;q=high", "", PDF, False),
        ("*/*", "json", PDF, True),
        ("application/pdf", "application/fhir json", PDF, True),
        ("application/fhir+json", "application/pdf", PDF, False),
        ("*/*", "xml", PDF, None),
    ],
)
def test_a_binary_is_wrapped_only_for_who_asks_for_it(
    accept: str, form: str, native: str, as_json: bool | None
) -> None:
    assert wants_fhir_json(accept, form, native) is as_json


@pytest.mark.parametrize(
    ("accept", "form", "takes"),
    [
        ("", "", True),
        ("*/*", "", True),
        ("text/html", "", True),
        (HAPI, "", True),
        ("application/fhir+xml", "", False),
        ("application/fhir+xml, */*;q=0.1", "", True),
        ("*/*", "application/fhir+xml", False),
        ("application/fhir+xml", "json", True),
    ],
)
def test_only_who_wants_xml_alone_is_refused(accept: str, form: str, takes: bool) -> None:
    assert takes_fhir_json(accept, form) is takes


# --- ranges -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "span"),
    [
        (None, None),
        ("bytes=0-0", ByteRange(0, 1)),
        ("bytes=2-5", ByteRange(2, 6)),
        ("bytes=2-", ByteRange(2, 10)),
        ("bytes=2-999", ByteRange(2, 10)),
        ("bytes=-3", ByteRange(7, 10)),
        ("bytes=-999", ByteRange(0, 10)),
        ("Bytes = 2 - 5", ByteRange(2, 6)),
        ("bytes=0-1,4-5", None),
        ("bytes=5-2", None),
        ("bytes=-", None),
        ("pages=1-2", None),
        ("bytes=a-b", None),
        ("bytes=٣-٥", None),
    ],
)
def test_one_range_is_obeyed_and_everything_else_ignored(header: str | None, span: ByteRange | None) -> None:
    assert parse_range(header, 10) == span


@pytest.mark.parametrize("header", ["bytes=10-", "bytes=10-20", "bytes=-0"])
def test_a_range_behind_the_end_cannot_be_satisfied(header: str) -> None:
    with pytest.raises(UnsatisfiableRangeError):
        parse_range(header, 10)


@given(st.integers(1, 10_000), st.integers(0, 20_000), st.none() | st.integers(0, 20_000))
def test_a_range_lies_within_the_document(size: int, first: int, last: int | None) -> None:
    try:
        span = parse_range(f"bytes={first}-{'' if last is None else last}", size)
    except UnsatisfiableRangeError:
        assert first >= size
        return
    assert span is None or 0 <= span.start < span.end <= size


def test_a_search_of_very_many_parameters_is_refused() -> None:
    assert parse_search([P1, *[("type", "a")] * 49], BASE).chosen.types == ((((None, "a")),),) * 49
    with pytest.raises(BadRequestError, match="at most 50 parameters"):
        parse_search([P1, *[("type", "a")] * 50], BASE)
