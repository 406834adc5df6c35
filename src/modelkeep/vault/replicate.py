"""Replication: which objects another store lacks, and in which order they go there.

Small objects travel by name. Packs travel by what is in them: those whose chunks the target lacks
are copied as they are between stores that encode alike, and encoded anew otherwise
(`vault.reencode`); each store has indexes of its own. What moves (heads, roots, …) goes last, so
that a target never names what it does not hold.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from modelkeep.core.errors import IntegrityError
from modelkeep.core.record import Record
from modelkeep.ports.store import ObjectStat, Store
from modelkeep.vault.index import ChunkIndex, packs_of
from modelkeep.vault.pack import PackEntry, Segment

# Named by their own digest: they can be proven without any key.
CONTENT_KINDS = ("pack", "index", "recipe", "envelope", "snapshot")
# Those of them that every store has in the same bytes.
SHARED_KINDS = ("recipe", "envelope", "snapshot")
# Keys of private facts, and the marks that some are erased; `flows.values` says what they are.
VALUE_KINDS = ("erased", "value")
# Series and fixed names, in the order in which a target gets them; the head last of all.
MOVING_KINDS = ("format", "keyring", "config", "log", "head")


class Copied(Record, frozen=True):
    """What a replication did.

    Attributes:
        replaced: objects that the target held in a damaged form.
        damaged: objects whose copy in the source is damaged; they were not copied.
    """

    objects: int
    size_bytes: int
    replaced: int
    damaged: tuple[str, ...]


def kind_of(name: str) -> str:
    """The family of an object: the first part of its name."""
    return name.partition("/")[0]


def missing_in(
    source: Iterable[ObjectStat], target: Iterable[ObjectStat]
) -> tuple[ObjectStat, ...]:
    """What the target lacks or holds in another size, in the order in which it must be written.

    Packs and indexes are not among it: `lacking_packs` tells those.
    """
    there = {stat.name: stat.size_bytes for stat in target}
    order = {kind: place for place, kind in enumerate(SHARED_KINDS + VALUE_KINDS + MOVING_KINDS)}
    order["format"] = -1  # it names nothing, and a store without it takes nothing else
    lacking = [
        stat
        for stat in source
        if kind_of(stat.name) in order and there.get(stat.name) != stat.size_bytes
    ]
    return tuple(sorted(lacking, key=lambda stat: (order[kind_of(stat.name)], stat.name)))


def lacking_packs(source: ChunkIndex, target: ChunkIndex) -> Iterator[PackEntry]:
    """Packs of the source that hold a chunk which the target lacks."""
    lacking = {pack.name for pack, each in source.segments() if not _has(target, each)}
    yield from packs_of(source, without={each.name for each in source.packs()} - lacking)


def _has(target: ChunkIndex, segment: Segment) -> bool:
    """Whether a target has a chunk; one that is no delta here must not be one there only."""
    places = target.find_all(segment.chunk_id)
    return any(segment.base or not place.base for _, place in places)


def copy_objects(
    objects: Iterable[ObjectStat],
    *,
    source: Store,
    target: Store,
    verify: Callable[[str, bytes], None],
    progress: Callable[[int], None] = lambda _: None,
) -> Copied:
    """Copy objects in the given order, each proven before it is written.

    An object that the target holds in a damaged form is replaced; one that is damaged in the
    source is passed over and named.

    Args:
        verify: raises IntegrityError when the bytes are not what the name claims.
    """
    count = size_bytes = replaced = 0
    damaged: list[str] = []
    for stat in objects:
        if damaged and kind_of(stat.name) == "head":
            continue  # a target never names what it does not hold
        raw = source.get(stat.name)
        try:
            verify(stat.name, raw)
        except IntegrityError:
            damaged.append(stat.name)
            continue
        try:
            target.put(stat.name, raw)
        except IntegrityError:
            target.delete(stat.name)
            target.put(stat.name, raw)
            replaced += 1
        count += 1
        size_bytes += len(raw)
        progress(len(raw))
    return Copied(objects=count, size_bytes=size_bytes, replaced=replaced, damaged=tuple(damaged))
