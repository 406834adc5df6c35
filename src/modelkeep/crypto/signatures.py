"""Ed25519 (RFC 8032) over exact bytes, each signature bound to one context."""

from __future__ import annotations

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)

from modelkeep.core.errors import IntegrityError
from modelkeep.crypto.secret import Secret

SIGNATURE_BYTES = 64
PUBLIC_KEY_BYTES = 32


class Signer:
    """A private key that signs and says its public half."""

    __slots__ = ("_private", "public")

    def __init__(self, seed: Secret) -> None:
        self._private = Ed25519PrivateKey.from_private_bytes(seed.reveal())
        self.public: bytes = self._private.public_key().public_bytes_raw()

    def sign(self, message: bytes, *, context: str) -> bytes:
        """Sign `context || 0x00 || message`, so that no signature serves two purposes."""
        return self._private.sign(_bound(message, context))

    def sign_bare(self, message: bytes) -> bytes:
        """Sign the message alone, for formats that fix what is signed (C2SP signed note)."""
        return self._private.sign(message)


def verify(signature: bytes, message: bytes, *, context: str, public: bytes) -> None:
    """Check a signature made by `Signer.sign`.

    Raises:
        IntegrityError: `signature.bad`, for a wrong or malformed signature or key.
    """
    verify_bare(signature, _bound(message, context), public=public)


def verify_bare(signature: bytes, message: bytes, *, public: bytes) -> None:
    """Check a signature made by `Signer.sign_bare`.

    Raises:
        IntegrityError: `signature.bad`, for a wrong or malformed signature or key.
    """
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
    except (InvalidSignature, ValueError):
        raise IntegrityError("signature.bad", "a signature does not verify") from None


def _bound(message: bytes, context: str) -> bytes:
    return b"modelkeep/v0/" + context.encode() + b"\0" + message
