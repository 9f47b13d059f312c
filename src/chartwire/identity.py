"""People sign in by an OpenID provider (OpenID Connect Core 1.0): authorization code with PKCE (RFC 7636).

The provider is the operator's own choice, so its host may be anywhere but at a cloud metadata address. What it says of
a person is believed only with its signature, for us, for this very sign-in, and now.
"""

import hashlib
import hmac
from base64 import urlsafe_b64encode
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any
from urllib.parse import quote

import aiohttp
import orjson
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import Key, KeySet, import_key
from yarl import URL

from chartwire import __version__
from chartwire.addresses import IPNetwork
from chartwire.clock import Clock
from chartwire.errors import ChartwireError
from chartwire.ids import url_safe
from chartwire.outbound import authority, vetted_session

_ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
"""Signatures by the provider's own key: one under a secret that we share, or none at all, proves nothing."""
_DEADLINE = aiohttp.ClientTimeout(total=10)
_MOST_BYTES = 1024 * 1024
_KEPT = timedelta(hours=1)
_LEEWAY_SECONDS = 60
_SECRET_CHARACTERS = 43  # 258 random bits; RFC 7636 §4.1 wants 43 to 128 characters

Claims = Mapping[str, Any]


class Failure(StrEnum):
    """Why nobody was let in, for a page that says what to do."""

    UNREACHABLE = "unreachable"
    MISCONFIGURED = "misconfigured"
    REFUSED = "refused"
    STALE = "stale"
    NOT_PROVEN = "not-proven"
    UNKNOWN_PERSON = "unknown-person"
    NO_ROLE = "no-role"
    UNVERIFIED_EMAIL = "unverified-email"


