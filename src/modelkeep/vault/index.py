"""Indexes: which chunk lies where, one sealed object per commit, merged when read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from modelkeep.core.record import Record
from modelkeep.vault.pack import PackEntry, Segment


class Index(Record, frozen=True):
    """The packs that one commit wrote."""

    packs: tuple[PackEntry, ...]


class ChunkIndex:
    """All indexes of a snapshot, merged: chunk id -> where it lies. Add only, never change."""

    __slots__ = ("_places",)

    def __init__(self, indexes: Iterable[Index] = ()) -> None:
        self._places: dict[bytes, tuple[PackEntry, Segment]] = {}
        for index in indexes:
            for pack in index.packs:
                self.add(pack)

    def add(self, pack: PackEntry) -> None:
        """Make a pack's chunks findable; a chunk that is known already keeps its place."""
        for segment in pack.segments:
            self._places.setdefault(segment.chunk_id, (pack, segment))

    def find(self, chunk_id: bytes) -> tuple[PackEntry, Segment] | None:
        """Where a chunk lies, or None."""
        return self._places.get(chunk_id)

    def packs(self) -> Iterator[PackEntry]:
        """Every pack once."""
        yield from {pack.name: pack for pack, _ in self._places.values()}.values()
