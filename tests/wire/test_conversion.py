"""Documents made to be costly: converting them ends in time, with a clear answer, and harms nothing else."""

import gc
import resource
import sys
from pathlib import Path

import pytest
from structlog.testing import capture_logs
from tests.support.documents import LIMIT, a_document, chunks
from tests.support.patience import PATIENCE_SECONDS

from chartwire.errors import BadRequestError, SealBrokenError
from chartwire.formats.rendering import MEMORY_BYTES
from chartwire.model.document import Document
from chartwire.services.conversion import Converter
from chartwire.services.links import Representation
from chartwire.store.blobs import BlobStore, open_blob_store
from chartwire.store.vault import Vault

pytestmark = pytest.mark.embedded


@pytest.fixture
def blobs(tmp_path: Path) -> BlobStore:
    return open_blob_store((tmp_path / "blobs").as_uri(), Vault(bytes(32)))


async def keep(blobs: BlobStore, xml: bytes) -> Document:
    await blobs.put(chunks(xml), LIMIT)
    return a_document("a1", content=xml, mime_type="application/xml")


def narrative(text: str) -> bytes:
    """A CDA document with this text as its only section's."""
    return (
        '<ClinicalDocument xmlns="urn:hl7-org:v3"><title>Note</title><component><structuredBody><component><section>'
        f"<text>{text}</text></section></component></structuredBody></component></ClinicalDocument>"
    ).encode()


async def test_a_document_whose_layout_takes_too_long_is_given_up(blobs: BlobStore) -> None:
    endless = await keep(blobs, narrative("word " * 200_000))
    with capture_logs() as logs, pytest.raises(BadRequestError, match="too intricate"):
        await Converter(blobs, seconds=0.5).convert(endless, Representation.PDF)
    assert [(entry["event"], entry["status"]) for entry in logs] == [("conversion failed", None)]
    gc.collect()  # a process or pipe that was left open would warn here


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux, to limit the memory of a process")
async def test_a_document_that_takes_all_memory_takes_only_its_own(blobs: BlobStore) -> None:
    row = "<tr>" + '<td colspan="100" rowspan="100">a</td>' * 3000 + "</tr>"
    spreading = await keep(blobs, narrative(f"<table>{row}{'<tr><td>x</td></tr>' * 100}</table>"))
    with pytest.raises(BadRequestError, match="too intricate"):
        await Converter(blobs, seconds=PATIENCE_SECONDS).convert(spreading, Representation.PDF)
    most = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024  # of all that this process has started so far
    assert most < MEMORY_BYTES  # if nothing else stopped it, time would, after more than twice as much


async def test_what_follows_a_document_that_was_given_up_is_converted(blobs: BlobStore) -> None:
    converter = Converter(blobs, seconds=PATIENCE_SECONDS)
    broken, sound = await keep(blobs, b"<note/>"), await keep(blobs, narrative("Walk more"))
    for _ in range(3):  # more than there are places
        with pytest.raises(BadRequestError, match="Only C-CDA"):
            await converter.convert(broken, Representation.HTML)
    assert b"Walk more" in await converter.convert(sound, Representation.HTML)


async def test_only_the_beginning_of_a_document_decides_whether_a_link_is_made(
    blobs: BlobStore, tmp_path: Path
) -> None:
    long = await keep(blobs, narrative("word " * 1_000_000))
    (file,) = (tmp_path / "blobs").rglob(long.sha256)
    sealed = file.read_bytes()
    file.write_bytes(sealed[:-1] + bytes([sealed[-1] ^ 1]))  # whoever reads to the end is told so
    with pytest.raises(SealBrokenError):
        await Converter(blobs).convert(long, Representation.HTML)
    await Converter(blobs).refuse_unless_convertible(long)
