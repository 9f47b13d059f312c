"""A directory tree as a health network: one folder per patient, for migrations and tests.

Reads never leave the tree and never block the event loop.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from stat import S_ISREG
from typing import BinaryIO

from chartwire.clock import Clock, truncate
from chartwire.errors import IssueCode, NetworkError, PermanentNetworkError, TemporaryNetworkError
from chartwire.formats.ccda import CcdaHeader, recognise
from chartwire.formats.media_type import HEAD_SIZE, sniff
from chartwire.model.document import DocumentStatus, RemoteDocument
from chartwire.model.registry import Demographics, LinkState
from chartwire.networks.folder_index import INDEX_NAMES, Entry, Index, read_index
from chartwire.networks.network import Discovery, Issue, Limits, Listing, PatientLink, Retrieval
from chartwire.settings import FolderNetworkSettings

_CHUNK = 256 * 1024
_LARGEST_HEADER = 4 * 1024 * 1024
"""XML files up to this size are read while listing, for what a clinical document says of itself."""


class FolderNetwork:
    """Patients are the folders right under the configured path, documents all files below them.

    A document's key is its path, size and time of change: a file that was changed is another document.
    """

    def __init__(self, settings: FolderNetworkSettings, clock: Clock) -> None:
        del clock  # files carry their own times
        self.name = settings.name
        self.limits = Limits(list_deadline=120, retrieve_deadline=600, concurrency=8)
        self._tree = _Tree(settings.path)

    async def discover(self, demographics: Demographics) -> Discovery:
        """The folder of the patient. Two of them are for a person to look at: neither is confirmed."""
        return await asyncio.to_thread(self._tree.discover, demographics)

    async def query(self, link: PatientLink) -> Listing:
        """All files of the folder, as its index describes them."""
        return await asyncio.to_thread(self._tree.list, link.remote_id)

    @asynccontextmanager
    async def retrieve(self, document: RemoteDocument) -> AsyncIterator[Retrieval]:
        """The file's bytes; raises `PermanentNetworkError` if it is no longer the file that was listed."""
        file = await asyncio.to_thread(self._tree.open, document.retrieval)
        try:
            yield Retrieval(_chunks(file), document.mime_type)
        finally:
            await asyncio.to_thread(file.close)

    async def check(self) -> None:
        """Raise `TemporaryNetworkError` if the tree cannot be read."""
        await asyncio.to_thread(self._tree.check)

    async def close(self) -> None:
        """There is nothing to give back."""


@dataclass(frozen=True, slots=True)
class _File:
    """A regular file: `place` is where it really is, `path` where it was found, from the patient's folder on."""

    place: Path
    path: str
    stat: os.stat_result


