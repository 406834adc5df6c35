"""RSA for those who have such keys: OAEP (RFC 8017) with SHA-256 as hash and in MGF1.

The label binds a wrapped key to its use. A modulus has 2048 to 8192 bits: below it is weak, above
it costs seconds and nobody uses it. PSS is a signature padding and has no place here.
"""

from __future__ import annotations

from dataclasses import dataclass

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, OAEP
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key

from modelkeep.core.errors import IntegrityError, UsageError
from modelkeep.crypto.kdf import KEY_BYTES
from modelkeep.crypto.secret import Secret

BITS_MIN = 2048
BITS_MAX = 8192


@dataclass(frozen=True, slots=True)
class RsaRecipient:
    """A public key of a size that one may encrypt to; `rsa_recipient` makes it."""

    key: RSAPublicKey

    def sealed(self, secret: Secret, *, label: bytes) -> bytes:
        """Encrypt one 32-byte key; as long as the modulus."""
        if len(secret) != KEY_BYTES:
            raise AssertionError("what is sealed to an RSA key is one 32-byte key")
        return self.key.encrypt(secret.reveal(), _oaep(label))


@dataclass(frozen=True, slots=True, repr=False)
class RsaIdentity:
    """A private key of such a size; `rsa_identity` makes it."""

    key: RSAPrivateKey

    def opened(self, sealed: bytes, *, label: bytes) -> Secret:
        """Decrypt what `RsaRecipient.sealed` made.

        Raises:
            IntegrityError: `rsa.sealed`: another key, another use, or altered.
        """
        try:
            raw = self.key.decrypt(sealed, _oaep(label))
        except ValueError:
            raw = b""
        if len(raw) != KEY_BYTES:
            raise IntegrityError(
                "rsa.sealed", "a sealed key does not open with this RSA key, or was altered"
            )
        return Secret(raw)


def rsa_recipient(pem: bytes) -> RsaRecipient:
    """Read a public key from PEM (SubjectPublicKeyInfo or PKCS#1).

    Raises:
        UsageError: `rsa.key` or `rsa.size`.
    """
    try:
        key = load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, RSAPublicKey):
        raise UsageError("rsa.key", "this is no RSA public key in PEM form")
    _demand_size(key.key_size)
    return RsaRecipient(key)


def rsa_identity(pem: Secret) -> RsaIdentity:
    """Read a private key from PEM (PKCS#8 or PKCS#1), without a password.

    Raises:
        UsageError: `rsa.key` or `rsa.size`.
    """
    try:
        key = load_pem_private_key(pem.reveal(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):  # TypeError: it is encrypted
        key = None
    if not isinstance(key, RSAPrivateKey):
        raise UsageError(
            "rsa.key",
            "this is no RSA private key in PEM form, or it is encrypted",
            hint="an encrypted one: `openssl rsa -in key.pem -out plain.pem`, in a safe place",
        )
    _demand_size(key.key_size)
    return RsaIdentity(key)


def _demand_size(bits: int) -> None:
    if not BITS_MIN <= bits <= BITS_MAX:
        raise UsageError(
            "rsa.size",
            f"an RSA key has {BITS_MIN} to {BITS_MAX} bits here, not {bits}",
            hint="use a recipient that begins with mkr1",
        )


def _oaep(label: bytes) -> OAEP:
    return OAEP(mgf=MGF1(SHA256()), algorithm=SHA256(), label=label)
