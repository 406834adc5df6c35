"""Where the key-encryption key lives; it wraps and unwraps and never gives the key out."""

from __future__ import annotations

from typing import Protocol

from modelkeep.crypto.secret import Secret


class KeySource(Protocol):
    """A holder of one key-encryption key."""

    kind: str
    """What stands in the wrapped root, such as `passphrase`."""

    def wrap(self, key: Secret) -> bytes:
        """Encrypt a key under the key-encryption key, with all that `unwrap` needs but the secret.

        Raises:
            UnavailableError: `keysource.unavailable`.
        """
        ...

    def unwrap(self, wrapped: bytes) -> Secret:
        """Decrypt what `wrap` made.

        Raises:
            RefusedError: `keys.passphrase`, when the secret is wrong (or the bytes were changed:
                the two cannot be told apart).
            IntegrityError: when the bytes are not a wrapped key at all.
        """
        ...
