"""Where facts are recorded: the ledger as the flows see it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from modelkeep.core.entry import Entry


class Recorder(Protocol):
    """The ledger's front door: in-process when the keep is idle, the recorder process when not."""

    def record(self, entries: Sequence[Entry]) -> int:
        """Append entries in order; durable on return.

        Returns:
            The index in the log of the first of them.

        Raises:
            UnavailableError: `ledger.unavailable`; none of the entries counts as recorded.
        """
        ...
