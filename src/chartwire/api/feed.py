"""Pull as an alternative to push: `/v1/events`."""

from typing import Annotated

from fastapi import Path, Query

from chartwire.api.dependencies import CallerDep, ServicesDep
from chartwire.api.errors import problem_responses
from chartwire.api.models import ApiModel, Omittable, StrictModel
from chartwire.api.routing import new_router
from chartwire.clock import iso
from chartwire.errors import BadRequestError
from chartwire.model.webhook import EventType
from chartwire.services.feed import START, Asked, FeedPage
from chartwire.store.feed import FeedEvent

router = new_router("/v1/events", "webhook")

_LONGEST_WAIT_SECONDS = 60

Name = Annotated[str, Path(max_length=64, pattern=r"^[A-Za-z0-9._-]+$")]


class FeedEventAnswer(ApiModel):
    """An event: `payload` is exactly the text that is posted; it is left out once it is forgotten."""

    id: str
    type: EventType
    created_at: str
    payload: Omittable[str] = None


class FeedAnswer(ApiModel):
    """The next events in the order of their commit; `cursor` asks for those after them."""

    events: list[FeedEventAnswer]
    cursor: str


class CursorBody(StrictModel):
    """A cursor that was given out, `start` or `end`."""

    cursor: Annotated[str, Query(max_length=500)]


class CursorAnswer(ApiModel):
    """How far a named reader has acknowledged."""

    name: str
    cursor: str


@router.get("")
async def pull_events(
    caller: CallerDep,
    services: ServicesDep,
    types: Annotated[list[EventType], Query(default_factory=list, description="May be given several times")],
    after: Annotated[str | None, Query(max_length=500, description="A cursor, `start` (default) or `end`")] = None,
    name: Annotated[
        str | None, Query(max_length=64, pattern=r"^[A-Za-z0-9._-]+$", description="Go on where this reader is")
    ] = None,
    wait: Annotated[float, Query(ge=0, le=_LONGEST_WAIT_SECONDS, description="Seconds to wait for an event")] = 0,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
) -> FeedAnswer:
    """What was told after a cursor, the oldest first; with `wait`, answered as soon as there is something."""
    if after is not None and name is not None:
        raise BadRequestError("Only one of after and name can be given")
    asked = Asked(types, limit, wait)
    if name is not None:
        return _answer(await services.feed.read_named(caller.account_id, caller.actor, name, asked))
    return _answer(await services.feed.read(caller.account_id, caller.actor, after or START, asked))


@router.get("/cursors/{name}", responses=problem_responses(404))
async def get_cursor(name: Name, caller: CallerDep, services: ServicesDep) -> CursorAnswer:
    """How far a named reader has acknowledged."""
    return CursorAnswer(name=name, cursor=await services.feed.get_cursor(caller.account_id, name))


@router.put("/cursors/{name}", status_code=204)
async def acknowledge_events(name: Name, body: CursorBody, caller: CallerDep, services: ServicesDep) -> None:
    """Remember that a named reader has everything up to a cursor; a new name is made."""
    await services.feed.acknowledge(caller.account_id, name, body.cursor)


@router.delete("/cursors/{name}", status_code=204, responses=problem_responses(404))
async def delete_cursor(name: Name, caller: CallerDep, services: ServicesDep) -> None:
    """Forget a named reader."""
    await services.feed.delete_cursor(caller.account_id, name)


def _answer(page: FeedPage) -> FeedAnswer:
    return FeedAnswer(events=[_event(each) for each in page.events], cursor=page.cursor)


def _event(event: FeedEvent) -> FeedEventAnswer:
    return FeedEventAnswer(
        id=event.id,
        type=event.type,
        created_at=iso(event.created_at),
        payload=None if event.body is None else event.body.decode(),
    )
