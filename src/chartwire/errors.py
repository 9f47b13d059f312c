"""Every error that Chartwire raises on purpose.

    ChartwireError
    ├── CustomerError                 has an HTTP status; its message is written for the customer
    │   ├── BadRequestError           400  a business rule says no
    │   │   └── InvalidElementError   400  an element of a FHIR resource is not what FHIR says it is
    │   │       └── UnacceptableElementError  422  it is good FHIR, but this server does not take it
    │   ├── ForbiddenError            403  the key may not do this
    │   ├── NotFoundError             404  absent, or somebody else's: the two are never told apart
    │   ├── ConflictError             409  the thing is not in a state that allows this
    │   ├── VersionMismatchError      412  If-Match names an older version
    │   ├── PayloadTooLargeError      413  the body is over the limit
    │   ├── LockedError               423  the patient is being queried
    │   └── TooManyRequestsError      429  a rate limit; answered as plain text
    ├── TokenRequestError             a token is refused; `code` is OAuth's (RFC 6749 §5.2)
    ├── ConfigurationError            a setting is wrong: the start stops with this one line
    ├── InvalidUrlError               a URL may not be used; its message is written for the customer
    ├── ForbiddenAddressError         the address rule refuses a connection; never says which address
    ├── NetworkError                  a health network could not answer; see `retryable`
    │   ├── TemporaryNetworkError     asked again later
    │   └── PermanentNetworkError     asking again would not help
    ├── DocumentTooLargeError         a network's document is over the limit
    ├── CcdaError                     bytes are not a C-CDA document that can be shown
    ├── StoreError                    the database or the disk did not do its part
    │   └── ContentLostError          bytes that were kept are gone, or in a form of another release
    ├── BusError                      the broker did not take what it was handed, or may not have
    └── SealBrokenError               sealed bytes were altered, or sealed under another master key

No message ever holds health data, a name, a patient's id, a token, or a URL with an id in it.
"""

from enum import StrEnum
from typing import ClassVar


class ChartwireError(Exception):
    """Something went wrong inside Chartwire."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or (type(self).__doc__ or "").strip())


class CustomerError(ChartwireError):
    """The request cannot be carried out."""

    status: ClassVar[int] = 500
    title: ClassVar[str] = "MetriportError"

    def __init__(self, message: str | None = None, additional_info: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.additional_info = additional_info


class BadRequestError(CustomerError):
    """The request breaks a rule."""

    status = 400
    title = "BadRequestError"


class InvalidElementError(BadRequestError):
    """An element of the resource is not valid."""

    def __init__(self, element: str, message: str) -> None:
        """`element` is its path below the resource, such as `channel.endpoint`; empty: the resource itself."""
        super().__init__(message)
        self.element = element


class UnacceptableElementError(InvalidElementError):
    """An element of the resource is not accepted here."""

    status = 422
    title = "UnacceptableElementError"


class ForbiddenError(CustomerError):
    """Forbidden"""

    status = 403
    title = "ForbiddenError"


class NotFoundError(CustomerError):
    """Could not find the resource"""

    status = 404
    title = "NotFoundError"


class ConflictError(CustomerError):
    """The resource is not in a state that allows this"""

    status = 409
    title = "ConflictError"


class VersionMismatchError(CustomerError):
    """The eTag of the request does not match the current version: get the resource again and retry"""

    status = 412
    title = "VersionMismatchError"


class PayloadTooLargeError(CustomerError):
    """The request body is too large"""

    status = 413
    title = "PayloadTooLargeError"


class LockedError(CustomerError):
    """A document query of this patient is in progress"""

    status = 423
    title = "LockedError"


class TooManyRequestsError(CustomerError):
    """Too many requests, please try again later."""

    status = 429
    title = "TooManyRequestsError"

    def __init__(self, message: str, limit: int, remaining: int, reset_seconds: int, window_seconds: int) -> None:
        super().__init__(message)
        self.limit = limit
        self.remaining = remaining
        self.reset_seconds = reset_seconds
        self.window_seconds = window_seconds


class TokenRequestError(ChartwireError):
    """An access token was asked for in a way that is refused."""

    def __init__(self, code: str, message: str) -> None:
        """`code`: `invalid_request`, `invalid_client`, `unsupported_grant_type` or `invalid_scope`."""
        super().__init__(message)
        self.code = code


class ConfigurationError(ChartwireError):
    """A setting is wrong."""


class InvalidUrlError(ChartwireError):
    """The URL may not be used."""


class ForbiddenAddressError(ChartwireError):
    """The address is not allowed."""


class IssueCode(StrEnum):
    """Why a network, or one of its documents, did not give what was asked: shown to customers, safe to log."""

    TIMEOUT = "timeout"
    UNREACHABLE = "unreachable"
    THROTTLED = "throttled"
    SERVER_ERROR = "server-error"
    UNAUTHORIZED = "unauthorized"
    FORBIDDEN = "forbidden"
    NOT_FOUND = "not-found"
    GONE = "gone"
    REJECTED = "rejected"
    INVALID_ANSWER = "invalid-answer"
    FORBIDDEN_ADDRESS = "forbidden-address"
    FOREIGN_ORIGIN = "foreign-origin"
    TOO_LARGE = "too-large"
    TOO_MANY_PAGES = "too-many-pages"
    NO_CONTENT = "no-content"
    INTEGRITY = "integrity"
    WRONG_PATIENT = "wrong-patient"
    MULTIPLE_CANDIDATES = "multiple-candidates"
    NEEDS_MORE_DEMOGRAPHICS = "needs-more-demographics"
    NO_CONSENT = "no-consent"
    INTERNAL = "internal"


class NetworkError(ChartwireError):
    """A health network could not answer."""

    retryable: ClassVar[bool] = False

    def __init__(self, code: IssueCode, message: str | None = None, retry_after: float | None = None) -> None:
        """`retry_after`: seconds the network asked us to wait, already clamped by the connector."""
        super().__init__(message or code.value)
        self.code = code
        self.retry_after = retry_after


class TemporaryNetworkError(NetworkError):
    """The network may answer later."""

    retryable = True


class NotAskedError(TemporaryNetworkError):
    """The network did not answer others lately, and was not asked; it may be after `retry_after` seconds."""


class PermanentNetworkError(NetworkError):
    """Asking this network again would not help."""


class DocumentTooLargeError(ChartwireError):
    """The document is larger than this installation accepts."""


class CcdaError(ChartwireError):
    """The document is not a C-CDA document that can be shown."""


class StoreError(ChartwireError):
    """The store could not keep or give what it was asked."""


class ContentLostError(StoreError):
    """What was kept is not there, and waiting will not bring it back."""


class BusError(ChartwireError):
    """The broker is not to be had."""


class SealBrokenError(ChartwireError):
    """Sealed bytes were altered, or sealed under another master key."""
