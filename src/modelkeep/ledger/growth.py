"""How a log grows: the objects to write, in the order in which to write them.

Write order: entry bundle -> body bundle -> the tiles that it completes -> ... -> the partial
bundle and tiles at the edge; the caller writes the checkpoint after them all. Every object
follows from the entries alone, so growing again after a crash writes the same bytes under the
same names.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from modelkeep.core.errors import IntegrityError
from modelkeep.crypto.secret import Secret
from modelkeep.ledger.entry import CommittedBody, sealed_bodies
from modelkeep.ledger.tiles import Place, entry_bundle, partial_places, place_name, tile_bytes
from modelkeep.ledger.tree import TILE_WIDTH, Edge, Tile, leaf_hash


def bundle_start(size: int) -> int:
    """The index of the first entry in the bundle that a log of this size goes on with."""
    return size - size % TILE_WIDTH


def growth(
    edge: Edge, bodies: Iterable[CommittedBody], *, prefix: str, body_key: Secret
) -> Iterator[tuple[str, bytes]]:
    """Objects with their names, in write order; the edge grows with them.

    Args:
        edge: where the log stands; it is changed.
        bodies: all entries from `bundle_start(edge.size)` on.

    Raises:
        IntegrityError: `ledger.fork`, when the entries that are in the log already are not those
            that it holds.
    """
    begun = edge.size
    number = bundle_start(begun)
    held: list[CommittedBody] = []
    completed: list[Tile] = []
    for body in bodies:
        hashed = leaf_hash(body.leaf)
        if number >= begun:
            completed = edge.push(hashed)
        elif edge.levels[0][number % TILE_WIDTH] != hashed:
            raise IntegrityError(
                "ledger.fork",
                f"entry {number} is not the one that the log holds: two histories met",
                hint="keep both stores and the journal as evidence; recover into a new log",
                entry=number,
            )
        number += 1
        held.append(body)
        if len(held) == TILE_WIDTH:
            yield from _bundle(held, number, prefix=prefix, body_key=body_key)
            for tile in completed:
                yield _tile(tile, prefix=prefix)
            held = []
    if number <= begun:
        return
    if held:
        yield from _bundle(held, number, prefix=prefix, body_key=body_key)
    standing = partial_places(begun)
    for tile in edge.partials():
        if Place(f"tile/{tile.level}", tile.index, len(tile.hashes)) not in standing:
            yield _tile(tile, prefix=prefix)


def _bundle(
    bodies: list[CommittedBody], end: int, *, prefix: str, body_key: Secret
) -> Iterator[tuple[str, bytes]]:
    index = (end - 1) // TILE_WIDTH
    entries = Place("tile/entries", index, len(bodies))
    yield place_name(prefix, entries), entry_bundle(body.leaf for body in bodies)
    beside = Place("body", index, len(bodies))
    sealed = sealed_bodies(bodies, prefix=prefix, place=beside, body_key=body_key)
    yield place_name(prefix, beside), sealed


def _tile(tile: Tile, *, prefix: str) -> tuple[str, bytes]:
    place = Place(f"tile/{tile.level}", tile.index, len(tile.hashes))
    return place_name(prefix, place), tile_bytes(tile.hashes)
