"""A KeySource from a passphrase: Argon2id stretches it, AES-256-GCM wraps with it."""

from __future__ import annotations

from modelkeep.core.errors import IntegrityError, RefusedError
from modelkeep.core.record import Record, from_json, to_json
from modelkeep.crypto.aead import opened_blob, sealed_blob
from modelkeep.crypto.kdf import SALT_BYTES, Argon2Settings, key_from_passphrase
from modelkeep.crypto.secret import Secret
from modelkeep.crypto.wrapped_key import demand_bounded
from modelkeep.ports.entropy import Entropy

_PURPOSE = "keysource/passphrase"


class _Wrapped(Record, frozen=True):
    kdf: str
    settings: Argon2Settings
    salt: bytes
    box: bytes


class PassphraseSource:
    """Holds a passphrase; the key-encryption key exists only while it wraps or unwraps."""

    kind = "passphrase"

    def __init__(self, passphrase: Secret, *, entropy: Entropy, settings: Argon2Settings) -> None:
        self._passphrase = passphrase
        self._entropy = entropy
        self._settings = settings

    def wrap(self, key: Secret) -> bytes:
        salt = self._entropy.random_bytes(SALT_BYTES)
        stretched = key_from_passphrase(self._passphrase, salt=salt, settings=self._settings)
        box = sealed_blob(
            stretched,
            key.reveal(),
            purpose=_PURPOSE,
            salt=self._entropy.random_bytes(SALT_BYTES),
        )
        return to_json(_Wrapped(kdf="argon2id", settings=self._settings, salt=salt, box=box))

    def unwrap(self, wrapped: bytes) -> Secret:
        demand_bounded(wrapped)
        parts = from_json(_Wrapped, wrapped, what="the wrapped root key")
        if parts.kdf != "argon2id":
            raise IntegrityError("keysource.kdf", f"unknown key derivation {parts.kdf[:40]!r}")
        stretched = key_from_passphrase(self._passphrase, salt=parts.salt, settings=parts.settings)
        try:
            key = Secret(opened_blob(stretched, parts.box, purpose=_PURPOSE))
        except IntegrityError as error:
            raise RefusedError(
                "keys.passphrase",
                "this passphrase does not open the keep",
                hint="check the passphrase; a damaged root key looks the same (try another store)",
            ) from error
        if to_json(parts) != wrapped:  # base64 has spare bits: accept the one form that we write
            raise IntegrityError("keysource.form", "the wrapped root key was changed")
        return key
