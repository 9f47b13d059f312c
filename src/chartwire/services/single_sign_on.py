"""Members who sign in by an OpenID provider: who of them is let in, and as what."""

from collections.abc import Mapping

import orjson
from sqlalchemy import Connection

from chartwire.clock import Clock, from_milliseconds, to_milliseconds
from chartwire.errors import ConfigurationError, SealBrokenError
from chartwire.identity import Claims, Client, Failure, IdentityError, IdentityProvider, Ticket
from chartwire.model.member import Member, Role
from chartwire.services.members import is_last_owner
from chartwire.services.passwords import PasswordChecker, generate_password
from chartwire.services.sign_in import SignedIn, SignInService, normalise_email
from chartwire.settings import Settings
from chartwire.store import audit, members, registry
from chartwire.store.database import Database, lock
from chartwire.store.vault import Purpose, Vault

_TICKET_MILLISECONDS = 600_000
_ACTOR = "sso"


class SingleSignOn:
    """Sign-in by the provider that the settings name. Each step raises `IdentityError`.

    A person is known by the provider's own id from the first time on; until then by a verified e-mail address that an
    owner has let in. With roles mapped, the provider decides: it lets people in, and what it says holds each time.
    """

    def __init__(
        self, database: Database, vault: Vault, clock: Clock, settings: Settings, sign_in: SignInService
    ) -> None:
        self._database = database
        self._vault = vault
        self._clock = clock
        self._sign_in = sign_in
        self._passwords = PasswordChecker()
        self._base = f"{settings.public_base}/console"
        self._issuer = settings.oidc_issuer
        self._roles = {value: Role(role) for value, role in settings.oidc_roles.items()}
        self._claim = settings.oidc_role_claim
        self._account = settings.oidc_account
        self._trusts_emails = settings.oidc_trust_emails
        self._label = settings.oidc_label
        self._provider = _provider(settings, clock) if settings.oidc_issuer else None

    @property
    def label(self) -> str | None:
        """What the button says; None if there is no provider."""
        return self._label if self._provider else None

    async def begin(self) -> tuple[str, str]:
        """Where the browser goes, and the ticket that it must bring back."""
        ticket = Ticket.new()
        url = await self._known_provider.authorization_url(ticket, self._redirect_uri)
        return url, self._seal(ticket)

    async def finish(self, sealed: str, answer: Mapping[str, str]) -> SignedIn:
        """Let in whoever the provider says has signed in."""
        ticket = self._open(sealed)
        claims = await self._known_provider.claims(ticket, self._redirect_uri, answer)
        password_hash = await self._passwords.hash(generate_password()) if self._roles else ""
        member = await self._database.write(lambda connection: self._member(connection, claims, password_hash))
        return await self._sign_in.open_for(member)

    async def sign_out_url(self) -> str | None:
        """Where one's session at the provider is ended; None if that cannot be, or cannot be found out now."""
        if self._provider is None:
            return None
        try:
            return await self._provider.sign_out_url(f"{self._base}/sign-in")
        except IdentityError:
            return None

    @property
    def _known_provider(self) -> IdentityProvider:
        if self._provider is None:
            raise IdentityError(Failure.MISCONFIGURED)
        return self._provider

    @property
    def _redirect_uri(self) -> str:
        return f"{self._base}/sso/callback"

    def _member(self, connection: Connection, claims: Claims, password_hash: str) -> Member:
        lock(connection, "members")
        subject = f"{self._issuer} {claims['sub']}"
        known = members.find_by_subject(connection, subject) or self._invited(connection, claims, subject)
        if known is not None and known.account_id != self._account:
            return known  # the provider decides for one account: in another, a member is what its owners made it
        role = self._role(claims)
        if known is None:
            return self._let_in(connection, claims, subject, role, password_hash)
        if role is not None and role is not known.role and not is_last_owner(connection, known):
            members.set_role(connection, known.id, role)
            audit.record(
                connection, self._clock(), known.account_id, _ACTOR, "member.role", subject=known.id, outcome=role
            )
        return known

    def _invited(self, connection: Connection, claims: Claims, subject: str) -> Member | None:
        """The member of the person's address, who is bound to this person from now on."""
        found = members.find_credentials(connection, self._email(claims))
        if found is None:
            return None
        if members.subject_of(connection, found.member.id) is not None:
            raise IdentityError(Failure.UNKNOWN_PERSON)  # the address was another person's before
        members.bind_subject(connection, found.member.id, subject)
        return found.member

    def _let_in(
        self, connection: Connection, claims: Claims, subject: str, role: Role | None, password_hash: str
    ) -> Member:
        """A new member, whom the provider's own word lets in."""
        if role is None:
            raise IdentityError(Failure.UNKNOWN_PERSON)
        if registry.find_account(connection, self._account) is None:
            raise IdentityError(Failure.MISCONFIGURED)
        now = self._clock()
        made = members.insert_member(connection, self._account, self._email(claims), role, password_hash, now)
        members.bind_subject(connection, made.id, subject)
        audit.record(connection, now, made.account_id, _ACTOR, "member.create", subject=made.id)
        return made

    def _role(self, claims: Claims) -> Role | None:
        """The strongest role that the claim gives; None if roles are not mapped."""
        if not self._roles:
            return None
        told = claims.get(self._claim)
        values = told if isinstance(told, list) else [told]
        found = {self._roles[value] for value in values if isinstance(value, str) and value in self._roles}
        if not found:
            raise IdentityError(Failure.NO_ROLE)
        return min(found, key=list(Role).index)

    def _email(self, claims: Claims) -> str:
        email = claims.get("email")
        if not isinstance(email, str) or "@" not in email or len(email) > 255:
            raise IdentityError(Failure.UNVERIFIED_EMAIL)
        if not self._trusts_emails and claims.get("email_verified") not in (True, "true"):
            raise IdentityError(Failure.UNVERIFIED_EMAIL)
        return normalise_email(email)

    def _seal(self, ticket: Ticket) -> str:
        until = to_milliseconds(self._clock()) + _TICKET_MILLISECONDS
        plain = orjson.dumps([_ACTOR, ticket.state, ticket.nonce, ticket.verifier, until])
        return self._vault.seal(Purpose.SIGN_IN, plain).hex()

    def _open(self, sealed: str) -> Ticket:
        try:
            kind, *words, until = orjson.loads(self._vault.open(Purpose.SIGN_IN, bytes.fromhex(sealed)))
        except (ValueError, SealBrokenError):
            raise IdentityError(Failure.STALE) from None
        if kind != _ACTOR or from_milliseconds(until) <= self._clock():
            raise IdentityError(Failure.STALE)
        return Ticket(*words)


def _provider(settings: Settings, clock: Clock) -> IdentityProvider:
    secret = None
    if settings.oidc_client_secret_file is not None:
        try:
            secret = settings.oidc_client_secret_file.read_text().strip()
        except OSError as error:
            path = settings.oidc_client_secret_file
            raise ConfigurationError(f"oidc_client_secret_file: {path} cannot be read: {error.strerror}") from None
    client = Client(settings.oidc_issuer, settings.oidc_client_id, secret, settings.oidc_scopes)
    return IdentityProvider(client, clock, settings.network_allowed_networks)
