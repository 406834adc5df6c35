"""What the packs of a store hold, as columns: which rows are needed, and what each pack wastes.

A row is a chunk in a pack; it costs 44 bytes here, 115 MB for the 2.6 million chunks of 10 TiB.
Chunks are told apart by the first 16 bytes of their keyed id, and looked up by the first 8: that
errs to the side of keeping one too many.
"""

from __future__ import annotations

from array import array
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Keys = npt.NDArray[np.uint64]
Mask = npt.NDArray[np.bool_]
Numbers = npt.NDArray[np.int64]

_KEY_BYTES = 8
_PENDING_BYTES_MAX = 1024 * 1024
_NO_BASE = bytes(2 * _KEY_BYTES)


class IdSet:
    """A set of chunk ids in 8 bytes each; it may say that it holds one which it does not."""

    __slots__ = ("_fresh", "_keys")

    def __init__(self) -> None:
        self._keys: Keys = np.empty(0, np.uint64)
        self._fresh = bytearray()

    def update(self, chunk_ids: Iterable[bytes]) -> None:
        """Add ids."""
        for each in chunk_ids:
            self._fresh += each[:_KEY_BYTES]
            if len(self._fresh) >= _PENDING_BYTES_MAX:
                self.keys()

    def keys(self) -> Keys:
        """The first eight bytes of every id, sorted, each once."""
        if self._fresh:
            fresh = np.frombuffer(bytes(self._fresh), ">u8").astype(np.uint64)
            self._keys = np.union1d(self._keys, fresh)
            self._fresh = bytearray()
        return self._keys

    def lacking(self, chunk_ids: Sequence[bytes]) -> list[bytes]:
        """Those of some ids that are not in it."""
        own = np.frombuffer(b"".join(each[:_KEY_BYTES] for each in chunk_ids), ">u8")
        is_here = np.isin(own.astype(np.uint64), self.keys())
        return [each for each, held in zip(chunk_ids, is_here.tolist(), strict=True) if not held]

    def __contains__(self, chunk_id: bytes) -> bool:
        keys, key = self.keys(), np.uint64(int.from_bytes(chunk_id[:_KEY_BYTES], "big"))
        at = int(np.searchsorted(keys, key))
        return at < len(keys) and keys[at] == key

    def __len__(self) -> int:
        return len(self.keys())


@dataclass(frozen=True, slots=True)
class Columns:
    """Rows of all packs of a store, one array for each fact.

    Attributes:
        ids: of the chunk, its first 16 bytes as two numbers.
        bases: of the chunk that it is a delta to, likewise; zeros for none.
        packs: number of its pack.
        numbers: of the segment in the pack.
        sizes: what it takes there, in bytes.
        count: of packs.
    """

    ids: Keys
    bases: Keys
    packs: Numbers
    numbers: Numbers
    sizes: Numbers
    count: int

    def sums(self, rows: Mask | None = None) -> list[int]:
        """Bytes of the marked rows (of all, without marks), pack by pack."""
        weights = self.sizes.astype(np.float64) * (1.0 if rows is None else rows)
        sums = np.bincount(self.packs, weights=weights, minlength=self.count)
        return [int(each) for each in sums.tolist()]


@dataclass(frozen=True, slots=True)
class Live:
    """Which rows of a store are needed.

    Attributes:
        rows: a mark for each row that stays, one for each needed chunk.
        spare: a mark for each row that is another copy of one that stays.
        missing: wanted chunks, and bases of what stays, that no usable pack holds.
    """

    columns: Columns
    rows: Mask
    spare: Mask
    missing: int

    def sizes(self) -> list[int]:
        """Bytes that stay, pack by pack."""
        return self.columns.sums(self.rows)

    def numbers(self, packs: Collection[int]) -> dict[int, frozenset[int]]:
        """For each of some packs the numbers of its segments that stay."""
        is_chosen = np.isin(self.columns.packs, np.fromiter(packs, np.int64, len(packs)))
        at = np.flatnonzero(self.rows & is_chosen)
        found: dict[int, list[int]] = {each: [] for each in packs}
        pairs = zip(self.columns.packs[at].tolist(), self.columns.numbers[at].tolist(), strict=True)
        for pack, number in pairs:
            found[pack].append(number)
        return {pack: frozenset(each) for pack, each in found.items()}

    def keepers(self, packs: Collection[int]) -> frozenset[int]:
        """Packs on which it depends that second copies in some packs may go."""
        is_chosen = np.isin(self.columns.packs, np.fromiter(packs, np.int64, len(packs)))
        given_up = self.columns.ids[self.spare & is_chosen, 0]
        mine = self.rows & np.isin(self.columns.ids[:, 0], given_up)
        return frozenset(np.unique(self.columns.packs[mine]).tolist())


