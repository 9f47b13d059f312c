"""Members of an account: who they are, their roles, passwords and second factors."""

import base64
import hmac
import re
from dataclasses import dataclass
from hashlib import sha256

from sqlalchemy import Connection

from chartwire import ids
from chartwire.clock import Clock
from chartwire.errors import BadRequestError, ConflictError, ForbiddenError, NotFoundError, SealBrokenError
from chartwire.model.member import Member, Role
from chartwire.services.passwords import PasswordChecker, check_password, generate_password, hash_password
from chartwire.services.second_factor import SECRET_BYTES, matching_step, provisioning_uri
from chartwire.services.sign_in import normalise_email
from chartwire.store import audit, members, registry
from chartwire.store.database import Database, lock, lock_account
from chartwire.store.vault import Purpose, Vault

_EMAIL = re.compile(r"[^@\s]{1,64}@[^@\s]{1,190}")
_OPERATOR = "operator"
_MEMBERS = "members"
"""The lock on who is a member: addresses are nobody else's, an owner stays."""


@dataclass(frozen=True, slots=True)
class Enrolment:
    """A second factor that is being set up: `secret` in Base32 for typing, `uri` for the app's camera.

    `ticket` carries it to the confirmation; nothing is kept before that.
    """

    secret: str
    uri: str
    ticket: str


class MemberService:
    """What an owner may do with members, and a member with itself."""

    def __init__(self, database: Database, vault: Vault, clock: Clock) -> None:
        self._database = database
        self._vault = vault
        self._clock = clock
        self._passwords = PasswordChecker()

    # --- the first one ------------------------------------------------------------------------------------------------

    async def needs_setup(self) -> bool:
        """Whether nobody can sign in yet."""
        return not await self._database.read(members.is_any_member)

    async def set_up(self, token: str, account_name: str, email: str, password: str) -> Member:
        """The first account and its owner, for whoever has the link that `serve` prints.

        Raises `ForbiddenError` for a wrong token or once there is a member, `BadRequestError` for what may not be.
        """
        address = _checked_email(email)
        name = account_name.strip()
        if not name or len(name) > 200:
            raise BadRequestError("The account needs a name of at most 200 characters")
        if not hmac.compare_digest(setup_token(self._vault).encode(), token.encode()):
            raise ForbiddenError("This is not the link that the server printed when it started")
        check_password(password, address)
        password_hash = await self._passwords.hash(password)
        now = self._clock()

        def unit(connection: Connection) -> Member:
            lock(connection, _MEMBERS)
            if members.is_any_member(connection):
                raise ForbiddenError("Chartwire has been set up already: sign in")
            account = registry.create_account(connection, name, now)
            owner = members.insert_member(connection, account.id, address, Role.OWNER, password_hash, now)
            audit.record(connection, now, account.id, owner.actor, "member.create", subject=owner.id)
            return owner

        return await self._database.write(unit)

    # --- members ------------------------------------------------------------------------------------------------------

    async def list(self, account_id: str) -> list[Member]:
        """The members of an account."""
        return await self._database.read(lambda connection: members.list_members(connection, account_id))

    async def add(self, account_id: str, actor: str, email: str, role: Role) -> str:
        """A new member; returns its first password. Raises `BadRequestError`, `ConflictError` for a known address."""
        password = generate_password()
        password_hash = await self._passwords.hash(password)
        await self._database.write(
            lambda connection: add_member(connection, self._clock, account_id, actor, email, role, password_hash)
        )
        return password

    async def change_role(self, account_id: str, actor: str, member_id: str, role: Role) -> None:
        """Give a member another role. Raises `NotFoundError`, and `ConflictError` if no owner would be left."""

        def unit(connection: Connection) -> None:
            lock_account(connection, account_id)  # of two owners who go at once, one stays
            known = _find(connection, account_id, member_id)
            if role is not Role.OWNER:
                _require_another_owner(connection, known)
            members.set_role(connection, member_id, role)
            self._note(connection, account_id, actor, "member.role", member_id, role)

        await self._database.write(unit)

    async def remove(self, account_id: str, actor: str, member_id: str) -> None:
        """Remove a member; its sessions end. Raises as `change_role`."""

        def unit(connection: Connection) -> None:
            lock_account(connection, account_id)  # of two owners who go at once, one stays
            _require_another_owner(connection, _find(connection, account_id, member_id))
            members.delete_member(connection, member_id)
            self._note(connection, account_id, actor, "member.remove", member_id)

        await self._database.write(unit)

    async def reset(self, account_id: str, actor: str, member_id: str) -> str:
        """A new password, without a second factor, for a member who lost either; returns it. Sessions end."""
        password = generate_password()
        password_hash = await self._passwords.hash(password)
        await self._database.write(
            lambda connection: reset_member(connection, self._clock, account_id, actor, member_id, password_hash)
        )
        return password

    # --- oneself ------------------------------------------------------------------------------------------------------

    async def change_password(self, member: Member, current: str, new: str) -> None:
        """Replace one's password; every session ends. Raises `BadRequestError`."""
        check_password(new, member.email)
        await self._require_password(member, current)
        password_hash = await self._passwords.hash(new)

        def unit(connection: Connection) -> None:
            members.set_password(connection, member.id, password_hash)
            members.close_sessions(connection, member.id)
            self._note(connection, member.account_id, member.actor, "member.password", member.id)

        await self._database.write(unit)

    def begin_second_factor(self, member: Member) -> Enrolment:
        """A new secret to be read by an authenticator app."""
        secret = ids.secret_bytes(SECRET_BYTES)
        ticket = self._vault.seal(Purpose.SECOND_FACTOR, member.id.encode() + secret).hex()
        return Enrolment(base64.b32encode(secret).decode(), provisioning_uri(secret, member.email), ticket)

    def resume_second_factor(self, member: Member, ticket: str) -> Enrolment:
        """The same once more, after a wrong code. Raises `BadRequestError`."""
        secret = self._secret_of(member, ticket)
        return Enrolment(base64.b32encode(secret).decode(), provisioning_uri(secret, member.email), ticket)

    async def confirm_second_factor(self, member: Member, ticket: str, code: str) -> None:
        """Ask for a code from now on, if the app shows the right one. Raises `BadRequestError`."""
        secret = self._secret_of(member, ticket)
        step = matching_step(secret, code, self._clock())
        if step is None:
            raise BadRequestError("The code is not right: is the clock of your phone?")
        sealed = self._vault.seal(Purpose.SECOND_FACTOR, secret)

        def unit(connection: Connection) -> None:
            members.set_totp(connection, member.id, sealed, step)
            self._note(connection, member.account_id, member.actor, "member.second-factor", member.id, "on")

        await self._database.write(unit)

    async def end_second_factor(self, member: Member, password: str) -> None:
        """Ask for the password alone. Raises `BadRequestError` if that is wrong."""
        await self._require_password(member, password)

        def unit(connection: Connection) -> None:
            members.set_totp(connection, member.id, None, None)
            self._note(connection, member.account_id, member.actor, "member.second-factor", member.id, "off")

        await self._database.write(unit)

    async def _require_password(self, member: Member, password: str) -> None:
        known = await self._database.read(lambda connection: members.credentials_of(connection, member.id))
        if not await self._passwords.matches(password, known.password_hash if known else None):
            raise BadRequestError("The current password is not right")

    def _secret_of(self, member: Member, ticket: str) -> bytes:
        try:
            owner, secret = _parted(self._vault.open(Purpose.SECOND_FACTOR, bytes.fromhex(ticket)))
        except (ValueError, SealBrokenError):
            owner, secret = "", b""
        if owner != member.id:
            raise BadRequestError("Begin again: this page is too old")
        return secret

    def _note(
        self, connection: Connection, account_id: str, actor: str, action: str, subject: str, outcome: str = "ok"
    ) -> None:
        audit.record(connection, self._clock(), account_id, actor, action, subject=subject, outcome=outcome)


