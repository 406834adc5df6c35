"""The bytes of a key that something else wraps: bounded, of one form, for one kind of source.

Wrapped bytes are JSON, `{"kind":…,"box":base64}`. What is encrypted inside `box` begins with the
words `modelkeep/v0/keysource/KIND`, and the same words are the associated data wherever the holder
of the key-encryption key takes any. So a box that was made for another kind of source, or by
another program with the same key, never opens as a key of ours; relabelling `kind` changes
nothing.

A passphrase has a form of its own, which also holds its cost (`adapters.keysource_passphrase`).
"""

from __future__ import annotations

import re

from modelkeep.core.errors import IntegrityError, RefusedError
from modelkeep.core.record import Record, from_json, to_json
from modelkeep.crypto.aead import opened_blob, sealed_blob
from modelkeep.crypto.kdf import KEY_BYTES
from modelkeep.crypto.secret import Secret

# What RSA-4096 and the clouds return is under 1 KiB in base64.
WRAPPED_BYTES_MAX = 8192
_HEX_KEY = re.compile(rb"[0-9a-fA-F]{64}\r?\n?")


class WrappedKey(Record, frozen=True):
    """What `wrap` gives and `unwrap` takes."""

    kind: str
    box: bytes


def label_of(kind: str) -> bytes:
    """The words that a wrapped key is bound to."""
    return f"modelkeep/v0/keysource/{kind}".encode()


def wrapped_bytes(kind: str, box: bytes) -> bytes:
    """Write what the holder of the key-encryption key returned."""
    return to_json(WrappedKey(kind=kind, box=box))


def box_of(kind: str, wrapped: bytes) -> bytes:
    """Read what `wrapped_bytes` wrote, and only that.

    Raises:
        IntegrityError: `keysource.size`, `record.json`, `keysource.form` or `keysource.kind`.
    """
    demand_bounded(wrapped)
    parts = from_json(WrappedKey, wrapped, what="the wrapped root key")
    if to_json(parts) != wrapped:  # base64 has spare bits: accept the one form that we write
        raise IntegrityError("keysource.form", "the wrapped root key was changed")
    if parts.kind != kind:
        raise IntegrityError(
            "keysource.kind",
            f"the root key is not wrapped by a source of kind {kind}",
            hint="name the source that wrapped it in `[keys] source`",
        )
    return parts.box


def demand_bounded(wrapped: bytes) -> None:
    """Refuse what no wrapped key is as long as.

    Raises:
        IntegrityError: `keysource.size`.
    """
    if len(wrapped) > WRAPPED_BYTES_MAX:
        raise IntegrityError(
            "keysource.size", "the wrapped root key is too long", got_bytes=len(wrapped)
        )


def labelled_key(kind: str, key: Secret) -> bytes:
    """The plaintext that a KMS encrypts: the label, then the key."""
    if len(key) != KEY_BYTES:
        raise AssertionError("a key is 32 bytes")
    return label_of(kind) + key.reveal()


def key_of_labelled(kind: str, raw: bytes) -> Secret:
    """Take the key out of what a KMS decrypted.

    Raises:
        IntegrityError: `keysource.purpose`.
    """
    label = label_of(kind)
    if len(raw) != len(label) + KEY_BYTES or not raw.startswith(label):
        raise IntegrityError("keysource.purpose", "what was unwrapped is not a root key")
    return Secret(raw[len(label) :])


def sealed_key(wrapping: Secret, key: Secret, *, kind: str, salt: bytes) -> bytes:
    """Wrap a key under 32 bytes that we hold ourselves for a moment."""
    plaintext = labelled_key(kind, key)
    return wrapped_bytes(
        kind, sealed_blob(wrapping, plaintext, purpose=f"keysource/{kind}", salt=salt)
    )


def opened_key(wrapping: Secret, wrapped: bytes, *, kind: str) -> Secret:
    """Unwrap what `sealed_key` made.

    Raises:
        IntegrityError: as `box_of`, or `aead.short`.
        RefusedError: `keys.source`, when the key is wrong or the bytes were changed.
    """
    box = box_of(kind, wrapped)
    try:
        opened = opened_blob(wrapping, box, purpose=f"keysource/{kind}")
    except IntegrityError as error:
        if error.code != "aead.tag":
            raise
        raise RefusedError(
            "keys.source",
            f"the key of this source ({kind}) does not open the keep",
            hint="check `[keys] source`; a damaged root key looks the same (try another store)",
        ) from error
    return key_of_labelled(kind, opened)


def key_of_hex(raw: bytes, *, what: str) -> Secret:
    """Read a key of 32 bytes, written as 64 hex digits and at most one line end.

    Raises:
        IntegrityError: `keysource.key`; the bytes are not repeated.
    """
    if _HEX_KEY.fullmatch(raw) is None:
        raise IntegrityError(
            "keysource.key",
            f"{what} does not hold a key",
            hint="a key is 64 hex digits: `openssl rand -hex 32` makes one",
        )
    return Secret(bytes.fromhex(raw[: 2 * KEY_BYTES].decode()))


def secret_of_text(raw: bytes, *, what: str) -> Secret:
    """Read a PIN, a token, a password or credentials: text, without the line end behind it.

    Raises:
        IntegrityError: `keysource.secret`; the bytes are not repeated.
    """
    text = raw.removesuffix(b"\n").removesuffix(b"\r")
    try:
        lines = text.decode().splitlines()
    except UnicodeDecodeError:
        lines = []
    if not lines or not all(line.replace("\t", "").isprintable() for line in lines):
        raise IntegrityError("keysource.secret", f"{what} does not hold text")
    return Secret(text)
