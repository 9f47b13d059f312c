"""What a valid address, contact, name, birth date and identifier is, and its one spelling.

The rules are those of the contract that existing clients validate by (`docs/reference/api.md`, Demographics). Functions
take what was sent, return it normalised, and raise `ValueError` with a message for the customer, which never repeats
the value.
"""

import re
from datetime import date

STATES = frozenset(
    {"AL", "AK", "AZ", "AR", "CA", "CO", "CT", "DE", "DC", "FL", "GA", "HI", "ID", "IL", "IN", "IA", "KS", "KY", "LA",
     "ME", "MD", "MA", "MI", "MN", "MS", "MO", "MT", "NE", "NV", "NH", "NJ", "NM", "NY", "NC", "ND", "OH", "OK", "OR",
     "PA", "RI", "SC", "SD", "TN", "TX", "UT", "VT", "VA", "WA", "WV", "WI", "WY"}
)  # fmt: skip
"""The fifty states and the District of Columbia."""

TERRITORIES = frozenset({"AS", "GU", "PR", "VI"})

INVENTED_ZIPS = frozenset({*(f"{digit}0000" for digit in range(10)), "99999", "12345", "54321"})
"""Zips that stand for "none" in other systems' data."""

_EARLIEST_BIRTH = date(1900, 1, 1)
_NOT_DIGITS = re.compile(r"[^0-9]")
_ISO_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
# RFC 5321's shape without its rarities: no quoted local part, no address literal; letters of every script in the local
# part (RFC 6531), a domain of at least two labels.
_EMAIL = re.compile(
    r"(?=.{3,254}$)(?=[^@]{1,64}@)[^\s@\"(),:;<>\[\\\].]+(?:\.[^\s@\"(),:;<>\[\\\].]+)*"
    r"@(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z]{2,63}",
    re.IGNORECASE,
)


def normalise_zip(value: str) -> str:
    """Five digits; other characters are dropped first, so `94114-1234` fails: it has nine."""
    digits = _NOT_DIGITS.sub("", value)
    if len(digits) != 5:
        raise ValueError("Zip must be a string consisting of 5 numbers")
    if digits in INVENTED_ZIPS:
        raise ValueError("Invalid zip code")
    return digits


def normalise_phone(value: str) -> str:
    """Ten digits; other characters and a leading country code 1 are dropped."""
    digits = _NOT_DIGITS.sub("", value)
    if len(digits) == 11 and digits.startswith("1"):
        digits = digits[1:]
    if len(digits) != 10:
        raise ValueError("Phone must be a string consisting of 10 numbers. For example: 1231231234")
    return digits


def check_email(value: str) -> str:
    """An e-mail address; one that begins with +1 is somebody's phone number in the wrong field."""
    if value.startswith("+1") or not _EMAIL.fullmatch(value):
        raise ValueError("Invalid email address")
    return value


def normalise_state(value: str, allowed: frozenset[str]) -> str:
    """Two capital letters, one of `allowed`."""
    state = value.strip().upper()
    if state not in allowed:
        raise ValueError("State must be the two letters of a US state")
    return state


def check_birth_date(value: str) -> str:
    """`YYYY-MM-DD`, a day of 1900 or later."""
    if not _ISO_DATE.fullmatch(value):
        raise ValueError("Date of birth must be YYYY-MM-DD")
    try:
        born = date.fromisoformat(value)
    except ValueError:
        raise ValueError("Date of birth is not a date of the calendar") from None
    if born < _EARLIEST_BIRTH:
        raise ValueError("Date of birth must be in 1900 or later")
    return value


def check_npi(value: str) -> str:
    """A National Provider Identifier: ten digits, the first 1 or 2, the last a Luhn check digit.

    45 CFR 162.406; the check covers the prefix 80840 too, which adds 24 to the sum.
    """
    if not re.fullmatch(r"[12][0-9]{9}", value) or _luhn_sum(value) % 10 != 0:
        raise ValueError("NPI is not valid")
    return value


def _luhn_sum(npi: str) -> int:
    digits = [int(character) for character in reversed(npi)]
    doubled = (digit * 2 for digit in digits[1::2])
    return 24 + sum(digits[::2]) + sum(value - 9 if value > 9 else value for value in doubled)


def split_names(value: str) -> tuple[str, ...]:
    """The single names in a field that may hold several, separated by commas or spaces."""
    return tuple(part for part in re.split(r"[,\s]+", value) if part)
