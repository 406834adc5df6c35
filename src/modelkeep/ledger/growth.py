"""How a log grows: the objects to write, in the order in which to write them.

Write order: entry bundle -> body bundle -> the tiles that it completes -> ... -> the partial
bundle and tiles at the edge; the caller writes the checkpoint after them all. Every object
follows from the entries alone, so growing again after a crash writes the same bytes under the
same names.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from modelkeep.core.errors import IntegrityError
from modelkeep.crypto.secret import Secret
from modelkeep.ledger.entry import leaf_of, sealed_bodies
from modelkeep.ledger.tiles import Place, entry_bundle, partial_places, place_name, tile_bytes
from modelkeep.ledger.tree import TILE_WIDTH, Edge, Tile, leaf_hash


def bundle_start(size: int) -> int:
    """The index of the first entry in the bundle that a log of this size goes on with."""
    return size - size % TILE_WIDTH


def growth(
    edge: Edge, records: Iterable[bytes], *, prefix: str, body_key: Secret
) -> Iterator[tuple[str, bytes]]:
    """Objects with their names, in write order; the edge grows with them.

    Args:
        edge: where the log stands; it is changed.
        records: all entries from `bundle_start(edge.size)` on, each as `salt || body`.

    Raises:
        IntegrityError: `ledger.fork`, when the entries that are in the log already are not those
            that it holds.
    """
    begun = edge.size
    number = bundle_start(begun)
    source = iter(records)
    while bundle := list(islice(source, TILE_WIDTH)):
        leaves = [leaf_of(record) for record in bundle]
        hashes = [leaf_hash(leaf) for leaf in leaves]
        known = max(0, min(begun - number, len(bundle)))
        _demand_same(hashes[:known], edge, first=number)
        completed = edge.extend(hashes[known:])
        number += len(bundle)
        if number <= begun:
            return
        index = (number - 1) // TILE_WIDTH
        entries = Place("tile/entries", index, len(bundle))
        yield place_name(prefix, entries), entry_bundle(leaves)
        beside = Place("body", index, len(bundle))
        sealed = sealed_bodies(bundle, prefix=prefix, place=beside, body_key=body_key)
        yield place_name(prefix, beside), sealed
        for tile in completed:
            yield _tile(tile, prefix=prefix)
    standing = partial_places(begun)
    for tile in edge.partials():
        if Place(f"tile/{tile.level}", tile.index, len(tile.hashes)) not in standing:
            yield _tile(tile, prefix=prefix)


def _demand_same(hashes: Sequence[bytes], edge: Edge, *, first: int) -> None:
    for at, hashed in enumerate(hashes):
        if edge.levels[0][at] != hashed:
            raise IntegrityError(
                "ledger.fork",
                f"entry {first + at} is not the one that the log holds: two histories met",
                hint="keep both stores and the journal as evidence; recover into a new log",
                entry=first + at,
            )


def _tile(tile: Tile, *, prefix: str) -> tuple[str, bytes]:
    place = Place(f"tile/{tile.level}", tile.index, len(tile.hashes))
    return place_name(prefix, place), tile_bytes(tile.hashes)
