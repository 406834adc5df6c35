"""What is true now and changes: tokens and aliases, rebuilt from the ledger at any time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from modelkeep.core.entry import Entry
from modelkeep.core.record import Record


class Token(Record, frozen=True):
    """An API key as the keep knows it: never the secret, only its SHA-256.

    Attributes:
        token_id: public part of the key, 16 lower-case hex digits.
        secret_sha256: 64 hex digits; the secret has 256 bits, so a plain hash is enough.
        expires_ns: 0 for never.
    """

    token_id: str
    secret_sha256: str
    principal: str
    tenant: str
    scopes: tuple[str, ...]
    expires_ns: int
    revoked: bool = False


class Applied(Record, frozen=True):
    """How far State has come.

    Attributes:
        entries: ledger entries applied so far: the index of the next one.
        head: number of the last committed head.
        snapshot: name of the snapshot that this head names; empty before the first commit.
    """

    entries: int
    head: int
    snapshot: str


class State(Protocol):
    """A projection of the ledger. Ledger first, then State: `apply` is idempotent by index."""

    def applied(self) -> Applied:
        """How far State has come."""
        ...

    def apply(self, first: int, entries: Sequence[Entry]) -> None:
        """Apply entries `first, first + 1, …` in one durable transaction, and advance `applied`.

        Entries that were applied already are skipped; a gap is an AssertionError.
        """
        ...

    def tokens(self) -> tuple[Token, ...]:
        """All tokens, revoked ones too, ordered by id."""
        ...

    def aliases(self) -> tuple[tuple[str, str, int], ...]:
        """All aliases as (model, alias, version), sorted."""
        ...

    def revision(self) -> int:
        """A number that changes when another connection has committed."""
        ...

    def close(self) -> None:
        """Release the database; idempotent."""
        ...
