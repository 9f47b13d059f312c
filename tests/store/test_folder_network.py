"""A directory tree as a network: whose folder it is, what is in it, and that nothing outside of it is ever read."""

import asyncio
import json
import os
import re
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs
from tests.support.patience import PATIENCE_SECONDS
from tests.support.profile import make_tables

from chartwire.clock import system_clock
from chartwire.errors import IssueCode, PermanentNetworkError, TemporaryNetworkError
from chartwire.model.document import CodeableConcept, Coding, DocumentStatus, RemoteDocument
from chartwire.model.registry import (
    Address,
    Demographics,
    Gender,
    IdentifierType,
    LinkState,
    PersonalIdentifier,
)
from chartwire.networks.folder import FolderNetwork
from chartwire.networks.network import Discovery, Issue, Listing, PatientLink
from chartwire.settings import FolderNetworkSettings, NetworkSettings, Settings
from chartwire.wiring import start_installation

pytestmark = pytest.mark.embedded


ADA = Demographics(
    first_name="Ada",
    last_name="Roe",
    dob=date(1980, 2, 3),
    gender_at_birth=Gender.F,
    address=(Address("1 Elm St", "Ukiah", "CA", "95482"),),
    personal_identifiers=(PersonalIdentifier(IdentifierType.SSN, "123-45-6789"),),
)
ADA_INDEX = {"firstName": "Ada", "lastName": "Roe", "dob": "1980-02-03", "genderAtBirth": "F"}
CCDA = b"""<ClinicalDocument xmlns="urn:hl7-org:v3"><templateId root="2.16.840.1.113883.10.20.22.1.2"/>
<id root="2.999.1" extension="7"/><title>Ada's summary</title><effectiveTime value="20240102"/></ClinicalDocument>"""


@pytest.fixture
def network(tmp_path: Path) -> FolderNetwork:
    return FolderNetwork(FolderNetworkSettings(kind="folder", name="files", path=tmp_path / "tree"), system_clock)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    folder = tmp_path / "tree"
    folder.mkdir()
    return folder


def write(path: Path, content: bytes | dict[str, Any] = b"text") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return path


async def listing(network: FolderNetwork, folder: str) -> Listing:
    return await network.query(PatientLink(folder, LinkState.CONFIRMED))


async def read(network: FolderNetwork, document: RemoteDocument) -> bytes:
    async with network.retrieve(document) as retrieval:
        return b"".join([chunk async for chunk in retrieval.chunks])


def confirmed(folder: str) -> Discovery:
    return Discovery((PatientLink(folder, LinkState.CONFIRMED),))


@pytest.mark.parametrize("name", ["Roe_Ada_1980-02-03", "roe_ADA_1980-02-03_F", "ROE_ada_1980-02-03_U"])
async def test_a_folder_is_found_by_its_name(network: FolderNetwork, tree: Path, name: str) -> None:
    write(tree / name / "a.txt")
    write(tree / "Roe_Eve_1980-02-03" / "a.txt")
    assert await network.discover(ADA) == confirmed(name)


@pytest.mark.parametrize(
    "name",
    [
        *("Roe_Ada_1980-02-04", "Roe_Ada_1980-02-03_M", "Doe_Ada_1980-02-03", "Roe_Eve_1980-02-03"),
        *("Roe_Ada_1980-02-31", "Ada Roe", ".Roe_Ada_1980-02-03"),
    ],
)
async def test_another_name_is_another_patient(network: FolderNetwork, tree: Path, name: str) -> None:
    write(tree / name / "a.txt")
    assert await network.discover(ADA) == Discovery()


@pytest.mark.parametrize("file", ["index.json", "patient.json"])
async def test_a_folder_is_found_by_its_index(network: FolderNetwork, tree: Path, file: str) -> None:
    write(tree / "0001" / file, ADA_INDEX | {"firstName": "Ada, Augusta"})
    write(tree / "Roe_Ada_1980-02-03" / file, ADA_INDEX | {"dob": "1990-02-03"})  # the index, not the name, decides
    assert await network.discover(ADA) == confirmed("0001")


