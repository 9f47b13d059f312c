"""TLS as we speak it: 1.2 or later, certificates and names verified, and what an endpoint asks beyond that."""

import secrets
import ssl
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives import serialization


@dataclass(frozen=True, slots=True)
class TlsProfile:
    """What an endpoint asks of TLS beyond the system's authorities; each in PEM.

    `authority` holds certificates that are trusted instead of the system's. `certificate` (with its chain) and
    `private_key` are shown to a receiver that asks who is calling.
    """

    authority: str | None = None
    certificate: str | None = None
    private_key: str | None = field(default=None, repr=False)


def default_ssl_context() -> ssl.SSLContext:
    """The system's authorities are trusted."""
    return _verifying(None)


def make_context(profile: TlsProfile) -> ssl.SSLContext:
    """As the profile says. Raises `ssl.SSLError` for one that cannot be used."""
    try:
        context = _verifying(profile.authority)
        if profile.certificate is not None and profile.private_key is not None:
            _load_certificate(context, profile.certificate, profile.private_key)
    except (ValueError, TypeError) as error:  # a key or certificate that cannot be read
        raise ssl.SSLError("the TLS profile cannot be used") from error
    return context


def _verifying(authority: str | None) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=authority)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _load_certificate(context: ssl.SSLContext, certificate: str, private_key: str) -> None:
    """OpenSSL reads files alone: the key is written under a password that is forgotten when it has been read.

    Whether an RSA key is sound is not asked: the event loop would wait ten seconds for a large one, and it is the
    customer's own.
    """
    password = secrets.token_bytes(32).hex().encode()
    key = serialization.load_pem_private_key(private_key.encode(), None, unsafe_skip_rsa_key_validation=True)
    sealed = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(password),
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "certificate.pem")
        path.write_bytes(sealed + certificate.encode())
        context.load_cert_chain(path, password=password)
