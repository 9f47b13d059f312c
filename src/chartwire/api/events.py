"""What was sent and how that went: `/v1/webhooks/events`, `/deliveries`, `/replays`."""

from datetime import datetime
from typing import Annotated

from fastapi import Path, Query
from pydantic import AwareDatetime, Field
from starlette.responses import Response

from chartwire.api.dependencies import CallerDep, ServicesDep
from chartwire.api.errors import problem_responses
from chartwire.api.models import ApiModel, Omittable, StrictModel
from chartwire.api.routing import new_router
from chartwire.clock import iso, truncate
from chartwire.model.webhook import (
    Attempt,
    DeliveryFilter,
    DeliveryState,
    DeliverySummary,
    EventSummary,
    EventType,
    Outcome,
    PayloadVersion,
    Replay,
    ReplayState,
    Timing,
)

router = new_router("/v1/webhooks", "webhook")

_LISTED_REPLAYS = 100
_MOST_CHOSEN = 20

Id = Annotated[str, Path(max_length=160)]
Type = Annotated[list[EventType], Query(alias="type", default_factory=list, description="May be given several times")]
EndpointId = Annotated[str | None, Query(alias="endpointId", max_length=64)]
State = Annotated[
    list[DeliveryState], Query(alias="state", default_factory=list, description="May be given several times")
]
From = Annotated[AwareDatetime | None, Query(alias="from", description="Committed at or after this moment")]
To = Annotated[AwareDatetime | None, Query(alias="to", description="Committed before this moment")]
After = Annotated[str | None, Query(max_length=500, description="The `next` of the page before")]
Limit = Annotated[int, Query(ge=1, le=500)]


class EventAnswer(ApiModel):
    """An event; `payloadKept`: what it said can still be read and sent."""

    id: str
    type: EventType
    payload_version: PayloadVersion
    request_id: Omittable[str] = None
    size: int
    created_at: str
    expires_at: str
    payload_kept: bool


class EventsAnswer(ApiModel):
    """Events, the newest first; `next` asks for the page after this one."""

    events: list[EventAnswer]
    next: Omittable[str] = None


class DeliveryAnswer(ApiModel):
    """One event for one endpoint; outcome and status are those of the last attempt."""

    id: str
    event_id: str
    type: EventType
    request_id: Omittable[str] = None
    endpoint_id: str
    state: DeliveryState
    attempts: int = Field(description="Since the schedule last began")
    next_attempt_at: Omittable[str] = None
    outcome: Omittable[Outcome] = None
    http_status: Omittable[int] = None
    created_at: str
    settled_at: Omittable[str] = None


class DeliveriesAnswer(ApiModel):
    """Deliveries, the newest first; `next` asks for the page after this one."""

    deliveries: list[DeliveryAnswer]
    next: Omittable[str] = None


class EventHistoryAnswer(ApiModel):
    """An event and what became of it at each endpoint."""

    event: EventAnswer
    deliveries: list[DeliveryAnswer]


class TimingAnswer(ApiModel):
    """How long each step of a request took, in milliseconds; what it did not come to, or did not need, is left out.

    If the request failed, the last step that is here may be how long that took.
    """

    reused_connection: bool = Field(description="It went over a connection that stood already: no dns, connect, tls")
    dns_millis: Omittable[float] = None
    connect_millis: Omittable[float] = None
    tls_millis: Omittable[float] = None
    first_byte_millis: Omittable[float] = Field(
        default=None, description="From the request's sending to the first byte of its answer"
    )


class AttemptAnswer(ApiModel):
    """One request; `answer` is what came back as text, at most 16 KiB."""

    number: int
    started_at: str
    duration_millis: int
    outcome: Outcome
    http_status: Omittable[int] = None
    url: str
    timing: Omittable[TimingAnswer] = None
    answer: Omittable[str] = None


class AttemptsAnswer(ApiModel):
    """Every attempt of a delivery, the first one first."""

    attempts: list[AttemptAnswer]


