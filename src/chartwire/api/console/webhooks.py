"""Endpoints: what they are set to, how they are, their keys, pings and samples."""

from typing import cast, get_args

from fastapi import Request
from starlette.responses import Response

from chartwire.api.console.filters import asked_of, given_of, members_of, one_of, says, text_of
from chartwire.api.console.rendering import page
from chartwire.api.console.route import new_pages, see
from chartwire.api.console.visitor import Form, FormDep, KeyKeeperDep, Live, SteererDep, Visitor, VisitorDep
from chartwire.api.dependencies import Services, ServicesDep
from chartwire.errors import BadRequestError, NotFoundError
from chartwire.model.member import Permission
from chartwire.model.overview import Condition, EndpointReport
from chartwire.model.signing_key import SigningKey
from chartwire.model.webhook import (
    DeliveryFilter,
    DeliveryMode,
    EventType,
    MessageType,
    MessageVersion,
    PayloadVersion,
    SignatureScheme,
)
from chartwire.services.webhooks import EndpointChanges

router = new_pages()

_LATEST = 10
_LONGEST_TIMEOUT = 30
_SUBSCRIBABLE: tuple[MessageType, ...] = (
    EventType.DOCUMENT_DOWNLOAD,
    EventType.DOCUMENT_BULK_DOWNLOAD_URLS,
    EventType.ENDPOINT_DISABLED,
)
_VERSIONS: tuple[MessageVersion, ...] = get_args(MessageVersion)


@router.get("/webhooks", dependencies=[Live])
async def list_endpoints(request: Request, visitor: VisitorDep, services: ServicesDep) -> Response:
    """Every endpoint, how it is, and what waits and has failed."""
    reports = await services.console.overview.endpoints(visitor.account_id)
    text, condition = text_of(request, "text"), one_of(Condition, text_of(request, "state"))
    chosen = [
        report
        for report in reports
        if condition in {None, report.condition} and says(text, report.endpoint.url, report.endpoint.description)
    ]
    return page(
        request,
        "webhooks.html",
        reports=reports,
        listed=services.console.lists.endpoints(chosen, asked_of(request)),
        given=given_of(request, "text", "state"),
        conditions=tuple(Condition),
    )


@router.post("/webhooks/retry")
async def retry_failed(visitor: SteererDep, services: ServicesDep) -> Response:
    """Send everything that failed again."""
    await services.webhooks.retry_failed(visitor.account_id)
    return see("/console/webhooks?note=retried")


@router.get("/webhooks/new")
async def show_new(request: Request, visitor: SteererDep) -> Response:
    """The form of a new endpoint."""
    del visitor
    return page(request, "endpoint_new.html", problem=None, url="", description="")


@router.post("/webhooks")
async def create_endpoint(request: Request, form: FormDep, visitor: SteererDep, services: ServicesDep) -> Response:
    """Make an endpoint; its URL is pinged. The first URL is that of the account's settings, as apps know them."""
    url, description = form.text("url"), form.text("description")
    changes: EndpointChanges = {"url": url, "description": description or None}
    try:
        endpoint_id = await _save_new(services, visitor, changes)
    except BadRequestError as error:
        return page(request, "endpoint_new.html", 400, problem=str(error), url=url, description=description)
    return see(f"/console/webhooks/{endpoint_id}?note=created")


async def _save_new(services: Services, visitor: Visitor, changes: EndpointChanges) -> str:
    if not changes["url"]:
        raise BadRequestError("The endpoint needs a URL")
    account_id, actor = visitor.account_id, visitor.actor
    unset = [each for each in await services.webhooks.list_endpoints(account_id) if each.is_settings and not each.url]
    if unset:
        return (await services.webhooks.change_endpoint(account_id, unset[0].id, changes, actor)).id
    return (await services.webhooks.create_endpoint(account_id, actor, changes)).id


@router.get("/webhooks/{endpoint_id}")
async def show_endpoint(request: Request, endpoint_id: str, visitor: VisitorDep, services: ServicesDep) -> Response:
    """One endpoint."""
    return await _endpoint_page(request, endpoint_id, visitor, services)


@router.post("/webhooks/{endpoint_id}")
async def change_endpoint(
    request: Request, endpoint_id: str, form: FormDep, visitor: SteererDep, services: ServicesDep
) -> Response:
    """Change an endpoint; a URL that differs is pinged."""
    report = await _report(endpoint_id, visitor, services)
    try:
        changes = _changes(form, report)
        await services.webhooks.change_endpoint(visitor.account_id, endpoint_id, changes, visitor.actor)
    except BadRequestError as error:
        return await _endpoint_page(request, endpoint_id, visitor, services, 400, problem=str(error))
    return see(f"/console/webhooks/{endpoint_id}?note=saved")


@router.post("/webhooks/{endpoint_id}/enable")
async def enable_endpoint(endpoint_id: str, visitor: SteererDep, services: ServicesDep) -> Response:
    """Post to it again."""
    await services.webhooks.enable_endpoint(visitor.account_id, endpoint_id, visitor.actor)
    return see(f"/console/webhooks/{endpoint_id}?note=enabled")


@router.post("/webhooks/{endpoint_id}/hasten")
async def hasten(endpoint_id: str, visitor: SteererDep, services: ServicesDep) -> Response:
    """Attempt what waits now."""
    await services.webhooks.hasten(visitor.account_id, endpoint_id, visitor.actor)
    return see(f"/console/webhooks/{endpoint_id}?note=hastened")


