"""Operations on subscriptions: `$status`, how they stand, and `$events`, what happened before."""

from collections.abc import Sequence
from urllib.parse import urlencode

from fastapi import Request
from starlette.responses import Response

from chartwire.api.dependencies import ServicesDep
from chartwire.api.fhir_routing import (
    SubscriptionManager,
    new_fhir_router,
    outcome_responses,
    refuse_xml,
    resource_answer,
)
from chartwire.api.fhir_search import Parameters
from chartwire.api.fhir_subscription_bodies import read_resource
from chartwire.api.fhir_subscription_schemas import (
    ERRORS,
    EVENTS_QUERY,
    OF_ONE,
    PARAMETERS_BODY,
    RESOURCE,
    STATUS_QUERY,
)
from chartwire.errors import BadRequestError, ForbiddenError
from chartwire.formats.fhir_notifications import notification, status_bundle, subscription_url
from chartwire.ids import new_id
from chartwire.model.document import JsonObject
from chartwire.model.subscription import NotificationType, PayloadContent, Subscription
from chartwire.services.access import READ_REFERENCES, Grant
from chartwire.services.subscriptions import SubscriptionSearch, SubscriptionService

router = new_fhir_router()

_MOST_EVENTS = 100
_ANY_NUMBER = 2**31 - 1


@router.get(
    "/Subscription/$status", responses={200: RESOURCE, **ERRORS}, openapi_extra=STATUS_QUERY, response_class=Response
)
async def read_statuses(request: Request, services: ServicesDep, manager: SubscriptionManager) -> Response:
    """How subscriptions stand: all, or those of the given ids and statuses."""
    return await _statuses(request, services.subscriptions, manager, request.query_params.multi_items())


@router.post(
    "/Subscription/$status",
    responses={200: RESOURCE, **ERRORS, **outcome_responses(413)},
    openapi_extra=PARAMETERS_BODY,
    response_class=Response,
)
async def ask_for_statuses(request: Request, services: ServicesDep, manager: SubscriptionManager) -> Response:
    """As GET, with the parameters in a Parameters resource."""
    return await _statuses(request, services.subscriptions, manager, await _read_parameters(request))


@router.get("/Subscription/{subscription_id}/$status", responses={200: RESOURCE, **OF_ONE}, response_class=Response)
async def read_status(
    request: Request, subscription_id: str, services: ServicesDep, manager: SubscriptionManager
) -> Response:
    """How a subscription stands, and how many events it has had."""
    return await _status(request, services.subscriptions, manager, subscription_id)


@router.post(
    "/Subscription/{subscription_id}/$status",
    responses={200: RESOURCE, **OF_ONE, **outcome_responses(413)},
    openapi_extra=PARAMETERS_BODY,
    response_class=Response,
)
async def ask_for_status(
    request: Request, subscription_id: str, services: ServicesDep, manager: SubscriptionManager
) -> Response:
    """As GET."""
    await _read_parameters(request)
    return await _status(request, services.subscriptions, manager, subscription_id)


@router.get(
    "/Subscription/{subscription_id}/$events",
    responses={200: RESOURCE, **OF_ONE},
    openapi_extra=EVENTS_QUERY,
    response_class=Response,
)
async def read_events(
    request: Request, subscription_id: str, services: ServicesDep, manager: SubscriptionManager
) -> Response:
    """Events that happened before, the oldest first, a hundred at most."""
    parameters = request.query_params.multi_items()
    return await _events(request, services.subscriptions, manager, subscription_id, parameters)


@router.post(
    "/Subscription/{subscription_id}/$events",
    responses={200: RESOURCE, **OF_ONE, **outcome_responses(413)},
    openapi_extra=PARAMETERS_BODY,
    response_class=Response,
)
async def ask_for_events(
    request: Request, subscription_id: str, services: ServicesDep, manager: SubscriptionManager
) -> Response:
    """As GET, with the parameters in a Parameters resource."""
    parameters = await _read_parameters(request)
    return await _events(request, services.subscriptions, manager, subscription_id, parameters)


