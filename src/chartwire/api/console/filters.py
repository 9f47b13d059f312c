"""Filters of lists as they stand in addresses and forms: empty means everything."""

from collections.abc import Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import TypeVar

from fastapi import Request
from starlette.datastructures import ImmutableMultiDict

from chartwire.errors import BadRequestError
from chartwire.model.webhook import DeliveryFilter, DeliveryState, EventType
from chartwire.services.listing import Asked

E = TypeVar("E", bound=StrEnum)
PAGE = 50
"""Rows of a list on one page."""


def text_of(request: Request, name: str) -> str | None:
    """A parameter without surrounding blanks; None if it is empty."""
    return request.query_params.get(name, "").strip() or None


def asked_of(request: Request) -> Asked:
    """Which part of a list the parameters `sort` and `after` ask for."""
    return Asked(text_of(request, "sort"), text_of(request, "after"), PAGE)


def given_of(request: Request, *names: str) -> dict[str, str]:
    """Parameters as they were given."""
    return {name: text_of(request, name) or "" for name in names}


def one_of(kind: type[E], value: str | None) -> E | None:
    """The member of an enumeration that is named, if one is. Raises as `members_of`."""
    chosen = members_of(kind, [value or ""])
    return chosen[0] if chosen else None


def says(text: str | None, *values: str | None) -> bool:
    """Whether any of the values holds the text, whatever its case; without a text, always."""
    return text is None or any(text.lower() in value.lower() for value in values if value)


def moment_of(value: str | None) -> datetime | None:
    """A moment of a `datetime-local` field, which is in UTC. Raises `BadRequestError`."""
    if not value:
        return None
    try:
        moment = datetime.fromisoformat(value)
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):  # the first and the last hours of the calendar are in no other zone
        raise BadRequestError("A time is written as 2025-01-31T14:30") from None


def members_of(kind: type[E], values: Sequence[str]) -> tuple[E, ...] | None:
    """The members of an enumeration that are named; None if none is. Raises `BadRequestError` for another name."""
    try:
        return tuple(kind(value) for value in values if value) or None
    except ValueError:
        raise BadRequestError("A filter names something that does not exist") from None


def delivery_filter(fields: ImmutableMultiDict[str, str]) -> DeliveryFilter:
    """Which deliveries are meant by the fields `type`, `state`, `endpoint`, `from` and `to`."""
    return DeliveryFilter(
        types=members_of(EventType, fields.getlist("type")),
        endpoint_id=fields.get("endpoint") or None,
        states=members_of(DeliveryState, fields.getlist("state")),
        start=moment_of(fields.get("from")),
        end=moment_of(fields.get("to")),
    )


def delivery_fields(fields: ImmutableMultiDict[str, str]) -> dict[str, object]:
    """The same fields as they were given."""
    return {
        "type": fields.getlist("type"),
        "state": fields.getlist("state"),
        "endpoint": fields.get("endpoint", ""),
        "from": fields.get("from", ""),
        "to": fields.get("to", ""),
    }