async def test_a_shared_identifier_stands_for_the_names(network: FolderNetwork, tree: Path) -> None:
    other_name = ADA_INDEX | {"lastName": "Byron"}
    write(tree / "0001" / "index.json", other_name | {"ids": [{"type": "ssn", "value": "123456789"}]})
    write(tree / "0002" / "index.json", other_name | {"ids": [{"type": "driversLicense", "value": "123456789"}]})
    assert await network.discover(ADA) == confirmed("0001")


async def test_two_folders_of_one_patient_are_not_confirmed(network: FolderNetwork, tree: Path) -> None:
    write(tree / "0001" / "index.json", ADA_INDEX)
    write(tree / "Roe_Ada_1980-02-03" / "a.txt")
    found = await network.discover(ADA)
    assert [link.state for link in found.links] == [LinkState.PROBABLE, LinkState.PROBABLE]
    assert found.issues == (Issue(IssueCode.MULTIPLE_CANDIDATES),)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b'{"firstName": "Ada"}',
        json.dumps(ADA_INDEX | {"dob": "03/02/1980"}).encode(),
        json.dumps(ADA_INDEX | {"genderAtBirth": "female"}).encode(),
        json.dumps(ADA_INDEX | {"ids": [{"type": "passport", "value": "1"}]}).encode(),
        json.dumps(ADA_INDEX | {"documents": []}).encode()[:-3] + b"7}",
        b'{"firstName": 1, "lastName": "Roe", "dob": "1980-02-03"}',
    ],
)
async def test_a_broken_index_is_an_issue_and_no_error(network: FolderNetwork, tree: Path, content: bytes) -> None:
    write(tree / "broken" / "index.json", content)
    write(tree / "Roe_Ada_1980-02-03" / "a.txt")
    found = await network.discover(ADA)
    assert [link.remote_id for link in found.links] == ["Roe_Ada_1980-02-03"]
    assert found.issues == (Issue(IssueCode.INVALID_ANSWER),)
    assert await listing(network, "broken") == Listing(issues=(Issue(IssueCode.INVALID_ANSWER),))


async def test_a_mended_index_is_read_again(network: FolderNetwork, tree: Path) -> None:
    file = write(tree / "0001" / "index.json", b"{")
    assert (await network.discover(ADA)).links == ()
    write(file, ADA_INDEX)
    assert await network.discover(ADA) == confirmed("0001")


async def test_files_are_listed_with_what_they_show(network: FolderNetwork, tree: Path) -> None:
    folder = tree / "Roe_Ada_1980-02-03"
    os.utime(write(folder / "2024" / "scan.bin", b"%PDF-1.7 body"), (1_700_000_000, 1_700_000_000))
    write(folder / "summary.xml", CCDA)
    scan, summary = (await listing(network, folder.name)).documents
    assert (scan.title, scan.mime_type, scan.size) == ("scan.bin", "application/pdf", 13)
    assert scan.indexed == datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)
    assert scan.master_identifier is None
    assert (summary.master_identifier, summary.description) == ("2.999.1^7", "Ada's summary")
    assert summary.indexed == datetime(2024, 1, 2, tzinfo=UTC)
    assert summary.type is not None
    assert summary.type.coding[0].code == "34133-9"
    assert await read(network, scan) == b"%PDF-1.7 body"
    assert await read(network, summary) == CCDA


async def test_the_index_describes_files(network: FolderNetwork, tree: Path) -> None:
    described = {
        "title": "Summary",
        "description": "All of it",
        "type": {"system": "http://loinc.org", "code": "34133-9", "display": "Summary"},
        "status": "superseded",
        "indexed": "2024-05-06T07:08:09.123456+02:00",
        "masterIdentifier": "urn:oid:2.999.5",
        "replaces": "urn:uuid:0F3C3B2A-1111-4222-8333-ABCDEFABCDEF",
        "mimeType": "text/xml",
    }
    write(tree / "0001" / "index.json", ADA_INDEX | {"documents": {"in/a.xml": described}})
    write(tree / "0001" / "in" / "a.xml", CCDA)
    (document,) = (await listing(network, "0001")).documents
    assert (document.title, document.description, document.mime_type) == ("Summary", "All of it", "text/xml")
    assert document.type == CodeableConcept((Coding("http://loinc.org", "34133-9", "Summary"),), "Summary")
    assert document.status is DocumentStatus.SUPERSEDED
    assert document.indexed == datetime(2024, 5, 6, 5, 8, 9, 123000, tzinfo=UTC)
    assert document.master_identifier == "2.999.5"
    assert document.replaces == ("0f3c3b2a-1111-4222-8333-abcdefabcdef",)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("Letter", CodeableConcept(text="Letter")),
        ({"display": "Letter"}, CodeableConcept((Coding(display="Letter"),), "Letter")),
        (
            {"coding": [{"code": "1"}, {"code": "2"}], "text": "T"},
            CodeableConcept((Coding(code="1"), Coding(code="2")), "T"),
        ),
    ],
)
async def test_a_type_may_be_told_in_three_ways(
    network: FolderNetwork, tree: Path, given: object, expected: CodeableConcept
) -> None:
    write(tree / "0001" / "index.json", ADA_INDEX | {"documents": {"a.txt": {"type": given}}})
    write(tree / "0001" / "a.txt")
    (document,) = (await listing(network, "0001")).documents
    assert document.type == expected


