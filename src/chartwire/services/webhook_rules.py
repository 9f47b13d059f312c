"""What a customer may set on an endpoint."""

import re
from collections.abc import Mapping

from chartwire.errors import BadRequestError

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}")  # RFC 9110 §5.6.2
_VALUE = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]{0,1022}[\x21-\x7e])?")
_MOST_HEADERS = 20
_OURS = frozenset(
    {"x-metriport-signature", "x-webhook-key", "host", "user-agent", "accept-encoding", "expect", "traceparent"}
)
_OF_THE_CONNECTION = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
_PREFIXES_OF_OURS = ("content-", "webhook-")


def check_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Custom headers with their names in lower case. Raises `BadRequestError`, which quotes no value."""
    if len(headers) > _MOST_HEADERS:
        raise BadRequestError(f"headers: at most {_MOST_HEADERS}")
    checked = {name.lower(): value for name, value in headers.items()}
    if len(checked) < len(headers):
        raise BadRequestError("headers: a name is given twice")
    for name, value in checked.items():
        _check_header(name, value)
    return checked


def _check_header(name: str, value: str) -> None:
    if not _TOKEN.fullmatch(name):
        raise BadRequestError("headers: a name is not one that HTTP allows")
    if name in _OURS | _OF_THE_CONNECTION or name.startswith(_PREFIXES_OF_OURS):
        raise BadRequestError(f"headers: {name} cannot be set")
    if not _VALUE.fullmatch(value):
        raise BadRequestError(f"headers: the value of {name} must be 1 to 1024 printable ASCII characters")
