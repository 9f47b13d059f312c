"""Routers whose routes take requests as existing clients send them.

* The key is checked before the body is read: a stranger's body costs nothing.
* A body of very many values is refused before they are looked at one by one.
* No body, whitespace and JSON `null` are the same: no body, whatever the content type says.
* An empty query parameter is one that was not given; a parameter that is expected once and given twice is refused.
"""

from collections.abc import Callable, Coroutine, Iterator
from enum import Enum
from typing import Any, get_origin

import orjson
from fastapi import APIRouter
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from starlette.datastructures import QueryParams
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from chartwire.api.dependencies import authenticate, current_caller
from chartwire.errors import BadRequestError

_NULL_CHARACTER = b"\\u0000"
_MOST_COMMAS = 50_000  # twice what the largest metadata can hold


def new_router(prefix: str, tag: str) -> APIRouter:
    """A router for one part of the API; `prefix` is the whole path that its routes have in common."""
    tags: list[str | Enum] = [tag]
    return APIRouter(prefix=prefix, tags=tags, route_class=LenientRoute, strict_content_type=False)


class LenientRequest(Request):
    """A request read by this module's rules."""

    async def body(self) -> bytes:
        """The body; empty when it says nothing."""
        body = await super().body()
        return b"" if body.strip() in {b"", b"null"} else body

    async def json(self) -> Any:
        """The body parsed strictly: no NaN, no lone surrogates, no NUL, which no database keeps."""
        body = await self.body()
        if body.count(b",") > _MOST_COMMAS:
            raise HTTPException(413)
        if _NULL_CHARACTER in body.replace(b"\\\\", b""):
            raise orjson.JSONDecodeError("NUL in a string", "", 0)
        return orjson.loads(body)

    @property
    def query_params(self) -> QueryParams:
        """The query without empty parameters."""
        return QueryParams([(name, value) for name, value in super().query_params.multi_items() if value])


class LenientRoute(APIRoute):
    """A route that reads requests by this module's rules."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler, with the rules before it."""
        handle = super().get_route_handler()
        single = frozenset(_single_query_names(self.dependant))
        needs_key = any(dependant.call is current_caller for dependant in _walk(self.dependant))

        async def handle_leniently(request: Request) -> Response:
            request.state.route = self.path_format
            if needs_key:
                request.state.caller = await authenticate(request)
            lenient = LenientRequest(request.scope, request.receive)
            _refuse_repeated(lenient, single)
            return await handle(lenient)

        return handle_leniently


def _refuse_repeated(request: Request, single: frozenset[str]) -> None:
    given = [name for name, _ in request.query_params.multi_items() if name in single]
    repeated = next((name for name in given if given.count(name) > 1), None)
    if repeated is not None:
        raise BadRequestError(f"Query param {repeated} is given more than once")


def _single_query_names(dependant: Dependant) -> Iterator[str]:
    for part in _walk(dependant):
        for field in part.query_params:
            if get_origin(field.field_info.annotation) is not list:
                yield field.alias


def _walk(dependant: Dependant) -> Iterator[Dependant]:
    yield dependant
    for part in dependant.dependencies:
        yield from _walk(part)
