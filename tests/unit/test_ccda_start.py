"""Headers of clinical documents of which the beginning alone is read."""

import pytest
from tests.support.ccda_samples import needs_samples, sample_files

from chartwire.formats.ccda import recognise, recognise_start

HEAD = '<ClinicalDocument xmlns="urn:hl7-org:v3"><code code="18842-5"/><title>Discharge</title>'
FAR = "<a/>" * 20_000
BODY = "<component><structuredBody/></component></ClinicalDocument>"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("rest", [BODY, "<component><section>cut he", f"<component>{FAR}<a <b>"])
def test_what_comes_after_the_header_does_not_matter(encoding: str, rest: str) -> None:
    header = recognise_start((HEAD + rest).encode(encoding))
    assert header is not None
    assert header == recognise((HEAD + BODY).encode(encoding))
    assert (header.title, header.type.coding[0].code) == ("Discharge", "18842-5")


def test_a_document_without_a_body_is_read_whole() -> None:
    header = recognise_start(f"{HEAD}</ClinicalDocument>".encode())
    assert header is not None
    assert header.title == "Discharge"


@pytest.mark.parametrize(
    "start",
    [
        b"",
        b"not xml",
        HEAD.encode(),  # cut before the body begins
        HEAD.replace("<title>", "<title>&undefined;").encode() + BODY.encode(),
        b'<!DOCTYPE x [<!ENTITY a "aaaa">]>' + HEAD.encode() + BODY.encode(),
        b'<Bundle xmlns="http://hl7.org/fhir"><component xmlns="urn:hl7-org:v3"/></Bundle>',
        HEAD.encode() + b"<a>" * 300_000,
    ],
)
def test_what_is_no_beginning_of_a_clinical_document_is_none(start: bytes) -> None:
    assert recognise_start(start) is None


def test_of_very_many_codes_some_are_taken() -> None:
    codes = '<code code="1">' + '<translation code="2"/>' * 10_000 + "</code>"
    header = recognise_start(HEAD.replace('<code code="18842-5"/>', codes).encode() + BODY.encode())
    assert header is not None
    assert len(header.type.coding) == 20


@needs_samples
def test_real_documents_are_recognised_by_their_beginning_as_they_are_whole() -> None:
    for file in sample_files():
        content = file.read_bytes()
        assert recognise_start(content[: 1024 * 1024]) == recognise(content)
