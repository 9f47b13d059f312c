"""All pages of the console, in the order in which addresses are looked up."""

from fastapi import APIRouter, Request
from starlette.responses import Response

from chartwire.api.console import (
    documents,
    doors,
    events,
    home,
    keys,
    members,
    operations,
    patients,
    quarantine,
    replays,
    webhooks,
)
from chartwire.api.console.route import new_pages
from chartwire.api.console.visitor import VisitorDep
from chartwire.errors import NotFoundError

_lost = new_pages()


@_lost.get("/{path:path}")
async def show_nothing(request: Request, path: str, visitor: VisitorDep) -> Response:
    """What is nowhere."""
    del request, path, visitor
    raise NotFoundError


PAGES: tuple[APIRouter, ...] = (
    doors.router,
    home.router,
    webhooks.router,
    events.router,
    replays.router,
    patients.router,
    documents.router,
    quarantine.router,
    keys.router,
    operations.router,
    members.router,
    _lost,
)
