"""Members of accounts, their sessions, and failed attempts to sign in. Plain functions of a connection."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, delete, exists, func, insert, or_, select, update

from chartwire.ids import new_id
from chartwire.model.member import Member, Role
from chartwire.store.schema import member, member_session, sign_in_failure

# --- members ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a member proves itself by; `totp_secret` is sealed, `totp_step` the last time step a code was used of."""

    member: Member
    password_hash: str
    totp_secret: bytes | None
    totp_step: int | None

    def __repr__(self) -> str:
        """Without the secrets."""
        return f"Credentials(member={self.member.id!r})"


def insert_member(
    connection: Connection, account_id: str, email: str, role: Role, password_hash: str, now: datetime
) -> Member:
    """A new member; its e-mail address must be nobody's."""
    record = Member(new_id(), account_id, email, role, has_second_factor=False, created_at=now)
    connection.execute(
        insert(member).values(
            id=record.id, account_id=account_id, email=email, role=role, password_hash=password_hash, created_at=now
        )
    )
    return record


def is_any_member(connection: Connection) -> bool:
    """Whether anybody can sign in."""
    return bool(connection.execute(select(exists().select_from(member))).scalar_one())


def find_credentials(connection: Connection, email: str) -> Credentials | None:
    """What the member of an e-mail address proves itself by."""
    return _credentials(connection.execute(select(member).where(member.c.email == email)).one_or_none())


def credentials_of(connection: Connection, member_id: str) -> Credentials | None:
    """As `find_credentials`, by the member's id."""
    return _credentials(connection.execute(select(member).where(member.c.id == member_id)).one_or_none())


def list_members(connection: Connection, account_id: str) -> list[Member]:
    """The members of an account, the oldest first."""
    rows = connection.execute(select(member).where(member.c.account_id == account_id).order_by(member.c.id))
    return [_member(row) for row in rows]


def find_member(connection: Connection, account_id: str, member_id: str) -> Member | None:
    """A member of an account."""
    query = select(member).where(member.c.account_id == account_id, member.c.id == member_id)
    row = connection.execute(query).one_or_none()
    return None if row is None else _member(row)


def count_owners(connection: Connection, account_id: str) -> int:
    """How many owners an account has."""
    query = select(func.count()).select_from(member)
    owners = query.where(member.c.account_id == account_id, member.c.role == Role.OWNER)
    return connection.execute(owners).scalar_one()


def set_role(connection: Connection, member_id: str, role: Role) -> None:
    """Give a member another role."""
    connection.execute(update(member).where(member.c.id == member_id).values(role=role))


def set_password(connection: Connection, member_id: str, password_hash: str) -> None:
    """Replace a member's password."""
    connection.execute(update(member).where(member.c.id == member_id).values(password_hash=password_hash))


def set_totp(connection: Connection, member_id: str, secret: bytes | None, step: int | None) -> None:
    """Set or clear a member's second factor."""
    connection.execute(update(member).where(member.c.id == member_id).values(totp_secret=secret, totp_step=step))


def find_by_subject(connection: Connection, subject: str) -> Member | None:
    """The member whom an OpenID provider knows by a subject."""
    row = connection.execute(select(member).where(member.c.sso_subject == subject)).one_or_none()
    return None if row is None else _member(row)


def subject_of(connection: Connection, member_id: str) -> str | None:
    """By which subject an OpenID provider knows a member, if it does."""
    found: str | None = connection.execute(select(member.c.sso_subject).where(member.c.id == member_id)).scalar_one()
    return found


def bind_subject(connection: Connection, member_id: str, subject: str | None) -> None:
    """From now on a provider's subject is this member; None: nobody's, until the next sign-in by its address."""
    connection.execute(update(member).where(member.c.id == member_id).values(sso_subject=subject))


def use_code(connection: Connection, member_id: str, step: int) -> bool:
    """Remember that the code of a time step was used; False if it, or a later one, was used before."""
    unused = or_(member.c.totp_step.is_(None), member.c.totp_step < step)
    used = update(member).where(member.c.id == member_id, unused).values(totp_step=step)
    return connection.execute(used).rowcount == 1


def delete_member(connection: Connection, member_id: str) -> None:
    """Remove a member, and its sessions."""
    connection.execute(delete(member).where(member.c.id == member_id))


def _member(row: Row[Any]) -> Member:
    return Member(row.id, row.account_id, row.email, Role(row.role), row.totp_secret is not None, row.created_at)


def _credentials(row: Row[Any] | None) -> Credentials | None:
    return None if row is None else Credentials(_member(row), row.password_hash, row.totp_secret, row.totp_step)


# --- sessions ---------------------------------------------------------------------------------------------------------


def open_session(connection: Connection, token_hash: str, member_id: str, now: datetime, lifetime: timedelta) -> None:
    """A session that ends after `lifetime` at the latest; those that have ended are swept away."""
    connection.execute(delete(member_session).where(member_session.c.expires_at <= now))
    connection.execute(
        insert(member_session).values(
            token_hash=token_hash, member_id=member_id, created_at=now, seen_at=now, expires_at=now + lifetime
        )
    )


@dataclass(frozen=True, slots=True)
class OpenSession:
    """A session that still goes on, and when it was last used."""

    member: Member
    seen_at: datetime


def find_session(connection: Connection, token_hash: str, now: datetime, idle: timedelta) -> OpenSession | None:
    """The session of a token, unless it ended or was not used for longer than `idle`."""
    query = (
        select(member, member_session.c.seen_at)
        .join(member_session, member_session.c.member_id == member.c.id)
        .where(
            member_session.c.token_hash == token_hash,
            member_session.c.expires_at > now,
            member_session.c.seen_at > now - idle,
        )
    )
    row = connection.execute(query).one_or_none()
    return None if row is None else OpenSession(_member(row), row.seen_at)


def touch_session(connection: Connection, token_hash: str, now: datetime) -> None:
    """The session is in use."""
    connection.execute(update(member_session).where(member_session.c.token_hash == token_hash).values(seen_at=now))


def close_session(connection: Connection, token_hash: str) -> None:
    """End a session."""
    connection.execute(delete(member_session).where(member_session.c.token_hash == token_hash))


def close_sessions(connection: Connection, member_id: str) -> None:
    """End every session of a member."""
    connection.execute(delete(member_session).where(member_session.c.member_id == member_id))


# --- failed attempts --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Failures:
    """How often in a row signing in failed, when last, and until when it is not tried at all."""

    count: int
    last_at: datetime
    blocked_until: datetime | None


def find_failures(connection: Connection, email_hash: str) -> Failures | None:
    """What failed for an e-mail address, be it a member's or nobody's."""
    row = connection.execute(select(sign_in_failure).where(sign_in_failure.c.email_hash == email_hash)).one_or_none()
    return None if row is None else Failures(row.failures, row.last_at, row.blocked_until)


def save_failures(connection: Connection, email_hash: str, failures: Failures, forget_before: datetime) -> None:
    """Write down what failed; what is older than `forget_before` is swept away."""
    connection.execute(delete(sign_in_failure).where(sign_in_failure.c.last_at < forget_before))
    clear_failures(connection, email_hash)
    connection.execute(
        insert(sign_in_failure).values(
            email_hash=email_hash,
            failures=failures.count,
            last_at=failures.last_at,
            blocked_until=failures.blocked_until,
        )
    )


def clear_failures(connection: Connection, email_hash: str) -> None:
    """Forget what failed."""
    connection.execute(delete(sign_in_failure).where(sign_in_failure.c.email_hash == email_hash))
