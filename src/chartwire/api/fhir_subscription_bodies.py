"""Subscriptions and parameters of operations as clients send them, made into what the service is asked.

The shape is checked first (400), then what this server takes of it (422). What is not known is refused, not ignored:
a filter that was overlooked would send what nobody asked for. Errors name the element, never what it holds.
"""

from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, Any, Literal

import orjson
from fastapi import Request
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.alias_generators import to_camel, to_snake

from chartwire.api.fhir_search import parse_criteria
from chartwire.clock import truncate
from chartwire.errors import BadRequestError, InvalidElementError, UnacceptableElementError
from chartwire.formats import fhir_subscriptions as fhir
from chartwire.formats.fhir_notifications import topic_url
from chartwire.formats.fhir_resources import MEDIA_TYPE
from chartwire.model.subscription import PayloadContent, SubscriptionStatus
from chartwire.services.subscriptions import SubscriptionDraft
from chartwire.store.documents import DocumentFilter

_MOST = 50
_LONGEST_TIMEOUT = 30  # of the engine; who asks for more is given this much
_HEARTBEAT_SECONDS = (10, 7 * 24 * 3600)
_LARGEST_COUNT = 1000
_MOMENT: TypeAdapter[datetime] = TypeAdapter(AwareDatetime)

Text = Annotated[str, Field(min_length=1, max_length=2000)]


class _Element(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, alias_generator=to_camel)

    id: Text | None = None


class Extension(_Element):
    """An extension with one of the values that extensions of a Subscription have."""

    url: Text
    value_string: Text | None = None
    value_code: Text | None = None
    value_unsigned_int: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = None
    value_positive_int: Annotated[int, Field(ge=1, le=2**31 - 1)] | None = None
    value_coding: dict[str, Any] | None = None


Extensions = Annotated[list[Extension], Field(max_length=_MOST)]


class Primitive(_Element):
    """What FHIR's JSON has beside a primitive value."""

    extension: Extensions = []


class ContactPoint(_Element):
    """Whom to ask about the subscription; kept and shown."""

    system: Literal["phone", "fax", "email", "pager", "url", "sms", "other"] | None = None
    value: Text | None = None
    use: Literal["home", "work", "temp", "old", "mobile"] | None = None
    rank: Annotated[int, Field(ge=1, le=2**31 - 1)] | None = None


class Channel(_Element):
    """How and where to notify."""

    extension: Extensions = []
    type: Text
    type_extended: Primitive = Field(default=Primitive(), alias="_type")
    endpoint: Text
    payload: Text
    payload_extended: Primitive = Field(default=Primitive(), alias="_payload")
    header: Annotated[list[Text], Field(max_length=_MOST)] = []


class SubscriptionBody(_Element):
    """A Subscription resource. `meta`, `text`, `language` and `error` are the server's: what is sent is not kept."""

    resource_type: Literal["Subscription"]
    meta: dict[str, Any] | None = None
    text: dict[str, Any] | None = None
    language: str | None = None
    status: Literal["requested", "active", "error", "off"]
    contact: Annotated[list[ContactPoint], Field(min_length=1, max_length=_MOST)] | None = None
    end: Text | None = None
    reason: Text
    criteria: Text
    criteria_extended: Primitive = Field(default=Primitive(), alias="_criteria")
    error: str | None = None
    channel: Channel


async def read_resource(request: Request) -> Any:
    """The body. Raises `BadRequestError` for what is not JSON."""
    try:
        return await request.json()
    except orjson.JSONDecodeError:
        raise BadRequestError("The body is not valid JSON") from None


async def read_subscription(request: Request, public_base: str, subscription_id: str | None) -> SubscriptionDraft:
    """What is asked. `subscription_id` is that of the URL, which a resource that has an id must repeat.

    Raises `InvalidElementError` and `UnacceptableElementError`.
    """
    try:
        body = SubscriptionBody.model_validate(await read_resource(request))
    except ValidationError as error:
        issue = error.errors()[0]
        raise InvalidElementError(*_place_and_message(issue)) from None
    if subscription_id is not None and body.id != subscription_id:
        raise InvalidElementError("id", "the id must be that of the URL")
    return _draft(body, public_base)


