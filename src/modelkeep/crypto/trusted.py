"""Certificates that are trusted because the operator names them."""

from __future__ import annotations

from cryptography import x509

from modelkeep.core.errors import ConfigError

CERTIFICATES_MAX = 16


def trusted_certificates(pem: bytes, *, what: str) -> tuple[x509.Certificate, ...]:
    """The certificates of a PEM file, at least one.

    Raises:
        ConfigError: `config.certificates`.
    """
    try:
        found = tuple(x509.load_pem_x509_certificates(pem))
    except ValueError as error:
        raise ConfigError("config.certificates", f"{what} holds no certificates: {error}") from None
    if not 0 < len(found) <= CERTIFICATES_MAX:
        raise ConfigError(
            "config.certificates", f"{what} holds {len(found)} certificates, not 1 to 16"
        )
    return found
