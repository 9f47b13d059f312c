"""A search for DocumentReferences as FHIR writes it (R4 §3.1.1, MHD ITI-67), made into what the service is asked.

A parameter that is given several times must hold each time; values separated by commas are alternatives. A parameter
that is not known is ignored, and left out of the `self` link, which tells what was obeyed (R4 §3.1.1.3).
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TypeVar
from urllib.parse import parse_qsl

from chartwire.errors import BadRequestError
from chartwire.formats.fhir_resources import URI_SYSTEM, SearchParameter
from chartwire.model.document import DocumentStatus, normalise_identifier
from chartwire.services.documents import PatientIdentifier
from chartwire.store.documents import DocumentFilter

DEFAULT_COUNT = 100
LARGEST_COUNT = 1000
_MOST_VALUES = 200
_MOST_PARAMETERS = 50

PARAMETERS = (
    SearchParameter("_id", "token", "Ids of documents"),
    SearchParameter("identifier", "token", "Master identifier, or `urn:uuid:` and the id"),
    SearchParameter("patient", "reference", "The patient by id"),
    SearchParameter(
        "patient.identifier", "token", "The patient by id (system `…/sid/patient`) or external id (`…/sid/external-id`)"
    ),
    SearchParameter("status", "token", "current, superseded, entered-in-error"),
    SearchParameter("type", "token", "Precise type of document"),
    SearchParameter("category", "token", "Class of document"),
    SearchParameter("date", "date", "When the document was made; prefixes eq, ge, gt, le, lt, sa, eb"),
    SearchParameter("creation", "date", "As date (MHD's name for it)"),
)
_RESULT_PARAMETERS = ("_count",)
_NAMES = frozenset({*(parameter.name for parameter in PARAMETERS), *_RESULT_PARAMETERS})

_DATE = re.compile(
    r"(?P<prefix>[a-z]{2})?(?P<year>\d{4})(-(?P<month>\d\d)(-(?P<day>\d\d)"
    r"(T(?P<hour>\d\d):(?P<minute>\d\d)(:(?P<second>\d\d)(\.(?P<fraction>\d{1,9}))?)?(?P<zone>Z|[+-]\d\d:\d\d)?)?)?)?",
    re.ASCII,
)
_PATIENT = re.compile(r"(?:.*/)?(?:Patient/)?([A-Za-z0-9.-]{1,64})")

FILTERS = ("patient", "status", "type", "category")
"""The parameters by which a subscription can be narrowed."""

T = TypeVar("T")
Parameters = Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class DocumentSearch:
    """What is asked: `obeyed` holds the parameters that took part, as they were given."""

    chosen: DocumentFilter
    patients: tuple[tuple[PatientIdentifier, ...], ...]
    count: int
    obeyed: tuple[tuple[str, str], ...]


def parse_search(parameters: Parameters, public_base: str) -> DocumentSearch:
    """Raises `BadRequestError` for values that cannot be understood, and for a search of everybody's documents."""
    obeyed = tuple((name, value) for name, value in parameters if name in _NAMES and value)
    if len(obeyed) > _MOST_PARAMETERS:
        raise BadRequestError(f"A search has at most {_MOST_PARAMETERS} parameters")
    chosen = DocumentFilter()
    patients: list[tuple[PatientIdentifier, ...]] = []
    count = DEFAULT_COUNT
    for name, value in obeyed:
        if name == "_count":
            count = parse_count(value)
        elif name == "patient.identifier":
            patients.append(tuple(_patient_identifier(each, public_base) for each in _alternatives(value)))
        else:
            chosen = _READERS[name](chosen, value)
    if not patients and chosen.patient_ids is None and chosen.ids is None and chosen.identifiers is None:
        raise BadRequestError("The search needs one of patient, patient.identifier, identifier and _id")
    return DocumentSearch(chosen, tuple(patients), count, obeyed)


def parse_criteria(criteria: Iterable[str]) -> DocumentFilter:
    """The filters of a subscription, `DocumentReference?patient=…&type=…`, all of which must hold.

    Stricter than a search, which may ignore what it does not know: raises `BadRequestError` for that.
    """
    chosen = DocumentFilter()
    for each in criteria:
        resource, _, query = each.partition("?")
        parameters = parse_qsl(query, keep_blank_values=True)
        if resource != "DocumentReference" or not 0 < len(parameters) <= _MOST_PARAMETERS:
            raise BadRequestError("a filter is DocumentReference?name=value")
        for name, value in parameters:
            _refuse_unfilterable(name, value)
            chosen = _READERS[name](chosen, value)
    return chosen


def _refuse_unfilterable(name: str, value: str) -> None:
    if name not in FILTERS:
        raise BadRequestError(f"a filter has the parameters {', '.join(FILTERS)} alone")
    values = _alternatives(value)
    if name == "patient":
        good = [each for each in values if _PATIENT.fullmatch(each)]
    else:
        good = [each for each in values if name != "status" or each.rpartition("|")[2] in set(DocumentStatus)]
    if not good or len(good) < len(values) or "\0" in value:
        raise BadRequestError(f"the value of {name} is not one that it can have")


