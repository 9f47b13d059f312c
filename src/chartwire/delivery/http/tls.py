"""TLS contexts by profile, made once each."""

import ssl
from collections.abc import Callable
from functools import lru_cache

from chartwire.tls import TlsProfile, default_ssl_context, make_context

_MANY = 256  # profiles whose contexts are kept


class TlsContexts:
    """One context per profile; the same one each time, so that connections and sessions can be used again."""

    def __init__(self, default: ssl.SSLContext | None = None) -> None:
        self._default = default or default_ssl_context()
        self._own: Callable[[TlsProfile], ssl.SSLContext] = lru_cache(maxsize=_MANY)(make_context)

    def get(self, profile: TlsProfile | None) -> ssl.SSLContext:
        """Raises `ssl.SSLError` for a profile that cannot be used."""
        return self._default if profile is None else self._own(profile)
