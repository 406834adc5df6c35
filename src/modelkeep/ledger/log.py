"""Reading one log from a store: its latest checkpoint, tiles, bundles, edge and roots.

Read order: checkpoints first, highest number down to the first valid one; then what that
checkpoint needs. Everything a checkpoint needs was durable before it was written. While a log
grows, the partial tiles of a checkpoint stay until eight newer ones exist; a reader that is
slower than that reads the latest checkpoint again and goes on from there.

Nothing here is believed for being there: a checkpoint by its signature, an edge by its root;
who needs every byte proven uses `verify.verified_log`.
"""

from __future__ import annotations

from dataclasses import dataclass

from modelkeep.core.errors import IntegrityError, MissingError
from modelkeep.core.verdict import Finding, Severity
from modelkeep.crypto.secret import Secret
from modelkeep.ledger.checkpoint import CHECKPOINT_BYTES_MAX, Checkpoint, verified_checkpoint
from modelkeep.ledger.entry import CommittedBody, opened_bodies
from modelkeep.ledger.tiles import (
    Place,
    checkpoint_name,
    log_prefix,
    parsed_checkpoint_size,
    parsed_entry_bundle,
    parsed_tile,
    place_name,
    width_at,
)
from modelkeep.ledger.tree import (
    EMPTY_ROOT,
    TILE_HEIGHT,
    TILE_WIDTH,
    Edge,
    RangeRoot,
    level_count,
    levels_of,
    node_hash,
    root_of,
    split_point,
)
from modelkeep.ports.store import Store

# Tiles that one proof needs, with room: 8 levels, left and right of the path.
_TILES_CACHED_MAX = 64


@dataclass(frozen=True, slots=True)
class Latest:
    """The checkpoint that counts.

    Attributes:
        checkpoint: the highest valid one; None when there is none.
        sizes: the numbers of all members of the series, valid or not, in order.
        skipped: the invalid ones above it.
    """

    checkpoint: Checkpoint | None
    sizes: tuple[int, ...]
    skipped: tuple[Finding, ...]

    @property
    def size(self) -> int:
        """The size that counts; 0 without a checkpoint."""
        return self.checkpoint.size if self.checkpoint is not None else 0


