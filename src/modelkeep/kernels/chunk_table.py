"""A compact table from chunk ids to where chunks lie: 57 bytes a row, whatever Python costs.

Rows that are new stand in a dict; past `_PENDING_MAX` they are merged into one sorted array, which
is searched by the first eight bytes of the id. A chunk may lie in several places; the place that
was added first comes first. Replaced as a whole, never changed in place: a lookup in one thread is
safe while another one adds.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

_PENDING_MAX = 65_536
_ROW = np.dtype(
    [
        ("rest", "V24"),
        ("pack", "<u4"),
        ("number", "<u4"),
        ("offset", "<u4"),
        ("length", "<u4"),
        ("stored", "<u4"),
        ("encoding", "u1"),
        ("base", "<i4"),
    ]
)
# The key stands in an array of its own: a search must not copy.


class Place(NamedTuple):
    """Where one chunk lies.

    Attributes:
        pack: number of the pack, as the caller counts them.
        number: of the segment in its pack.
        length: of the plaintext in bytes.
        stored: of the encoded payload in bytes, without the tag.
        base: id of the chunk that this one is a delta to; empty for none.
    """

    pack: int
    number: int
    offset: int
    length: int
    stored: int
    encoding: int
    base: bytes


class ChunkTable:
    """Chunk id -> places. Add only."""

    __slots__ = ("_bases", "_pending", "_sorted")

    def __init__(self) -> None:
        self._sorted = (np.empty(0, np.uint64), np.empty(0, _ROW))
        self._bases: list[bytes] = []
        self._pending: dict[bytes, list[Place]] = {}

    def add(self, chunk_id: bytes, place: Place) -> None:
        """Add a place of a chunk."""
        self._pending.setdefault(chunk_id, []).append(place)
        if len(self._pending) >= _PENDING_MAX:
            self.compact()

    def places(self, chunk_id: bytes) -> list[Place]:
        """All places of a chunk, the first that was added first; empty for none."""
        fresh = self._pending.get(chunk_id, [])
        keys, rows = self._sorted  # after the fresh ones: what is merged meanwhile is seen twice
        key, rest = int.from_bytes(chunk_id[:8], "big"), chunk_id[8:]
        found = []
        at = int(np.searchsorted(keys, np.uint64(key)))
        while at < len(keys) and int(keys[at]) == key:
            if rows["rest"][at].tobytes() == rest:
                found.append(self._place(rows[at]))
            at += 1
        return [*found, *fresh]

    def __contains__(self, chunk_id: bytes) -> bool:
        return chunk_id in self._pending or bool(self.places(chunk_id))

    def __len__(self) -> int:
        """Rows, several for a chunk that lies in several places."""
        return len(self._sorted[0]) + sum(map(len, self._pending.values()))

    def __iter__(self) -> Iterator[tuple[bytes, Place]]:
        """Every row, as (chunk id, place)."""
        keys, rows = self._sorted
        for key, row in zip(keys, rows, strict=True):
            yield int(key).to_bytes(8, "big") + row["rest"].tobytes(), self._place(row)
        for chunk_id, places in self._pending.items():
            yield from ((chunk_id, place) for place in places)

    def compact(self) -> None:
        """Merge what is new into the sorted array."""
        if not self._pending:
            return
        count = sum(map(len, self._pending.values()))
        keys, rows = np.empty(count, np.uint64), np.empty(count, _ROW)
        at = 0
        for chunk_id, places in self._pending.items():
            for place in places:
                keys[at] = int.from_bytes(chunk_id[:8], "big")
                rows[at] = self._row(chunk_id, place)
                at += 1
        keys = np.concatenate([self._sorted[0], keys])
        rows = np.concatenate([self._sorted[1], rows])
        order = np.argsort(keys, kind="stable")
        self._sorted = (keys[order], rows[order])
        self._pending = {}

    @property
    def size_bytes(self) -> int:
        """Memory of the sorted rows and their bases."""
        return sum(int(each.nbytes) for each in self._sorted) + 80 * len(self._bases)

    def _row(self, chunk_id: bytes, place: Place) -> tuple[object, ...]:
        base = -1
        if place.base:
            base = len(self._bases)
            self._bases.append(place.base)
        return (chunk_id[8:], *place[:6], base)

    def _place(self, row: np.void) -> Place:
        base = int(row["base"])
        return Place(
            pack=int(row["pack"]),
            number=int(row["number"]),
            offset=int(row["offset"]),
            length=int(row["length"]),
            stored=int(row["stored"]),
            encoding=int(row["encoding"]),
            base=self._bases[base] if base >= 0 else b"",
        )
