"""The first page, what is new, and the files that every page needs."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

from fastapi import Request
from starlette.responses import FileResponse, Response, StreamingResponse

from chartwire.api.console.charts import attempt_chart
from chartwire.api.console.rendering import STATIC, page
from chartwire.api.console.route import new_pages, see
from chartwire.api.console.visitor import Live, SteererDep, Visitor, VisitorDep
from chartwire.api.dependencies import Services, ServicesDep
from chartwire.errors import NotFoundError

router = new_pages()

_FILES = {
    "console.css": "text/css; charset=utf-8",
    "console.js": "text/javascript; charset=utf-8",
    "htmx.min.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}
_FOR_EVER = {"cache-control": "public, max-age=31536000, immutable"}
_LOOK_EVERY_SECONDS = 1.0
_STREAM_SECONDS = 300.0
_RECONNECT = b"retry: 1000\n\n"
_STILL_HERE = b": still here\n\n"


@router.get("", dependencies=[Live])
async def show_home(request: Request, visitor: VisitorDep, services: ServicesDep) -> Response:
    """How the account is doing, what needs attention first."""
    overview = await services.console.overview.look(visitor.account_id)
    chart = attempt_chart(overview.attempts, request.app.state.clock())
    return page(request, "home.html", overview=overview, chart=chart, can_try=services.console.trial.is_possible)


@router.post("/try")
async def try_it(visitor: SteererDep, services: ServicesDep) -> Response:
    """Ask for the documents of the next invented patient."""
    await services.console.trial.ask_for_next(visitor.account_id, visitor.actor)
    return see("/console?note=asked")


@router.get("/live")
async def stream_news(request: Request, visitor: VisitorDep, services: ServicesDep, seen: str = "") -> Response:
    """Server-sent events that say "look again" and nothing else: what there is to see, pages tell under their rules.

    `seen` is the mark that the page was made at.
    """
    last_seen = request.headers.get("last-event-id") or seen
    news = _news(visitor, services, last_seen, request.app.state.stopping)
    return StreamingResponse(news, media_type="text/event-stream", headers={"x-accel-buffering": "no"})


async def _news(visitor: Visitor, services: Services, seen: str, stopping: asyncio.Event) -> AsyncIterator[bytes]:
    """Ends with the session, with the server, and after five minutes: browsers come back with what they saw last."""
    give_up_at = asyncio.get_running_loop().time() + _STREAM_SECONDS
    yield _RECONNECT
    while not stopping.is_set() and asyncio.get_running_loop().time() < give_up_at:
        if not await services.console.sign_in.is_open(visitor.token):
            return
        mark = await services.console.overview.mark(visitor.account_id)
        yield f"id: {mark}\nevent: news\ndata:\n\n".encode() if mark != seen else _STILL_HERE
        seen = mark
        await _pause(services, stopping)


async def _pause(services: Services, stopping: asyncio.Event) -> None:
    """Until an event was committed somewhere, the server stops, or a moment has passed."""
    waits = [asyncio.ensure_future(services.feed.wait_for_event(_LOOK_EVERY_SECONDS))]
    waits.append(asyncio.ensure_future(_set(stopping)))
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
            with suppress(asyncio.CancelledError):
                await wait


async def _set(event: asyncio.Event) -> None:
    await event.wait()


@router.get("/static/{name}")
async def send_file(name: str) -> Response:
    """A stylesheet, a script, the icon; their addresses change with their content."""
    if name not in _FILES:
        raise NotFoundError
    return FileResponse(STATIC / name, media_type=_FILES[name], headers=_FOR_EVER)
