"""Stats: what the keep holds and what it takes: raw, without repetition, encoded, in each store.

Read are the kept snapshots, their recipes and manifests, and every store's indexes; no pack.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from modelkeep.core.errors import KeepError
from modelkeep.core.names import key_id_of
from modelkeep.core.record import Record
from modelkeep.flows.keep import OpenKeep, current_head, record_damages
from modelkeep.flows.registry import proof_of
from modelkeep.kernels.encoding import Encoding
from modelkeep.kernels.pack_rows import IdSet
from modelkeep.ports.store import Store
from modelkeep.vault.bases import Tensors
from modelkeep.vault.check import snapshots
from modelkeep.vault.commit import jobs_of
from modelkeep.vault.index import ChunkIndex
from modelkeep.vault.load import Reader
from modelkeep.vault.replicate import CONTENT_KINDS, kind_of
from modelkeep.vault.snapshot import ArtifactEntry, Recipe, Snapshot

TIB = 1024**4
# What a chunk is of that no tensor covers, or of a file that has none.
BYTES = "bytes"
# What no kept snapshot names: `prune` takes it.
UNUSED = "unused"


class Share(Record, frozen=True):
    """What chunks of one kind come to in a store.

    Attributes:
        raw_bytes: of plaintext.
        stored_bytes: of what it is encoded to, without padding and tables.
    """

    kind: str
    chunks: int
    raw_bytes: int
    stored_bytes: int

    @property
    def ratio(self) -> float:
        """Stored over raw."""
        return self.stored_bytes / self.raw_bytes if self.raw_bytes else 1.0


class StoreStats(Record, frozen=True):
    """One store.

    Attributes:
        raw_bytes: plaintext of its chunks.
        packs_bytes: what its packs take, padding and tables included.
        objects_bytes: what indexes, recipes, envelopes and snapshots take.
        encodings: by how chunks are encoded.
        dtypes: by what they are made of.
        index_bytes: memory that its indexes take when they are merged.
        index_bytes_per_tib: likewise, for each TiB of plaintext with chunks of this size.
        error: why nothing is known of it, or empty.
    """

    store: str
    encoding: str
    packs: int = 0
    chunks: int = 0
    raw_bytes: int = 0
    packs_bytes: int = 0
    objects_bytes: int = 0
    encodings: tuple[Share, ...] = ()
    dtypes: tuple[Share, ...] = ()
    index_bytes: int = 0
    index_bytes_per_tib: int = 0
    error: str = ""

    @property
    def stored_bytes(self) -> int:
        """All that it takes, the ledger aside."""
        return self.packs_bytes + self.objects_bytes


class Stats(Record, frozen=True):
    """The whole keep.

    Attributes:
        raw_bytes: all files of all kept versions.
        distinct_bytes: what is left of them when each chunk counts once.
    """

    snapshots: int
    versions: int
    raw_bytes: int
    distinct_bytes: int
    stores: tuple[StoreStats, ...]

    @property
    def dedup(self) -> float:
        """How often a byte occurs on average."""
        return self.raw_bytes / self.distinct_bytes if self.distinct_bytes else 1.0


def stats_of(keep: OpenKeep) -> Stats:
    """Count everything.

    Raises:
        KeepError: when a kept snapshot or recipe cannot be read.
    """
    reader = keep.reader()
    named = _Named()
    count = 0
    for _, snapshot in snapshots(reader, current_head(keep).snapshot):
        count += 1
        for entry in snapshot.artifacts:
            if entry.recipe not in named.recipes and reader.holds(entry.recipe):
                named.add(entry.recipe, reader.recipe(entry.recipe))
                named.add_types(_typed(keep, reader, snapshot, entry))
    record_damages(keep, reader.damages)
    return Stats(
        snapshots=count,
        versions=len(named.recipes),
        raw_bytes=named.raw_bytes,
        distinct_bytes=named.distinct_bytes,
        stores=tuple(_store(keep, reader, store, named) for store in keep.stores),
    )


@dataclass(slots=True)
class _Named:
    """What recipes name."""

    recipes: set[str] = field(default_factory=set)
    raw_bytes: int = 0
    distinct_bytes: int = 0
    dtypes: dict[str, IdSet] = field(default_factory=dict)
    _seen: IdSet = field(default_factory=IdSet)

    def add(self, name: str, recipe: Recipe) -> None:
        """Add a recipe's files."""
        self.recipes.add(name)
        self.raw_bytes += sum(each.size_bytes for each in recipe.files)
        lengths = {each: length for file in recipe.files for each, length in file.chunks}
        fresh = self._seen.lacking(list(lengths))
        self.distinct_bytes += sum(lengths[each] for each in fresh)
        self._seen.update(fresh)

    def add_types(self, typed: Iterable[tuple[str, bytes]]) -> None:
        """Add what chunks are made of."""
        for dtype, chunk_id in typed:
            self.dtypes.setdefault(dtype, IdSet()).update((chunk_id,))

    def dtype_of(self, chunk_id: bytes) -> str:
        """What a chunk is made of."""
        return next((name for name, ids in self.dtypes.items() if chunk_id in ids), UNUSED)


