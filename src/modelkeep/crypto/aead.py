"""AES-256-GCM: one segment of a pack, and one small object under a key of its own.

Nonces never repeat because keys do not: every pack and every small object has a key derived from
a fresh random 256-bit salt, so a cloned machine or a lost counter cannot reuse (key, nonce).
Within a pack the nonce is the segment's number.
"""

from __future__ import annotations

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from modelkeep.core.errors import IntegrityError
from modelkeep.crypto.kdf import SALT_BYTES, derived_key
from modelkeep.crypto.secret import Secret

TAG_BYTES = 16
NONCE_BYTES = 12
BLOB_OVERHEAD_BYTES = SALT_BYTES + TAG_BYTES


class Cipher:
    """AES-256-GCM under one key, for the numbered segments of one pack."""

    __slots__ = ("_aead",)

    def __init__(self, key: Secret) -> None:
        self._aead = AESGCM(key.reveal())

    def seal(self, number: int, plaintext: bytes | memoryview, *, bound: bytes) -> bytes:
        """Encrypt segment `number`; `bound` is authenticated with it."""
        return self._aead.encrypt(number.to_bytes(NONCE_BYTES, "big"), plaintext, bound)

    def open(self, number: int, sealed: bytes | memoryview, *, bound: bytes) -> bytes:
        """Decrypt segment `number`.

        Raises:
            IntegrityError: `aead.tag`; nothing of the plaintext is released.
        """
        try:
            return self._aead.decrypt(number.to_bytes(NONCE_BYTES, "big"), sealed, bound)
        except InvalidTag:
            raise IntegrityError("aead.tag", "a segment does not authenticate") from None

    def open_into(
        self, number: int, sealed: bytes | memoryview, target: memoryview, *, bound: bytes
    ) -> None:
        """Decrypt segment `number` into `target`, which must be exactly as long as the plaintext.

        Raises:
            IntegrityError: `aead.tag`; the target is then zeroed.
        """
        try:
            self._aead.decrypt_into(number.to_bytes(NONCE_BYTES, "big"), sealed, bound, target)
        except InvalidTag:
            target[:] = bytes(len(target))
            raise IntegrityError("aead.tag", "a segment does not authenticate") from None


def sealed_blob(key: Secret, plaintext: bytes, *, purpose: str, salt: bytes) -> bytes:
    """Encrypt a small object: `salt || ciphertext || tag`, under a key of its own.

    Args:
        purpose: binds the bytes to what they are for (`snapshot:default`); a blob moved to another
            purpose does not open.
        salt: 32 fresh random bytes.
    """
    if len(salt) != SALT_BYTES:
        raise AssertionError("a blob's salt is 32 bytes")
    own = derived_key(key, "blob/" + purpose, salt=salt)
    return salt + AESGCM(own.reveal()).encrypt(bytes(NONCE_BYTES), plaintext, purpose.encode())


def opened_blob(key: Secret, blob: bytes, *, purpose: str) -> bytes:
    """Decrypt what `sealed_blob` made.

    Raises:
        IntegrityError: `aead.short` or `aead.tag`.
    """
    if len(blob) < BLOB_OVERHEAD_BYTES:
        raise IntegrityError("aead.short", "a sealed object is cut short", got_bytes=len(blob))
    own = derived_key(key, "blob/" + purpose, salt=blob[:SALT_BYTES])
    try:
        return AESGCM(own.reveal()).decrypt(bytes(NONCE_BYTES), blob[SALT_BYTES:], purpose.encode())
    except InvalidTag:
        raise IntegrityError(
            "aead.tag", f"a sealed object ({purpose}) does not authenticate"
        ) from None
