"""What networks list and hand over, however odd it is, arrives as something a receiver can use."""

import re
from pathlib import Path

import pytest
from tests.support.engine import Engine, running_engine
from tests.support.receiver import Receiver
from tests.support.scripted_network import ScriptedNetwork

from chartwire.model.document import JsonObject

pytestmark = pytest.mark.embedded


ODD_TITLES = (
    "検査報告書",
    "../../etc/passwd",
    "a" * 100_000,
    "\x00\x1b[31m\r\nSet-Cookie: x",
    ".xml",
    "   ",
    "report.PDF.exe",
    "\u202egpj.exe",
    "CON",
    "👩‍⚕️ visit",
)
CCDA_START = (
    b'<ClinicalDocument xmlns="urn:hl7-org:v3"><code code="18842-5" codeSystem="2.16.840.1.113883.6.1"/>'
    b'<title>Discharge</title><effectiveTime value="20250301"/><component>'
)


async def _told(engine: Engine) -> list[JsonObject]:
    """Ask for a patient; returns the documents that the receiver was told of."""
    await engine.wait_for_end(await engine.start_query(await engine.add_patient()))
    return [document for message in engine.receiver.messages for document in message.documents]


async def test_every_title_gives_a_file_name_that_is_safe_to_save_under(tmp_path: Path) -> None:
    network = ScriptedNetwork("mercy")
    for number, title in enumerate(ODD_TITLES):
        network.add(f"d{number}", title=title, description=title)
    async with Receiver() as receiver, running_engine(tmp_path, [network], receiver) as engine:
        told = await _told(engine)
        assert len({document["fileName"] for document in told}) == len(ODD_TITLES)
        for document in told:
            assert re.fullmatch(rf"[A-Za-z0-9_]{{1,60}}_{document['id']}\.txt", document["fileName"])
            assert len(document["description"]) <= 4096


async def test_the_bytes_say_what_a_document_is_whatever_was_declared(tmp_path: Path) -> None:
    network = ScriptedNetwork("mercy")
    network.add("pdf", b"%PDF-1.7 and so on", mime_type="text/xml; charset=utf-8", size=3, sha1="0" * 40)
    network.add("text", b"just text", mime_type="not a type at all\r\n")
    async with Receiver() as receiver, running_engine(tmp_path, [network], receiver) as engine:
        told = await _told(engine)
        assert sorted((document["mimeType"], document["size"]) for document in told) == [
            ("application/pdf", "18"),
            ("text/plain", "9"),
        ]


async def test_a_clinical_document_of_any_size_says_itself_what_it_is(tmp_path: Path) -> None:
    network = ScriptedNetwork("mercy")
    network.add("large", CCDA_START + b"<a>text</a>" * 2_000_000 + b"</component></ClinicalDocument>")
    async with Receiver() as receiver, running_engine(tmp_path, [network], receiver) as engine:
        (document,) = await _told(engine)
        assert document["description"] == "Discharge"
        assert document["type"]["coding"][0]["code"] == "18842-5"
        assert document["indexed"] == "2025-03-01T00:00:00.000Z"


async def test_xml_that_was_made_to_do_harm_is_kept_as_it_is_and_not_looked_into(tmp_path: Path) -> None:
    laughs = b'<!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;">]>' + CCDA_START + b"&b;"
    network = ScriptedNetwork("mercy")
    network.add("laughs", laughs, title="Laughs")
    network.add("deep", CCDA_START.replace(b"<component>", b"<a>" * 300_000), title="Deep")
    async with Receiver() as receiver, running_engine(tmp_path, [network], receiver) as engine:
        told = await _told(engine)
        assert sorted(document["description"] for document in told) == ["Deep", "Laughs"]
        assert all("type" not in document for document in told)
