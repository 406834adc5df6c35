"""Chunks on their way from the authoritative store to another one.

Between stores that encode alike whole packs are copied as they are; otherwise each file's chunks
are read, proven and encoded by the target's policy, against bases that the target holds. Indexes
are written as it goes, so that a run that was cut short goes on where it was.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import islice

from modelkeep.core.errors import IntegrityError, MissingError
from modelkeep.core.names import key_id_of
from modelkeep.core.record import Record, to_msgpack
from modelkeep.crypto.hierarchy import DomainKeys
from modelkeep.flows.candidates import Candidates
from modelkeep.flows.keep import OpenKeep
from modelkeep.flows.registry import proof_of
from modelkeep.ports.store import Store
from modelkeep.vault.check import demand_content, snapshots
from modelkeep.vault.commit import Deposit, Writer, put_sealed
from modelkeep.vault.index import ChunkIndex, packs_of, parted
from modelkeep.vault.load import Reader
from modelkeep.vault.mend import drop_packs
from modelkeep.vault.pack import PackEntry
from modelkeep.vault.reencode import reencoded
from modelkeep.vault.replicate import lacking_packs
from modelkeep.vault.selection import packs_within
from modelkeep.vault.settings import VaultSettings
from modelkeep.vault.snapshot import ArtifactEntry, Snapshot

# Packs between two indexes: 512 MiB of work is the most that a cut costs.
_PACKS = 32


class Carried(Record, frozen=True):
    """What a target got.

    Attributes:
        packs: names of the packs that were written.
        replaced: packs that the target held in another size than its index says.
        damaged: what could not be brought over because its own bytes are damaged everywhere.
    """

    objects: int
    size_bytes: int
    packs: tuple[str, ...]
    damaged: tuple[str, ...]
    replaced: int = 0


def carried(
    keep: OpenKeep,
    target: Store,
    snapshot_name: str,
    *,
    vault: VaultSettings,
    only: Collection[str] | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> Carried:
    """Bring every chunk that a snapshot and those before it need into a target.

    Args:
        only: names of recipes; no other chunks are brought over than theirs, and their bases.

    Raises:
        KeepError: when a snapshot or recipe cannot be read, or a store does not answer.
    """
    reader = keep.reader(may_heal=False)
    found: list[Carried] = []
    replaced_count = 0
    entries = [
        pair for pair in _entries(reader, snapshot_name) if only is None or pair[1].recipe in only
    ]
    for key_id in dict.fromkeys(key_id_of(entry.recipe) for _, entry in entries):
        domain = keep.domains.of(f"recipe/{key_id}/00/00")
        writer = keep.writer_to(target, domain, vault)
        known, replaced = _whole(keep, reader, writer)
        replaced_count += replaced
        mine = [pair for pair in entries if key_id_of(pair[1].recipe) == key_id]
        if keep.policy_of(target) is keep.policy_of(keep.store):
            wanted = None if only is None else _chunks_of(reader, mine)
            done = _copied(keep, reader, writer, known, wanted=wanted, progress=progress)
            found.append(done)
        found.append(_encoded(keep, reader, Deposit(writer, known), mine, progress))
    return Carried(
        objects=sum(each.objects for each in found),
        size_bytes=sum(each.size_bytes for each in found),
        packs=tuple(name for each in found for name in each.packs),
        damaged=tuple(name for each in found for name in each.damaged),
        replaced=replaced_count,
    )


def _entries(reader: Reader, snapshot_name: str) -> Iterator[tuple[Snapshot, ArtifactEntry]]:
    """Every artifact of the snapshots that are kept, once, earlier versions first."""
    seen: dict[str, tuple[Snapshot, ArtifactEntry]] = {}
    for _, snapshot in snapshots(reader, snapshot_name):
        for entry in snapshot.artifacts:
            if reader.holds(entry.recipe):
                seen.setdefault(entry.recipe, (snapshot, entry))
    yield from sorted(seen.values(), key=lambda pair: (pair[1].version, pair[1].name))


def _whole(keep: OpenKeep, reader: Reader, writer: Writer) -> tuple[ChunkIndex, int]:
    """What a target holds in packs that are really there; the others leave its indexes.

    Returns:
        The index, and how many packs had another size.
    """
    store, domain = writer.store, writer.domain
    listed = reader.index_of(store, domain.key_id)
    there = {stat.name: stat.size_bytes for stat in store.list(f"pack/{domain.key_id}/")}
    gone = {pack.name for pack in listed.packs() if there.get(pack.name) != pack.size_bytes}
    if not gone:
        return listed, 0
    known = ChunkIndex()
    for pack in packs_of(listed, without=gone):
        known.add(pack)
    drop_packs(writer, keep.reader(may_heal=False), gone)
    for name in gone & set(there):
        store.delete(name)  # it is there in another size
    return known, len(gone & set(there))


def _chunks_of(
    reader: Reader, entries: Sequence[tuple[Snapshot, ArtifactEntry]]
) -> frozenset[bytes]:
    """The ids of all chunks of some artifacts."""
    recipes = (reader.recipe(entry.recipe) for _, entry in entries)
    return frozenset(each for one in recipes for file in one.files for each, _ in file.chunks)


def _copied(
    keep: OpenKeep,
    reader: Reader,
    writer: Writer,
    known: ChunkIndex,
    *,
    wanted: Collection[bytes] | None,
    progress: Callable[[int], None],
) -> Carried:
    """Copy packs as they are, each proven before it is written; those with what is wanted only."""
    source = reader.index_of(keep.store, writer.domain.key_id)
    fitting = None if wanted is None else packs_within(source, known, wanted)
    size_bytes = 0
    packs: list[str] = []

    def proven(pack: PackEntry) -> bytes | None:
        try:
            raw = keep.store.get(pack.name)
            demand_content(pack.name, raw, reader=reader)
        except (IntegrityError, MissingError):
            return None  # its chunks may be whole elsewhere: they are encoded anew
        return raw

    lacking = (
        pack for pack in lacking_packs(source, known) if fitting is None or pack.name in fitting
    )
    while batch := list(islice(lacking, _PACKS)):
        done = []
        for pack, raw in zip(batch, writer.workers.map(proven, batch), strict=True):
            if raw is None:
                continue
            writer.store.put(pack.name, raw)
            done.append(pack)
            size_bytes += len(raw)
            progress(len(raw))
        for index in parted(done):
            put_sealed(writer, "index", to_msgpack(index))
        for pack in done:
            known.add(pack)
        packs += [pack.name for pack in done]
    return Carried(objects=len(packs), size_bytes=size_bytes, packs=tuple(packs), damaged=())


def _encoded(
    keep: OpenKeep,
    reader: Reader,
    deposit: Deposit,
    entries: Sequence[tuple[Snapshot, ArtifactEntry]],
    progress: Callable[[int], None],
) -> Carried:
    """Encode what the target lacks by its own policy."""
    domain: DomainKeys = deposit.writer.domain
    damaged: list[str] = []
    for snapshot, entry in entries:
        recipe = reader.recipe(entry.recipe)
        if all(deposit.holds(each) for file in recipe.files for each, _ in file.chunks):
            continue
        proof = proof_of(keep, reader, snapshot, name=entry.name, version=entry.version)
        tensors = {each.path: each.tensors for each in proof.manifest.files}
        own = [each.version for each in snapshot.artifacts if each.name == entry.name]
        candidates = Candidates(
            reader=reader,
            snapshot=snapshot,
            key_id=domain.key_id,
            layout_key=domain.chunk_ids.reveal(),
            first=tuple((entry.name, version) for version in own if version < entry.version),
        )
        for file in recipe.files:
            found = candidates.of(tensors.get(file.path, ())) if tensors.get(file.path) else []
            try:
                reencoded(
                    file,
                    tensors.get(file.path, ()),
                    deposit=deposit,
                    reader=reader,
                    candidates=[each for each in found if each.chunks != file.chunks],
                    fetch=lambda chunk_id: reader.chunk(chunk_id, key_id=domain.key_id),
                    progress=progress,
                )
            except IntegrityError as error:
                damaged.append(f"{entry.name}:{entry.version}/{file.path}: {error.code}")
        deposit.finished()
    return Carried(
        objects=len(deposit.packs),
        size_bytes=sum(pack.size_bytes for pack in deposit.packs),
        packs=tuple(pack.name for pack in deposit.packs),
        damaged=tuple(damaged),
    )
