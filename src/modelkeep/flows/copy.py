"""Copy: bring some artifacts to one store now, ahead of the next backup.

is it ours? -> chunks, encoded as it encodes -> recipe, envelope -> all of it read back -> ledger
No snapshot and no head goes along, because those name what was not copied: the keep can read from
there what was copied, and `backup` makes it a store that the keep can come back from. It goes on
where this stopped, as does another copy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from modelkeep.core.artifact import ModelReference
from modelkeep.core.errors import IntegrityError, MissingError, UsageError
from modelkeep.core.instant import NS_PER_S
from modelkeep.core.names import key_id_of
from modelkeep.core.record import Record
from modelkeep.flows.backup import demand_own
from modelkeep.flows.carry import carried
from modelkeep.flows.check import demand_object
from modelkeep.flows.keep import OpenKeep, current_head, record, record_damages
from modelkeep.flows.registry import resolved
from modelkeep.ports.store import Store
from modelkeep.vault.check import demand_content
from modelkeep.vault.load import Reader
from modelkeep.vault.replicate import copy_objects
from modelkeep.vault.settings import VaultSettings
from modelkeep.vault.snapshot import ArtifactEntry, Snapshot, entry_of


class CopyReport(Record, frozen=True):
    """What a store got.

    Attributes:
        versions: that it holds now, such as `fraud:2`.
        objects: written in this run; none when it held everything.
        damaged: what could not be brought over, because no store has it whole.
        missing: what the store still lacks, or holds damaged.
    """

    store: str
    source: str
    versions: tuple[str, ...]
    objects: int
    size_bytes: int
    seconds: float
    damaged: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()

    @property
    def is_whole(self) -> bool:
        """Whether the store holds all of these versions."""
        return not (self.damaged or self.missing)


def copied(
    keep: OpenKeep,
    references: Sequence[ModelReference],
    *,
    target: str,
    source: str = "",
    vault: VaultSettings,
    may_be_empty: bool = False,
    progress: Callable[[int], None] = lambda _: None,
) -> CopyReport:
    """Bring artifacts to a store.

    Args:
        references: none for everything that the newest snapshot holds.
        target: label of the store.
        source: label of the store that is read first; empty for the first one.
        may_be_empty: the store is new.

    Raises:
        UsageError: `copy.target`, `copy.store`.
        MissingError: `model.unknown`.
        UnavailableError: `backup.empty`, or from a store; the same command goes on.
        RefusedError: `backup.foreign`.
    """
    started_ns = keep.clock.monotonic_ns()
    into, origin = _stores(keep, target, source)
    demand_own(keep, into, may_be_empty=may_be_empty)
    reader = keep.reader()
    head = current_head(keep)
    snapshot = reader.snapshot(head.snapshot)
    entries = _chosen(keep, snapshot, references)
    others = [each for each in keep.stores if each.label not in (into.label, origin.label)]
    ordered = replace(keep, stores=(origin, *others, into))
    objects, size_bytes = _series(keep, into)
    chunks = carried(
        ordered,
        into,
        head.snapshot,
        vault=vault,
        only={each.recipe for each in entries},
        progress=progress,
    )
    small = [name for each in entries for name in (each.recipe, each.envelope)]
    for name, raw in _lacking(into, small, ordered.reader(may_heal=False)):
        into.put(name, raw)
        objects, size_bytes = objects + 1, size_bytes + len(raw)
    record_damages(keep, reader.damages)
    report = CopyReport(
        store=into.label,
        source=origin.label,
        versions=tuple(f"{each.name}:{each.version}" for each in entries),
        objects=objects + chunks.objects,
        size_bytes=size_bytes + chunks.size_bytes,
        seconds=round((keep.clock.monotonic_ns() - started_ns) / NS_PER_S, 3),
        damaged=chunks.damaged,
        missing=tuple(_missing(keep.reader_of((into,)), into, entries, chunks.packs)),
    )
    _record(keep, report)
    return report


def _stores(keep: OpenKeep, target: str, source: str) -> tuple[Store, Store]:
    """The store that is written to, and the one that is read first."""
    found = {each.label: each for each in keep.stores}
    for label in filter(None, (target, source)):
        if label not in found:
            raise UsageError(
                "copy.store",
                f"there is no store {label[:80]!r}",
                hint=f"modelkeep.toml lists {', '.join(found)}",
            )
    into, origin = found[target], found[source or keep.store.label]
    if into is keep.store:
        raise UsageError(
            "copy.target",
            f"{target} is the first store, which everything is written to",
            hint="`modelkeep check --repair` fills what it has lost",
        )
    if into is origin:
        raise UsageError("copy.target", "a store is not copied to itself")
    return into, origin


def _chosen(
    keep: OpenKeep, snapshot: Snapshot, references: Sequence[ModelReference]
) -> list[ArtifactEntry]:
    """The entries of what was named, each once, earlier versions first."""
    if not references:
        return sorted(snapshot.artifacts, key=lambda each: (each.version, each.name))
    named = [(each.name, resolved(each, snapshot, keep.state)) for each in references]
    entries = [entry_of(snapshot, name, version) for name, version in dict.fromkeys(named)]
    return sorted(entries, key=lambda each: (each.version, each.name))


def _series(keep: OpenKeep, into: Store) -> tuple[int, int]:
    """Say whose store it is, where it is new: the number of objects, and their bytes."""
    there = {stat.name for stat in into.list("format/")}
    lacking = [stat for stat in keep.store.list("format/") if stat.name not in there]
    reader = keep.reader(may_heal=False)
    done = copy_objects(
        lacking,
        source=keep.store,
        target=into,
        verify=lambda name, raw: demand_object(keep, name, raw, reader=reader),
    )
    return done.objects, done.size_bytes


def _lacking(into: Store, names: Sequence[str], reader: Reader) -> Iterator[tuple[str, bytes]]:
    """Small objects that a store does not hold, each proven; a damaged one is taken away."""

    def proven(store: Store, name: str) -> bytes:
        raw = store.get(name)
        demand_content(name, raw, reader=reader)
        return raw

    for name in names:
        try:
            proven(into, name)
        except MissingError:
            pass
        except IntegrityError:
            into.delete(name)
        else:
            continue
        yield name, reader.first_good(name, lambda store, name=name: proven(store, name))  # type: ignore[misc]


def _missing(
    alone: Reader, into: Store, entries: Sequence[ArtifactEntry], fresh: Sequence[str]
) -> Iterator[str]:
    """What a store, read on its own, lacks of some artifacts; packs that are new are read back."""
    whole: dict[str, bool] = {}
    for name in fresh:
        try:
            demand_content(name, into.get(name), reader=alone)
        except (IntegrityError, MissingError):
            whole[name] = False
    for entry in entries:
        key_id = key_id_of(entry.recipe)
        index = alone.index_of(into, key_id)
        recipe = alone.recipe(entry.recipe)
        chunks = dict.fromkeys(each for file in recipe.files for each, _ in file.chunks)
        for chunk_id in chunks:
            for pack, segment in index.find_all(chunk_id):
                if pack.name not in whole:
                    stat = into.stat(pack.name)
                    whole[pack.name] = stat is not None and stat.size_bytes == pack.size_bytes
                if whole[pack.name] and (not segment.base or segment.base in index):
                    break
            else:
                yield f"{entry.name}:{entry.version}: chunk {chunk_id.hex()[:16]}"


def _record(keep: OpenKeep, report: CopyReport) -> None:
    record(
        keep,
        "vault.copied",
        {
            "store": report.store,
            "source": report.source,
            "versions": len(report.versions),
            "objects": report.objects,
            "size_bytes": report.size_bytes,
            "missing": len(report.missing),
            "damaged": len(report.damaged),
        },
    )
