"""Who sees the root: it opens and seals keyrings, splits the way to them, and gives no root out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from modelkeep.core.record import Record
from modelkeep.crypto.kdf import Argon2Settings
from modelkeep.crypto.keyring import LockedRing, RingBody
from modelkeep.crypto.secret import Secret

PASSPHRASE = "passphrase"  # noqa: S105 - the name of a source


@dataclass(frozen=True, slots=True)
class Means:
    """What a keyring is opened with: a key source, or a private key that was kept for a bad day.

    Attributes:
        source: reference of the key source (`passphrase`, `file:…`, `exec:…`, `kms:…`); empty
            for the one that modelkeep.toml names.
        passphrase: for the source `passphrase`.
        words: shares of a split recovery key.
        identity: 32-byte seed of an escrow recipient's private key.
        argon2: cost of a passphrase when the root is wrapped anew.
    """

    source: str = ""
    passphrase: Secret | None = None
    words: tuple[str, ...] = field(default=(), repr=False)
    identity: Secret | None = None
    argon2: Argon2Settings = field(default_factory=Argon2Settings)


class RootRecipient(Record, frozen=True):
    """A public key that the root is sealed to, beside its key source.

    Attributes:
        kind: `shares` or `escrow`.
        text: `mkr1…`.
        note: for people, such as `3 of 5 shares`.
    """

    kind: str
    text: str
    note: str = ""


class Holders(Record, frozen=True):
    """Who is to hold the root from now on.

    Attributes:
        source: reference of a key source; empty keeps the one that opened the keep.
        passphrase: for the source `passphrase`, where it is not the one that opened the keep.
        recipients: recovery keys and escrow recipients.
    """

    source: str = ""
    passphrase: bytes = b""
    recipients: tuple[RootRecipient, ...] = ()

    def __repr__(self) -> str:
        """Passphrases never print."""
        return f"Holders({self.source or 'as before'}, {len(self.recipients)} recipients)"


class Split(Record, frozen=True):
    """A new recovery key.

    Attributes:
        words: one SLIP-39 mnemonic per share; they exist nowhere else.
        recipient: its public key, for `Holders.recipients`.
    """

    words: tuple[str, ...]
    recipient: str

    def __repr__(self) -> str:
        """Words never print."""
        return f"Split({len(self.words)} shares)"


class Keyholder(Protocol):
    """The only one that sees a key-encryption key or the root."""

    def unlock(self, rings: Sequence[LockedRing]) -> tuple[int, RingBody]:
        """Open the first ring that the means at hand open; its root is kept for what follows.

        Returns:
            Its place in `rings`, and what is in it.

        Raises:
            RefusedError: `keys.passphrase`, when none opens.
            UnavailableError: `keysource.unavailable`.
            IntegrityError: when nothing that was given is a ring.
        """
        ...

    def lock(
        self, body: RingBody, *, keep_id: str, number: int, holders: Holders | None = None
    ) -> LockedRing:
        """Seal a body as a ring: under the same root, or under a new one for other holders.

        Raises:
            UsageError: `keys.locked`, without holders before any `unlock`.
        """
        ...

    def split(self, *, threshold: int, total: int) -> Split:
        """Make a recovery key and split it into words; `threshold` of `total` bring it back.

        Raises:
            UsageError: `keys.split`, when the numbers are out of bounds.
        """
        ...

    def close(self) -> None:
        """Forget everything; idempotent."""
        ...