class LogReader:
    """The objects of one log in one store."""

    def __init__(self, store: Store, origin: str) -> None:
        self.store = store
        self.origin = origin
        self.prefix = log_prefix(origin)

    def checkpoint_sizes(self) -> tuple[int, ...]:
        """The numbers of the checkpoint series, in order."""
        names = (stat.name for stat in self.store.list(self.prefix + "checkpoint/"))
        sizes = (parsed_checkpoint_size(self.prefix, name) for name in names)
        return tuple(sorted(size for size in sizes if size is not None))

    def checkpoint(self, size: int, *, public: bytes) -> Checkpoint:
        """One member of the series.

        Raises:
            IntegrityError: `ledger.checkpoint`.
            MissingError: `store.missing`.
        """
        name = checkpoint_name(self.prefix, size)
        raw = self.store.get(name, length=CHECKPOINT_BYTES_MAX + 1)
        checkpoint = verified_checkpoint(raw, origin=self.origin, public=public)
        if checkpoint.size != size:
            raise IntegrityError(
                "ledger.checkpoint",
                f"{name} holds the checkpoint of size {checkpoint.size}",
                object=name,
            )
        return checkpoint

    def latest(self, *, public: bytes) -> Latest:
        """The highest valid checkpoint, and what had to be skipped to find it."""
        sizes = self.checkpoint_sizes()
        skipped: list[Finding] = []
        for size in reversed(sizes):
            try:
                return Latest(self.checkpoint(size, public=public), sizes, tuple(skipped))
            except MissingError:
                continue  # superseded between listing and reading
            except IntegrityError as error:
                skipped.append(
                    Finding(
                        rule=error.code,
                        severity=Severity.HIGH,
                        subject=checkpoint_name(self.prefix, size),
                        evidence=error.message,
                    )
                )
        return Latest(None, sizes, tuple(skipped))

    def hashes(self, size: int, *, level: int, index: int) -> tuple[bytes, ...]:
        """The hashes of a tile in a tree of `size` leaves.

        Raises:
            IntegrityError: `ledger.tile`.
            MissingError: `store.missing`.
        """
        wanted = Place(f"tile/{level}", index, width_at(size, level, index))
        raw, place = self._read(wanted)
        name = place_name(self.prefix, place)
        return parsed_tile(raw, width=place.width, name=name)[: wanted.width]

    def leaves(self, size: int, *, index: int) -> tuple[bytes, ...]:
        """The leaves of an entry bundle in a tree of `size` leaves.

        Raises:
            IntegrityError: `ledger.bundle`.
            MissingError: `store.missing`.
        """
        wanted = Place("tile/entries", index, width_at(size, 0, index))
        raw, place = self._read(wanted)
        name = place_name(self.prefix, place)
        return parsed_entry_bundle(raw, width=place.width, name=name)[: wanted.width]

    def bodies(self, size: int, *, index: int, body_key: Secret) -> tuple[CommittedBody, ...]:
        """The bodies of a bundle in a tree of `size` leaves.

        Raises:
            IntegrityError: `ledger.body`, `aead.tag` or `aead.short`.
            MissingError: `store.missing`.
        """
        wanted = Place("body", index, width_at(size, 0, index))
        raw, place = self._read(wanted)
        bodies = opened_bodies(raw, prefix=self.prefix, place=place, body_key=body_key)
        return bodies[: wanted.width]

    def edge(self, checkpoint: Checkpoint) -> Edge:
        """The right edge of the tree, proven against the checkpoint's root.

        Raises:
            IntegrityError: `ledger.edge` or `ledger.tile`.
            MissingError: `store.missing`.
        """
        size = checkpoint.size
        levels: list[tuple[bytes, ...]] = []
        for level in range(levels_of(size)):
            index, width = divmod(level_count(size, level), TILE_WIDTH)
            levels.append(self.hashes(size, level=level, index=index) if width else ())
        edge = Edge(size, levels)
        if edge.root() != checkpoint.root:
            raise IntegrityError(
                "ledger.edge",
                f"{self.store.label}: the last tiles do not give the root of checkpoint {size}",
                hint="run `modelkeep ledger verify`; it says which object is damaged",
                expected=checkpoint.root.hex(),
                got=edge.root().hex(),
            )
        return edge

    def range_root(self, size: int) -> RangeRoot:
        """Roots of ranges of the tree of `size` leaves, from its tiles."""
        cache: dict[tuple[int, int], tuple[bytes, ...]] = {}

        def tile(level: int, index: int) -> tuple[bytes, ...]:
            if (level, index) not in cache:
                if len(cache) >= _TILES_CACHED_MAX:
                    cache.clear()
                cache[level, index] = self.hashes(size, level=level, index=index)
            return cache[level, index]

        def root(start: int, end: int) -> bytes:
            length = end - start
            if length == 0:
                return EMPTY_ROOT
            if length & (length - 1) == 0 and start % length == 0:
                level, rest = divmod(length.bit_length() - 1, TILE_HEIGHT)
                first = start >> (TILE_HEIGHT * level)
                index, at = divmod(first, TILE_WIDTH)
                return root_of(tile(level, index)[at : at + (1 << rest)])
            middle = start + split_point(length)
            return node_hash(root(start, middle), root(middle, end))

        return root

    def _read(self, wanted: Place) -> tuple[bytes, Place]:
        """The object, or the full one that has superseded it (tlog-tiles, "Partial Tiles")."""
        try:
            return self.store.get(place_name(self.prefix, wanted)), wanted
        except MissingError:
            if not wanted.is_partial:
                raise
            full = Place(wanted.kind, wanted.index, TILE_WIDTH)
            try:
                return self.store.get(place_name(self.prefix, full)), full
            except MissingError:
                pass
            raise


def published_bodies(
    log: LogReader, size: int, *, index: int, body_key: Secret
) -> tuple[CommittedBody, ...]:
    """The bodies of one bundle, compared with the leaves that commit to them.

    Raises:
        IntegrityError: `ledger.body`, `ledger.bundle`, `aead.tag` or `aead.short`.
        MissingError: `store.missing`.
    """
    leaves = log.leaves(size, index=index)
    bodies = log.bodies(size, index=index, body_key=body_key)
    for at, (leaf, body) in enumerate(zip(leaves, bodies, strict=True)):
        if leaf != body.leaf:
            number = index * TILE_WIDTH + at
            raise IntegrityError(
                "ledger.body",
                f"{log.store.label}: the body of entry {number} is not what its leaf commits to",
                entry=number,
            )
    return bodies