@router.post("/webhooks/{endpoint_id}/disable")
async def disable_endpoint(endpoint_id: str, visitor: SteererDep, services: ServicesDep) -> Response:
    """Post nothing more to it."""
    await services.webhooks.disable_endpoint(visitor.account_id, endpoint_id, visitor.actor)
    return see(f"/console/webhooks/{endpoint_id}?note=disabled")


@router.post("/webhooks/{endpoint_id}/delete")
async def delete_endpoint(endpoint_id: str, visitor: SteererDep, services: ServicesDep) -> Response:
    """Delete it."""
    await services.webhooks.delete_endpoint(visitor.account_id, endpoint_id, visitor.actor)
    return see("/console/webhooks?note=deleted")


@router.post("/webhooks/{endpoint_id}/ping")
async def ping(endpoint_id: str, visitor: SteererDep, services: ServicesDep) -> Response:
    """Send a ping, and see the request and the answer."""
    message_id = await services.webhooks.ping(visitor.account_id, endpoint_id)
    return see(f"/console/events/{message_id}")


@router.post("/webhooks/{endpoint_id}/sample")
async def send_sample(endpoint_id: str, form: FormDep, visitor: SteererDep, services: ServicesDep) -> Response:
    """Send a sample, and see the request and the answer."""
    kind = next((each for each in _SUBSCRIBABLE if each.value == form.text("type")), None)
    if kind is None:
        raise BadRequestError("Choose a type of message")
    message_id = await services.webhooks.send_sample(visitor.account_id, endpoint_id, kind)
    return see(f"/console/events/{message_id}")


@router.post("/webhooks/{endpoint_id}/keys")
async def reveal_keys(request: Request, endpoint_id: str, visitor: KeyKeeperDep, services: ServicesDep) -> Response:
    """Show the keys, on this one page; that they were seen is written down."""
    keys = await services.webhooks.reveal_keys(visitor.account_id, endpoint_id, visitor.actor)
    return await _endpoint_page(request, endpoint_id, visitor, services, revealed=keys)


@router.post("/webhooks/{endpoint_id}/rotate")
async def rotate_key(request: Request, endpoint_id: str, visitor: KeyKeeperDep, services: ServicesDep) -> Response:
    """Make a new key and show it, on this one page."""
    keys = await services.webhooks.rotate_key(visitor.account_id, endpoint_id, visitor.actor)
    return await _endpoint_page(request, endpoint_id, visitor, services, revealed=keys)


async def _endpoint_page(
    request: Request,
    endpoint_id: str,
    visitor: Visitor,
    services: Services,
    status: int = 200,
    problem: str | None = None,
    revealed: tuple[SigningKey, ...] = (),
) -> Response:
    report = await _report(endpoint_id, visitor, services)
    is_channel = report.endpoint.payload_version is PayloadVersion.FHIR_R4
    keys = () if is_channel else await services.webhooks.list_keys(visitor.account_id, endpoint_id)
    latest = await services.history.list_deliveries(
        visitor.account_id, DeliveryFilter(endpoint_id=endpoint_id), None, _LATEST
    )
    return page(
        request,
        "endpoint.html",
        status,
        report=report,
        endpoint=report.endpoint,
        keys=keys,
        revealed=revealed,
        latest=latest.items,
        problem=problem,
        subscribable=_SUBSCRIBABLE,
        modes=tuple(DeliveryMode),
        schemes=tuple(SignatureScheme),
        versions=_VERSIONS,
        may_steer=visitor.may(Permission.STEER) and not is_channel,
    )


async def _report(endpoint_id: str, visitor: Visitor, services: Services) -> EndpointReport:
    reports = await services.console.overview.endpoints(visitor.account_id)
    found = next((report for report in reports if report.endpoint.id == endpoint_id), None)
    if found is None:
        raise NotFoundError
    return found


def _changes(form: Form, report: EndpointReport) -> EndpointChanges:
    types = [each.value for each in _SUBSCRIBABLE if each.value in form.texts("type")]
    changes: dict[str, object] = {
        "description": form.text("description") or None,
        "payload_version": _one(tuple(each for each in _VERSIONS if each.value == form.text("version"))),
        "delivery": _one(members_of(DeliveryMode, [form.text("mode")])),
        "signature_scheme": _one(members_of(SignatureScheme, [form.text("scheme")])),
        "send_webhook_key": form.has("send_key"),
        "timeout_seconds": _seconds(form.text("timeout")),
        "event_types": None if form.has("all_types") or not types else types,
    }
    url = form.text("url") or None
    if url != report.endpoint.url:
        changes["url"] = url
    return cast(EndpointChanges, changes)


def _one(chosen: tuple[object, ...] | None) -> object:
    if not chosen:
        raise BadRequestError("Choose one of the values")
    return chosen[0]


def _seconds(value: str) -> int | None:
    if not value:
        return None
    if not value.isascii() or not value.isdigit() or not 1 <= int(value[:4]) <= _LONGEST_TIMEOUT:
        raise BadRequestError(f"The deadline is a whole number of seconds from 1 to {_LONGEST_TIMEOUT}")
    return int(value)
