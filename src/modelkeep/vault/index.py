"""Indexes: which chunk lies where in one store, sealed objects that are listed and merged.

Each store has its own, because each encodes by its own policy. A commit adds one; `prune` writes
what is left anew. They are read by listing `index/`: one that a store lost makes its chunks
unknown there, which a read answers from the next store and a check finds.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence

from modelkeep.core.record import Record, replaced
from modelkeep.kernels.chunk_table import ChunkTable, Place
from modelkeep.vault.pack import PackEntry, Segment

# Of one index object: decoded it takes some 300 bytes a segment, 20 MB in all.
INDEX_SEGMENTS_MAX = 65_536


class Index(Record, frozen=True):
    """Some packs of a store."""

    packs: tuple[PackEntry, ...]


class Pack(Record, frozen=True):
    """What of a pack is kept in memory for all of its chunks."""

    name: str
    size_bytes: int
    salt: bytes


class ChunkIndex:
    """The indexes of one store, merged: chunk id -> where it lies. Add only, never change."""

    __slots__ = ("_numbers", "_packs", "_table")

    def __init__(self, indexes: Iterable[Index] = ()) -> None:
        self._table = ChunkTable()
        self._packs: list[Pack] = []
        self._numbers: dict[str, int] = {}
        for index in indexes:
            for pack in index.packs:
                self.add(pack)

    def add(self, pack: PackEntry) -> None:
        """Make a pack's chunks findable; a pack that is known already changes nothing."""
        if pack.name in self._numbers:
            return
        number = len(self._packs)
        self._packs.append(Pack(name=pack.name, size_bytes=pack.size_bytes, salt=pack.salt))
        self._numbers[pack.name] = number
        for each in pack.segments:
            place = Place(
                pack=number,
                number=each.number,
                offset=each.offset,
                length=each.length,
                stored=each.payload_bytes,
                encoding=each.encoding,
                base=each.base,
            )
            self._table.add(each.chunk_id, place)

    def find(self, chunk_id: bytes) -> tuple[Pack, Segment] | None:
        """Where a chunk lies, or None."""
        return next(iter(self.find_all(chunk_id)), None)

    def find_all(self, chunk_id: bytes) -> list[tuple[Pack, Segment]]:
        """Every place where a chunk lies."""
        return [
            (self._packs[each.pack], _segment(chunk_id, each))
            for each in self._table.places(chunk_id)
        ]

    def __contains__(self, chunk_id: bytes) -> bool:
        return chunk_id in self._table

    def __len__(self) -> int:
        """Segments, those of a chunk that lies twice both counted."""
        return len(self._table)

    def packs(self) -> Iterator[Pack]:
        """Every pack once."""
        yield from self._packs

    def segments(self) -> Iterator[tuple[Pack, Segment]]:
        """Every segment with its pack."""
        for chunk_id, place in self._table:
            yield self._packs[place.pack], _segment(chunk_id, place)

    @property
    def size_bytes(self) -> int:
        """Memory that it takes when it is merged."""
        return self._table.size_bytes + 250 * len(self._packs)


def parted(packs: Sequence[PackEntry]) -> Iterator[Index]:
    """Packs as indexes of a bounded size."""
    held: list[PackEntry] = []
    count = 0
    for pack in packs:
        if held and count + len(pack.segments) > INDEX_SEGMENTS_MAX:
            yield Index(packs=tuple(held))
            held, count = [], 0
        held.append(pack)
        count += len(pack.segments)
    if held:
        yield Index(packs=tuple(held))


def without_packs(index: Index, names: Iterable[str]) -> Index:
    """An index without some packs."""
    gone = frozenset(names)
    return replaced(index, packs=tuple(each for each in index.packs if each.name not in gone))


def packs_of(index: ChunkIndex, *, without: Collection[str] = ()) -> list[PackEntry]:
    """An index's packs with their segments again, in the order of the packs."""
    found: dict[str, list[Segment]] = {}
    for pack, segment in index.segments():
        if pack.name not in without:
            found.setdefault(pack.name, []).append(segment)
    return [
        PackEntry(
            name=pack.name,
            size_bytes=pack.size_bytes,
            salt=pack.salt,
            segments=tuple(sorted(found[pack.name], key=lambda each: each.number)),
        )
        for pack in index.packs()
        if pack.name in found
    ]


def _segment(chunk_id: bytes, place: Place) -> Segment:
    return Segment(
        chunk_id=chunk_id,
        number=place.number,
        offset=place.offset,
        length=place.length,
        encoding=place.encoding,
        stored=place.stored,
        base=place.base,
    )
