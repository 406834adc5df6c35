"""Reading a keep's whole ledger for people: forwards from an index, or backwards from its end.

An index counts over all logs of the keep. Going backwards reads a window at a time, so that the
last entries of a long ledger cost no more than those of a short one.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from modelkeep.core.entry import Entry
from modelkeep.core.errors import MissingError
from modelkeep.flows.keep import OpenKeep, replay
from modelkeep.ledger.find import Query
from modelkeep.ledger.tree import TILE_WIDTH

_WINDOW = 4 * TILE_WIDTH


def ledger_size(keep: OpenKeep) -> int:
    """How many entries all logs of the keep have together."""
    replay(keep)
    return keep.state.applied().entries


def newest_first(keep: OpenKeep) -> Iterator[tuple[int, Entry]]:
    """All entries with their indices, from the last to the first."""
    end = ledger_size(keep)
    while end > 0:
        start = max(0, (end - 1) // _WINDOW * _WINDOW)
        yield from reversed(list(islice(keep.history(start), end - start)))
        end = start


def tailed(keep: OpenKeep, *, last: int, query: Query) -> list[tuple[int, Entry]]:
    """The last entries that a query means, oldest first."""
    meant = ((index, entry) for index, entry in newest_first(keep) if query.is_met_by(entry))
    return list(islice(meant, max(last, 0)))[::-1]


def found(keep: OpenKeep, query: Query) -> Iterator[tuple[int, Entry]]:
    """Entries that a query means, oldest first."""
    return ((index, entry) for index, entry in keep.history(0) if query.is_met_by(entry))


def entry_at(keep: OpenKeep, index: int) -> Entry:
    """One entry.

    Raises:
        MissingError: `ledger.no_entry`.
    """
    size = ledger_size(keep)
    if 0 <= index < size:
        for number, entry in islice(keep.history(index), 1):
            if number == index:
                return entry
    raise MissingError("ledger.no_entry", f"a ledger of {size} entries has no entry {index}")