class ReplayBody(StrictModel):
    """What to send again; what is left out chooses all. Without `states`, what was delivered and what failed."""

    types: Annotated[list[EventType], Field(min_length=1, max_length=_MOST_CHOSEN)] | None = None
    endpoint_id: Annotated[str, Field(max_length=64)] | None = None
    states: Annotated[list[DeliveryState], Field(min_length=1, max_length=_MOST_CHOSEN)] | None = None
    from_: AwareDatetime | None = Field(default=None, alias="from")
    to: AwareDatetime | None = None

    def to_filter(self) -> DeliveryFilter:
        """The same for the store."""
        return _filter(self.types, self.endpoint_id, self.states, self.from_, self.to)


class PreviewAnswer(ApiModel):
    """How many deliveries a replay would send again now."""

    count: int


class ReplayAnswer(ApiModel):
    """How far a replay is: `replayed` of `total` deliveries wait again or have gone out."""

    id: str
    state: ReplayState
    total: int
    replayed: int
    created_at: str
    ended_at: Omittable[str] = None


class ReplaysAnswer(ApiModel):
    """The last replays, the newest first."""

    replays: list[ReplayAnswer]


@router.get("/events")
async def list_events(
    caller: CallerDep,
    services: ServicesDep,
    types: Type,
    states: State,
    endpoint_id: EndpointId = None,
    start: From = None,
    end: To = None,
    after: After = None,
    limit: Limit = 50,
) -> EventsAnswer:
    """Events, the newest first; `endpointId` and `state` choose those with such a delivery."""
    chosen = _filter(types, endpoint_id, states, start, end)
    page = await services.history.list_events(caller.account_id, chosen, after, limit)
    return EventsAnswer(events=[_event(each) for each in page.items], next=page.next)


@router.get("/events/{event_id}", responses=problem_responses(404))
async def get_event(event_id: Id, caller: CallerDep, services: ServicesDep) -> EventHistoryAnswer:
    """An event and what became of it at each endpoint."""
    found = await services.history.get_event(caller.account_id, event_id)
    return EventHistoryAnswer(event=_event(found.event), deliveries=[_delivery(each) for each in found.deliveries])


@router.get(
    "/events/{event_id}/payload",
    response_class=Response,
    responses={200: {"content": {"application/json": {"schema": {"type": "object"}}}}, **problem_responses(404)},
)
async def read_payload(event_id: Id, caller: CallerDep, services: ServicesDep) -> Response:
    """Exactly the bytes that were sent, while they are kept."""
    body = await services.history.read_payload(caller.account_id, event_id, caller.actor)
    return Response(body, media_type="application/json")


@router.delete("/events/{event_id}/payload", status_code=204, responses=problem_responses(404))
async def expunge_payload(event_id: Id, caller: CallerDep, services: ServicesDep) -> None:
    """Forget what a message said, at once; that it was sent stays in the history."""
    await services.webhooks.expunge(caller.account_id, event_id, caller.actor)


@router.get("/deliveries")
async def list_deliveries(
    caller: CallerDep,
    services: ServicesDep,
    types: Type,
    states: State,
    endpoint_id: EndpointId = None,
    start: From = None,
    end: To = None,
    after: After = None,
    limit: Limit = 50,
) -> DeliveriesAnswer:
    """Deliveries, the newest first."""
    chosen = _filter(types, endpoint_id, states, start, end)
    page = await services.history.list_deliveries(caller.account_id, chosen, after, limit)
    return DeliveriesAnswer(deliveries=[_delivery(each) for each in page.items], next=page.next)


@router.get("/deliveries/{delivery_id}/attempts", responses=problem_responses(404))
async def list_attempts(delivery_id: Id, caller: CallerDep, services: ServicesDep) -> AttemptsAnswer:
    """Every attempt of a delivery."""
    found = await services.history.list_attempts(caller.account_id, delivery_id)
    return AttemptsAnswer(attempts=[_attempt(each) for each in found])


@router.post("/deliveries/{delivery_id}/resend", status_code=202, responses=problem_responses(404, 409))
async def resend_delivery(delivery_id: Id, caller: CallerDep, services: ServicesDep) -> DeliveryAnswer:
    """Send a settled delivery again: same id, fresh links, the whole schedule before it."""
    return _delivery(await services.history.resend(caller.account_id, delivery_id, caller.actor))


