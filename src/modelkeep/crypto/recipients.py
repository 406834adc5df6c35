"""Identities and their recipients: who can open what was encrypted to a public key.

An identity is 32 random bytes, its seed, and everything follows from them:

    seed --HKDF "identity/open"--> X-Wing decapsulation key (32 bytes)
    seed --HKDF "identity/sign"--> Ed25519 seed

X-Wing (draft-connolly-cfrg-xwing-kem) expands its 32 bytes with SHAKE-256 to the seed of an
ML-KEM-768 key (64 bytes) and an X25519 scalar (32 bytes). The public half, the recipient, is the
ML-KEM key (1184 bytes) and the X25519 key (32 bytes).

One 32-byte key is sealed to one recipient by HPKE (RFC 9180), base mode: KEM 0x647a (X-Wing),
HKDF-SHA-256, AES-256-GCM; `info` says what for, and it opens under the same words only. It stays
closed while one of the two problems below it is hard. Base mode says nothing about who sealed:
attribution is a signature's work.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import (
    AEAD,
    KDF,
    KEM,
    MLKEM768X25519PrivateKey,
    MLKEM768X25519PublicKey,
    Suite,
)

from modelkeep.core.errors import IntegrityError, UsageError
from modelkeep.crypto.kdf import KEY_BYTES, derived_key
from modelkeep.crypto.keytext import SEED_BYTES, recipient_bytes, recipient_text
from modelkeep.crypto.secret import Secret
from modelkeep.crypto.signatures import Signer

# Encapsulated key (1120), key (32), tag (16).
SEALED_KEY_BYTES = 1168

_MLKEM_SEED_BYTES = 64
_X25519_BYTES = 32
_MLKEM_PUBLIC_BYTES = 1184
_INFO = b"modelkeep/v0/recipient/"


@dataclass(frozen=True, slots=True)
class Recipient:
    """A public key that was found usable; `recipient_of`, `parsed_recipient`, Identity make it."""

    raw: bytes

    def __str__(self) -> str:
        """The text that a person pastes: `mkr1…`."""
        return recipient_text(self.raw)


class Identity:
    """The private half: opens what was sealed to its recipient, and signs.

    Attributes:
        seed: the 32 bytes that are the whole identity.
        signer: signs in its name; `signer.public` is what others verify with.
    """

    __slots__ = ("_private", "recipient", "seed", "signer")

    def __init__(self, seed: Secret) -> None:
        if len(seed) != SEED_BYTES:
            raise AssertionError("the seed of an identity is 32 bytes")
        self._private, public = _key_pair(derived_key(seed, "identity/open"))
        self.seed = seed
        self.signer = Signer(derived_key(seed, "identity/sign"))
        self.recipient = Recipient(public)

    def __repr__(self) -> str:
        return "Identity(…)"

    def opened(self, sealed: bytes, *, info: bytes) -> Secret:
        """Open what `sealed_to` made for this identity.

        Raises:
            IntegrityError: `recipient.sealed`: made for another key or another use, or altered;
                which of them it was cannot be told apart.
        """
        try:
            if len(sealed) != SEALED_KEY_BYTES:
                raise InvalidTag
            return Secret(_suite().decrypt(sealed, self._private, _INFO + info))
        except (InvalidTag, ValueError):
            raise IntegrityError(
                "recipient.sealed", "a sealed key does not open with this identity, or was altered"
            ) from None


def new_identity(random_bytes: Callable[[int], bytes]) -> Identity:
    """A fresh identity; `random_bytes` is an Entropy's."""
    return Identity(Secret(random_bytes(SEED_BYTES)))


def recipient_of(raw: bytes) -> Recipient:
    """Check the bytes of a public key by sealing something to it.

    Raises:
        UsageError: `recipient.key`.
    """
    try:
        _suite().encrypt(b"", _public(raw))
    except ValueError:  # a length, a coefficient outside the field, a point of low order
        raise UsageError("recipient.key", "this is no public key that one can encrypt to") from None
    return Recipient(raw)


def parsed_recipient(text: str) -> Recipient:
    """Read `mkr1…`, exactly.

    Raises:
        UsageError: `key.recipient` or `recipient.key`.
    """
    return recipient_of(recipient_bytes(text))


def sealed_to(recipient: Recipient, secret: Secret, *, info: bytes) -> bytes:
    """Seal one 32-byte key so that only the recipient can open it: `SEALED_KEY_BYTES` long.

    Args:
        info: what it is for; bound, not stored.
    """
    if len(secret) != KEY_BYTES:
        raise AssertionError("what is sealed to a recipient is one 32-byte key")
    return _suite().encrypt(secret.reveal(), _public(recipient.raw), _INFO + info)


def opened_by(identity: Identity, sealed: bytes, *, info: bytes) -> Secret:
    """Open what `sealed_to` made: `identity.opened` as a function.

    Raises:
        IntegrityError: `recipient.sealed`.
    """
    return identity.opened(sealed, info=info)


def _suite() -> Suite:
    return Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)


def _key_pair(decapsulation_key: Secret) -> tuple[MLKEM768X25519PrivateKey, bytes]:
    """X-Wing's key pair from its 32-byte private key, and the bytes of the public key."""
    expanded = hashlib.shake_256(decapsulation_key.reveal()).digest(
        _MLKEM_SEED_BYTES + _X25519_BYTES
    )
    mlkem = MLKEM768PrivateKey.from_seed_bytes(expanded[:_MLKEM_SEED_BYTES])
    x25519 = X25519PrivateKey.from_private_bytes(expanded[_MLKEM_SEED_BYTES:])
    public = mlkem.public_key().public_bytes_raw() + x25519.public_key().public_bytes_raw()
    return MLKEM768X25519PrivateKey(mlkem, x25519), public


def _public(raw: bytes) -> MLKEM768X25519PublicKey:
    return MLKEM768X25519PublicKey(
        MLKEM768PublicKey.from_public_bytes(raw[:_MLKEM_PUBLIC_BYTES]),
        X25519PublicKey.from_public_bytes(raw[_MLKEM_PUBLIC_BYTES:]),
    )
