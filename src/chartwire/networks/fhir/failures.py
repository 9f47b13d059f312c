"""What went wrong on the wire, as one of the two kinds of network error.

Which answers are worth another try: HTTP semantics (RFC 9110 §15) and the FHIR rules on errors and throttling. Texts of
the server (OperationOutcome, error pages) are never copied: they can hold health data.
"""

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from email.utils import parsedate_to_datetime

import aiohttp

from chartwire.clock import Clock
from chartwire.errors import IssueCode, NetworkError, PermanentNetworkError, TemporaryNetworkError
from chartwire.outbound import forbidden_address

MAX_RETRY_AFTER_SECONDS = 300.0

_PERMANENT = {
    401: IssueCode.UNAUTHORIZED,
    403: IssueCode.FORBIDDEN,
    404: IssueCode.NOT_FOUND,
    410: IssueCode.GONE,
}
_TEMPORARY = {408: IssueCode.TIMEOUT, 425: IssueCode.THROTTLED, 429: IssueCode.THROTTLED}


class RefusedError(PermanentNetworkError):
    """The server answered with a status that says no. `status`: so that another way of asking can be tried."""

    def __init__(self, code: IssueCode, status: int) -> None:
        super().__init__(code, f"the server answered with status {status}")
        self.status = status


def from_status(status: int, headers: Mapping[str, str], clock: Clock) -> NetworkError:
    """The error that an answer other than 2xx means."""
    retry_after = read_retry_after(headers.get("Retry-After"), clock)
    if status in _TEMPORARY:
        return TemporaryNetworkError(_TEMPORARY[status], retry_after=retry_after)
    if status == 503 and retry_after is not None:
        return TemporaryNetworkError(IssueCode.THROTTLED, retry_after=retry_after)
    if status >= 500 and status != 501:
        return TemporaryNetworkError(IssueCode.SERVER_ERROR)
    return RefusedError(_PERMANENT.get(status, IssueCode.REJECTED), status)


def read_retry_after(value: str | None, clock: Clock) -> float | None:
    """Seconds to wait, from seconds or an HTTP date (RFC 9110 §10.2.3), clamped to 0…300; None if it says nothing."""
    if value is None:
        return None
    text = value.strip()
    try:
        seconds = float(text) if text.isascii() and text.isdigit() else _seconds_until(text, clock)
    except (ValueError, OverflowError):
        return None
    return min(max(seconds, 0.0), MAX_RETRY_AFTER_SECONDS)


def _seconds_until(http_date: str, clock: Clock) -> float:
    moment = parsedate_to_datetime(http_date)
    return (moment - clock()).total_seconds() if moment.tzinfo is not None else 0.0


@contextmanager
def wire_errors() -> Iterator[None]:
    """Turn what the HTTP client raises into a network error; its texts, which hold URLs, are left behind."""
    try:
        yield
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
        raise _from_exception(error) from None


def _from_exception(error: Exception) -> NetworkError:
    if forbidden_address(error):
        return PermanentNetworkError(IssueCode.FORBIDDEN_ADDRESS)
    is_connected = not isinstance(error, aiohttp.ConnectionTimeoutError)
    if isinstance(error, asyncio.TimeoutError) and is_connected:
        return TemporaryNetworkError(IssueCode.TIMEOUT)
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return PermanentNetworkError(IssueCode.UNREACHABLE, "the server's certificate is not trusted")
    if isinstance(error, aiohttp.ClientResponseError):
        return TemporaryNetworkError(IssueCode.INVALID_ANSWER)
    if isinstance(error, ValueError):  # a URL that is none, a header that cannot be sent
        return PermanentNetworkError(IssueCode.INVALID_ANSWER)
    return TemporaryNetworkError(IssueCode.UNREACHABLE)
