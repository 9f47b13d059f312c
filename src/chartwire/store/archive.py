"""An installation in a folder: what `chartwire export` writes and `chartwire import` reads.

    manifest.json                 what there must be; whoever finds one may rely on the rest
    state-<…>/tables/<name>.jsonl the rows of a table (`store.rows`)
    state-<…>/documents.jsonl     a line for each document's bytes: its SHA-256, and size and SHA-256 of the sealed file
    blobs/ab/cd/<sha256>          the sealed files, as a blob store has them

The manifest is replaced in one step when all it speaks of is on disk. So an archive that is made again over the last
one is at every moment the last one or the new one, and of the documents only those that it lacks are copied.
"""

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from chartwire.errors import StoreError
from chartwire.store.blobs import path_of
from chartwire.store.rows import Extent
from chartwire.store.vault import sync_folder

FORMAT = 1
_MANIFEST = "manifest.json"
_BLOBS = "blobs"
_PIECE_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class SealedBlob:
    """The bytes of a document as they are kept: sealed. `sha256` is of the content, `sealed_sha256` of the file."""

    sha256: str
    size: int
    sealed_sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """What is in an archive."""

    release: str
    schema: str
    """The revision of the last migration."""
    made_at: str
    state: str
    """The folder of tables and of the list of documents."""
    tables: dict[str, Extent]
    documents: Extent
    """Of the list."""
    document_bytes: int
    lost_documents: int
    """Of how many the bytes were lost before."""
    has_documents: bool
    """Whether the sealed files are there too."""
    format: int = FORMAT


class Archive:
    """A folder that holds an installation, or is about to."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def begin(self) -> "State":
        """A place for new tables. Raises `StoreError` if the folder holds something else than an archive."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        known = (_MANIFEST, _BLOBS, "state-")
        if any(not path.name.startswith(known) for path in self.folder.iterdir()):
            raise StoreError(f"{self.folder} holds something else: give a new folder, or one of an earlier export")
        state = State(self.folder / f"state-{secrets.token_hex(4)}")
        (state.folder / "tables").mkdir(mode=0o700, parents=True)
        (self.folder / _BLOBS).mkdir(mode=0o700, exist_ok=True)
        return state

    def read_manifest(self) -> Manifest:
        """Raises `StoreError` if there is none, or one of another format."""
        try:
            found = json.loads((self.folder / _MANIFEST).read_bytes())
        except FileNotFoundError:
            raise StoreError(f"{self.folder} holds no export that was finished") from None
        except ValueError:
            raise StoreError(f"{self.folder / _MANIFEST} was altered") from None
        if not isinstance(found, dict) or found.get("format") != FORMAT:
            raise StoreError("the export has a format that this release does not know")
        return _to_manifest(found)

    def last_state(self) -> "State | None":
        """That of the last export that was finished."""
        try:
            return State(self.folder / self.read_manifest().state)
        except StoreError:
            return None

    def finish(self, manifest: Manifest) -> None:
        """Make it the archive's, once everything is on disk; then remove what it does not speak of."""
        os.sync()
        draft = self.folder / f"{_MANIFEST}.new"
        draft.write_text(json.dumps(asdict(manifest), indent=2))
        with draft.open("rb") as written:
            os.fsync(written.fileno())
        draft.replace(self.folder / _MANIFEST)
        sync_folder(self.folder)
        for path in self.folder.glob("state-*"):
            if path.name != manifest.state:
                shutil.rmtree(path)
        self._prune(State(self.folder / manifest.state) if manifest.has_documents else None)

    def blob(self, sha256: str) -> Path:
        """Where a sealed file is."""
        return self.folder / _BLOBS / path_of(sha256)

    def _prune(self, state: "State | None") -> None:
        """Documents that were deleted since the last export must not live on in this one."""
        kept = iter(state.documents()) if state else iter(())
        following = next(kept, None)
        for path in _sorted_files(self.folder / _BLOBS):
            while following is not None and following.sha256 < path.name:
                following = next(kept, None)
            if following is None or following.sha256 != path.name:
                path.unlink()


@dataclass(frozen=True, slots=True)
class State:
    """The tables of an archive, and the list of its documents."""

    folder: Path

    def table(self, name: str) -> Path:
        """The file of a table."""
        return self.folder / "tables" / f"{name}.jsonl"

    @property
    def wanted(self) -> Path:
        """While it is made: the SHA-256 of each document, in order."""
        return self.folder / "wanted.txt"

    @property
    def document_list(self) -> Path:
        """The list of documents, by their SHA-256 in order."""
        return self.folder / "documents.jsonl"

    def documents(self) -> Iterator[SealedBlob]:
        """What is in the list."""
        with self.document_list.open("rb") as lines:
            for line in lines:
                yield SealedBlob(**json.loads(line))


def _to_manifest(found: dict[str, Any]) -> Manifest:
    try:
        extents = {name: Extent(**extent) for name, extent in found["tables"].items()}
        manifest = Manifest(**{**found, "tables": extents, "documents": Extent(**found["documents"])})
    except (AttributeError, KeyError, TypeError):
        raise StoreError("the manifest of the export was altered") from None
    if not manifest.state.startswith("state-") or "/" in manifest.state:
        raise StoreError("the manifest of the export was altered")
    return manifest


def line_of(blob: SealedBlob) -> bytes:
    """A document in the list."""
    return json.dumps(asdict(blob)).encode() + b"\n"


def hash_file(path: Path) -> tuple[int, str]:
    """Size and SHA-256 in hex of a file, which may be of any size."""
    digest, size = hashlib.sha256(), 0
    with path.open("rb", buffering=0) as source:
        while piece := source.read(_PIECE_BYTES):
            digest.update(piece)
            size += len(piece)
    return size, digest.hexdigest()


def _sorted_files(folder: Path) -> Iterator[Path]:
    """Files two folders below, by name, without having all names in memory."""
    for first in sorted(folder.iterdir()):
        for second in sorted(first.iterdir()):
            yield from sorted(second.iterdir())
