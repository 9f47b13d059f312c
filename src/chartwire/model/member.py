"""Who may use the console: members of an account, and what their roles let them do."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class Role(StrEnum):
    """What a member is to the account; each may do what `_GRANTS` says."""

    OWNER = "owner"
    DEVELOPER = "developer"
    VIEWER = "viewer"
    AUDITOR = "auditor"


class Permission(StrEnum):
    """Something that not every member may do. Whether deliveries and networks are well may be seen by all."""

    READ_RECORDS = "read-records"
    """Patients, documents, payloads: health data."""
    STEER = "steer"
    """Change endpoints, send, retry and replay, ask for documents, opt patients out."""
    MANAGE_KEYS = "manage-keys"
    """See signing keys, make and revoke API keys."""
    READ_AUDIT = "read-audit"
    MANAGE_MEMBERS = "manage-members"


_GRANTS: dict[Role, frozenset[Permission]] = {
    Role.OWNER: frozenset(Permission),
    Role.DEVELOPER: frozenset({Permission.READ_RECORDS, Permission.STEER, Permission.MANAGE_KEYS}),
    Role.VIEWER: frozenset({Permission.READ_RECORDS}),
    Role.AUDITOR: frozenset({Permission.READ_AUDIT}),
}


@dataclass(frozen=True, slots=True)
class Member:
    """A person who signs in to the console, for one account. `email` is in lower case, and nobody else's."""

    id: str
    account_id: str
    email: str
    role: Role
    has_second_factor: bool
    created_at: datetime

    @property
    def actor(self) -> str:
        """The member as the audit trail names it."""
        return f"member:{self.id}"

    def may(self, permission: Permission) -> bool:
        """Whether the member's role grants it."""
        return permission in _GRANTS[self.role]