def _draft(body: SubscriptionBody, public_base: str) -> SubscriptionDraft:
    channel = body.channel
    status = SubscriptionStatus(body.status)
    _require(status is not SubscriptionStatus.ERROR, "status", "ask for requested, active or off")
    _require(body.criteria == topic_url(public_base), "criteria", "not a topic of this server: see /metadata")
    _require(channel.type == fhir.REST_HOOK, "channel.type", "this server has rest-hook alone")
    _extensions(channel.type_extended.extension, "channel.type")
    _require(channel.payload == MEDIA_TYPE, "channel.payload", f"this server sends {MEDIA_TYPE} alone")
    criteria = tuple(
        _text(each) for each in _extensions(body.criteria_extended.extension, "criteria", many=(fhir.FILTER,))
    )
    numbers = _Numbers(channel.extension)
    timeout = numbers.get(fhir.TIMEOUT, "valueUnsignedInt", 1, 2**31)
    return SubscriptionDraft(
        status=status,
        reason=body.reason,
        contact=None if body.contact is None else [each.model_dump(exclude_none=True) for each in body.contact],
        criteria=criteria,
        chosen=_chosen(criteria),
        url=channel.endpoint,
        headers=_headers(channel.header),
        content=_content(channel.payload_extended.extension),
        heartbeat_seconds=numbers.get(fhir.HEARTBEAT, "valueUnsignedInt", *_HEARTBEAT_SECONDS),
        timeout_seconds=None if timeout is None else min(timeout, _LONGEST_TIMEOUT),
        max_count=numbers.get(fhir.MAX_COUNT, "valuePositiveInt", 1, _LARGEST_COUNT),
        ends_at=_end(body.end),
    )


class _Numbers:
    """The extensions of a channel, which all hold numbers."""

    def __init__(self, extensions: Iterable[Extension]) -> None:
        known = (fhir.HEARTBEAT, fhir.TIMEOUT, fhir.MAX_COUNT)
        self._found = {each.url: each for each in _extensions(extensions, "channel", one=known)}

    def get(self, url: str, kind: str, least: int, most: int) -> int | None:
        """The value of one, in its bounds."""
        if url not in self._found:
            return None
        value: int | None = getattr(self._found[url], to_snake(kind))
        place = f"channel.extension('{url}')"
        if value is None:
            raise InvalidElementError(place, f"needs a {kind}")
        _require(least <= value <= most, place, f"must be from {least} to {most}")
        return value


def _extensions(
    given: Iterable[Extension], place: str, one: tuple[str, ...] = (), many: tuple[str, ...] = ()
) -> list[Extension]:
    """Those that are known: of `one` each at most once, of `many` any number. Raises for every other."""
    found = list(given)
    for each in found:
        _require(each.url != fhir.CHANNEL_TYPE, place, "this server has no other types of channel")
        _require(each.url in one or each.url in many, f"{place}.extension", "an extension is not known here")
    urls = [each.url for each in found if each.url in one]
    _require(len(urls) == len(set(urls)), f"{place}.extension", "an extension is given more than once")
    return found


def _text(extension: Extension) -> str:
    if extension.value_string is None:
        raise InvalidElementError("criteria.extension", "a filter needs a valueString")
    return extension.value_string


def _chosen(criteria: Iterable[str]) -> DocumentFilter:
    try:
        return parse_criteria(criteria)
    except BadRequestError as error:
        raise UnacceptableElementError("criteria.extension", str(error)) from None


def _content(extensions: Iterable[Extension]) -> PayloadContent:
    place = f"channel.payload.extension('{fhir.CONTENT}')"
    found = _extensions(extensions, "channel.payload", one=(fhir.CONTENT,))
    code = found[0].value_code if found else None
    if code is None:
        raise InvalidElementError(place, "is required, with a valueCode")
    _require(code in set(PayloadContent), place, f"must be one of {', '.join(PayloadContent)}")
    return PayloadContent(code)


def _headers(lines: Iterable[str]) -> dict[str, str | None]:
    headers: dict[str, str | None] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        name, value = name.strip().lower(), value.strip()
        _require(bool(colon and name and value), "channel.header", "a header is written as Name: value")
        _require(name not in headers, "channel.header", "a header is given more than once")
        headers[name] = None if value == fhir.MASK else value
    return headers


def _end(value: str | None) -> datetime | None:
    try:
        return None if value is None else truncate(_MOMENT.validate_python(value))
    except (ValidationError, OverflowError):
        raise InvalidElementError("end", "must be an instant: a date and a time with a zone") from None


def _require(condition: bool, element: str, message: str) -> None:
    if not condition:
        raise UnacceptableElementError(element, message)


def _place_and_message(issue: Any) -> tuple[str, str]:
    """The element without names that are not ours: they were sent."""
    steps = [str(step).removeprefix("_") for step in issue["loc"] if not isinstance(step, int)]
    if issue["type"] == "extra_forbidden":
        return ".".join(steps[:-1]), "an element is not known here"
    return ".".join(steps), str(issue["msg"])
