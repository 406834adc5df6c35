"""Text forms of keys: a prefix that says what it is, base32, a check against slips of the hand.

    mkr1…                     recipient: encrypt to it          1956 characters
    mkv1…                     verifier: check signatures by it    60 characters
    MODELKEEP-SECRET-KEY-1…   identity: opens and signs           86 characters

Base32 (RFC 4648) survives a change of case and a double click. Behind the key stand 3 to 8 bytes
of SHA-256 over prefix and key, as many as make the whole a multiple of five bytes, so that base32
needs no padding and every key has one spelling. The check finds mistakes, not attacks.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import dataclass

from modelkeep.core.errors import UsageError
from modelkeep.crypto.secret import Secret
from modelkeep.crypto.signatures import PUBLIC_KEY_BYTES

SEED_BYTES = 32
RECIPIENT_BYTES = 1216


@dataclass(frozen=True, slots=True)
class _Form:
    """How one kind of key is spelled."""

    prefix: str
    key_bytes: int
    check_bytes: int

    @property
    def length(self) -> int:
        return len(self.prefix) + (self.key_bytes + self.check_bytes) * 8 // 5


RECIPIENT = _Form("mkr1", RECIPIENT_BYTES, 4)
VERIFIER = _Form("mkv1", PUBLIC_KEY_BYTES, 3)
SECRET_KEY = _Form("MODELKEEP-SECRET-KEY-1", SEED_BYTES, 8)


def recipient_text(raw: bytes) -> str:
    """Spell the bytes of a recipient."""
    return _spelled(RECIPIENT, raw)


def recipient_bytes(text: str) -> bytes:
    """Read `mkr1…`; what comes back has the right length and is not proven to be a key.

    Raises:
        UsageError: `key.recipient`.
    """
    raw = _read(RECIPIENT, text)
    if raw is None:
        raise UsageError(
            "key.recipient",
            "this is no recipient, or a part of it was lost or mistyped",
            hint="a recipient is one long word that begins with mkr1; copy it whole",
        )
    return raw


def verifier_text(public: bytes) -> str:
    """Spell an Ed25519 public key."""
    return _spelled(VERIFIER, public)


def verifier_bytes(text: str) -> bytes:
    """Read `mkv1…`.

    Raises:
        UsageError: `key.verifier`.
    """
    raw = _read(VERIFIER, text)
    if raw is None:
        raise UsageError(
            "key.verifier",
            "this is no verifier, or a part of it was lost or mistyped",
            hint="a verifier is one word that begins with mkv1; copy it whole",
        )
    return raw


def secret_key_text(seed: Secret) -> Secret:
    """Spell the seed of an identity, for a file that nobody else can read."""
    return Secret(_spelled(SECRET_KEY, seed.reveal()).encode())


def secret_key_seed(text: Secret) -> Secret:
    """Read `MODELKEEP-SECRET-KEY-1…`.

    Raises:
        UsageError: `key.secret`.
    """
    raw = _read(SECRET_KEY, text.reveal().decode("ascii", errors="replace"))
    if raw is None:
        raise UsageError(
            "key.secret",
            "this is no modelkeep secret key, or a part of it was lost or mistyped",
            hint="it is one word that begins with MODELKEEP-SECRET-KEY-1",
        )
    return Secret(raw)


def _spelled(form: _Form, raw: bytes) -> str:
    if len(raw) != form.key_bytes:
        raise AssertionError(f"a key of this kind has {form.key_bytes} bytes, not {len(raw)}")
    body = base64.b32encode(raw + _check(form, raw)).decode()
    return form.prefix + (body if form.prefix.isupper() else body.lower())


def _read(form: _Form, text: str) -> bytes | None:
    """The bytes behind a text in one case, or None."""
    if len(text) != form.length or not text.isascii() or text not in (text.upper(), text.lower()):
        return None
    if text[: len(form.prefix)].upper() != form.prefix.upper():
        return None
    try:
        both = base64.b32decode(text[len(form.prefix) :].upper())
    except binascii.Error:
        return None
    raw, check = both[: form.key_bytes], both[form.key_bytes :]
    return raw if check == _check(form, raw) else None


def _check(form: _Form, raw: bytes) -> bytes:
    words = b"modelkeep/v0/keytext/" + form.prefix.encode() + b"\0"
    return hashlib.sha256(words + raw).digest()[: form.check_bytes]
