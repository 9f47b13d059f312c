"""The HTTP client that tests ask a server of theirs with."""

import ssl
from typing import Any

import httpx
from tests.support.patience import PATIENCE_SECONDS

_NO_AUTHORITY = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def http_client(**options: Any) -> httpx.AsyncClient:
    """An `httpx.AsyncClient` for plain HTTP: reading the system's authorities would cost more than most tests."""
    return httpx.AsyncClient(**{"verify": _NO_AUTHORITY, "timeout": PATIENCE_SECONDS, **options})
