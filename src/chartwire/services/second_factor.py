"""One-time codes by time (RFC 6238: SHA-1, 6 digits, 30 seconds, as every authenticator app has them)."""

from datetime import datetime

from cryptography.hazmat.primitives.hashes import SHA1
from cryptography.hazmat.primitives.twofactor import InvalidToken
from cryptography.hazmat.primitives.twofactor.totp import TOTP

SECRET_BYTES = 20
_STEP_SECONDS = 30
_DIGITS = 6
_ISSUER = "Chartwire"


def matching_step(secret: bytes, code: str, now: datetime) -> int | None:
    """The time step that a code is of: this one or one of its neighbours, as clocks differ; None for a wrong code."""
    digits = code.replace(" ", "").encode()
    this = int(now.timestamp()) // _STEP_SECONDS
    return next((step for step in (this, this - 1, this + 1) if _is_right(secret, digits, step)), None)


def code_at(secret: bytes, now: datetime) -> str:
    """The code that an authenticator app shows."""
    return _totp(secret).generate(int(now.timestamp())).decode()


def provisioning_uri(secret: bytes, email: str) -> str:
    """What an authenticator app reads off the picture (`otpauth://totp/…`)."""
    return _totp(secret).get_provisioning_uri(email, _ISSUER)


def _is_right(secret: bytes, digits: bytes, step: int) -> bool:
    try:
        _totp(secret).verify(digits, step * _STEP_SECONDS)
    except InvalidToken:
        return False
    return True


def _totp(secret: bytes) -> TOTP:
    return TOTP(secret, _DIGITS, SHA1(), _STEP_SECONDS)  # noqa: S303  HMAC-SHA-1 is what the apps speak
