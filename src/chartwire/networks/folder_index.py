"""What a patient's folder says of itself, by its index file or its name: see docs/how-to/import-from-folders.md."""

import re
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import orjson

from chartwire.clock import truncate
from chartwire.model.document import CodeableConcept, Coding, DocumentStatus, normalise_identifier
from chartwire.model.registry import Demographics, Gender, IdentifierType

INDEX_NAMES = ("index.json", "patient.json")

_MAX_INDEX_BYTES = 8 * 1024 * 1024
_FOLDER_NAME = re.compile(r"([^_]+)_([^_]+)_(\d{4}-\d\d-\d\d)(?:_([FMOU]))?")


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a folder is about. `ids` are pairs of type and value, as in a patient's personal identifiers."""

    first_name: str
    last_name: str
    dob: date
    gender: Gender | None = None
    ids: frozenset[tuple[str, str]] = frozenset()

    def matches(self, patient: Demographics) -> bool:
        """Same day of birth, no contrary gender, and the same names or a shared identifier."""
        if self.dob != patient.dob or _contrary(self.gender, patient.gender_at_birth):
            return False
        theirs = {(item.type.value, _bare(item.value)) for item in patient.personal_identifiers}
        return bool(self.ids & theirs) or self._has_the_names_of(patient)

    def _has_the_names_of(self, patient: Demographics) -> bool:
        same_first = _names(self.first_name, r"[,\s]+") & _names(patient.first_name, r"[,\s]+")
        return bool(same_first and _names(self.last_name, ",") & _names(patient.last_name, ","))


@dataclass(frozen=True, slots=True)
class Entry:
    """What an index says of one file; what it does not say is None."""

    title: str | None = None
    description: str | None = None
    type: CodeableConcept | None = None
    status: DocumentStatus | None = None
    indexed: datetime | None = None
    master_identifier: str | None = None
    replaces: tuple[str, ...] = ()
    mime_type: str | None = None


@dataclass(frozen=True, slots=True)
class Index:
    """An index: entries by the file's path within the folder; None for an entry that could not be read."""

    identity: Identity
    entries: dict[str, Entry | None] = field(default_factory=dict)


def read_index(folder: Path) -> Index | None:
    """The folder's index, from its index file or else its name.

    Raises `ValueError` if there is an index file that is not one; None if neither says who the patient is.
    """
    for name in INDEX_NAMES:
        file = folder / name
        if file.is_file() and not file.is_symlink():
            return _read_file(file)
    identity = _from_name(folder.name)
    return Index(identity) if identity else None


def _read_file(file: Path) -> Index:
    with file.open("rb") as stream:
        data = stream.read(_MAX_INDEX_BYTES + 1)
    if len(data) > _MAX_INDEX_BYTES:
        raise ValueError("the index is too large")
    content = _object(orjson.loads(data.removeprefix(b"\xef\xbb\xbf")))
    documents = _object(content.get("documents") or {})
    return Index(_identity(content), {str(path): _entry(value) for path, value in documents.items()})


def _from_name(name: str) -> Identity | None:
    match = _FOLDER_NAME.fullmatch(name)
    if match is None:
        return None
    last, first, dob, gender = match.groups()
    try:
        return Identity(first, last, date.fromisoformat(dob), Gender(gender) if gender else None)
    except ValueError:  # a day that is not in the calendar
        return None


def _identity(content: dict[str, Any]) -> Identity:
    gender = _text(content, "genderAtBirth")
    first, last, dob = (_text(content, key) for key in ("firstName", "lastName", "dob"))
    if first is None or last is None or dob is None:
        raise ValueError("firstName, lastName and dob are required")
    ids = [_object(item) for item in _list(content.get("ids"))]
    pairs = {(IdentifierType(_string(item.get("type"))).value, _bare(_string(item.get("value")))) for item in ids}
    return Identity(first, last, date.fromisoformat(dob), Gender(gender) if gender else None, frozenset(pairs))


def _entry(value: object) -> Entry | None:
    try:
        content = _object(value)
        status, indexed, master = (_text(content, key) for key in ("status", "indexed", "masterIdentifier"))
        replaces = content.get("replaces")
        return Entry(
            title=_text(content, "title"),
            description=_text(content, "description"),
            type=_concept(content.get("type")),
            status=DocumentStatus(status) if status else None,
            indexed=_moment(indexed) if indexed else None,
            master_identifier=normalise_identifier(master) if master else None,
            replaces=tuple(normalise_identifier(_string(item)) for item in _list(replaces)),
            mime_type=_text(content, "mimeType"),
        )
    except (ValueError, TypeError, OverflowError):  # the last: a time that is before the year 1 in UTC
        return None


def _concept(value: object) -> CodeableConcept | None:
    """A FHIR CodeableConcept, a single Coding, or plain text."""
    if value is None:
        return None
    if isinstance(value, str):
        return CodeableConcept(text=value)
    content = _object(value)
    if "code" in content or "display" in content:
        return CodeableConcept((_coding(content),), _text(content, "text") or _text(content, "display"))
    return CodeableConcept(
        tuple(_coding(_object(item)) for item in _list(content.get("coding"))), _text(content, "text")
    )


def _coding(content: dict[str, Any]) -> Coding:
    return Coding(_text(content, "system"), _text(content, "code"), _text(content, "display"))


def _moment(text: str) -> datetime:
    """A date, or a time with its offset; without one it is UTC."""
    moment = datetime.fromisoformat(text)
    return truncate(moment if moment.tzinfo else moment.replace(tzinfo=UTC))


def _object(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError("an object is expected")  # noqa: TRY004  one kind of error for all that is wrong with a file
    return value


def _list(value: object) -> list[object]:
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def _string(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("a text is expected")  # noqa: TRY004  as above
    return value


def _text(content: dict[str, Any], key: str) -> str | None:
    value = content.get(key)
    return None if value is None else _string(value).strip() or None


def _names(value: str, separator: str) -> set[str]:
    parts = (" ".join(part.casefold().split()) for part in re.split(separator, value))
    return {part for part in parts if part}


def _bare(value: str) -> str:
    return re.sub(r"[^0-9A-Z]", "", value.upper())


def _contrary(one: Gender | None, other: Gender) -> bool:
    return {one, other} == {Gender.F, Gender.M}
