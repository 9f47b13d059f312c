"""SMART Backend Services (SMART App Launch 2.2): a signed statement of ours is exchanged for a short-lived token.

The token endpoint is the operator's `token_url`, or what the server itself publishes, then on a trusted origin only: a
server that names another server's endpoint must not be handed a token that was made for that other server.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import aiohttp
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP384R1, EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from joserfc import jwt
from joserfc.jwk import ECKey, RSAKey
from yarl import URL

from chartwire.clock import Clock
from chartwire.errors import ConfigurationError, IssueCode, NetworkError, PermanentNetworkError
from chartwire.ids import new_message_id
from chartwire.model.document import JsonObject
from chartwire.networks.fhir.auth import bearer
from chartwire.networks.fhir.client import FhirClient, read_json
from chartwire.networks.fhir.datatypes import first, objects, text
from chartwire.networks.fhir.failures import RefusedError, from_status, wire_errors

_ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
_ASSERTION_SECONDS = 240  # the standard allows 300; the rest is for clocks that differ
_RENEW_BEFORE_SECONDS = 30.0
_DEFAULT_TOKEN_SECONDS = 300
_MAX_TOKEN_SECONDS = 86_400
_MAX_TOKEN_ANSWER_BYTES = 1024 * 1024
_TOKEN_DEADLINE_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A private key and the algorithm it is used with: RS384 or ES384, the two that every server takes."""

    key: RSAKey | ECKey
    algorithm: str
    key_id: str | None = None


@dataclass(frozen=True, slots=True)
class _Token:
    header: str
    renew_at: datetime


class SmartCredentials:
    """Tokens by client credentials with `private_key_jwt`; callers that need one at the same time share one request."""

    def __init__(
        self,
        anonymous: FhirClient,
        session: Callable[[], aiohttp.ClientSession],
        client_id: str,
        key: SigningKey,
        scope: str,
        token_url: URL | None,
        clock: Clock,
    ) -> None:
        """`anonymous`: a client of the same server without credentials, for what the server publishes."""
        self._anonymous = anonymous
        self._session = session
        self._client_id = client_id
        self._key = key
        self._scope = scope
        self._token_url = token_url
        self._clock = clock
        self._token: _Token | None = None
        self._lock = asyncio.Lock()

    async def header(self) -> str:
        """`Bearer <token>`, renewed 30 s before it expires."""
        async with self._lock:
            if self._token is None or self._clock() >= self._token.renew_at:
                self._token = await self._request_token()
            return self._token.header

    async def renew(self, refused: str | None) -> bool:
        """Forget the refused token; a newer one, got by somebody else meanwhile, stays."""
        async with self._lock:
            if self._token is not None and self._token.header == refused:
                self._token = None
        return True

    async def _request_token(self) -> _Token:
        if self._token_url is None:
            self._token_url = await self._discover_token_url()
        form = {
            "grant_type": "client_credentials",
            "scope": self._scope,
            "client_assertion_type": _ASSERTION_TYPE,
            "client_assertion": self._assertion(str(self._token_url)),
        }
        with wire_errors():
            response = await self._session().post(
                self._token_url,
                data=form,
                headers={"Accept": "application/json"},
                allow_redirects=False,  # the assertion is for this endpoint alone
                timeout=aiohttp.ClientTimeout(total=_TOKEN_DEADLINE_SECONDS),
            )
        async with response:
            if response.status != 200:
                raise _token_refusal(response, self._clock)
            return self._read_token(await read_json(response, _MAX_TOKEN_ANSWER_BYTES))

    def _assertion(self, audience: str) -> str:
        now = int(self._clock().timestamp())
        claims = {
            "iss": self._client_id,
            "sub": self._client_id,
            "aud": audience,
            "iat": now,
            "exp": now + _ASSERTION_SECONDS,
            "jti": new_message_id(),
        }
        header = {"alg": self._key.algorithm, "typ": "JWT"}
        if self._key.key_id is not None:
            header["kid"] = self._key.key_id
        return jwt.encode(header, claims, self._key.key, algorithms=[self._key.algorithm])

    def _read_token(self, answer: JsonObject) -> _Token:
        try:
            if str(answer.get("token_type", "bearer")).lower() != "bearer":
                raise ValueError("not a bearer token")  # noqa: TRY301  one way out for every kind of unfit answer
            header = bearer(str(answer["access_token"]))
            seconds = int(answer.get("expires_in", _DEFAULT_TOKEN_SECONDS))
        except (KeyError, TypeError, ValueError, OverflowError):
            raise PermanentNetworkError(IssueCode.UNAUTHORIZED, "the token endpoint gave no usable token") from None
        lifetime = min(max(seconds, 0), _MAX_TOKEN_SECONDS)
        usable = max(lifetime - _RENEW_BEFORE_SECONDS, lifetime / 2)
        return _Token(header, self._clock() + timedelta(seconds=usable))

    async def _discover_token_url(self) -> URL:
        try:
            published = await self._anonymous.get_json(".well-known/smart-configuration", _TOKEN_DEADLINE_SECONDS)
            endpoint = published.get("token_endpoint")
        except RefusedError:
            endpoint = _endpoint_of_capabilities(await self._anonymous.get_json("metadata", _TOKEN_DEADLINE_SECONDS))
        try:
            url = self._anonymous.resolve(str(endpoint or ""))
        except ValueError:
            url = URL()
        if not endpoint or not self._anonymous.trusts(url):
            raise PermanentNetworkError(
                IssueCode.UNAUTHORIZED,
                "the server publishes no token endpoint on its own origin: set token_url to the right one",
            )
        return url


def load_signing_key(path: Path, key_id: str | None) -> SigningKey:
    """The private key of a PEM file: RSA of at least 2048 bits, or elliptic curve P-384.

    Raises `ConfigurationError`.
    """
    try:
        private = load_pem_private_key(path.read_bytes(), password=None)
    except OSError as error:
        raise ConfigurationError(f"private_key_file: {path} cannot be read: {error.strerror}") from None
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ConfigurationError("private_key_file holds no private key in PEM without a password") from None
    if isinstance(private, RSAPrivateKey) and private.key_size >= 2048:
        return SigningKey(RSAKey.import_key(private), "RS384", key_id)
    if isinstance(private, EllipticCurvePrivateKey) and isinstance(private.curve, SECP384R1):
        return SigningKey(ECKey.import_key(private), "ES384", key_id)
    raise ConfigurationError("private_key_file must hold an RSA key of 2048 bits or more, or a P-384 key")


def _token_refusal(response: aiohttp.ClientResponse, clock: Clock) -> NetworkError:
    error = from_status(response.status, response.headers, clock)
    if not error.retryable:  # invalid_client, invalid_scope and their like (RFC 6749 §5.2)
        return PermanentNetworkError(IssueCode.UNAUTHORIZED, f"the token endpoint answered {response.status}")
    return error


def _endpoint_of_capabilities(statement: JsonObject) -> str | None:
    """The token endpoint as servers published it before SMART 2: the `oauth-uris` extension of `rest.security`."""
    for rest in objects(statement.get("rest")):
        for extension in objects(first(rest.get("security")).get("extension")):
            if str(extension.get("url")).endswith("/StructureDefinition/oauth-uris"):
                for part in objects(extension.get("extension")):
                    if part.get("url") == "token":
                        return text(part.get("valueUri"))
    return None
