"""What bytes are, and what customers are told."""

import io
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from chartwire.formats.media_type import HEAD_SIZE, effective_type, extension, sniff

CCDA_FOLDER = Path(__file__).parents[2] / "../shared/data/ccda"


def image(kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), "teal").save(buffer, kind)
    return buffer.getvalue()


def archive(member: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr(member, "content")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (b'<?xml version="1.0"?>\n<ClinicalDocument xmlns="urn:hl7-org:v3">', "application/xml"),
        (b'\xef\xbb\xbf<ClinicalDocument xmlns="urn:hl7-org:v3">', "application/xml"),
        (b'<!-- made by hand --><?pi?><cda:ClinicalDocument xmlns:cda="urn:hl7-org:v3">', "application/xml"),
        ('<?xml version="1.0" encoding="UTF-16"?><a/>'.encode("utf-16"), "application/xml"),
        (b'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "b">]><x>', "application/xml"),
        (b"<!DOCTYPE html><html><body>", "text/html"),
        (b"\n<!-- note --><HTML>", "text/html"),
        (b'<?xml version="1.0"?><html xmlns="http://www.w3.org/1999/xhtml">', "text/html"),
        (b"<p>A fragment</p>", "text/html"),
        (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "image/svg+xml"),
        (b"%PDF-1.7\n", "application/pdf"),
        (b"\r\n\r\n%PDF-1.4\n", "application/pdf"),
        (b"{\\rtf1\\ansi Discharge}", "application/rtf"),
        (b"\x00" * 128 + b"DICM\x02\x00", "application/dicom"),
        (b"MSH|^~\\&|LAB|MERCY|||202501020304||ADT^A01|1|P|2.5\rPID|", "x-application/hl7-v2+er7"),
        (b'{"resourceType": "Patient"}', "application/json"),
        (b'[{"a": 1}]', "application/json"),
        (b"[sic] the patient says", "text/plain"),
        (b"BP 120/80 < 140/90, weight > 70", "text/plain"),
        ("Température 37 °C".encode(), "text/plain"),
        ("Température 37 °C".encode("latin-1"), "text/plain"),
        ("plain".encode("utf-16"), "text/plain"),
        (b"RIFF\x24\x00\x00\x00WAVEfmt ", "audio/wave"),
        (bytes(range(256)), None),
        (b"", None),
    ],
)
def test_sniff_tells_the_type_from_the_first_bytes(head: bytes, expected: str | None) -> None:
    assert sniff(head) == expected


@pytest.mark.parametrize("kind", ["jpeg", "png", "gif", "tiff", "bmp"])
def test_sniff_knows_images(kind: str) -> None:
    assert sniff(image(kind)) == f"image/{kind}"


def test_sniff_tells_office_files_from_other_archives() -> None:
    assert sniff(archive("word/document.xml")) == (
        "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
    )
    assert sniff(archive("notes.txt")) == "application/zip"


def test_sniff_accepts_a_head_that_ends_within_a_character() -> None:
    text = ("ä" * HEAD_SIZE).encode()
    assert sniff(b"a" + text) == "text/plain"


def test_sniff_is_quick_on_a_head_made_to_be_slow() -> None:
    assert sniff(b"<!---->" * 600 + b"x") == "text/plain"
    assert sniff(b"<!doctype" * 500) == "text/plain"


@pytest.mark.parametrize(
    ("declared", "sniffed", "expected"),
    [
        ("image/jpeg", "application/pdf", "application/pdf"),
        ("text/xml; charset=utf-8", "application/xml", "application/xml"),
        ("application/hl7-sdwg+xml", None, "application/xml"),
        ("application/hl7-v3+xml", None, "application/xml"),
        ("Application/PDF;a=b", None, "application/pdf"),
        ("image/jpg", None, "image/jpeg"),
        ("text/csv", "text/plain", "text/csv"),
        ("application/pdf", "text/plain", "text/plain"),
        ("application/octet-stream", "text/plain", "text/plain"),
        ("application/fhir+json", "application/json", "application/fhir+json"),
        ("application/vnd.ms-excel", "application/zip", "application/vnd.ms-excel"),
        ("image/png", "application/zip", "application/zip"),
        (None, "image/png", "image/png"),
        (None, None, "application/octet-stream"),
        ("not a type", None, "application/octet-stream"),
        ("text/html\r\nx: y", None, "application/octet-stream"),
    ],
)
def test_effective_type_lets_the_bytes_win(declared: str | None, sniffed: str | None, expected: str) -> None:
    assert effective_type(declared, sniffed) == expected


@pytest.mark.parametrize(
    ("media_type", "expected"),
    [
        ("application/xml", ".xml"),
        ("text/xml; charset=utf-8", ".xml"),
        ("application/pdf", ".pdf"),
        ("image/jpeg", ".jpeg"),
        ("image/tiff", ".tif"),
        ("image/png", ".png"),
        ("image/gif", ".gif"),
        ("text/plain", ".txt"),
        ("text/csv", ".csv"),
        ("application/dicom", ".dcm"),
        ("application/octet-stream", ".bin"),
        ("made/up", ".bin"),
        ("../etc", ".bin"),
    ],
)
def test_extension_of_a_type(media_type: str, expected: str) -> None:
    assert extension(media_type) == expected


@pytest.mark.skipif(not CCDA_FOLDER.is_dir(), reason="the sample documents of ../shared/data are not here")
def test_every_real_ccda_document_is_xml() -> None:
    files = [path for path in CCDA_FOLDER.rglob("*") if path.is_file()]
    assert len(files) > 100
    assert {sniff(path.read_bytes()[:HEAD_SIZE]) for path in files} == {"application/xml"}