async def _statuses(request: Request, service: SubscriptionService, manager: Grant, parameters: Parameters) -> Response:
    refuse_xml(request)
    ids, statuses = alternatives(parameters, "id"), alternatives(parameters, "status")
    found = await service.search(manager.account_id, SubscriptionSearch(ids, statuses))
    told = [(name, value) for name, value in parameters if name in {"id", "status"}]
    url = f"{service.public_base}/oauth/fhir/Subscription/$status" + (f"?{urlencode(told)}" if told else "")
    return _status_answer(service, found.subscriptions, url)


async def _status(request: Request, service: SubscriptionService, manager: Grant, subscription_id: str) -> Response:
    refuse_xml(request)
    known = await service.get(manager.account_id, subscription_id)
    return _status_answer(service, [known], f"{subscription_url(service.public_base, known.id)}/$status")


def _status_answer(service: SubscriptionService, found: Sequence[Subscription], url: str) -> Response:
    named = [(each, new_id()) for each in found]
    return resource_answer(status_bundle(service.public_base, named, url, service.now()))


async def _events(
    request: Request, service: SubscriptionService, manager: Grant, subscription_id: str, parameters: Parameters
) -> Response:
    refuse_xml(request)
    span = _number(parameters, "eventsSinceNumber", 1), _number(parameters, "eventsUntilNumber", _ANY_NUMBER)
    known = await service.get(manager.account_id, subscription_id)
    content = _content(parameters) or known.content
    allow_content(manager, content)
    named = content is not PayloadContent.EMPTY
    known, events = await service.list_events(
        manager.account_id, manager.actor, subscription_id, span, _MOST_EVENTS, named=named
    )
    kind = NotificationType.QUERY_EVENT
    return resource_answer(notification(service.public_base, known, kind, new_id(), service.now(), events, content))


async def _read_parameters(request: Request) -> list[tuple[str, str]]:
    """The parameters of an operation; no body means none (R4 §3.2.0)."""
    if not await request.body():
        return []
    resource = await read_resource(request)
    if not isinstance(resource, dict) or resource.get("resourceType") != "Parameters":
        raise BadRequestError("The body is not a Parameters resource")
    given = resource.get("parameter", [])
    if not isinstance(given, list) or not all(isinstance(each, dict) for each in given):
        raise BadRequestError("Parameters.parameter is not a list of parameters")
    return [(str(each.get("name")), _value(each)) for each in given]


def _value(parameter: JsonObject) -> str:
    values = [value for name, value in parameter.items() if name.startswith("value")]
    if len(values) != 1 or not isinstance(values[0], str | int):
        raise BadRequestError("Parameters.parameter needs one simple value")
    return str(values[0])


def _number(parameters: Parameters, name: str, otherwise: int) -> int:
    value = last_value(parameters, name)
    if value is None:
        return otherwise
    if not (value.isascii() and value.isdigit() and len(value) < 10):
        raise BadRequestError(f"{name} is the number of an event")
    return int(value)


def _content(parameters: Parameters) -> PayloadContent | None:
    value = last_value(parameters, "content")
    if value is not None and value not in set(PayloadContent):
        raise BadRequestError(f"content is one of {', '.join(PayloadContent)}")
    return None if value is None else PayloadContent(value)


def alternatives(parameters: Parameters, name: str) -> frozenset[str] | None:
    """Values, separated by commas or given several times; None: not given."""
    values = [part.strip() for key, value in parameters if key == name for part in value.split(",")]
    return frozenset(values) if values else None


def last_value(parameters: Parameters, name: str) -> str | None:
    """The value of a parameter that has one; the last one counts."""
    return next((value for key, value in reversed(parameters) if key == name), None)


def allow_content(manager: Grant, content: PayloadContent) -> None:
    """Who may not read documents may not have them sent, either."""
    if content is not PayloadContent.EMPTY and not manager.allows(READ_REFERENCES):
        raise ForbiddenError(f"To be told of documents, the token needs the scope {READ_REFERENCES} too")
