"""The Merkle tree of RFC 6962, section 2.1, over SHA-256, and its growing right edge.

- A leaf hashes as SHA-256(0x00 || leaf), a node as SHA-256(0x01 || left || right): the prefixes
  keep a node from being passed off as a leaf.
- The tree of n leaves splits at the largest power of two below n. Hashing pairwise, level by
  level, and promoting an odd last hash unchanged gives the same root.
- Eight levels make a tile: 256 hashes, whose root is one hash of the tile above (C2SP
  tlog-tiles). All that is needed to go on from n leaves is the partial tile of every level: the
  `Edge`. Its root is the tree's root, because what a partial tile covers is always the last,
  promoted hash of the level above.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

HASH_BYTES = 32
TILE_HEIGHT = 8
TILE_WIDTH = 1 << TILE_HEIGHT

EMPTY_ROOT = hashlib.sha256(b"").digest()

_sha256 = hashlib.sha256

RangeRoot = Callable[[int, int], bytes]
"""The root over the leaves [start, end), where start is a multiple of a power of two >= length."""


@dataclass(frozen=True, slots=True)
class Tile:
    """Consecutive hashes of one tile level; full when there are 256 of them."""

    level: int
    index: int
    hashes: tuple[bytes, ...]


def leaf_hash(leaf: bytes | memoryview) -> bytes:
    """The hash of one leaf's bytes."""
    return _sha256(b"\x00" + leaf).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash of an inner node."""
    return _sha256(b"\x01" + left + right).digest()


def root_of(hashes: Sequence[bytes]) -> bytes:
    """The root over hashes that stand side by side on one level; of none, the empty root."""
    if not hashes:
        return EMPTY_ROOT
    row = list(hashes)
    while len(row) > 1:
        above = [
            _sha256(b"\x01" + left + right).digest()  # node_hash, without a call for each
            for left, right in zip(row[::2], row[1::2], strict=False)
        ]
        if len(row) % 2:
            above.append(row[-1])
        row = above
    return row[0]


def split_point(count: int) -> int:
    """The largest power of two below `count`, which is at least 2."""
    return 1 << ((count - 1).bit_length() - 1)


def level_count(size: int, level: int) -> int:
    """How many hashes a tree of `size` leaves has on a tile level."""
    return size >> (TILE_HEIGHT * level)


def levels_of(size: int) -> int:
    """How many tile levels a tree of `size` leaves has."""
    return (size.bit_length() + TILE_HEIGHT - 1) // TILE_HEIGHT


class Edge:
    """The partial tiles of a tree, lowest level first: enough to append and to know the root."""

    __slots__ = ("levels", "size")

    def __init__(self, size: int = 0, levels: Sequence[Sequence[bytes]] = ()) -> None:
        self.size = size
        self.levels = [list(level) for level in levels]
        for number in range(levels_of(size)):
            width = level_count(size, number) % TILE_WIDTH
            if number >= len(self.levels) or len(self.levels[number]) != width:
                raise AssertionError("an edge has exactly the partial tiles of its size")

    def copy(self) -> Edge:
        """An edge that grows on its own."""
        return Edge(self.size, self.levels)

    def root(self) -> bytes:
        """The root over all leaves so far."""
        if self.size == 0:
            return EMPTY_ROOT
        carried: list[bytes] = []
        for level in self.levels:
            row = [*level, *carried]
            carried = [root_of(row)] if row else []
        return carried[0]

    def push(self, hashed_leaf: bytes) -> list[Tile]:
        """Append one leaf's hash; the tiles that it completed, lowest level first."""
        return self.extend((hashed_leaf,))

    def extend(self, hashed_leaves: Sequence[bytes]) -> list[Tile]:
        """Append the hashes of leaves; the tiles that they completed, in the order they did."""
        completed: list[Tile] = []
        at = 0
        while at < len(hashed_leaves):
            if not self.levels:
                self.levels.append([])
            level = self.levels[0]
            fresh = hashed_leaves[at : at + TILE_WIDTH - len(level)]
            level.extend(fresh)
            self.size += len(fresh)
            at += len(fresh)
            if len(level) == TILE_WIDTH:
                completed += self._carried()
        return completed

    def _carried(self) -> list[Tile]:
        """Take the full tiles out, each leaving its root in the level above."""
        completed: list[Tile] = []
        number = 0
        while len(self.levels[number]) == TILE_WIDTH:
            level = self.levels[number]
            index = level_count(self.size, number) // TILE_WIDTH - 1
            completed.append(Tile(number, index, tuple(level)))
            if number + 1 == len(self.levels):
                self.levels.append([])
            self.levels[number + 1].append(root_of(level))
            level.clear()
            number += 1
        return completed

    def partials(self) -> list[Tile]:
        """The partial tiles as they stand, lowest level first."""
        return [
            Tile(number, level_count(self.size, number) // TILE_WIDTH, tuple(level))
            for number, level in enumerate(self.levels)
            if level
        ]


def range_root_over(hashes: Sequence[bytes]) -> RangeRoot:
    """Roots of ranges of a tree whose leaf hashes are all in memory."""
    return lambda start, end: root_of(hashes[start:end])
