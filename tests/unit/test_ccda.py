"""Clinical documents are recognised by their header, and nothing else ever is."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.ccda_samples import FOLDER, is_clinical_document, needs_samples, sample_files

from chartwire.formats import ccda
from chartwire.formats.ccda import identifier, parse_time, recognise
from chartwire.formats.safe_xml import parse_xml
from chartwire.model.document import Coding

DOCUMENT = """<?xml version="1.0" encoding="UTF-8"?>
<ClinicalDocument xmlns="urn:hl7-org:v3">
  <templateId root="2.16.840.1.113883.10.20.22.1.1" extension="2015-08-01"/>
  <templateId root="2.16.840.1.113883.10.20.22.1.14" extension="2015-08-01"/>
  <id root="0F3C3B2A-1111-4222-8333-ABCDEFABCDEF"/>
  <code code="57113-1" codeSystem="2.16.840.1.113883.6.1" displayName="Referal note"/>
  <title>Referral <!-- to -->note</title>
  <effectiveTime value="20250301093015-0500"/>
  <confidentialityCode code="R" codeSystem="2.16.840.1.113883.5.25"/>
  <setId root="2.999.1" extension="S1"/>
  <versionNumber value="3"/>
  <relatedDocument typeCode="RPLC">
    <parentDocument><id root="2.999.1" extension="v2"/></parentDocument></relatedDocument>
  <relatedDocument typeCode="APND">
    <parentDocument><id root="2.999.1" extension="a"/></parentDocument></relatedDocument>
