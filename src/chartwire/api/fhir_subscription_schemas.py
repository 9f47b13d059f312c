"""What the OpenAPI document says of subscriptions: resources, parameters, errors."""

from collections.abc import Mapping
from typing import Any

from chartwire.addresses import MAX_URL_LENGTH
from chartwire.api.fhir_routing import outcome_responses
from chartwire.formats import fhir_subscriptions as fhir
from chartwire.formats.fhir_resources import MEDIA_TYPE, SearchParameter
from chartwire.model.document import JsonObject
from chartwire.model.subscription import PayloadContent

PARAMETERS = (
    SearchParameter("_id", "token", "Ids of subscriptions"),
    SearchParameter("status", "token", "requested, active, error, off"),
    SearchParameter("url", "uri", "Where notifications are sent"),
    SearchParameter("criteria", "string", "The canonical URL of the topic"),
)

PAGE = "_page"
RESOURCE: dict[str, Any] = {"content": {MEDIA_TYPE: {"schema": {"type": "object"}}}}
ERRORS = outcome_responses(400, 401, 403, 406, 429)
OF_ONE = {**ERRORS, **outcome_responses(404)}
OF_A_BODY = outcome_responses(413, 422)


def _extensions(values: Mapping[str, JsonObject], least: int = 0) -> JsonObject:
    """The schema of what has extensions, by their URLs; each has one value."""
    kinds = [{"url": {"const": url}, **value} for url, value in values.items()]
    items = [
        {"type": "object", "required": list(kind), "properties": kind, "additionalProperties": False} for kind in kinds
    ]
    return {
        "type": "object",
        "required": ["extension"],
        "properties": {"extension": {"type": "array", "minItems": least, "items": {"anyOf": items}}},
        "additionalProperties": False,
    }


_PERIOD = {"valueUnsignedInt": {"type": "integer", "minimum": 10, "maximum": 604_800}}
_TIMEOUT = {"valueUnsignedInt": {"type": "integer", "minimum": 1, "maximum": 2**31 - 1}}
_POSITIVE = {"valuePositiveInt": {"type": "integer", "minimum": 1, "maximum": 1000}}
_FILTER = {"valueString": {"type": "string", "pattern": "^DocumentReference[?]."}}
_CONTENT = {"valueCode": {"enum": [content.value for content in PayloadContent]}}
_CHANNEL_EXTENSIONS = _extensions({fhir.HEARTBEAT: _PERIOD, fhir.TIMEOUT: _TIMEOUT, fhir.MAX_COUNT: _POSITIVE})
_CHANNEL_SCHEMA = {
    "type": "object",
    "required": ["type", "endpoint", "payload", "_payload"],
    "properties": {
        "type": {"const": fhir.REST_HOOK},
        "endpoint": {"type": "string", "format": "uri", "maxLength": MAX_URL_LENGTH},
        "payload": {"const": MEDIA_TYPE},
        "_payload": _extensions({fhir.CONTENT: _CONTENT}, least=1),
        "header": {
            "type": "array",
            "maxItems": 20,
            "items": {"type": "string", "pattern": "^[A-Za-z0-9-]{1,64}: [!-~]"},
        },
        "extension": _CHANNEL_EXTENSIONS["properties"]["extension"],
    },
    "additionalProperties": False,
}
_SUBSCRIPTION = {
    "type": "object",
    "description": "FHIR R4 Subscription, profile backport-subscription",
    "required": ["resourceType", "status", "reason", "criteria", "channel"],
    "properties": {
        "resourceType": {"const": "Subscription"},
        "id": {"type": "string", "maxLength": 64, "description": "In an update that of the URL"},
        "meta": {"type": "object"},
        "status": {"enum": ["requested", "active", "off"]},
        "contact": {"type": "array", "items": {"type": "object"}},
        "end": {"type": "string", "format": "date-time"},
        "reason": {"type": "string", "minLength": 1, "maxLength": 2000},
        "criteria": {"type": "string", "description": "The canonical URL of the topic, see /oauth/fhir/metadata"},
        "_criteria": _extensions({fhir.FILTER: _FILTER}),
        "channel": _CHANNEL_SCHEMA,
    },
    "additionalProperties": False,
}
_PARAMETERS = {
    "type": "object",
    "description": "FHIR R4 Parameters, each with one of the values of the query",
    "required": ["resourceType"],
    "properties": {
        "resourceType": {"const": "Parameters"},
        "parameter": {"type": "array", "items": {"type": "object"}},
    },
}


def _body(schema: JsonObject, *, required: bool = True) -> JsonObject:
    return {"requestBody": {"required": required, "content": {MEDIA_TYPE: {"schema": schema}}}}


def _query(*parameters: tuple[str, str]) -> JsonObject:
    return {
        "parameters": [
            {"name": name, "in": "query", "description": text, "schema": {"type": "string"}}
            for name, text in parameters
        ]
    }


SEARCH_QUERY = _query(
    *((parameter.name, parameter.documentation) for parameter in PARAMETERS),
    ("_count", "Subscriptions per page"),
    (PAGE, "Opaque; in the link to the next page"),
)
STATUS_QUERY = _query(("id", "May be given several times"), ("status", "May be given several times"))
EVENTS_QUERY = _query(
    ("eventsSinceNumber", "The first event, 1 by default"),
    ("eventsUntilNumber", "The last event"),
    ("content", "empty, id-only or full-resource; as the subscription says by default"),
)

SUBSCRIPTION_BODY = _body(_SUBSCRIPTION)
PARAMETERS_BODY = _body(_PARAMETERS, required=False)