class _Tree:
    """The blocking part."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._indexes: dict[str, tuple[tuple[int, ...], Index | None]] = {}

    def check(self) -> None:
        list(self._folders())

    def discover(self, patient: Demographics) -> Discovery:
        found: list[str] = []
        broken = 0
        for folder in self._folders():
            try:
                index = self._index(folder)
            except (ValueError, OSError):
                broken += 1
                continue
            if index is not None and index.identity.matches(patient):
                found.append(folder.name)
        state = LinkState.CONFIRMED if len(found) == 1 else LinkState.PROBABLE
        issues = [Issue(IssueCode.INVALID_ANSWER)] if broken else []
        issues += [Issue(IssueCode.MULTIPLE_CANDIDATES)] if len(found) > 1 else []
        return Discovery(tuple(PatientLink(name, state) for name in sorted(found)), tuple(issues))

    def list(self, name: str) -> Listing:
        folder = self._folder(name)
        try:
            index = self._index(folder)
        except ValueError:
            return Listing(issues=(Issue(IssueCode.INVALID_ANSWER),))
        except OSError as error:
            raise _failure(error) from None
        entries = index.entries if index else {}
        files = sorted(self._files(folder), key=lambda file: file.path)
        described = [_describe(name, file, entries.get(file.path, Entry())) for file in files]
        documents = tuple(document for document in described if document is not None)
        missing = len(entries.keys() - {file.path for file in files})
        problems = ((IssueCode.INVALID_ANSWER, len(files) - len(documents)), (IssueCode.NOT_FOUND, missing))
        return Listing(documents, tuple(Issue(code, count) for code, count in problems if count))

    def open(self, retrieval: dict[str, str]) -> BinaryIO:
        try:
            place = Path(os.path.realpath(self._root / retrieval["path"], strict=True))
            if not place.is_relative_to(self._real_root()):
                raise PermanentNetworkError(IssueCode.FORBIDDEN)
            file = os.fdopen(os.open(place, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb")
        except (KeyError, ValueError):
            raise PermanentNetworkError(IssueCode.NOT_FOUND) from None
        except OSError as error:
            raise _failure(error) from None
        if _version(os.fstat(file.fileno())) != retrieval.get("version"):
            file.close()
            raise PermanentNetworkError(IssueCode.GONE)
        return file

    def _folders(self) -> Iterator[Path]:
        try:
            with os.scandir(self._root) as entries:
                names = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
        except OSError as error:
            raise TemporaryNetworkError(IssueCode.UNREACHABLE) from error
        return (self._root / name for name in names if not name.startswith("."))

    def _folder(self, name: str) -> Path:
        folder = self._root / name
        if not name or name != Path(name).name or name.startswith(".") or folder.is_symlink() or not folder.is_dir():
            raise PermanentNetworkError(IssueCode.NOT_FOUND)
        return folder

    def _index(self, folder: Path) -> Index | None:
        """The folder's index, read again only when one of its files has changed."""
        version = tuple(part for name in INDEX_NAMES for part in _stamp(folder / name))
        known = self._indexes.get(folder.name)
        if known is None or known[0] != version:
            known = self._indexes[folder.name] = (version, read_index(folder))
        return known[1]

    def _files(self, folder: Path) -> Iterator[_File]:
        root = self._real_root()
        for parent, folders, names in os.walk(folder, followlinks=False):
            folders[:] = [name for name in folders if not name.startswith(".")]
            for name in names:
                path = Path(parent, name)
                listed = path.relative_to(folder).as_posix()
                if name.startswith(".") or listed in INDEX_NAMES:
                    continue
                place = Path(os.path.realpath(path))
                if place.is_relative_to(root) and (stat := _regular(place)) is not None:
                    yield _File(place, listed, stat)

    def _real_root(self) -> Path:
        return Path(os.path.realpath(self._root))


def _describe(folder: str, file: _File, entry: Entry | None) -> RemoteDocument | None:
    """A file as a listed document; the index has the first word, a clinical document's own header the second."""
    if entry is None:
        return None
    try:
        file.path.encode()  # a name that is not Unicode could be listed, but neither kept nor told
        kind, header = _look_into(file)
    except (OSError, UnicodeEncodeError):
        return None
    changed = truncate(datetime.fromtimestamp(file.stat.st_mtime, UTC))
    path = f"{folder}/{file.path}"
    return RemoteDocument(
        key=f"{path}:{_version(file.stat)}",
        master_identifier=entry.master_identifier or (header.master_identifier if header else None),
        title=entry.title or Path(file.path).name,
        description=entry.description or (header.title if header else None),
        status=entry.status or DocumentStatus.CURRENT,
        indexed=entry.indexed or (header.effective_time if header else None) or changed,
        mime_type=entry.mime_type or kind,
        size=file.stat.st_size,
        type=entry.type or (header.type if header else None),
        replaces=entry.replaces or (header.replaces if header else ()),
        retrieval={"path": path, "version": _version(file.stat)},
    )


def _look_into(file: _File) -> tuple[str | None, CcdaHeader | None]:
    with file.place.open("rb") as stream:
        head = stream.read(HEAD_SIZE)
        kind = sniff(head)
        if kind != "application/xml" or file.stat.st_size > _LARGEST_HEADER:
            return kind, None
        return kind, recognise(head + stream.read(_LARGEST_HEADER))


def _version(stat: os.stat_result) -> str:
    return f"{stat.st_size}-{stat.st_mtime_ns}"


def _regular(path: Path) -> os.stat_result | None:
    """The state of a regular file; None for anything else, or what has gone meanwhile."""
    try:
        stat = path.lstat()
    except OSError:
        return None
    return stat if S_ISREG(stat.st_mode) else None


def _stamp(path: Path) -> tuple[int, int]:
    try:
        stat = path.stat()
    except OSError:
        return (-1, -1)
    return (stat.st_size, stat.st_mtime_ns)


def _failure(error: OSError) -> NetworkError:
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return PermanentNetworkError(IssueCode.NOT_FOUND)
    if isinstance(error, PermissionError):
        return PermanentNetworkError(IssueCode.FORBIDDEN)
    return TemporaryNetworkError(IssueCode.UNREACHABLE)


async def _chunks(file: BinaryIO) -> AsyncIterator[bytes]:
    while chunk := await asyncio.to_thread(file.read, _CHUNK):
        yield chunk
