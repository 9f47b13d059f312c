"""An OpenID provider on a real socket: one person signs in at once. It can be told to get things wrong."""

import base64
import hashlib
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from aiohttp import web
from joserfc import jwt
from joserfc.jwk import OctKey, RSAKey
from yarl import URL

from chartwire.clock import Clock, system_clock

KEYS = [RSAKey.generate_key(2048, {"kid": name}) for name in ("k1", "k2", "k3")]


@dataclass
class OidcProvider:
    """Signs in whoever `person` says. `claims` overrides what the ID token holds, None leaving a claim out.

    With a `secret` the client must prove itself. `algorithm` HS256 signs with that secret, as no provider may.
    """

    issuer: str = ""
    client_id: str = "chartwire"
    secret: str | None = None
    person: dict[str, Any] = field(
        default_factory=lambda: {"sub": "42", "email": "ada@clinic.example", "email_verified": True}
    )
    claims: dict[str, Any] = field(default_factory=dict)
    metadata: dict[str, Any] = field(default_factory=dict)
    user_info: dict[str, Any] | None = None
    published: bool = True
    """Whether the key that signs is among those of `/jwks`."""
    others: list[Any] = field(default_factory=list)
    """What else is there."""
    algorithm: str = "RS256"
    key: RSAKey = field(default_factory=lambda: KEYS[0])
    clock: Clock = system_clock
    codes: dict[str, dict[str, str]] = field(default_factory=dict)

    def rotate(self) -> None:
        """Sign with a new key from now on."""
        self.key = KEYS[1]

    def application(self) -> web.Application:
        """Its endpoints."""
        application = web.Application()
        application.router.add_get("/.well-known/openid-configuration", self._discover)
        application.router.add_get("/authorize", self._authorize)
        application.router.add_post("/token", self._token)
        application.router.add_get("/jwks", self._jwks)
        application.router.add_get("/userinfo", self._user_info)
        return application

    async def _discover(self, request: web.Request) -> web.Response:
        del request
        names = {"authorization_endpoint": "authorize", "token_endpoint": "token", "jwks_uri": "jwks"}
        found: dict[str, Any] = {name: f"{self.issuer}/{path}" for name, path in names.items()}
        found |= {"issuer": self.issuer, "end_session_endpoint": f"{self.issuer}/logout"}
        if self.user_info is not None:
            found["userinfo_endpoint"] = f"{self.issuer}/userinfo"
        return web.json_response({**found, **self.metadata})

    async def _authorize(self, request: web.Request) -> web.Response:
        asked = dict(request.query)
        assert (asked["response_type"], asked["client_id"]) == ("code", self.client_id)
        assert asked["code_challenge_method"] == "S256"
        code = secrets.token_urlsafe()
        self.codes[code] = asked
        back = URL(asked["redirect_uri"]).update_query(code=code, state=asked["state"], iss=self.issuer)
        raise web.HTTPFound(str(back))

    async def _token(self, request: web.Request) -> web.Response:
        form = await request.post()
        asked = self.codes.pop(str(form["code"]), None)
        challenge = base64.urlsafe_b64encode(hashlib.sha256(str(form["code_verifier"]).encode()).digest())
        if (
            asked is None
            or challenge.decode().rstrip("=") != asked["code_challenge"]
            or form["redirect_uri"] != asked["redirect_uri"]
            or not self._is_client(request)
        ):
            return web.json_response({"error": "invalid_grant"}, status=400)
        token = {"id_token": self._id_token(asked["nonce"]), "access_token": "opened", "token_type": "Bearer"}
        return web.json_response(token)

    def _is_client(self, request: web.Request) -> bool:
        if self.secret is None:
            return True
        told = base64.b64decode(request.headers.get("authorization", "Basic ").removeprefix("Basic ")).decode()
        return tuple(map(unquote, told.split(":"))) == (self.client_id, self.secret)

    def _id_token(self, nonce: str) -> str:
        now = int(self.clock().timestamp())
        claims = {"iss": self.issuer, "aud": self.client_id, "iat": now, "exp": now + 300, "nonce": nonce}
        told = {name: value for name, value in {**claims, **self.person, **self.claims}.items() if value is not None}
        key = OctKey.import_key(self.secret or "") if self.algorithm == "HS256" else self.key
        return jwt.encode({"alg": self.algorithm, "kid": self.key.kid}, told, key, algorithms=[self.algorithm])

    async def _jwks(self, request: web.Request) -> web.Response:
        del request
        key = self.key if self.published else KEYS[2]
        return web.json_response({"keys": [*self.others, {**key.as_dict(private=False), "kid": self.key.kid}]})

    async def _user_info(self, request: web.Request) -> web.Response:
        assert request.headers["authorization"] == "Bearer opened"
        return web.json_response(self.user_info)


@asynccontextmanager
async def running_provider(**options: Any) -> AsyncIterator[OidcProvider]:
    """A provider on 127.0.0.1."""
    provider = OidcProvider(**options)
    runner = web.AppRunner(provider.application(), shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        provider.issuer = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield provider
    finally:
        await runner.cleanup()
