"""Is this the same person: the contract's rule for finding a patient who is already known.

Candidates share birth date and gender. They are the same when they share a personal identifier, or when what both
records have of name, address, phone and e-mail is alike enough on average. Two records with different numbers of the
same identifier are two persons, however alike: twins live at one address.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from statistics import fmean

from rapidfuzz.distance import JaroWinkler

from chartwire.model.demographics import split_names
from chartwire.model.registry import Demographics, Gender, IdentifierType, Patient

THRESHOLD = 0.96
_SEXES = frozenset({Gender.F, Gender.M})
_ALIKE = 0.85
"""Jaro-Winkler similarity from which on two names may be the same one, misspelt."""


@dataclass(frozen=True, slots=True)
class Stated:
    """Of whom a document says that it is. What it leaves out is None, or empty."""

    family_name: str = ""
    given_names: str = ""
    dob: date | None = None
    gender: Gender | None = None


class Disagreement(StrEnum):
    """In what a document's patient differs from the one whose document it is said to be."""

    BIRTH_DATE = "birth-date"
    NAME = "name"
    SEX = "sex"


def disagreements(known: Demographics, stated: Stated) -> tuple[Disagreement, ...]:
    """Why a document may be about somebody else; nothing if it may be about the known patient.

    A family name alone may have changed by marriage, and a sex may have been corrected: neither counts by itself.
    """
    found = []
    if stated.dob is not None and stated.dob != known.dob:
        found.append(Disagreement.BIRTH_DATE)
    is_other_family = _is_unlike(known.last_name, stated.family_name)
    if is_other_family and _is_unlike(known.first_name, stated.given_names):
        found.append(Disagreement.NAME)
    if {known.gender_at_birth, stated.gender} <= _SEXES and stated.gender != known.gender_at_birth:
        found.append(Disagreement.SEX)
    return () if found == [Disagreement.SEX] and not is_other_family else tuple(found)


def _is_unlike(known: str, stated: str) -> bool:
    """Whether none of the names in one field is like any in the other; what is not stated is not unlike."""
    mine, theirs = (tuple(name.casefold() for name in split_names(field)) for field in (known, stated))
    if not mine or not theirs:
        return False
    return not any(JaroWinkler.similarity(one, other) >= _ALIKE for one in mine for other in theirs)


def find_match(wanted: Demographics, candidates: Iterable[Patient]) -> Patient | None:
    """The first candidate who is the wanted person."""
    return next((candidate for candidate in candidates if is_same_person(wanted, candidate.demographics)), None)


def is_same_person(one: Demographics, other: Demographics) -> bool:
    """Whether two records are of one person; birth date and gender are compared too."""
    if (one.dob, one.gender_at_birth) != (other.dob, other.gender_at_birth):
        return False
    mine, theirs = _identifiers(one), _identifiers(other)
    if any(mine[kind] & theirs[kind] for kind in mine.keys() & theirs.keys()):
        return True
    return not mine.keys() & theirs.keys() and similarity(one, other) >= THRESHOLD


def similarity(one: Demographics, other: Demographics) -> float:
    """Mean Jaro-Winkler similarity, 0 to 1, of the fields that both records have."""
    pairs = zip(_compared(one), _compared(other), strict=True)
    return fmean(JaroWinkler.similarity(mine, theirs) for mine, theirs in pairs if mine and theirs)


def _identifiers(person: Demographics) -> dict[tuple[IdentifierType, str | None], set[str]]:
    found: dict[tuple[IdentifierType, str | None], set[str]] = {}
    for identifier in person.personal_identifiers:
        value = "".join(filter(str.isalnum, identifier.value)).casefold()
        if value:
            found.setdefault((identifier.type, identifier.state), set()).add(value)
    return found


def _compared(person: Demographics) -> tuple[str, ...]:
    home = person.address[0]
    fields = (
        " ".join(split_names(person.first_name)),
        " ".join(split_names(person.last_name)),
        home.address_line1,
        home.address_line2 or "",
        home.city,
        home.state,
        home.zip,
        next((contact.phone for contact in person.contact if contact.phone), ""),
        next((contact.email for contact in person.contact if contact.email), ""),
    )
    return tuple(" ".join(field.casefold().split()) for field in fields)
