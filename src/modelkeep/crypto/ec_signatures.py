"""Signatures with elliptic-curve keys (ECDSA, FIPS 186-5), for formats that want no Ed25519.

Ours are made with P-256 and SHA-256, deterministically (RFC 6979), so that one text has one
signature. Others may sign with P-384 and SHA-384, or with P-521 and SHA-512.

A private key is derived from a seed: 512 bits of it, modulo n - 1, plus 1. FIPS 186-5, A.2.1, asks
for 64 bits more than the order has, so that no key is noticeably likelier than another.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import (
    ECDSA,
    SECP256R1,
    EllipticCurvePrivateKey,
    EllipticCurvePublicKey,
    derive_private_key,
)
from cryptography.hazmat.primitives.hashes import SHA256, SHA384, SHA512, HashAlgorithm
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_public_key,
)

from modelkeep.core.errors import IntegrityError, UsageError
from modelkeep.crypto.kdf import derived_key
from modelkeep.crypto.secret import Secret

_HASHES: Mapping[str, HashAlgorithm] = {
    "secp256r1": SHA256(),
    "secp384r1": SHA384(),
    "secp521r1": SHA512(),
}
# Of P-256, SP 800-186, 3.2.1.3.
_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


@dataclass(frozen=True, slots=True)
class EcPublic:
    """A public key on a curve that is taken; `ec_public` and `taken` make it."""

    key: EllipticCurvePublicKey

    @property
    def pem(self) -> bytes:
        """SubjectPublicKeyInfo in PEM, as OpenSSL writes it."""
        return self.key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the PEM text, in hex: what OMS calls a hint."""
        return hashlib.sha256(self.pem).hexdigest()

    def demand(self, signature: bytes, message: bytes) -> None:
        """Check a signature, DER.

        Raises:
            IntegrityError: `ec.signature`.
        """
        try:
            self.key.verify(signature, message, ECDSA(_HASHES[self.key.curve.name]))
        except InvalidSignature:
            raise IntegrityError(
                "ec.signature", "the signature is not of these bytes, or of another key"
            ) from None


class EcSigner:
    """A P-256 key that is derived from a seed."""

    __slots__ = ("_private",)

    def __init__(self, seed: Secret) -> None:
        self._private = _derived(seed)

    @property
    def public(self) -> EcPublic:
        """What others verify with."""
        return EcPublic(self._private.public_key())

    def sign(self, message: bytes) -> bytes:
        """The signature, DER; the same for the same message."""
        return self._private.sign(message, ECDSA(SHA256(), deterministic_signing=True))


def ec_public(pem: bytes) -> EcPublic:
    """Read a public key from PEM.

    Raises:
        UsageError: `ec.key`.
    """
    try:
        return taken(load_pem_public_key(pem))
    except (ValueError, UnsupportedAlgorithm):
        raise UsageError("ec.key", "this is no public key in PEM form") from None


def taken(key: object) -> EcPublic:
    """Accept a public key that signatures may be checked with.

    Raises:
        UsageError: `ec.key`.
    """
    if not isinstance(key, EllipticCurvePublicKey) or key.curve.name not in _HASHES:
        raise UsageError("ec.key", "this is no elliptic-curve key on P-256, P-384 or P-521")
    return EcPublic(key)


def _derived(seed: Secret) -> EllipticCurvePrivateKey:
    drawn = b"".join(derived_key(seed, f"ec-p256/{half}").reveal() for half in ("0", "1"))
    return derive_private_key(int.from_bytes(drawn) % (_ORDER - 1) + 1, SECP256R1())