@router.post("/replays/preview", responses=problem_responses(404))
async def preview_replay(body: ReplayBody, caller: CallerDep, services: ServicesDep) -> PreviewAnswer:
    """Count what a replay would send again, without sending it."""
    return PreviewAnswer(count=await services.history.count_replay(caller.account_id, body.to_filter()))


@router.post("/replays", status_code=202, responses=problem_responses(404, 409))
async def start_replay(body: ReplayBody, caller: CallerDep, services: ServicesDep) -> ReplayAnswer:
    """Send everything again that is chosen and settled now, however much that is; ten replays run at one time."""
    return _replay(await services.history.start_replay(caller.account_id, body.to_filter(), caller.actor))


@router.get("/replays")
async def list_replays(caller: CallerDep, services: ServicesDep) -> ReplaysAnswer:
    """The last hundred replays."""
    found = await services.history.list_replays(caller.account_id, _LISTED_REPLAYS)
    return ReplaysAnswer(replays=[_replay(each) for each in found])


@router.get("/replays/{replay_id}", responses=problem_responses(404))
async def get_replay(replay_id: Id, caller: CallerDep, services: ServicesDep) -> ReplayAnswer:
    """How far a replay is."""
    return _replay(await services.history.get_replay(caller.account_id, replay_id))


@router.post("/replays/{replay_id}/cancel", responses=problem_responses(404))
async def cancel_replay(replay_id: Id, caller: CallerDep, services: ServicesDep) -> ReplayAnswer:
    """Send nothing more of a replay again; what waits already goes out."""
    return _replay(await services.history.cancel_replay(caller.account_id, replay_id, caller.actor))


def _filter(
    types: list[EventType] | None,
    endpoint_id: str | None,
    states: list[DeliveryState] | None,
    start: datetime | None,
    end: datetime | None,
) -> DeliveryFilter:
    return DeliveryFilter(
        types=tuple(types) if types else None,
        endpoint_id=endpoint_id,
        states=tuple(states) if states else None,
        start=None if start is None else truncate(start),
        end=None if end is None else truncate(end),
    )


def _event(event: EventSummary) -> EventAnswer:
    return EventAnswer(
        id=event.id,
        type=event.type,
        payload_version=event.payload_version,
        request_id=event.request_id,
        size=event.size,
        created_at=iso(event.created_at),
        expires_at=iso(event.expires_at),
        payload_kept=event.is_kept,
    )


def _delivery(delivery: DeliverySummary) -> DeliveryAnswer:
    return DeliveryAnswer(
        id=delivery.id,
        event_id=delivery.event_id,
        type=delivery.event_type,
        request_id=delivery.request_id,
        endpoint_id=delivery.endpoint_id,
        state=delivery.state,
        attempts=delivery.attempts,
        next_attempt_at=iso(delivery.due_at) if delivery.state is DeliveryState.WAITING else None,
        outcome=delivery.outcome,
        http_status=delivery.http_status,
        created_at=iso(delivery.created_at),
        settled_at=None if delivery.settled_at is None else iso(delivery.settled_at),
    )


def _attempt(attempt: Attempt) -> AttemptAnswer:
    return AttemptAnswer(
        number=attempt.number,
        started_at=iso(attempt.started_at),
        duration_millis=attempt.duration_ms,
        outcome=attempt.outcome,
        http_status=attempt.http_status,
        url=attempt.url,
        timing=None if attempt.timing is None else _timing(attempt.timing),
        answer=attempt.answer.decode(errors="replace") or None,
    )


def _timing(timing: Timing) -> TimingAnswer:
    return TimingAnswer(
        reused_connection=timing.is_reused,
        dns_millis=_millis(timing.dns),
        connect_millis=_millis(timing.connect),
        tls_millis=_millis(timing.tls),
        first_byte_millis=_millis(timing.first_byte),
    )


def _millis(microseconds: int | None) -> float | None:
    return None if microseconds is None else microseconds / 1000


def _replay(replay: Replay) -> ReplayAnswer:
    return ReplayAnswer(
        id=replay.id,
        state=replay.state,
        total=replay.total,
        replayed=replay.replayed,
        created_at=iso(replay.created_at),
        ended_at=None if replay.ended_at is None else iso(replay.ended_at),
    )