@pytest.mark.parametrize(
    "entry",
    [
        *(7, [], {"status": "new"}, {"indexed": "soon"}, {"title": 1}, {"replaces": [1]}, {"type": 5}),
        {"indexed": "0001-01-01T00:00:00+14:00"},  # in UTC there is no such year
    ],
)
async def test_a_broken_entry_leaves_out_its_file_alone(network: FolderNetwork, tree: Path, entry: object) -> None:
    write(tree / "0001" / "index.json", ADA_INDEX | {"documents": {"a.txt": entry, "gone.txt": {}}})
    write(tree / "0001" / "a.txt")
    write(tree / "0001" / "b.txt")
    found = await listing(network, "0001")
    assert [document.title for document in found.documents] == ["b.txt"]
    assert found.issues == (Issue(IssueCode.INVALID_ANSWER, 1), Issue(IssueCode.NOT_FOUND, 1))


async def test_a_file_name_that_is_not_unicode_leaves_out_its_file_alone(network: FolderNetwork, tree: Path) -> None:
    write(tree / "0001" / "index.json", ADA_INDEX)
    write(tree / "0001" / "a.txt")
    write(tree / "0001" / os.fsdecode(b"caf\xe9.txt"))
    found = await listing(network, "0001")
    assert [document.title for document in found.documents] == ["a.txt"]
    assert found.issues == (Issue(IssueCode.INVALID_ANSWER, 1),)


async def test_dotfiles_and_the_index_are_no_documents(network: FolderNetwork, tree: Path) -> None:
    write(tree / "0001" / "index.json", ADA_INDEX)
    for name in (".DS_Store", ".git/config", "sub/.hidden", "sub/index.json"):
        write(tree / "0001" / name)
    assert [document.title for document in (await listing(network, "0001")).documents] == ["index.json"]


async def test_a_changed_file_is_another_document(network: FolderNetwork, tree: Path) -> None:
    file = write(tree / "0001" / "a.txt", b"one")
    (before,) = (await listing(network, "0001")).documents
    (again,) = (await listing(network, "0001")).documents
    os.utime(write(file, b"two"), ns=(1, 1))
    (after,) = (await listing(network, "0001")).documents
    assert before == again
    assert before.key != after.key
    with pytest.raises(PermanentNetworkError) as caught:
        await read(network, before)
    assert caught.value.code is IssueCode.GONE
    assert await read(network, after) == b"two"


async def test_a_large_file_comes_in_chunks(network: FolderNetwork, tree: Path) -> None:
    content = os.urandom(600_000)
    write(tree / "0001" / "a.bin", content)
    (document,) = (await listing(network, "0001")).documents
    async with network.retrieve(document) as retrieval:
        chunks = [chunk async for chunk in retrieval.chunks]
    assert b"".join(chunks) == content
    assert [len(chunk) for chunk in chunks] == [262_144, 262_144, 75_712]


