"""FHIR R4 data types out of parsed JSON that may break every rule: what does not fit reads as absent."""

import re
from datetime import UTC, datetime

from chartwire.model.document import CodeableConcept, Coding, JsonObject

_MAX_TEXT = 4096
_MOMENT = re.compile(
    r"(\d{4})(?:-(\d{2})(?:-(\d{2})(?:T(\d{2}:\d{2})(:\d{2})?(\.\d+)?(Z|[+-]\d{2}:\d{2})?)?)?)?", re.ASCII
)


def objects(value: object) -> list[JsonObject]:
    """The objects of a list; a lone object counts as a list of one, as lax servers send it."""
    items = value if isinstance(value, list) else [value]
    return [item for item in items if isinstance(item, dict)]


def first(value: object) -> JsonObject:
    """The first object, or an empty one."""
    return next(iter(objects(value)), {})


def text(value: object) -> str | None:
    """A string that is not blank, trimmed; one beyond 4096 characters is cut."""
    if not isinstance(value, str):
        return None
    return value.strip()[:_MAX_TEXT] or None


def moment(value: object) -> datetime | None:
    """A date, dateTime or instant, in UTC, to the millisecond. What is left out is the beginning of it.

    A time without an offset, which FHIR forbids, is taken as UTC.
    """
    match = _MOMENT.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        return None
    year, month, day, time, seconds, fraction, offset = match.groups()
    milliseconds = (fraction or ".")[1:4].ljust(3, "0")
    iso = f"{year}-{month or '01'}-{day or '01'}T{time or '00:00'}{seconds or ':00'}.{milliseconds}{offset or 'Z'}"
    try:
        return datetime.fromisoformat(iso).astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def coding(value: object) -> Coding | None:
    """A Coding that says anything."""
    found = first(value)
    result = Coding(text(found.get("system")), text(found.get("code")), text(found.get("display")))
    return None if result == Coding() else result


def concept(value: object) -> CodeableConcept | None:
    """A CodeableConcept that says anything; of a list, the first."""
    found = first(value)
    codings = tuple(each for each in map(coding, objects(found.get("coding"))) if each is not None)
    result = CodeableConcept(codings, text(found.get("text")))
    return None if result == CodeableConcept() else result


def shown(value: CodeableConcept | None) -> str | None:
    """A concept in words."""
    if value is None:
        return None
    return value.text or next((each.display for each in value.coding if each.display), None)


def reference_id(value: object, resource_type: str) -> str | None:
    """The id in a literal reference to a resource of one type, relative, absolute or versioned (FHIR R4 §2.3.0.1)."""
    literal = text(first(value).get("reference"))
    match = re.search(rf"(?:^|/){resource_type}/([A-Za-z0-9\-.]{{1,64}})(?:/_history/[^/]+)?$", literal or "")
    return match.group(1) if match else None


def has_errors(outcome: JsonObject) -> bool:
    """Whether an OperationOutcome reports more than warnings."""
    return any(issue.get("severity") in {"error", "fatal"} for issue in objects(outcome.get("issue")))
