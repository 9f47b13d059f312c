"""Routes of the FHIR face: who may read, and errors as OperationOutcome (FHIR R4 §3.1.0.1.5)."""

from collections.abc import Callable, Coroutine
from http import HTTPStatus
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Depends, Request, Security
from fastapi.security import APIKeyHeader, OAuth2
from starlette.exceptions import HTTPException
from starlette.responses import Response

from chartwire.api.dependencies import limits_of, services_of
from chartwire.api.errors import rate_limit_headers
from chartwire.api.negotiation import takes_fhir_json
from chartwire.api.routing import LenientRoute
from chartwire.errors import (
    ChartwireError,
    CustomerError,
    ForbiddenError,
    InvalidElementError,
    TooManyRequestsError,
)
from chartwire.formats.fhir_resources import MEDIA_TYPE, operation_outcome
from chartwire.model.document import JsonObject
from chartwire.services.access import MANAGE_SUBSCRIPTIONS, READ_BINARIES, READ_REFERENCES, SCOPES, Grant

_ISSUE_TYPES = {
    400: "invalid",
    401: "login",
    403: "forbidden",
    404: "not-found",
    405: "not-supported",
    406: "not-supported",
    409: "conflict",
    412: "conflict",
    413: "too-long",
    422: "business-rule",
    429: "throttled",
}
_UNREADABLE = {400: "The body cannot be read", 413: "The request body is too large"}
_OUTCOME = {
    "content": {
        MEDIA_TYPE: {"schema": {"type": "object", "description": "OperationOutcome"}},
        "application/json": {"schema": {"type": "object", "description": "Problem, before the route was reached"}},
    }
}


class UnauthenticatedError(ChartwireError):
    """No key or token, or none that is known"""

    def __init__(self, presented: bool) -> None:
        """`presented`: something was, and it was no good."""
        super().__init__()
        self.presented = presented


class NotAcceptableError(CustomerError):
    """The server cannot answer in the form that was asked for"""

    status = 406


class FhirRoute(LenientRoute):
    """A route whose errors are OperationOutcomes."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler, with the errors that it raises on purpose made into answers."""
        handle = super().get_route_handler()

        async def handle_fhir(request: Request) -> Response:
            try:
                return await handle(request)
            except UnauthenticatedError as error:
                challenge = 'Bearer realm="chartwire"' + (', error="invalid_token"' if error.presented else "")
                return outcome(401, str(error), {"www-authenticate": challenge})
            except TooManyRequestsError as error:
                return outcome(429, str(error), rate_limit_headers(error))
            except InvalidElementError as error:
                return outcome(error.status, str(error), element=error.element)
            except CustomerError as error:
                return outcome(error.status, str(error))
            except HTTPException as error:
                if error.status_code not in _UNREADABLE:
                    raise
                return outcome(error.status_code, _UNREADABLE[error.status_code])

        return handle_fhir


def new_fhir_router() -> APIRouter:
    """A router of the FHIR face."""
    return APIRouter(prefix="/oauth/fhir", tags=["fhir"], route_class=FhirRoute, strict_content_type=False)


def resource_answer(resource: JsonObject, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A resource in JSON."""
    return Response(orjson.dumps(resource), status, headers, MEDIA_TYPE)


def outcome(
    status: int, diagnostics: str, headers: dict[str, str] | None = None, element: str | None = None
) -> Response:
    """An error; `element` is the path below the Subscription of what is wrong with it."""
    code = _ISSUE_TYPES.get(status, "processing")
    expression = None if element is None else ".".join(filter(None, ("Subscription", element)))
    return resource_answer(operation_outcome(code, diagnostics, expression), status, headers)


def refuse_xml(request: Request) -> None:
    """Raises `NotAcceptableError` for who asks for XML."""
    if not takes_fhir_json(request.headers.get("accept", ""), request.query_params.get("_format", "")):
        raise NotAcceptableError("This server speaks FHIR in JSON alone")


def outcome_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """OpenAPI `responses` of a route: the errors that it answers."""
    return {status: {"description": HTTPStatus(status).phrase, **_OUTCOME} for status in statuses}


_api_key = APIKeyHeader(name="x-api-key", scheme_name="apiKey", auto_error=False)
_oauth = OAuth2(
    flows={"clientCredentials": {"tokenUrl": "/oauth/token", "scopes": dict.fromkeys(SCOPES, "")}},
    scheme_name="oauth2",
    auto_error=False,
    description="Client credentials: the API key is the client secret, its id or the account's the client id.",
)


async def _present(
    request: Request, _: Annotated[object, Security(_api_key)], __: Annotated[object, Security(_oauth)]
) -> Grant:
    """Who asks; the two unused arguments put the ways to prove it into the OpenAPI document."""
    grant = await _recognise(request)
    limits_of(request).requests.attempt(grant.account_id)
    return grant


async def _recognise(request: Request) -> Grant:
    services = services_of(request)
    key = request.headers.get("x-api-key", "")
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    bearer = token.strip() if scheme.lower() == "bearer" else ""
    if not key and "." in bearer:  # our keys hold no dot, a JWT holds two
        grant = await services.access.recognise(bearer)
    else:
        known = await services.registry.authenticate(key or bearer) if key or bearer else None
        grant = Grant(*known, frozenset(SCOPES)) if known else None
    if grant is None:
        raise UnauthenticatedError(presented=bool(key or bearer))
    return grant


def _needs(scope: str) -> Any:
    async def check(grant: Annotated[Grant, Depends(_present)]) -> Grant:
        if not grant.allows(scope):
            raise ForbiddenError(f"The token lacks the scope {scope}")
        return grant

    return Depends(check)


ReferenceReader = Annotated[Grant, _needs(READ_REFERENCES)]
BinaryReader = Annotated[Grant, _needs(READ_BINARIES)]
SubscriptionManager = Annotated[Grant, _needs(MANAGE_SUBSCRIPTIONS)]
