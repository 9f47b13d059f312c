"""Certificates and keys that a customer gives for the TLS of an endpoint: read, checked, and told what is wrong."""

import ssl
from collections.abc import Sequence
from datetime import datetime

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from chartwire.errors import BadRequestError
from chartwire.model.webhook import CertificateMark, EndpointTls
from chartwire.tls import TlsProfile, make_context

_MOST_CERTIFICATES = 20
_LARGEST_RSA_BITS = 8192  # each handshake would hold up all others for a tenth of a second, and a larger one for more


def check_tls(given: TlsProfile, now: datetime) -> tuple[TlsProfile, EndpointTls]:
    """The profile with nothing but PEM in it, and what may be told of it. Raises `BadRequestError`; it quotes nothing.

    A private key is not asked whether it is sound, which takes long: see `chartwire.tls`.
    """
    authorities = _certificates("tls.authority", given.authority, now)
    chain = _certificates("tls.certificate", given.certificate, now)
    private_key = _private_key(given.private_key, chain)
    if not authorities and not chain:
        raise BadRequestError("tls: give an authority, or a certificate with its privateKey")
    profile = TlsProfile(_pem(authorities), _pem(chain), private_key)
    try:
        make_context(profile)
    except ssl.SSLError as error:
        raise BadRequestError(f"tls: it cannot be used: {error.reason or 'TLS does not accept it'}") from None
    certificate = _mark(chain[0]) if chain else None
    return profile, EndpointTls(tuple(_mark(each) for each in authorities), certificate)


def _certificates(name: str, text: str | None, now: datetime) -> Sequence[x509.Certificate]:
    if text is None:
        return ()
    try:
        found = x509.load_pem_x509_certificates(text.encode())
    except ValueError:
        raise BadRequestError(f"{name}: it does not hold certificates in PEM") from None
    if len(found) > _MOST_CERTIFICATES:
        raise BadRequestError(f"{name}: at most {_MOST_CERTIFICATES} certificates")
    if any(each.not_valid_after_utc <= now for each in found):
        raise BadRequestError(f"{name}: a certificate has expired")
    return found


def _private_key(text: str | None, chain: Sequence[x509.Certificate]) -> str | None:
    """In PKCS #8, if it belongs to the first certificate of the chain."""
    if (text is None) != (not chain):
        raise BadRequestError("tls: certificate and privateKey go together")
    if text is None:
        return None
    try:
        key = load_pem_private_key(text.encode(), None, unsafe_skip_rsa_key_validation=True)
        belongs = key.public_key() == chain[0].public_key()
    except TypeError:
        raise BadRequestError("tls.privateKey: it is under a password: give it without one") from None
    except (ValueError, UnsupportedAlgorithm):
        raise BadRequestError("tls.privateKey: it is not a private key in PEM") from None
    if isinstance(key, RSAPrivateKey) and key.key_size > _LARGEST_RSA_BITS:
        raise BadRequestError(f"tls.privateKey: it has more than {_LARGEST_RSA_BITS} bits")
    if not belongs:
        raise BadRequestError("tls.privateKey: it does not belong to the first certificate of tls.certificate")
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def _pem(certificates: Sequence[x509.Certificate]) -> str | None:
    return "".join(each.public_bytes(Encoding.PEM).decode() for each in certificates) or None


def _mark(certificate: x509.Certificate) -> CertificateMark:
    return CertificateMark(certificate.fingerprint(SHA256()).hex(), certificate.not_valid_after_utc)
