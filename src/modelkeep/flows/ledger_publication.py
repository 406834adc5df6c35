"""What was just published to one store, kept at hand for the others: nobody makes it twice."""

from __future__ import annotations

from dataclasses import dataclass

from modelkeep.ledger.checkpoint import Checkpoint
from modelkeep.ledger.tree import Edge
from modelkeep.ports.batch_store import Object

# Objects of the last publications; four seconds of 50,000 entries.
PUBLICATIONS_BYTES_MAX = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Publication:
    """What brings a store from one checkpoint to the next.

    Attributes:
        root: of the tree before it.
        edge: of the tree after it; nobody changes it.
    """

    start: int
    root: bytes
    objects: tuple[Object, ...]
    edge: Edge
    checkpoint: Checkpoint


class Publications:
    """The last few, bounded; one thread adds, others look."""

    def __init__(self, *, count_max: int) -> None:
        self._count_max = count_max
        self._held: tuple[Publication, ...] = ()

    def add(self, fresh: Publication) -> None:
        """Keep one more; the oldest go."""
        kept: list[Publication] = []
        size_bytes = 0
        for each in (fresh, *self._held[: self._count_max - 1]):
            size_bytes += sum(len(raw) for _, raw in each.objects)
            if size_bytes > PUBLICATIONS_BYTES_MAX:
                break
            kept.append(each)
        self._held = tuple(kept)

    def ready(self, start: int, *, end: int) -> Publication | None:
        """One that goes on from `start`, no further than `end`."""
        for each in self._held:
            if each.start == start and each.checkpoint.size <= end:
                return each
        return None
