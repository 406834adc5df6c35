"""What may go: which snapshots stay, and what of a store's packs and indexes they need.

Nothing is changed here. A plan is made for one store and one key, from its indexes, its listing
and the chunks that the kept snapshots name:

- a pack without a needed chunk is dead; of a pack in which more than a share is of no use, what is
  needed moves to a new one;
- the base of a delta that stays is needed, whoever names it;
- a chunk that lies twice is needed once, and its second copy is given up only for one in a pack
  that was read and proven (`Plan.proofs`);
- packs that no index names are what a cut run left;
- where a needed chunk lies nowhere, nothing may go: a store must be whole before it is pruned.

Memory, for the 2.6 million chunks in 655,000 packs of 10 TiB: 150 MB for the rows and as much
again while they are judged, 130 MB for the packs' names, 8 bytes for each chunk that is named.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from modelkeep.crypto.aead import TAG_BYTES
from modelkeep.kernels.pack_rows import IdSet, PackRows, live_rows
from modelkeep.vault.index import INDEX_SEGMENTS_MAX, Index
from modelkeep.vault.pack import PackEntry

# Of a pack, how much may be of no use before what is needed moves.
WASTE_MAX = 0.2
# Indexes with fewer segments are joined.
_SMALL_SEGMENTS = INDEX_SEGMENTS_MAX // 2


@dataclass(frozen=True, slots=True)
class Moment:
    """One snapshot of the chain.

    Attributes:
        is_change: whether it holds other artifacts than the snapshot before it.
    """

    name: str
    taken_ns: int
    is_change: bool


def oldest_kept(chain: Sequence[Moment], *, last: int = 0, since_ns: int | None = None) -> str:
    """The earliest snapshot that stays; what both wishes want to keep is kept.

    Snapshots that hold the same artifacts count as one: a prune adds such a snapshot itself, and
    running it again must not push out anything else.

    Args:
        chain: newest first, not empty.
        last: how many changes are kept; 0 for no wish.
        since_ns: from when on all are kept; None for no wish.
    """
    ends = [at for at, each in enumerate(chain) if each.is_change or each is chain[-1]]
    if not last and since_ns is None:
        return chain[-1].name
    kept = ends[min(max(last, 1), len(ends)) - 1]
    if since_ns is not None:
        within = [at for at, each in enumerate(chain) if each.taken_ns >= since_ns]
        kept = max(kept, next(end for end in ends if end >= max(within, default=0)))
    return chain[kept].name


@dataclass(slots=True)
class Survey:
    """What one store holds under one key, by its indexes.

    Attributes:
        packs: name -> size in bytes, in the order of their numbers.
        indexes: name -> how many segments it lists.
    """

    packs: dict[str, int] = field(default_factory=dict)
    indexes: dict[str, int] = field(default_factory=dict)
    _rows: PackRows = field(default_factory=PackRows)

    def add(self, name: str, index: Index) -> None:
        """Add one index; a pack that another one named already is not counted again."""
        self.indexes[name] = sum(len(pack.segments) for pack in index.packs)
        for pack in index.packs:
            if pack.name in self.packs:
                continue
            number = len(self.packs)
            self.packs[pack.name] = pack.size_bytes
            for each in pack.segments:
                size_bytes = each.payload_bytes + TAG_BYTES
                self._rows.add(
                    number,
                    each.chunk_id,
                    number=each.number,
                    size_bytes=size_bytes,
                    base=each.base,
                )

    def plan(
        self,
        wanted: IdSet,
        *,
        there: Mapping[str, int],
        known: IdSet | None = None,
        damaged: Collection[str] = (),
        waste_max: float = WASTE_MAX,
    ) -> Plan:
        """Say what may go.

        Args:
            wanted: chunks that the kept snapshots name.
            there: name -> size of every pack that lies in the store.
            known: while something uploads: every chunk that any snapshot names. What is not among
                them may just have come and stays, and so do packs that no index names.
            damaged: packs that do not count although they lie there.
            waste_max: from which share on what is needed of a pack moves.
        """
        names = list(self.packs)
        unusable = {
            number
            for number, name in enumerate(names)
            if there.get(name) != self.packs[name] or name in damaged
        }
        columns = self._rows.columns(len(names))
        live = live_rows(columns, wanted, unusable=unusable, known=known)
        dead, wasteful = [], []
        for number, (kept, total) in enumerate(zip(live.sizes(), columns.sums(), strict=True)):
            if kept == 0:
                dead.append(number)
            elif number not in unusable and total - kept > waste_max * total:
                wasteful.append(number)
        moved = live.numbers(wasteful)
        keepers = live.keepers([*dead, *wasteful])
        stray = () if known is not None else tuple(sorted(there.keys() - self.packs.keys()))
        return Plan(
            dead=tuple(names[each] for each in dead),
            moved={names[each]: moved[each] for each in wasteful},
            stray=stray,
            proofs=tuple(sorted(names[each] for each in keepers)),
            missing=live.missing,
            sizes={names[each]: there.get(names[each], 0) for each in (*dead, *wasteful)}
            | {name: there[name] for name in stray},
            moved_bytes=sum(live.sizes()[each] for each in wasteful),
            is_scattered=sum(map(_is_small, self.indexes.values())) > 1,
        )


@dataclass(frozen=True, slots=True)
class Plan:
    """What may go of one store under one key.

    Attributes:
        dead: packs that hold nothing that is needed.
        moved: packs that waste too much -> the segments that move out of them.
        stray: packs that no index names.
        proofs: packs that must be read and found whole before anything goes.
        missing: needed chunks that lie in no pack; if there are any, nothing may go.
        sizes: of all packs that go.
        moved_bytes: what has to be written anew.
        is_scattered: whether indexes are worth joining.
    """

    dead: tuple[str, ...]
    moved: dict[str, frozenset[int]]
    stray: tuple[str, ...]
    proofs: tuple[str, ...]
    missing: int
    sizes: dict[str, int]
    moved_bytes: int
    is_scattered: bool

    @property
    def gone(self) -> frozenset[str]:
        """Packs that leave the indexes."""
        return frozenset((*self.dead, *self.moved))

    @property
    def freed_bytes(self) -> int:
        """About what it frees: the packs that go, less what is written anew."""
        return sum(self.sizes.values()) - self.moved_bytes


def joined(
    indexes: Iterable[tuple[str, Index]], *, gone: Collection[str], is_scattered: bool
) -> Iterator[tuple[Index | None, tuple[str, ...]]]:
    """Indexes anew, without the packs that are gone; small ones become one.

    Yields:
        (an index to be written or None for the last, names of indexes that it makes superfluous);
        a name comes only after all of its packs have been in an index that came before.
    """
    held: list[PackEntry] = []
    seen: set[str] = set()
    old: list[str] = []
    count = 0
    for name, index in indexes:
        kept = [each for each in index.packs if each.name not in gone]
        segments = sum(len(each.segments) for each in kept)
        is_small = is_scattered and _is_small(segments)
        if len(kept) == len(index.packs) and not is_small:
            continue
        if held and count + segments > INDEX_SEGMENTS_MAX:
            yield Index(packs=tuple(held)), tuple(old)
            held, count, old = [], 0, []
        fresh = [each for each in kept if each.name not in seen]
        seen.update(each.name for each in fresh)
        held += fresh
        count += segments
        old.append(name)
    yield Index(packs=tuple(held)) if held else None, tuple(old)


def _is_small(segments: int) -> bool:
    return segments < _SMALL_SEGMENTS
