"""Subscriptions under the FHIR face: topic-based, rest-hook (Subscriptions R5 Backport 1.1.0 for R4)."""

from urllib.parse import urlencode

from fastapi import Request
from starlette.exceptions import HTTPException
from starlette.responses import Response

from chartwire.api.dependencies import IfMatchDep, ServicesDep
from chartwire.api.fhir_routing import (
    SubscriptionManager,
    new_fhir_router,
    outcome_responses,
    refuse_xml,
    resource_answer,
)
from chartwire.api.fhir_search import DEFAULT_COUNT, Parameters, parse_count
from chartwire.api.fhir_subscription_bodies import read_subscription
from chartwire.api.fhir_subscription_operations import allow_content, alternatives, last_value
from chartwire.api.fhir_subscription_schemas import (
    ERRORS,
    OF_A_BODY,
    OF_ONE,
    PAGE,
    PARAMETERS,
    RESOURCE,
    SEARCH_QUERY,
    SUBSCRIPTION_BODY,
)
from chartwire.formats.fhir_notifications import subscription_url, topic_url
from chartwire.formats.fhir_resources import SearchPage, search_bundle
from chartwire.formats.fhir_subscriptions import subscription_resource
from chartwire.model.document import JsonObject
from chartwire.model.subscription import Subscription
from chartwire.services.subscriptions import SubscriptionSearch, SubscriptionService

router = new_fhir_router()

_SEARCHED = frozenset({*(parameter.name for parameter in PARAMETERS), "_count"})


@router.post(
    "/Subscription",
    status_code=201,
    responses={201: RESOURCE, **ERRORS, **OF_A_BODY},
    openapi_extra=SUBSCRIPTION_BODY,
    response_class=Response,
)
async def create_subscription(request: Request, services: ServicesDep, manager: SubscriptionManager) -> Response:
    """Subscribe. The endpoint gets a handshake; its answer decides whether the status becomes `active` or `error`."""
    refuse_xml(request)
    service = services.subscriptions
    draft = await read_subscription(request, service.public_base, None)
    allow_content(manager, draft.content)
    return _answer(service, await service.create(manager.account_id, manager.actor, draft), 201)


@router.get("/Subscription", responses={200: RESOURCE, **ERRORS}, openapi_extra=SEARCH_QUERY, response_class=Response)
async def search_subscriptions(request: Request, services: ServicesDep, manager: SubscriptionManager) -> Response:
    """Find subscriptions. Parameters that are not known are ignored."""
    refuse_xml(request)
    service = services.subscriptions
    parameters: Parameters = request.query_params.multi_items()
    page = next((value for name, value in parameters if name == PAGE), None)
    parameters, after = service.pages.open(page) if page else (parameters, None)
    obeyed = [(name, value) for name, value in parameters if name in _SEARCHED]
    count = parse_count(last_value(obeyed, "_count") or str(DEFAULT_COUNT))
    chosen = _chosen(obeyed, service.public_base)
    found = await service.search(manager.account_id, chosen, count, after)
    base = f"{service.public_base}/oauth/fhir/Subscription"
    links = {"self": f"{base}?{urlencode({PAGE: page} if page else obeyed)}"}
    if found.has_more and found.subscriptions:
        links["next"] = f"{base}?{urlencode({PAGE: service.pages.seal(obeyed, found.subscriptions[-1].id)})}"
    resources = [
        (subscription_url(service.public_base, each.id), _resource(service, each)) for each in found.subscriptions
    ]
    return resource_answer(search_bundle(SearchPage(found.total, links, resources)))


@router.get("/Subscription/{subscription_id}", responses={200: RESOURCE, **OF_ONE}, response_class=Response)
async def read_subscription_by_id(
    request: Request, subscription_id: str, services: ServicesDep, manager: SubscriptionManager
) -> Response:
    """A subscription, as it stands."""
    refuse_xml(request)
    service = services.subscriptions
    return _answer(service, await service.get(manager.account_id, subscription_id))


@router.put(
    "/Subscription/{subscription_id}",
    responses={200: RESOURCE, **OF_ONE, **OF_A_BODY, **outcome_responses(412)},
    openapi_extra=SUBSCRIPTION_BODY,
    response_class=Response,
)
async def update_subscription(
    request: Request, subscription_id: str, services: ServicesDep, manager: SubscriptionManager, version: IfMatchDep
) -> Response:
    """Change a subscription. `requested` sends a handshake again, `off` ends it for as long as it says so."""
    _refuse_operation(subscription_id)
    refuse_xml(request)
    service = services.subscriptions
    draft = await read_subscription(request, service.public_base, subscription_id)
    allow_content(manager, draft.content)
    changed = await service.replace(manager.account_id, manager.actor, subscription_id, draft, version)
    return _answer(service, changed)


@router.delete(
    "/Subscription/{subscription_id}",
    status_code=204,
    responses=outcome_responses(400, 401, 403, 404, 429),
    response_class=Response,
)
async def delete_subscription(subscription_id: str, services: ServicesDep, manager: SubscriptionManager) -> Response:
    """Unsubscribe; what waits to be sent is dropped, what was sent stays in the history."""
    _refuse_operation(subscription_id)
    await services.subscriptions.delete(manager.account_id, manager.actor, subscription_id)
    return Response(status_code=204)


def _refuse_operation(subscription_id: str) -> None:
    """The name of an operation is no id: it can be asked, not changed."""
    if subscription_id == "$status":
        raise HTTPException(405)


def _chosen(obeyed: Parameters, public_base: str) -> SubscriptionSearch:
    topics = alternatives(obeyed, "criteria")
    no_such = topics is not None and topic_url(public_base) not in topics
    ids = frozenset[str]() if no_such else alternatives(obeyed, "_id")
    return SubscriptionSearch(ids, alternatives(obeyed, "status"), _exact(obeyed, "url"))


def _exact(parameters: Parameters, name: str) -> frozenset[str] | None:
    """Values that may hold commas themselves."""
    values = [value for key, value in parameters if key == name]
    return frozenset(values) if values else None


def _resource(service: SubscriptionService, known: Subscription) -> JsonObject:
    now = service.now()
    return subscription_resource(service.public_base, known, known.status(now), known.trouble(now))


def _answer(service: SubscriptionService, known: Subscription, status: int = 200) -> Response:
    headers = {"etag": f'W/"{known.version}"'}
    if status == 201:
        headers["location"] = subscription_url(service.public_base, known.id)
    return resource_answer(_resource(service, known), status, headers)