def add_member(
    connection: Connection, clock: Clock, account_id: str, actor: str, email: str, role: Role, password_hash: str
) -> Member:
    """A unit: a new member. Raises `BadRequestError`, `ConflictError`, and `NotFoundError` for an unknown account."""
    address = _checked_email(email)
    lock(connection, _MEMBERS)
    if registry.find_account(connection, account_id) is None:
        raise NotFoundError("Could not find account")
    if members.find_credentials(connection, address) is not None:
        raise ConflictError("A member of this installation has that e-mail address already")
    added = members.insert_member(connection, account_id, address, role, password_hash, clock())
    audit.record(connection, clock(), account_id, actor, "member.create", subject=added.id, outcome=role)
    return added


def reset_member(
    connection: Connection, clock: Clock, account_id: str, actor: str, member_id: str, password_hash: str
) -> None:
    """A unit: a new password and no second factor. Raises `NotFoundError`."""
    known = _find(connection, account_id, member_id)
    members.set_password(connection, member_id, password_hash)
    members.set_totp(connection, member_id, None, None)
    members.bind_subject(connection, member_id, None)  # the provider may know the person by another id now
    members.close_sessions(connection, member_id)
    members.clear_failures(connection, sha256(known.email.encode()).hexdigest())
    audit.record(connection, clock(), account_id, actor, "member.reset", subject=member_id)


def create_with_password(
    connection: Connection, clock: Clock, account_id: str, email: str, role: Role
) -> tuple[Member, str]:
    """A unit for the command line: a new member and its first password."""
    password = generate_password()
    return add_member(connection, clock, account_id, _OPERATOR, email, role, hash_password(password)), password


def reset_by_email(connection: Connection, clock: Clock, email: str) -> str:
    """A unit for the command line: a new password for whoever has an e-mail address. Raises `NotFoundError`."""
    known = members.find_credentials(connection, normalise_email(email))
    if known is None:
        raise NotFoundError("Could not find a member of that e-mail address")
    password = generate_password()
    reset_member(connection, clock, known.member.account_id, _OPERATOR, known.member.id, hash_password(password))
    return password


def setup_token(vault: Vault) -> str:
    """What the link that `serve` prints holds: whoever can read it on the server's terminal may set it up."""
    return hmac.digest(vault.key(Purpose.SIGN_IN), b"set-up", "sha256").hex()[:40]


def _checked_email(email: str) -> str:
    address = normalise_email(email)
    if not _EMAIL.fullmatch(address):
        raise BadRequestError("This is not an e-mail address")
    return address


def _parted(plain: bytes) -> tuple[str, bytes]:
    return plain[:-SECRET_BYTES].decode(), plain[-SECRET_BYTES:]


def _find(connection: Connection, account_id: str, member_id: str) -> Member:
    found = members.find_member(connection, account_id, member_id)
    if found is None:
        raise NotFoundError("Could not find member")
    return found


def is_last_owner(connection: Connection, known: Member) -> bool:
    """Whether the account would have no owner without this member. Nobody's membership changes meanwhile."""
    lock(connection, _MEMBERS)
    return known.role is Role.OWNER and members.count_owners(connection, known.account_id) == 1


def _require_another_owner(connection: Connection, known: Member) -> None:
    if is_last_owner(connection, known):
        raise ConflictError("An account needs an owner: make another member one first")
