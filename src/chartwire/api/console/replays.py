"""Sending again: choose, see how much it is, run, watch, cancel."""

from fastapi import Request
from starlette.responses import Response

from chartwire.api.console.filters import asked_of, delivery_fields, delivery_filter, one_of, text_of
from chartwire.api.console.rendering import page
from chartwire.api.console.route import new_pages, see
from chartwire.api.console.visitor import FormDep, SteererDep, VisitorDep
from chartwire.api.dependencies import ServicesDep
from chartwire.model.webhook import PROBES, DeliveryState, EventType, ReplayState

router = new_pages()

_REPLAYABLE_STATES = (DeliveryState.FAILED, DeliveryState.DELIVERED)
_REPLAYABLE_TYPES = tuple(each for each in EventType if each not in PROBES)


@router.get("/replays")
async def show_replays(request: Request, visitor: VisitorDep, services: ServicesDep) -> Response:
    """The form with what it would send, and the last replays."""
    chosen = delivery_filter(request.query_params)
    return page(
        request,
        "replays.html",
        given=delivery_fields(request.query_params),
        count=await services.history.count_replay(visitor.account_id, chosen),
        listed=await services.console.lists.replays(
            visitor.account_id, one_of(ReplayState, text_of(request, "only")), asked_of(request)
        ),
        only=text_of(request, "only") or "",
        replay_states=tuple(ReplayState),
        endpoints=await services.webhooks.list_endpoints(visitor.account_id),
        types=_REPLAYABLE_TYPES,
        states=_REPLAYABLE_STATES,
    )


@router.post("/replays")
async def start_replay(form: FormDep, visitor: SteererDep, services: ServicesDep) -> Response:
    """Send again what is chosen."""
    chosen = delivery_filter(form.fields)
    replay = await services.history.start_replay(visitor.account_id, chosen, visitor.actor)
    return see(f"/console/replays/{replay.id}")


@router.get("/replays/{replay_id}")
async def show_replay(request: Request, replay_id: str, visitor: VisitorDep, services: ServicesDep) -> Response:
    """How far a replay is."""
    replay = await services.history.get_replay(visitor.account_id, replay_id)
    return page(request, "replay.html", replay=replay)


@router.post("/replays/{replay_id}/cancel")
async def cancel_replay(replay_id: str, visitor: SteererDep, services: ServicesDep) -> Response:
    """Send nothing more of it."""
    await services.history.cancel_replay(visitor.account_id, replay_id, visitor.actor)
    return see(f"/console/replays/{replay_id}?note=cancelled")