async def test_links_out_of_the_tree_are_not_followed(network: FolderNetwork, tree: Path, tmp_path: Path) -> None:
    secret = write(tmp_path / "secret" / "a.txt", b"secret")
    folder = tree / "Roe_Ada_1980-02-03"
    write(folder / "own.txt", b"own")
    (folder / "file.txt").symlink_to(secret)
    (folder / "folder").symlink_to(secret.parent)
    (folder / "loop").symlink_to(folder / "loop")
    (folder / "dangling").symlink_to(tmp_path / "nowhere")
    (folder / "shared.txt").symlink_to(folder / "own.txt")
    (tree / "Roe_Eve_1990-01-01").symlink_to(secret.parent)
    assert [document.title for document in (await listing(network, folder.name)).documents] == ["own.txt", "shared.txt"]
    eve = Demographics("Eve", "Roe", date(1990, 1, 1), Gender.F, ADA.address)
    assert await network.discover(eve) == Discovery()


@pytest.mark.parametrize("path", ["../secret.txt", "0001/../../secret.txt", "0001/link", "0001/none", "\0"])
async def test_a_forged_path_reaches_nothing(network: FolderNetwork, tree: Path, tmp_path: Path, path: str) -> None:
    secret = write(tmp_path / "secret.txt", b"secret")
    write(tree / "0001" / "a.txt")
    (tree / "0001" / "link").symlink_to(secret)
    stat = secret.stat()
    forged = RemoteDocument(key="x", retrieval={"path": path, "version": f"{stat.st_size}-{stat.st_mtime_ns}"})
    with pytest.raises(PermanentNetworkError):
        await read(network, forged)


@pytest.mark.parametrize("name", ["..", ".", "", "../tree/0001", "0001/sub", ".hidden", "none"])
async def test_a_forged_link_reaches_nothing(network: FolderNetwork, tree: Path, name: str) -> None:
    write(tree / "0001" / "sub" / "a.txt")
    write(tree / ".hidden" / "a.txt")
    with pytest.raises(PermanentNetworkError):
        await listing(network, name)


async def test_a_link_put_in_place_of_a_file_is_not_followed(
    network: FolderNetwork, tree: Path, tmp_path: Path
) -> None:
    file = write(tree / "0001" / "a.txt", b"12345")
    (document,) = (await listing(network, "0001")).documents
    secret = write(tmp_path / "secret.txt", b"54321")
    os.utime(secret, ns=(1, file.stat().st_mtime_ns))  # of the same size and time: what was listed, as far as it shows
    file.unlink()
    file.symlink_to(secret)
    with pytest.raises(PermanentNetworkError):
        await read(network, document)


async def test_a_missing_tree_is_a_temporary_error(network: FolderNetwork) -> None:
    with pytest.raises(TemporaryNetworkError):
        await network.check()
    with pytest.raises(TemporaryNetworkError):
        await network.discover(ADA)


async def test_a_pipe_that_nobody_writes_to_is_not_waited_for(network: FolderNetwork, tree: Path) -> None:
    os.mkfifo(write(tree / "0001" / "a.txt").parent / "pipe")
    found = await asyncio.wait_for(listing(network, "0001"), PATIENCE_SECONDS)
    assert [document.title for document in found.documents] == ["a.txt"]
    await network.check()


async def test_the_index_in_the_documentation_works(network: FolderNetwork, tree: Path) -> None:
    page = (Path(__file__).parents[2] / "docs/how-to/import-from-folders.md").read_text()
    (example,) = re.findall(r"```json\n(.*?)```", page, re.DOTALL)
    write(tree / "0001" / "index.json", example.encode())
    write(tree / "0001" / "discharge.xml", CCDA)
    write(tree / "0001" / "images" / "wound.jpeg", b"\xff\xd8\xff\xe0")
    assert await network.discover(ADA) == confirmed("0001")
    found = await listing(network, "0001")
    assert found.issues == ()
    assert [document.title for document in found.documents] == ["Discharge summary, June 2024", "wound.jpeg"]
    assert found.documents[0].replaces == ("2.999.7.1790",)


async def test_a_folder_that_is_not_there_is_told_at_the_start(tmp_path: Path) -> None:
    places = {"archive": tmp_path / "nowhere", "here": tmp_path}
    networks: list[NetworkSettings] = [
        FolderNetworkSettings(kind="folder", name=name, path=path) for name, path in places.items()
    ]
    settings = Settings(data_dir=tmp_path, networks=networks)
    make_tables(tmp_path)
    with capture_logs() as logs:
        async with start_installation(settings):
            pass
    warnings = [line for line in logs if line["log_level"] == "warning"]
    assert [line["network"] for line in warnings] == ["archive"]
