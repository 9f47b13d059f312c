"""Who is known: accounts and their keys, organizations, facilities, patients."""

from dataclasses import dataclass, field
from datetime import date, datetime
from enum import StrEnum
from hashlib import md5


@dataclass(frozen=True, slots=True)
class Account:
    """A customer of this installation; sees nothing of any other account."""

    id: str
    name: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key of an account. The key itself is shown once and kept as a hash; `hint` is its first characters."""

    id: str
    account_id: str
    label: str
    hint: str
    created_at: datetime
    revoked_at: datetime | None = None


class OrganizationType(StrEnum):
    """The contract's kinds of organization."""

    ACUTE_CARE = "acuteCare"
    AMBULATORY = "ambulatory"
    HOSPITAL = "hospital"
    LAB_SYSTEMS = "labSystems"
    PHARMACY = "pharmacy"
    POST_ACUTE_CARE = "postAcuteCare"


class Gender(StrEnum):
    """Gender at birth: female, male, other, unknown."""

    F = "F"
    M = "M"
    O = "O"  # noqa: E741  the contract's letter
    U = "U"


class IdentifierType(StrEnum):
    """Kinds of personal identifier."""

    DRIVERS_LICENSE = "driversLicense"
    SSN = "ssn"


@dataclass(frozen=True, slots=True)
class Address:
    """A US address; `state` is two capital letters, `zip` five digits."""

    address_line1: str
    city: str
    state: str
    zip: str
    address_line2: str | None = None
    country: str = "USA"


@dataclass(frozen=True, slots=True)
class Contact:
    """At least one of a ten-digit phone number and an e-mail address."""

    phone: str | None = None
    email: str | None = None


@dataclass(frozen=True, slots=True)
class PersonalIdentifier:
    """A driver's licence (with its state) or a social security number."""

    type: IdentifierType
    value: str
    state: str | None = None
    period_start: str | None = None
    period_end: str | None = None
    assigner: str | None = None


@dataclass(frozen=True, slots=True)
class Demographics:
    """Who a patient is, normalised by the rules of the API contract (trimmed names, digits of phones and zips)."""

    first_name: str
    last_name: str
    dob: date
    gender_at_birth: Gender
    address: tuple[Address, ...]
    contact: tuple[Contact, ...] = ()
    personal_identifiers: tuple[PersonalIdentifier, ...] = ()


@dataclass(frozen=True, slots=True)
class Organization:
    """The customer's organization; at most one per account."""

    id: str
    account_id: str
    oid: str
    name: str
    type: OrganizationType
    location: Address
    version: int = 0


@dataclass(frozen=True, slots=True)
class Facility:
    """A place of care, known by its National Provider Identifier; patients belong to one or more of them."""

    id: str
    account_id: str
    oid: str
    name: str
    npi: str
    address: Address
    created_at: datetime
    tin: str | None = None
    active: bool | None = None
    version: int = 0


@dataclass(frozen=True, slots=True)
class Patient:
    """A patient of an account."""

    id: str
    account_id: str
    demographics: Demographics
    facility_ids: tuple[str, ...]
    created_at: datetime
    external_id: str | None = None
    additional_ids: dict[str, list[str]] = field(default_factory=dict)
    opted_out: bool = False
    version: int = 0


class LinkState(StrEnum):
    """What is known of a remote record of a patient (networks.md §9.4)."""

    CONFIRMED = "confirmed"
    PROBABLE = "probable"
    REJECTED = "rejected"


def etag(identifier: str, version: int) -> str:
    """The `eTag` of a versioned resource: hex MD5 of `<id>_<version>`, as existing clients have stored it."""
    return md5(f"{identifier}_{version}".encode(), usedforsecurity=False).hexdigest()