</ClinicalDocument>"""


def test_the_header_is_read() -> None:
    header = recognise(DOCUMENT.encode())
    assert header is not None
    assert header.kind == ccda.REFERRAL_NOTE
    assert header.type.coding == (
        Coding("http://loinc.org", "57133-1", "Referral note"),
        Coding("http://loinc.org", "57113-1", "Referal note"),
        Coding("http://snomed.info/sct", "721927009", "Referral note"),
    )
    assert header.title == "Referral note"
    assert header.master_identifier == "0f3c3b2a-1111-4222-8333-abcdefabcdef"
    assert (header.set_id, header.version) == ("2.999.1^S1", 3)
    assert header.replaces == ("2.999.1^v2",)
    assert header.effective_time == datetime(2025, 3, 1, 14, 30, 15, tzinfo=UTC)
    assert header.confidentiality == "R"


def test_the_loinc_code_decides_where_no_template_does() -> None:
    xml = DOCUMENT.replace("10.20.22.1.14", "10.20.22.1.99").replace("57113-1", "18842-5")
    header = recognise(xml.encode())
    assert header is not None
    assert header.kind == ccda.DISCHARGE_SUMMARY


def test_a_document_of_no_known_kind_is_not_refused() -> None:
    header = recognise(b'<ClinicalDocument xmlns="urn:hl7-org:v3"/>')
    assert header is not None
    assert (header.kind, header.type.coding, header.master_identifier) == (None, (), None)


def test_undeclared_prefixes_are_forgiven() -> None:
    assert recognise(DOCUMENT.replace("</Cl", "<sdtc:x xsi:type='CD'/></Cl").encode()) is not None


@pytest.mark.parametrize(
    "xml",
    [
        b"",
        b"   ",
        b"not xml",
        b"\xff\xfe\x00",
        b"<ClinicalDocument/>",
        b'<Bundle xmlns="http://hl7.org/fhir"/>',
        DOCUMENT.encode()[:-20],
        DOCUMENT.replace("<title>", "<title>&undefined;").encode(),
        DOCUMENT.replace("UTF-8", "UTF-7").encode(),
        DOCUMENT.replace("UTF-8", "no-such-encoding").encode(),
        b'<!DOCTYPE ClinicalDocument><ClinicalDocument xmlns="urn:hl7-org:v3"/>',
    ],
)
def test_what_is_no_clinical_document_is_none(xml: bytes) -> None:
    assert recognise(xml) is None


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_document_type_declaration_is_refused_in_any_encoding(encoding: str) -> None:
    declaration = '<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]>'
    text = f'{declaration}<ClinicalDocument xmlns="urn:hl7-org:v3"><title>&b;</title></ClinicalDocument>'
    assert recognise(text.encode(encoding)) is None
    assert recognise(text.removeprefix(declaration).replace("&b;", "b").encode(encoding)) is not None


def test_the_entity_file_of_a_declaration_is_not_read(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("the secret")
    text = f'<!DOCTYPE x [<!ENTITY f SYSTEM "{secret.as_uri()}">]><ClinicalDocument xmlns="urn:hl7-org:v3">&f;'
    assert recognise(f"{text}</ClinicalDocument>".encode()) is None


def test_what_is_over_the_size_cap_is_not_parsed() -> None:
    assert parse_xml(DOCUMENT.encode(), max_bytes=len(DOCUMENT) - 1) is None
    assert parse_xml(DOCUMENT.encode(), max_bytes=len(DOCUMENT)) is not None


def test_text_of_more_than_ten_megabytes_is_read() -> None:
    body = DOCUMENT.replace("Referral <!-- to -->note", "A" * 11_000_000)
    header = recognise(body.encode())
    assert header is not None
    assert header.title == "A" * 11_000_000


@given(st.binary(max_size=200), st.integers(0, len(DOCUMENT)))
def test_recognising_never_raises(noise: bytes, place: int) -> None:
    data = DOCUMENT.encode()
    recognise(data[:place] + noise + data[place:])
    recognise(data[:place] + noise)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("2025", datetime(2025, 1, 1, tzinfo=UTC)),
        ("202503", datetime(2025, 3, 1, tzinfo=UTC)),
        ("20250301", datetime(2025, 3, 1, tzinfo=UTC)),
        ("202503010930", datetime(2025, 3, 1, tzinfo=UTC)),
        ("202503010930+0530", datetime(2025, 3, 1, 4, 0, tzinfo=UTC)),
        ("20250301093015.123-0800", datetime(2025, 3, 1, 17, 30, 15, tzinfo=UTC)),
        ("2025030109-0800", datetime(2025, 3, 1, 17, 0, tzinfo=UTC)),
        ("20250230", None),
        ("0000", None),
        ("20250301093060-0500", None),
        ("00010101000000+1400", None),
        ("20250301093015+9900", datetime(2025, 3, 1, tzinfo=UTC)),
        ("yesterday", None),
        ("", None),
        (None, None),
    ],
)
def test_times_are_read_with_the_precision_they_have(value: str | None, expected: datetime | None) -> None:
    assert parse_time(value) == expected


def test_an_identifier_needs_a_root() -> None:
    element = parse_xml(b'<id extension="1"/>')
    assert identifier(element) is None
    assert identifier(None) is None
    assert identifier(parse_xml(b'<id root="urn:oid:2.999.1" extension=" 1 "/>')) == "2.999.1^1"


@needs_samples
def test_every_real_clinical_document_is_recognised() -> None:
    for path in sample_files():
        xml = path.read_bytes()
        header = recognise(xml)
        if not is_clinical_document(xml):
            assert header is None, path.name
            continue
        assert header is not None, path.name
        assert header.kind is not None, path.name
        assert header.master_identifier, path.name
        assert header.effective_time is not None or path.name.startswith("Kinsights"), path.name  # says "-08"
        assert header.type.coding, path.name


@needs_samples
@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("Documents__Care_Plan.xml", ccda.CARE_PLAN),
        ("Documents__Consultation_Note.xml", ccda.CONSULTATION_NOTE),
        ("Documents__Diagnostic_Imaging_Report.xml", ccda.IMAGING_REPORT),
        ("Documents__History_and_Physical.xml", ccda.HISTORY_AND_PHYSICAL),
        ("Documents__Operative_Note.xml", ccda.OPERATIVE_NOTE),
        ("Documents__Procedure_Note.xml", ccda.PROCEDURE_NOTE),
        ("Documents__Referral_Note.xml", ccda.REFERRAL_NOTE),
        ("Documents__Transfer_Summary.xml", ccda.TRANSFER_SUMMARY),
        ("Unstructured__Unstructured_Document_embed.xml", ccda.UNSTRUCTURED),
    ],
)
def test_the_kind_of_a_real_document(name: str, kind: ccda.CcdaKind) -> None:
    header = recognise((FOLDER / "hl7-examples" / name).read_bytes())
    assert header is not None
    assert header.kind == kind


@needs_samples
def test_the_replaced_document_of_a_real_document() -> None:
    path = FOLDER / "hl7-examples" / "General__CCD_Parent_Document_Replace_C-CDAR2.1_.xml"
    header = recognise(path.read_bytes())
    assert header is not None
    assert header.replaces == ("2.16.840.1.113883.19.5.99999.1^TT661",)
    assert header.version == 2