class PackRows:
    """Collects the rows of a store's packs."""

    __slots__ = ("_bases", "_ids", "_numbers", "_packs", "_sizes")

    def __init__(self) -> None:
        self._ids, self._bases = bytearray(), bytearray()
        self._packs, self._numbers, self._sizes = array("I"), array("I"), array("I")

    def add(
        self, pack: int, chunk_id: bytes, *, number: int, size_bytes: int, base: bytes = b""
    ) -> None:
        """Add one chunk.

        Args:
            pack: its pack, as the caller counts them from 0.
            number: of the segment in the pack.
            size_bytes: what it takes there.
            base: id of the chunk that it is a delta to; empty for none.
        """
        self._ids += chunk_id[: 2 * _KEY_BYTES]
        self._bases += base[: 2 * _KEY_BYTES] or _NO_BASE
        self._packs.append(pack)
        self._numbers.append(number)
        self._sizes.append(size_bytes)

    def columns(self, count: int) -> Columns:
        """The rows as arrays; nothing can be added afterwards."""
        return Columns(
            ids=_pairs(self._ids),
            bases=_pairs(self._bases),
            packs=np.array(self._packs, np.int64),
            numbers=np.array(self._numbers, np.int64),
            sizes=np.array(self._sizes, np.int64),
            count=count,
        )


def live_rows(
    columns: Columns, wanted: IdSet, *, unusable: Collection[int], known: IdSet | None = None
) -> Live:
    """Find the rows that must stay: one for each wanted chunk, and the bases of those.

    Of several copies one that is no delta is taken first, because deltas may be taken to it; then
    the one whose pack wastes least.

    Args:
        unusable: packs that are not really there.
        known: where given, a chunk that is not among these is wanted too.
    """
    high = columns.ids[:, 0]
    is_there = ~np.isin(columns.packs, np.fromiter(unusable, np.int64, len(unusable)))
    is_delta: Mask = columns.bases != 0
    is_delta = is_delta[:, 0] | is_delta[:, 1]
    mask: Mask = np.isin(high, wanted.keys()) & is_there
    if known is not None:
        mask |= is_there & ~np.isin(high, known.keys())
    total = np.maximum(np.array(columns.sums(), np.float64), 1.0)
    share = (np.array(columns.sums(mask), np.float64) / total)[columns.packs]
    while True:
        rows = _firsts(columns.ids, mask, is_delta, share)
        needed = np.unique(columns.bases[rows & is_delta, 0])
        more = mask | (is_there & np.isin(high, needed))
        if np.array_equal(more, mask):
            break
        mask = more
    lacking = ~np.isin(wanted.keys(), high[mask])
    baseless = ~np.isin(needed, high[mask])
    return Live(columns, rows, mask & ~rows, int(lacking.sum()) + int(baseless.sum()))


def _firsts(ids: Keys, mask: Mask, is_delta: Mask, share: npt.NDArray[np.float64]) -> Mask:
    """Of the marked rows of each chunk the one that is taken."""
    at = np.flatnonzero(mask)
    order = at[np.lexsort((-share[at], is_delta[at], ids[at, 1], ids[at, 0]))]
    in_order = ids[order]
    is_first = np.ones(len(order), np.bool_)
    is_first[1:] = (in_order[1:] != in_order[:-1]).any(axis=1)
    rows = np.zeros(len(ids), np.bool_)
    rows[order[is_first]] = True
    return rows


def _pairs(raw: bytearray) -> Keys:
    return np.frombuffer(bytes(raw), ">u8").astype(np.uint64).reshape(-1, 2)
