"""Signing in to the console: password, second factor, sessions, and a growing wait after failures.

A session is a random token; the database holds its hash alone. What is told to whoever cannot sign in is the same for
a wrong password and for an e-mail address that nobody has.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256

import orjson
from sqlalchemy import Connection

from chartwire.clock import Clock, from_milliseconds, to_milliseconds
from chartwire.errors import SealBrokenError
from chartwire.ids import url_safe
from chartwire.model.member import Member
from chartwire.services.passwords import PasswordChecker
from chartwire.services.second_factor import matching_step
from chartwire.settings import Settings
from chartwire.store import audit, members
from chartwire.store.database import Database, lock
from chartwire.store.members import Credentials, Failures
from chartwire.store.vault import Purpose, Vault

_TOKEN_CHARACTERS = 43  # 258 random bits
_FREE_FAILURES = 5
_FIRST_BLOCK = timedelta(seconds=30)
_LONGEST_BLOCK = timedelta(minutes=15)
_FORGOTTEN_AFTER = timedelta(days=1)
_CODE_WITHIN = timedelta(minutes=5)
_TOUCH_EVERY = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class SignedIn:
    """A session has begun; `token` goes into the cookie and nowhere else."""

    member: Member
    token: str


@dataclass(frozen=True, slots=True)
class CodeNeeded:
    """The password was right. `ticket` says so for five minutes, and goes with the code."""

    ticket: str


@dataclass(frozen=True, slots=True)
class Refused:
    """Nobody is let in; `wait`: nor will anybody be before so long."""

    wait: timedelta | None = None


class SignInService:
    """Opens sessions and knows them again."""

    def __init__(self, database: Database, vault: Vault, clock: Clock, settings: Settings) -> None:
        self._database = database
        self._vault = vault
        self._clock = clock
        self._passwords = PasswordChecker()
        self._idle = timedelta(minutes=settings.console_idle_minutes)
        self._lifetime = timedelta(hours=settings.console_session_hours)

    async def sign_in(self, email: str, password: str) -> SignedIn | CodeNeeded | Refused:
        """Try an e-mail address, in any case, with a password."""
        address = normalise_email(email)
        wait = await self._database.write(lambda connection: self._count_attempt(connection, address))
        if wait is not None:
            return Refused(wait)
        known = await self._database.read(lambda connection: members.find_credentials(connection, address))
        if not await self._passwords.matches(password, known.password_hash if known else None) or known is None:
            return await self._refuse(known)
        if known.totp_secret is not None:
            await self._database.write(lambda connection: self._uncount_attempt(connection, address))
            return CodeNeeded(self._seal_ticket(known.member))
        return await self._database.write(lambda connection: self._open(connection, known.member))

    async def confirm(self, ticket: str, code: str) -> SignedIn | Refused:
        """Try a code of the second factor, after the password; each code opens one session at most."""
        member_id = self._open_ticket(ticket)
        known = await self._database.read(lambda connection: members.credentials_of(connection, member_id or ""))
        if known is None or known.totp_secret is None:
            return Refused()
        wait = await self._database.write(lambda connection: self._count_attempt(connection, known.member.email))
        if wait is not None:
            return Refused(wait)
        secret = self._vault.open(Purpose.SECOND_FACTOR, known.totp_secret)
        step = matching_step(secret, code, self._clock())

        def unit(connection: Connection) -> SignedIn | None:
            is_new = step is not None and members.use_code(connection, known.member.id, step)
            return self._open(connection, known.member) if is_new else None

        return await self._database.write(unit) or await self._refuse(known)

    async def open_for(self, member: Member) -> SignedIn:
        """A session for a member who has just proved itself in another way."""
        return await self._database.write(lambda connection: self._open(connection, member))

    async def resume(self, token: str) -> Member | None:
        """Whose session it is; None if it is over."""
        key, now = _hash(token), self._clock()
        found = await self._database.read(lambda connection: members.find_session(connection, key, now, self._idle))
        if found is None:
            return None
        if now - found.seen_at >= min(_TOUCH_EVERY, self._idle / 4):
            await self._database.write(lambda connection: members.touch_session(connection, key, now))
        return found.member

    async def is_open(self, token: str) -> bool:
        """Whether a session goes on; asking does not prolong it."""
        key, now = _hash(token), self._clock()
        open_session = await self._database.read(
            lambda connection: members.find_session(connection, key, now, self._idle)
        )
        return open_session is not None

    async def sign_out(self, token: str, member: Member) -> None:
        """End a session."""

        def unit(connection: Connection) -> None:
            members.close_session(connection, _hash(token))
            audit.record(connection, self._clock(), member.account_id, member.actor, "console.sign-out")

        await self._database.write(unit)

    def _count_attempt(self, connection: Connection, email: str) -> timedelta | None:
        """Count an attempt as failed before it is looked at, so that many at once gain nothing; returns how long to
        wait if it is not to be looked at."""
        now, key = self._clock(), _hash(email)
        lock(connection, f"sign-in/{key}")
        before = members.find_failures(connection, key)
        if before is not None and before.blocked_until is not None and before.blocked_until > now:
            return before.blocked_until - now
        recent = before is not None and now - before.last_at < _FORGOTTEN_AFTER
        count = (before.count if before is not None and recent else 0) + 1
        failures = Failures(count, now, _blocked_until(count, now))
        members.save_failures(connection, key, failures, now - _FORGOTTEN_AFTER)
        return None

    def _uncount_attempt(self, connection: Connection, email: str) -> None:
        """Half of signing in went well: it is not a failure, and does not make up for those of codes either."""
        now, key = self._clock(), _hash(email)
        lock(connection, f"sign-in/{key}")
        counted = members.find_failures(connection, key)
        if counted is not None:
            before = Failures(counted.count - 1, counted.last_at, None)
            members.save_failures(connection, key, before, now - _FORGOTTEN_AFTER)

    async def _refuse(self, known: Credentials | None) -> Refused:
        if known is not None:
            await self._database.write(lambda connection: self._note(connection, known.member, "refused"))
        return Refused()

    def _open(self, connection: Connection, member: Member) -> SignedIn:
        token = url_safe(_TOKEN_CHARACTERS)
        members.clear_failures(connection, _hash(member.email))
        members.open_session(connection, _hash(token), member.id, self._clock(), self._lifetime)
        self._note(connection, member, "ok")
        return SignedIn(member, token)

    def _note(self, connection: Connection, member: Member, outcome: str) -> None:
        now = self._clock()
        audit.record(connection, now, member.account_id, member.actor, "console.sign-in", outcome=outcome)

    def _seal_ticket(self, member: Member) -> str:
        until = to_milliseconds(self._clock() + _CODE_WITHIN)
        return self._vault.seal(Purpose.SIGN_IN, orjson.dumps([member.id, until])).hex()

    def _open_ticket(self, ticket: str) -> str | None:
        try:
            member_id, until = orjson.loads(self._vault.open(Purpose.SIGN_IN, bytes.fromhex(ticket)))
        except (ValueError, SealBrokenError):
            return None
        return str(member_id) if from_milliseconds(until) > self._clock() else None


def normalise_email(email: str) -> str:
    """One spelling for an address."""
    return email.strip().lower()


def _blocked_until(failures: int, now: datetime) -> datetime | None:
    if failures < _FREE_FAILURES:
        return None
    doublings = min(failures - _FREE_FAILURES, 10)  # beyond that the longest wait holds anyway
    wait: timedelta = min(_FIRST_BLOCK * 2**doublings, _LONGEST_BLOCK)
    return now + wait


def _hash(text: str) -> str:
    # A fast hash is right here: a token has 258 random bits, and an address is no secret to whoever reads the database.
    return sha256(text.encode()).hexdigest()