def parse_period(value: str) -> tuple[datetime | None, datetime | None]:
    """A `date` value as the moments from which and before which it holds (R4 §3.1.1.4.6).

    A date without a zone is taken as UTC. Raises `BadRequestError`.
    """
    match = _DATE.fullmatch(value)
    low, high = _bounds(match) if match else (None, None)
    if match is None or low is None or high is None:
        raise BadRequestError("A date is YYYY, YYYY-MM, YYYY-MM-DD or a date and time, with an optional prefix")
    match match["prefix"] or "eq":
        case "eq":
            return low, high
        case "ge":
            return low, None
        case "gt" | "sa":
            return high, None
        case "le":
            return None, high
        case "lt" | "eb":
            return None, low
        case _:
            raise BadRequestError("A date's prefix is one of eq, ge, gt, le, lt, sa, eb")


def _bounds(match: "re.Match[str]") -> tuple[datetime | None, datetime | None]:
    """The first moment of the period that is written, and the first after it."""
    year, month, day, hour, minute, second = (
        int(match[name]) if match[name] else None for name in ("year", "month", "day", "hour", "minute", "second")
    )
    try:
        zone = datetime.fromisoformat(f"2000-01-01T00:00:00{match['zone'] or '+00:00'}").tzinfo
        fraction = int((match["fraction"] or "0").ljust(9, "0")[:3]) * 1000
        low = datetime(year or 0, month or 1, day or 1, hour or 0, minute or 0, second or 0, fraction, zone)
        low = low.astimezone(UTC)
        return low, _after(low, month, day, hour, second, match["fraction"])
    except (ValueError, OverflowError):
        return None, None


def _after(
    low: datetime, month: int | None, day: int | None, hour: int | None, second: int | None, fraction: str | None
) -> datetime:
    if month is None:
        return low.replace(year=low.year + 1)
    if day is None:
        return (low + timedelta(days=31)).replace(day=1)
    if hour is None:
        return low + timedelta(days=1)
    if second is None:
        return low + timedelta(minutes=1)
    return low + (timedelta(milliseconds=1) if fraction else timedelta(seconds=1))


def _date(chosen: DocumentFilter, value: str) -> DocumentFilter:
    start, end = parse_period(value)
    known = [moment for moment in (chosen.indexed_from, start) if moment]
    before = [moment for moment in (chosen.indexed_before, end) if moment]
    return replace(chosen, indexed_from=max(known, default=None), indexed_before=min(before, default=None))


def _ids(chosen: DocumentFilter, value: str) -> DocumentFilter:
    return replace(chosen, ids=_both(chosen.ids, _alternatives(value)))


def _identifiers(chosen: DocumentFilter, value: str) -> DocumentFilter:
    named = tuple(_master_identifier(each) for each in _alternatives(value))
    return replace(chosen, identifiers=_both(chosen.identifiers, named))


def _patients(chosen: DocumentFilter, value: str) -> DocumentFilter:
    named = tuple(match[1] for each in _alternatives(value) if (match := _PATIENT.fullmatch(each)))
    return replace(chosen, patient_ids=_both(chosen.patient_ids, named))


def _statuses(chosen: DocumentFilter, value: str) -> DocumentFilter:
    codes = {each.rpartition("|")[2] for each in _alternatives(value)}
    named = tuple(status for status in DocumentStatus if status in codes)
    return replace(chosen, statuses=_both(chosen.statuses, named))


def _types(chosen: DocumentFilter, value: str) -> DocumentFilter:
    return replace(chosen, types=(*chosen.types, tuple(_codes(value))))


def _categories(chosen: DocumentFilter, value: str) -> DocumentFilter:
    return replace(chosen, categories=(*chosen.categories, tuple(_codes(value))))


_READERS: dict[str, Callable[[DocumentFilter, str], DocumentFilter]] = {
    "_id": _ids,
    "identifier": _identifiers,
    "patient": _patients,
    "status": _statuses,
    "type": _types,
    "category": _categories,
    "date": _date,
    "creation": _date,
}


def _codes(value: str) -> Iterable[tuple[str | None, str]]:
    """Tokens: `code` of any system, `|code` of none is taken as of any, `system|code`."""
    for each in _alternatives(value):
        system, _, code = each.rpartition("|")
        yield (system or None), code


def _master_identifier(token: str) -> str:
    """A token as documents keep it: `urn:oid:root|extension` is `root^extension`, URNs are bare."""
    system, _, value = token.rpartition("|")
    if not system or system == URI_SYSTEM:
        return normalise_identifier(value)
    return f"{normalise_identifier(system)}^{value}"


def _patient_identifier(token: str, public_base: str) -> PatientIdentifier:
    """A system that is not ours names patients of somebody else: it matches nobody."""
    system, _, value = token.rpartition("|")
    own = f"{public_base}/oauth/fhir/sid/patient"
    return PatientIdentifier(
        normalise_identifier(value) if system == URI_SYSTEM else value,
        is_own=system in {"", own, URI_SYSTEM},
        is_external=system in {"", f"{public_base}/oauth/fhir/sid/external-id"},
    )


def _alternatives(value: str) -> tuple[str, ...]:
    values = tuple(part.strip() for part in value.split(",") if part.strip())
    if len(values) > _MOST_VALUES:
        raise BadRequestError(f"A search parameter has at most {_MOST_VALUES} values")
    return values


def _both(before: "tuple[T, ...] | None", also: "tuple[T, ...]") -> "tuple[T, ...]":
    """Parameters that are given again must hold too."""
    return also if before is None else tuple(value for value in before if value in also)


def parse_count(value: str) -> int:
    """A `_count`, no more than may be. Raises `BadRequestError`."""
    if not (value.isascii() and value.isdigit() and len(value) < 10):
        raise BadRequestError("_count is a number that is not negative")
    return min(int(value), LARGEST_COUNT)
