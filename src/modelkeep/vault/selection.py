"""Which packs of a store hold nothing but what somebody wants: they can be copied as they are."""

from __future__ import annotations

from collections.abc import Collection

from modelkeep.vault.index import ChunkIndex


def packs_within(
    source: ChunkIndex, target: ChunkIndex, wanted: Collection[bytes]
) -> frozenset[str]:
    """Names of the packs of a source that hold wanted chunks, or their bases, and no others.

    A pack with a delta counts only if its base goes along, or is in the target already.
    """
    places = (source.find(chunk_id) for chunk_id in wanted)
    needed = {*wanted, *(place[1].base for place in places if place is not None)}
    others = {pack.name for pack, each in source.segments() if each.chunk_id not in needed}
    found = {pack.name for pack in source.packs()} - others
    while True:
        there = {each.chunk_id for pack, each in source.segments() if pack.name in found}
        torn = {
            pack.name
            for pack, each in source.segments()
            if pack.name in found
            and each.base
            and each.base not in there
            and each.base not in target
        }
        if not torn:
            return frozenset(found)
        found -= torn
