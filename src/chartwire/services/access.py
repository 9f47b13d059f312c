"""Access tokens for the FHIR face: OAuth 2.0 client credentials (RFC 6749 §4.4, SMART App Launch 2.2 scopes).

An API key is the client's secret; its id, or the account's, is the client's id. A token is a JWT (RFC 7519, HS256) that
names the key it was given for, and dies with it: revoking the key ends its tokens at once.
"""

from dataclasses import dataclass

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import OctKey
from sqlalchemy import Connection

from chartwire.clock import Clock, to_milliseconds
from chartwire.errors import TokenRequestError
from chartwire.ids import new_id
from chartwire.settings import Settings
from chartwire.store import audit, registry
from chartwire.store.database import Database
from chartwire.store.vault import Purpose, Vault

READ_REFERENCES = "system/DocumentReference.rs"
READ_BINARIES = "system/Binary.rs"
READ_EVERYTHING = "fhir/document"
MANAGE_SUBSCRIPTIONS = "system/Subscription.cruds"
SCOPES = (READ_REFERENCES, READ_BINARIES, READ_EVERYTHING, MANAGE_SUBSCRIPTIONS)

_ALGORITHM = "HS256"


@dataclass(frozen=True, slots=True)
class AccessToken:
    """A token as its client gets it; `scope` is what was granted, separated by spaces."""

    token: str
    expires_in: int
    scope: str


@dataclass(frozen=True, slots=True)
class Grant:
    """Who presents a token, or a key, and what may be done with it."""

    account_id: str
    key_id: str
    scopes: frozenset[str]

    @property
    def actor(self) -> str:
        """The client as the audit trail names it."""
        return f"key:{self.key_id}"

    def allows(self, scope: str) -> bool:
        """Whether what `scope` names may be done."""
        is_reading = scope in {READ_REFERENCES, READ_BINARIES}
        return scope in self.scopes or (is_reading and READ_EVERYTHING in self.scopes)


class AccessService:
    """Gives tokens and recognises them."""

    def __init__(self, database: Database, vault: Vault, clock: Clock, settings: Settings) -> None:
        self._database = database
        self._clock = clock
        self._vault = vault
        self._issuer = settings.public_base
        self._seconds = settings.access_token_seconds

    async def issue(self, client_id: str, client_secret: str, scope: str | None) -> AccessToken:
        """A token for a client, with the scopes it asked for that exist; with all if it asked for none.

        Raises `TokenRequestError`: `invalid_client` for a wrong id or secret, `invalid_scope` if no scope is left.
        """
        granted = _grantable(scope)
        known = await self._database.read(lambda connection: registry.authenticate(connection, client_secret))
        if known is None or client_id not in known:
            raise TokenRequestError("invalid_client", "The client id or the client secret is not known")
        account_id, key_id = known
        if not granted:
            raise TokenRequestError("invalid_scope", f"None of the scopes asked for is one of: {' '.join(SCOPES)}")
        await self._database.write(
            lambda connection: audit.record(connection, self._clock(), account_id, f"key:{key_id}", "token.issue")
        )
        return AccessToken(self._encode(account_id, key_id, granted), self._seconds, " ".join(granted))

    async def recognise(self, token: str) -> Grant | None:
        """Whose token it is; None if it was altered, its time is over, or its key is revoked."""
        grant = self._decode(token)
        if grant is None or not await self._database.read(lambda connection: _is_alive(connection, grant)):
            return None
        return grant

    def _encode(self, account_id: str, key_id: str, scopes: list[str]) -> str:
        now = to_milliseconds(self._clock()) // 1000
        claims = {
            "iss": self._issuer,
            "sub": account_id,
            "client_id": key_id,
            "scope": " ".join(scopes),
            "iat": now,
            "exp": now + self._seconds,
            "jti": new_id(),
        }
        key = OctKey.import_key(self._vault.key(Purpose.ACCESS_TOKEN))
        return jwt.encode({"alg": _ALGORITHM}, claims, key, [_ALGORITHM])

    def _decode(self, token: str) -> Grant | None:
        keys = self._vault.keys(Purpose.ACCESS_TOKEN)
        return next((grant for key in keys if (grant := self._decode_by(OctKey.import_key(key), token))), None)

    def _decode_by(self, key: OctKey, token: str) -> Grant | None:
        now = to_milliseconds(self._clock()) // 1000
        try:
            claims = jwt.decode(token, key, [_ALGORITHM]).claims
            jwt.JWTClaimsRegistry(
                now=now, leeway=0, iss={"essential": True, "value": self._issuer}, exp={"essential": True}
            ).validate(claims)
            return Grant(claims["sub"], claims["client_id"], frozenset(claims["scope"].split()))
        except (JoseError, ValueError, KeyError):
            return None


def _grantable(scope: str | None) -> list[str]:
    asked = set(SCOPES) if scope is None else set(scope.split())
    return [known for known in SCOPES if known in asked]


def _is_alive(connection: Connection, grant: Grant) -> bool:
    keys = registry.list_api_keys(connection, grant.account_id)
    return any(key.id == grant.key_id and key.revoked_at is None for key in keys)
