"""OAuth 2.0 for the FHIR face: the token endpoint (RFC 6749 §4.4) and its discovery (SMART App Launch 2.2 §2.2)."""

import base64
import binascii
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_plus

from fastapi import Request
from pydantic import BaseModel
from starlette.responses import JSONResponse

from chartwire.api.dependencies import ServicesDep
from chartwire.api.routing import new_router
from chartwire.errors import TokenRequestError
from chartwire.services.access import SCOPES, AccessService, AccessToken

token_router = new_router("", "fhir")

_GRANT_TYPE = "client_credentials"
_TOKEN_TYPE = "Bearer"  # noqa: S105  the kind of token, not a token
_NO_STORE = {"cache-control": "no-store", "pragma": "no-cache"}


class TokenAnswer(BaseModel):
    """A token (RFC 6749 §5.1); it is sent as `Authorization: Bearer`."""

    access_token: str
    token_type: str
    expires_in: int
    scope: str


class TokenRefusal(BaseModel):
    """Why there is no token (RFC 6749 §5.2)."""

    error: str
    error_description: str


class SmartConfiguration(BaseModel):
    """How to get a token (SMART App Launch 2.2 §2.2)."""

    issuer: str
    token_endpoint: str
    grant_types_supported: list[str]
    token_endpoint_auth_methods_supported: list[str]
    scopes_supported: list[str]
    response_types_supported: list[str]
    capabilities: list[str]


@dataclass(frozen=True, slots=True)
class _Credentials:
    client_id: str
    client_secret: str


_REFUSALS: dict[int | str, dict[str, Any]] = {400: {"model": TokenRefusal}, 401: {"model": TokenRefusal}}
_FORM = {
    "requestBody": {
        "required": True,
        "content": {
            "application/x-www-form-urlencoded": {
                "schema": {
                    "type": "object",
                    "required": ["grant_type"],
                    "properties": {
                        "grant_type": {"type": "string", "enum": [_GRANT_TYPE]},
                        "client_id": {"type": "string", "description": "Id of the API key, or of the account"},
                        "client_secret": {"type": "string", "description": "The API key"},
                        "scope": {"type": "string", "description": "Separated by spaces; all, if absent"},
                    },
                }
            }
        },
    }
}


@token_router.post("/oauth/token", response_model=TokenAnswer, responses=_REFUSALS, openapi_extra=_FORM)
async def create_token(request: Request, services: ServicesDep) -> JSONResponse:
    """Get an access token for the FHIR face, by client id and secret in the form or by HTTP Basic."""
    try:
        token = await _issue(request, services.access)
    except TokenRequestError as error:
        return _refusal(error)
    answer = TokenAnswer(
        access_token=token.token, token_type=_TOKEN_TYPE, expires_in=token.expires_in, scope=token.scope
    )
    return JSONResponse(answer.model_dump(), headers=_NO_STORE)


@token_router.get("/.well-known/smart-configuration")
async def read_smart_configuration(services: ServicesDep) -> SmartConfiguration:
    """How to get an access token."""
    return smart_configuration(services.documents.public_base)


def smart_configuration(public_base: str) -> SmartConfiguration:
    """Discovery of the token endpoint; the same at the root and under the FHIR base, where clients look for it."""
    return SmartConfiguration(
        issuer=public_base,
        token_endpoint=f"{public_base}/oauth/token",
        grant_types_supported=[_GRANT_TYPE],
        token_endpoint_auth_methods_supported=["client_secret_basic", "client_secret_post"],
        scopes_supported=list(SCOPES),
        response_types_supported=["token"],
        capabilities=["client-confidential-symmetric", "permission-v2"],
    )


async def _issue(request: Request, access: AccessService) -> AccessToken:
    fields = await _fields(request)
    if fields.get("grant_type") != _GRANT_TYPE:
        code = "unsupported_grant_type" if "grant_type" in fields else "invalid_request"
        raise TokenRequestError(code, f"grant_type must be {_GRANT_TYPE}")
    basic = request.headers.get("authorization", "").lower().startswith("basic ")
    client = _basic_credentials(request) if basic else _form_credentials(fields)
    return await access.issue(client.client_id, client.client_secret, fields.get("scope"))


async def _fields(request: Request) -> dict[str, str]:
    """The fields of the form; none may be repeated (RFC 6749 §3.2)."""
    fields: dict[str, str] = {}
    for name, value in (await request.form()).multi_items():
        if name in fields or not isinstance(value, str):
            raise TokenRequestError("invalid_request", "A field is given more than once, or as a file")
        fields[name] = value
    return fields


def _form_credentials(fields: dict[str, str]) -> _Credentials:
    return _Credentials(fields.get("client_id", ""), fields.get("client_secret", ""))


def _basic_credentials(request: Request) -> _Credentials:
    """RFC 6749 §2.3.1: id and secret are form-encoded before they are joined."""
    try:
        plain = base64.b64decode(request.headers["authorization"][len("basic ") :].strip(), validate=True).decode()
    except (binascii.Error, ValueError):
        plain = ""
    client_id, _, client_secret = plain.partition(":")
    return _Credentials(unquote_plus(client_id), unquote_plus(client_secret))


def _refusal(error: TokenRequestError) -> JSONResponse:
    body = TokenRefusal(error=error.code, error_description=str(error))
    if error.code != "invalid_client":
        return JSONResponse(body.model_dump(), 400, _NO_STORE)
    return JSONResponse(body.model_dump(), 401, {**_NO_STORE, "www-authenticate": 'Basic realm="chartwire"'})
