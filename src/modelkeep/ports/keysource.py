"""Where the key-encryption key lives; it wraps and unwraps and never gives the key out."""

from __future__ import annotations

from typing import Protocol

from modelkeep.crypto.secret import Secret


class KeySource(Protocol):
    """A holder of one key-encryption key.

    Wrapped bytes are bound to the kind of source that made them: those of another kind, or of
    another program with the same key, are refused. No error holds a secret.
    """

    kind: str
    """What stands in the wrapped root, such as `passphrase`."""

    def wrap(self, key: Secret) -> bytes:
        """Encrypt a 32-byte key, with all that `unwrap` needs but the key-encryption key.

        Raises:
            MissingError: `keysource.missing`, when there is no such key-encryption key.
            RefusedError: `keysource.*`, when its holder refuses us or is not to be trusted.
            UnavailableError: `keysource.unavailable`; again may help.
        """
        ...

    def unwrap(self, wrapped: bytes) -> Secret:
        """Decrypt what `wrap` made.

        Raises:
            RefusedError: `keys.passphrase` or `keys.source`, when the secret is wrong (or the bytes
                were changed: the two cannot be told apart); else as `wrap`.
            IntegrityError: when the bytes are not a wrapped key of this kind at all, or too many.
            MissingError: as `wrap`.
            UnavailableError: as `wrap`.
        """
        ...
