"""Errors as answers (contract of the API: `docs/reference/api.md`, Errors).

An answer never repeats what was sent: it is health data, and answers end up in logs.
"""

import re
from collections.abc import Iterable, Sequence
from http import HTTPStatus
from itertools import islice
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from sqlalchemy.exc import InterfaceError, OperationalError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, PlainTextResponse, Response

from chartwire.api.models import Message, Problem
from chartwire.errors import (
    ChartwireError,
    ContentLostError,
    CustomerError,
    LockedError,
    StoreError,
    TooManyRequestsError,
)

_VALIDATION_TITLE = "Missing or invalid parameters"
_MOST_ISSUES = 100
_DATABASE_RETRY_AFTER = "5"
_MEMBER = re.compile(r"<\w+\.\w+: ('[^']*')>")  # a member of an enumeration, as Python shows it
_PLACES = frozenset({"body", "query", "path", "header"})


class KeyRefusedError(ChartwireError):
    """No key, or none that is known: which of the two is not said."""


def problem(status: int, title: str, detail: str, additional_info: dict[str, str] | None = None) -> JSONResponse:
    """The error body."""
    body = Problem(
        status=status, title=title, detail=detail, name=HTTPStatus(status).phrase, additional_info=additional_info
    )
    return JSONResponse(body.model_dump(by_alias=True), status)


def unexpected_problem(error: Exception) -> JSONResponse:
    """The answer to a request that met an error of ours; says nothing about it but whether it is the database's."""
    passing = isinstance(error, StoreError | OperationalError | InterfaceError)  # locked, full, restarting
    if passing and not isinstance(error, ContentLostError):
        detail = "The database cannot take this right now, please try again"
        answer = problem(503, "ServiceUnavailableError", detail)
        answer.headers["Retry-After"] = _DATABASE_RETRY_AFTER
        return answer
    return problem(500, "InternalServerError", "Something went wrong on our side, please try again later")


def problem_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """OpenAPI `responses` of a route: business errors that it answers.

    400, 403, 413 and 429 of routes that have parameters, a key or a body are documented for all of them at once, by
    `chartwire.api.openapi`.
    """
    return {status: response_of(status) for status in statuses}


def response_of(status: int) -> dict[str, Any]:
    """The OpenAPI response of one error status."""
    described = {"description": HTTPStatus(status).phrase}
    match status:
        case 403:
            return {**described, "model": Message | Problem}
        case 423:
            return {**described, "content": {"application/json": {"schema": {"type": "string"}}}}
        case 429:
            return {**described, "content": {"text/plain": {"schema": {"type": "string"}}}}
        case _:
            return {**described, "model": Problem}


def install_error_handlers(app: FastAPI) -> None:
    """Answer every error by the rules above. What no handler knows is caught by the middleware's safety net."""
    app.add_exception_handler(CustomerError, _on_customer_error)
    app.add_exception_handler(TooManyRequestsError, _on_too_many_requests)
    app.add_exception_handler(LockedError, _on_locked)
    app.add_exception_handler(KeyRefusedError, _on_key_refused)
    app.add_exception_handler(RequestValidationError, _on_invalid_request)
    app.add_exception_handler(HTTPException, _on_http_exception)


async def _on_customer_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, CustomerError)  # noqa: S101  registered for nothing else
    return problem(error.status, error.title, str(error), error.additional_info)


async def _on_too_many_requests(_: Request, error: Exception) -> Response:
    assert isinstance(error, TooManyRequestsError)  # noqa: S101  registered for nothing else
    return PlainTextResponse(str(error), 429, rate_limit_headers(error))


def rate_limit_headers(error: TooManyRequestsError) -> dict[str, str]:
    """The `RateLimit-*` fields of draft-ietf-httpapi-ratelimit-headers-06, and `Retry-After`."""
    return {
        "RateLimit-Policy": f"{error.limit};w={error.window_seconds}",
        "RateLimit-Limit": str(error.limit),
        "RateLimit-Remaining": str(error.remaining),
        "RateLimit-Reset": str(error.reset_seconds),
        "Retry-After": str(error.reset_seconds),
    }


async def _on_locked(_: Request, error: Exception) -> Response:
    return JSONResponse(str(error), 423)  # a JSON string, not an object: existing clients show it as it is


async def _on_key_refused(_: Request, __: Exception) -> Response:
    return JSONResponse({"message": "Forbidden"}, 403)


async def _on_invalid_request(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101  registered for nothing else
    issues: Sequence[Any] = error.errors()
    missing = next((issue for issue in issues if issue["type"] == "missing" and issue["loc"][0] == "query"), None)
    if missing is not None:
        return problem(400, "BadRequestError", f"Missing {missing['loc'][-1]} query param")
    return problem(400, _VALIDATION_TITLE, describe_issues(issues))


def describe_issues(issues: Iterable[Any]) -> str:
    """`<message>, on [<path joined by comma>]` for the first hundred issues, joined by `, `; never the value sent."""
    shown = islice(issues, _MOST_ISSUES)
    return ", ".join(f"{_message(issue)}, on [{_path(_known_part(issue))}]" for issue in shown)


def _known_part(issue: Any) -> Sequence[str | int]:
    """Where an issue is; the name of a key that we do not know was sent, and is left out."""
    location: Sequence[str | int] = issue["loc"]
    return location[:-1] if issue["type"] == "extra_forbidden" else location


def _message(issue: Any) -> str:
    if issue["type"] == "json_invalid":
        return "The body is not valid JSON"
    return _MEMBER.sub(r"\1", str(issue["msg"]).removeprefix("Value error, "))


def _path(location: Sequence[str | int]) -> str:
    steps = location[1:] if location and location[0] in _PLACES else location
    return ",".join(str(step) for step in steps if not isinstance(step, int) or len(steps) > 1)


async def _on_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101  registered for nothing else
    phrase = HTTPStatus(error.status_code).phrase
    match error.status_code:
        case 404:
            return JSONResponse({"message": phrase}, 404)
        case 405:
            return JSONResponse({"message": phrase}, 405, {"Allow": ", ".join(allowed_methods(request))})
        case 413:
            return problem(413, "PayloadTooLargeError", "The request body is too large")
        case 400:
            return problem(400, _VALIDATION_TITLE, "The body is not valid JSON, on []")
        case _:
            return problem(error.status_code, "MetriportError", phrase)


def allowed_methods(request: Request) -> list[str]:
    """Every method of the path, sorted: the framework itself names those of the first route that has it."""
    routes: Iterable[APIRoute] = request.app.state.routes
    matching = [route for route in routes if route.path_regex.match(request.scope["path"])]
    template = min((route.path_format for route in matching), key=lambda path: path.count("{"), default=None)
    return sorted({method for route in matching if route.path_format == template for method in route.methods or ()})