class IdentityError(ChartwireError):
    """Single sign-on did not lead in."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.value)
        self.failure = failure


@dataclass(frozen=True, slots=True)
class Client:
    """What the provider knows us as; without a secret we are a public client, which PKCE is enough for."""

    issuer: str
    client_id: str
    secret: str | None = field(repr=False)
    scopes: str


@dataclass(frozen=True, slots=True)
class Ticket:
    """What one sign-in is known by when it comes back: kept in the browser alone, sealed."""

    state: str
    nonce: str
    verifier: str = field(repr=False)

    @classmethod
    def new(cls) -> "Ticket":
        """By chance."""
        return cls(*(url_safe(_SECRET_CHARACTERS) for _ in range(3)))


class IdentityProvider:
    """One OpenID provider. Each call raises `IdentityError`."""

    def __init__(self, client: Client, clock: Clock, allowed: Sequence[IPNetwork]) -> None:
        self._client = client
        self._clock = clock
        self._allowed = allowed
        self._metadata: tuple[datetime, Claims] | None = None
        self._keys: tuple[datetime, KeySet] | None = None

    async def authorization_url(self, ticket: Ticket, redirect_uri: str) -> str:
        """Where the browser goes to sign in (Core §3.1.2.1)."""
        challenge = urlsafe_b64encode(hashlib.sha256(ticket.verifier.encode()).digest()).decode().rstrip("=")
        async with self._session() as session:
            endpoint = URL(await self._endpoint(session, "authorization_endpoint"))
        return str(
            endpoint.update_query(
                response_type="code",
                client_id=self._client.client_id,
                redirect_uri=redirect_uri,
                scope=self._client.scopes,
                state=ticket.state,
                nonce=ticket.nonce,
                code_challenge=challenge,
                code_challenge_method="S256",
            )
        )

    async def claims(self, ticket: Ticket, redirect_uri: str, answer: Mapping[str, str]) -> Claims:
        """Who signed in, by what the browser brought back (Core §3.1.2.5 to §3.1.3.7, §5.3; RFC 9207)."""
        if not hmac.compare_digest(answer.get("state", "").encode(), ticket.state.encode()):
            raise IdentityError(Failure.STALE)
        if answer.get("iss", self._client.issuer) != self._client.issuer:
            raise IdentityError(Failure.NOT_PROVEN)
        if "code" not in answer:
            raise IdentityError(Failure.REFUSED)
        async with self._session() as session:
            tokens = await self._exchange(session, answer["code"], ticket, redirect_uri)
            claims = await self._verified(session, str(tokens.get("id_token", "")), ticket.nonce)
            return claims if "email" in claims else await self._with_user_info(session, claims, tokens)

    async def sign_out_url(self, back_to: str) -> str | None:
        """Where the browser ends the provider's own session (RP-Initiated Logout 1.0), if that can be."""
        async with self._session() as session:
            endpoint = (await self._discover(session)).get("end_session_endpoint")
        if not isinstance(endpoint, str):
            return None
        return str(URL(endpoint).update_query(client_id=self._client.client_id, post_logout_redirect_uri=back_to))

    def _session(self) -> aiohttp.ClientSession:
        named = frozenset({authority(URL(self._client.issuer))})
        return vetted_session(
            self._allowed,
            always_allowed_hosts=named,
            limit=2,
            limit_per_host=2,
            user_agent=f"Chartwire/{__version__}",
        )

    async def _discover(self, session: aiohttp.ClientSession) -> Claims:
        """OpenID Connect Discovery 1.0 §4; the document must be of the very issuer that was asked (§4.3)."""
        now = self._clock()
        if self._metadata is None or self._metadata[0] < now - _KEPT:
            found = await _get(session, f"{self._client.issuer.rstrip('/')}/.well-known/openid-configuration")
            if found.get("issuer") != self._client.issuer:
                raise IdentityError(Failure.MISCONFIGURED)
            self._metadata = now, found
        return self._metadata[1]

    async def _endpoint(self, session: aiohttp.ClientSession, name: str) -> str:
        endpoint = (await self._discover(session)).get(name)
        if not isinstance(endpoint, str) or not endpoint.startswith(("https://", "http://")):
            raise IdentityError(Failure.MISCONFIGURED)
        return endpoint

    async def _exchange(self, session: aiohttp.ClientSession, code: str, ticket: Ticket, redirect_uri: str) -> Claims:
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": redirect_uri,
            "client_id": self._client.client_id,
            "code_verifier": ticket.verifier,
        }
        methods = (await self._discover(session)).get("token_endpoint_auth_methods_supported", ["client_secret_basic"])
        headers = {"Accept": "application/json"}
        if self._client.secret is not None and "client_secret_basic" in methods:
            user, password = quote(self._client.client_id, safe=""), quote(self._client.secret, safe="")
            headers["Authorization"] = aiohttp.encode_basic_auth(user, password)  # RFC 6749 §2.3.1
        elif self._client.secret is not None:
            form["client_secret"] = self._client.secret
        return await _post(session, await self._endpoint(session, "token_endpoint"), form, headers)

    async def _verified(self, session: aiohttp.ClientSession, token: str, nonce: str) -> Claims:
        try:
            claims = await self._decoded(session, token)
            jwt.JWTClaimsRegistry(
                now=int(self._clock().timestamp()),
                leeway=_LEEWAY_SECONDS,
                iss={"essential": True, "value": self._client.issuer},
                aud={"essential": True, "value": self._client.client_id},
                sub={"essential": True},
                exp={"essential": True},
                iat={"essential": True},
                nonce={"essential": True, "value": nonce},
            ).validate(claims)
        except (JoseError, ValueError):
            raise IdentityError(Failure.NOT_PROVEN) from None
        if claims.get("azp", self._client.client_id) != self._client.client_id:
            raise IdentityError(Failure.NOT_PROVEN)
        return claims

    async def _decoded(self, session: aiohttp.ClientSession, token: str) -> dict[str, Any]:
        """The claims of a token that the provider signed; a key that is not known yet may be new: asked for once."""
        try:
            return jwt.decode(token, await self._key_set(session, anew=False), algorithms=_ALGORITHMS).claims
        except (JoseError, ValueError):
            return jwt.decode(token, await self._key_set(session, anew=True), algorithms=_ALGORITHMS).claims

    async def _key_set(self, session: aiohttp.ClientSession, *, anew: bool) -> KeySet:
        now = self._clock()
        if anew or self._keys is None or self._keys[0] < now - _KEPT:
            found = await _get(session, await self._endpoint(session, "jwks_uri"))
            self._keys = now, KeySet(list(_known_keys(found.get("keys"))))
        return self._keys[1]

    async def _with_user_info(self, session: aiohttp.ClientSession, claims: Claims, tokens: Claims) -> Claims:
        """Some providers tell an address at their UserInfo endpoint alone (Core §5.3.2: `sub` must be the same)."""
        if "userinfo_endpoint" not in await self._discover(session):
            return claims
        headers = {"Authorization": f"Bearer {tokens.get('access_token', '')}"}
        told = await _get(session, await self._endpoint(session, "userinfo_endpoint"), headers)
        if told.get("sub") != claims["sub"]:
            raise IdentityError(Failure.NOT_PROVEN)
        return {**told, **claims}


def _known_keys(published: Any) -> Iterator[Key]:
    """Those that can be used; the others, as of a curve that is newer than we are, are passed over (RFC 7517 §5)."""
    for each in published if isinstance(published, list) else []:
        with suppress(JoseError, ValueError, KeyError, TypeError):
            if isinstance(each, dict):
                yield import_key(each)


async def _get(session: aiohttp.ClientSession, url: str, headers: Mapping[str, str] | None = None) -> Claims:
    try:
        async with session.get(url, headers=headers, allow_redirects=False, timeout=_DEADLINE) as response:
            return await _json(response, Failure.UNREACHABLE)
    except (aiohttp.ClientError, OSError, ValueError):
        raise IdentityError(Failure.UNREACHABLE) from None


async def _post(
    session: aiohttp.ClientSession, url: str, form: Mapping[str, str], headers: Mapping[str, str]
) -> Claims:
    try:
        async with session.post(url, data=form, headers=headers, allow_redirects=False, timeout=_DEADLINE) as response:
            return await _json(response, Failure.REFUSED)
    except (aiohttp.ClientError, OSError, ValueError):
        raise IdentityError(Failure.UNREACHABLE) from None


async def _json(response: aiohttp.ClientResponse, otherwise: Failure) -> Claims:
    body = await response.content.read(_MOST_BYTES)
    while len(body) < _MOST_BYTES and (more := await response.content.read(_MOST_BYTES - len(body))):
        body += more
    if response.status != 200:
        raise IdentityError(otherwise)
    found = orjson.loads(body)
    if not isinstance(found, dict):
        raise IdentityError(Failure.MISCONFIGURED)
    return found