def _typed(
    keep: OpenKeep, reader: Reader, snapshot: Snapshot, entry: ArtifactEntry
) -> Iterator[tuple[str, bytes]]:
    """Every chunk of an artifact with what it is made of."""
    tensors: dict[str, Tensors] = {}
    try:
        proof = proof_of(keep, reader, snapshot, name=entry.name, version=entry.version)
        tensors = {each.path: each.tensors for each in proof.manifest.files}
    except KeepError:
        pass  # a check names it; here its chunks count as bytes
    for file in reader.recipe(entry.recipe).files:
        at, places = 0, []
        for _, length in file.chunks:
            places.append((at, length))
            at += length
        jobs = jobs_of(places, tensors.get(file.path, ()), {})
        for job, (chunk_id, _) in zip(jobs, file.chunks, strict=True):
            yield job.dtype or BYTES, chunk_id


def _store(keep: OpenKeep, reader: Reader, store: Store, named: _Named) -> StoreStats:
    policy = str(keep.policy_of(store))
    encodings, dtypes = _Shares(), _Shares()
    packs = chunks = raw_bytes = index_bytes = packs_bytes = objects_bytes = 0
    try:
        key_ids = set()
        for stat in store.list(""):
            if kind_of(stat.name) not in CONTENT_KINDS:
                continue
            if kind_of(stat.name) == "pack":
                packs += 1
                packs_bytes += stat.size_bytes
                key_ids.add(key_id_of(stat.name))
            else:
                objects_bytes += stat.size_bytes
        for key_id in sorted(key_ids):
            if not keep.domains.holds(f"pack/{key_id}/00/00"):
                continue
            index: ChunkIndex = reader.index_of(store, key_id)
            chunks += len(index)
            index_bytes += index.size_bytes
            for _, segment in index.segments():
                raw_bytes += segment.length
                sizes = (segment.length, segment.payload_bytes)
                encodings.add(Encoding(segment.encoding).name.lower(), *sizes)
                dtypes.add(named.dtype_of(segment.chunk_id), *sizes)
    except KeepError as error:
        return StoreStats(store=store.label, encoding=policy, error=str(error))
    return StoreStats(
        store=store.label,
        encoding=policy,
        packs=packs,
        chunks=chunks,
        raw_bytes=raw_bytes,
        packs_bytes=packs_bytes,
        objects_bytes=objects_bytes,
        encodings=encodings.rows(),
        dtypes=dtypes.rows(),
        index_bytes=index_bytes,
        index_bytes_per_tib=index_bytes * TIB // raw_bytes if raw_bytes else 0,
    )


class _Shares:
    """Sums by kind."""

    def __init__(self) -> None:
        self._sums: dict[str, list[int]] = {}

    def add(self, kind: str, raw_bytes: int, stored_bytes: int) -> None:
        sums = self._sums.setdefault(kind, [0, 0, 0])
        sums[0] += 1
        sums[1] += raw_bytes
        sums[2] += stored_bytes

    def rows(self) -> tuple[Share, ...]:
        """The largest first."""
        found = [Share(kind, *sums) for kind, sums in self._sums.items()]
        return tuple(sorted(found, key=lambda each: -each.stored_bytes))
