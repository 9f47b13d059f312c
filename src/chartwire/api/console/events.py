"""The request inspector: what was sent, each attempt, the answer, and the same request to be tried by hand."""

from fastapi import Request
from starlette.responses import Response

from chartwire.api.console import snippets
from chartwire.api.console.filters import (
    asked_of,
    delivery_fields,
    delivery_filter,
    given_of,
    members_of,
    moment_of,
    text_of,
)
from chartwire.api.console.rendering import page
from chartwire.api.console.route import new_pages, see
from chartwire.api.console.visitor import FormDep, Live, ReaderDep, SteererDep, Visitor, VisitorDep
from chartwire.api.dependencies import Services, ServicesDep
from chartwire.model.webhook import AttemptFilter, DeliveryState, EventType, Outcome
from chartwire.store.history import MOST_ATTEMPTS

router = new_pages()


@router.get("/events", dependencies=[Live])
async def list_deliveries(request: Request, visitor: VisitorDep, services: ServicesDep) -> Response:
    """What was sent, the newest first."""
    chosen = delivery_filter(request.query_params)
    listed = await services.console.lists.deliveries(visitor.account_id, chosen, asked_of(request))
    return page(
        request,
        "events.html",
        listed=listed,
        given=delivery_fields(request.query_params),
        endpoints=await services.webhooks.list_endpoints(visitor.account_id),
        types=tuple(EventType),
        states=tuple(DeliveryState),
    )


@router.get("/attempts")
async def list_attempts(request: Request, visitor: VisitorDep, services: ServicesDep) -> Response:
    """Every request that was made, the newest first: by duration, the slow ones are found."""
    parameters = request.query_params
    chosen = AttemptFilter(
        outcomes=members_of(Outcome, parameters.getlist("outcome")),
        endpoint_id=text_of(request, "endpoint"),
        start=moment_of(text_of(request, "from")),
        end=moment_of(text_of(request, "to")),
    )
    return page(
        request,
        "attempts.html",
        listed=await services.console.lists.attempts(visitor.account_id, chosen, asked_of(request)),
        given=given_of(request, "outcome", "endpoint", "from", "to"),
        endpoints=await services.webhooks.list_endpoints(visitor.account_id),
        outcomes=tuple(Outcome),
        most=MOST_ATTEMPTS,
    )


@router.get("/events/{event_id}", dependencies=[Live])
async def show_event(request: Request, event_id: str, visitor: VisitorDep, services: ServicesDep) -> Response:
    """One message and what became of it; what it says stays hidden if it tells of a patient."""
    return await _event_page(request, event_id, visitor, services, None)


@router.post("/events/{event_id}/reveal")
async def reveal(request: Request, event_id: str, visitor: ReaderDep, services: ServicesDep) -> Response:
    """Show what the message says, on this one page; that it was seen is written down."""
    body = await services.history.read_payload(visitor.account_id, event_id, visitor.actor)
    return await _event_page(request, event_id, visitor, services, body)


@router.post("/events/{event_id}/payload")
async def download(event_id: str, visitor: ReaderDep, services: ServicesDep) -> Response:
    """Exactly the bytes that were sent, as a file; that they were taken is written down."""
    body = await services.history.read_payload(visitor.account_id, event_id, visitor.actor)
    headers = {"content-disposition": 'attachment; filename="payload.json"'}
    return Response(body, media_type="application/json", headers=headers)


@router.post("/events/{event_id}/resend")
async def resend(event_id: str, form: FormDep, visitor: SteererDep, services: ServicesDep) -> Response:
    """Send a delivery again, with the whole schedule before it."""
    await services.history.resend(visitor.account_id, f"{event_id}_{form.text('endpoint')}", visitor.actor)
    return see(f"/console/events/{event_id}?note=resent")


async def _event_page(
    request: Request, event_id: str, visitor: Visitor, services: Services, revealed: bytes | None
) -> Response:
    inspection = await services.console.inspection.inspect(visitor.account_id, event_id)
    body = revealed if revealed is not None else inspection.body
    return page(
        request,
        "event.html",
        inspection=inspection,
        event=inspection.event,
        body=None if body is None else snippets.readable(body),
        snippets=snippets,
        raw=body,
    )
