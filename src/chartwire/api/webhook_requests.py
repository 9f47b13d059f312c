"""`/settings/webhook/request`: what was sent to the URL of the settings, as existing clients list and repeat it."""

from typing import Annotated, Literal
from urllib.parse import urlencode

from fastapi import Path, Query, Request
from starlette.responses import Response

from chartwire.api.dependencies import CallerDep, ServicesDep, settings_of
from chartwire.api.errors import problem_responses
from chartwire.api.models import ApiModel, Omittable
from chartwire.api.registry_bodies import PageMeta
from chartwire.api.routing import new_router
from chartwire.clock import iso
from chartwire.errors import BadRequestError
from chartwire.model.webhook import DeliveryState, EventType, Outcome
from chartwire.store.webhook_requests import RequestOrder, RequestPage, RequestWindow, WebhookRequest

_PATH = "/settings/webhook/request"
_STATUS: dict[DeliveryState, Literal["processing", "success", "failure"]] = {
    DeliveryState.WAITING: "processing",
    DeliveryState.DELIVERED: "success",
    DeliveryState.FAILED: "failure",
    DeliveryState.DROPPED: "failure",
}

router = new_router(_PATH, "webhook")


class RequestAnswer(ApiModel):
    """A message and its last attempt; `id` is the `messageId`."""

    id: str
    cx_id: str
    request_id: Omittable[str] = None
    type: EventType
    status: Literal["processing", "success", "failure"]
    status_detail: Omittable[str] = None
    request_url: Omittable[str] = None
    http_status: Omittable[int] = None
    duration_millis: Omittable[int] = None
    created_at: str
    updated_at: str


class RequestsAnswer(ApiModel):
    """A page of messages of the last 30 days."""

    meta: PageMeta
    requests: list[RequestAnswer]


@router.get("")
async def list_webhook_requests(
    request: Request,
    caller: CallerDep,
    services: ServicesDep,
    from_item: Annotated[str | None, Query(alias="fromItem", description="First of the next page")] = None,
    to_item: Annotated[str | None, Query(alias="toItem", description="Last of the previous page")] = None,
    count: Annotated[int, Query(ge=0, le=500)] = 50,
    sort: Annotated[RequestOrder, Query(description="What the list is in descending order of")] = (
        RequestOrder.CREATED_AT
    ),
) -> RequestsAnswer:
    """List what was sent to the URL of the settings in the last 30 days."""
    if from_item is not None and to_item is not None:
        raise BadRequestError("Only one of fromItem and toItem can be given")
    window = RequestWindow(count, sort, from_item, to_item)
    page = await services.history.list_requests(caller.account_id, window)
    base = f"{settings_of(request).public_base}{_PATH}"
    return RequestsAnswer(
        meta=_meta(page, window, base), requests=[_request(each, caller.account_id) for each in page.requests]
    )


@router.post(
    "/{event_id}/retry",
    response_class=Response,
    responses={200: {"content": {"application/json": {"schema": {"type": "object"}}}}, **problem_responses(404, 409)},
)
async def retry_webhook_request(
    event_id: Annotated[str, Path(max_length=64)], caller: CallerDep, services: ServicesDep
) -> Response:
    """Send a message again under a new `messageId`, with fresh links; answers what is sent."""
    body = await services.history.resend_as_new(caller.account_id, event_id, caller.actor)
    return Response(body, media_type="application/json")


def _meta(page: RequestPage, window: RequestWindow, base: str) -> PageMeta:
    """The links lead to the same list: they carry its order."""

    def link(name: str, item: str | None) -> str | None:
        kept = {"count": window.count, "sort": window.order.value}
        return None if item is None else f"{base}?{urlencode({**kept, name: item})}"

    return PageMeta(
        items_on_page=len(page.requests),
        items_in_total=page.total if window.from_item is None and window.to_item is None else None,
        next_page=link("fromItem", page.next_item if window.count else None),
        prev_page=link("toItem", page.previous_item if window.count else None),
    )


def _request(each: WebhookRequest, account_id: str) -> RequestAnswer:
    return RequestAnswer(
        id=each.id,
        cx_id=account_id,
        request_id=each.request_id,
        type=each.type,
        status=_STATUS[each.state],
        status_detail=_detail(each),
        request_url=each.url,
        http_status=each.http_status,
        duration_millis=each.duration_ms,
        created_at=iso(each.created_at),
        updated_at=iso(each.updated_at),
    )


def _detail(each: WebhookRequest) -> str | None:
    if each.outcome is None:
        return None
    return "OK" if each.outcome is Outcome.DELIVERED else f"Failed to send payload: {each.outcome}"
