"""What is true now and changes: keys, principals, domains, aliases, approvals; a projection."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from modelkeep.core.entry import Entry
from modelkeep.core.rows import Applied, R


class State(Protocol):
    """Rows that `core.projection` makes of the ledger. Ledger first, then State."""

    def applied(self) -> Applied:
        """How far State has come."""
        ...

    def apply(self, first: int, entries: Sequence[Entry]) -> None:
        """Apply entries `first, first + 1, …` in one durable transaction, and advance `applied`.

        Whole or not at all. Entries that were applied already are skipped, so a batch can be
        repeated; of two writers at once the second sees what the first has done. A gap is an
        AssertionError; an entry that lacks a fact is an IntegrityError.
        """
        ...

    def rows(self, kind: type[R]) -> tuple[R, ...]:
        """All rows of one kind, ordered by key, byte by byte.

        Raises:
            IntegrityError: `state.row`, when one of them is damaged.
        """
        ...

    def revision(self) -> int:
        """A number that changes when another connection has committed."""
        ...

    def close(self) -> None:
        """Release the database; idempotent."""
        ...
