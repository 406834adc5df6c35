"""Rekey: a new key for one domain, and everything in it encrypted anew under it.

new key in the keyring, the old one retires -> each artifact: loaded, proven, stored anew, committed
-> every store brought up -> the old key leaves the keyring -> what was under it is removed

Each step is durable before the next, and each can be cut: `rekey` of a domain whose old key still
retires goes on where it was. Until the last steps nothing is lost, because both keys read. Signed
manifests stay as they are, byte for byte; only what encrypts them changes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from modelkeep.core.entry import Fact
from modelkeep.core.errors import RefusedError, UnavailableError, UsageError
from modelkeep.core.names import key_id_of
from modelkeep.core.record import replaced, to_msgpack
from modelkeep.core.rows import Domain, DomainStatus
from modelkeep.flows.backup import backed_up
from modelkeep.flows.commit import committed
from modelkeep.flows.create import new_domain_key
from modelkeep.flows.keep import OpenKeep, current_head, record, record_damages
from modelkeep.flows.keyring import with_domain, without_domain
from modelkeep.flows.keys import has_columns, remove_unreadable, with_ring
from modelkeep.flows.registry import proof_of
from modelkeep.seal.trust import demand_entry, file_of
from modelkeep.vault.bases import layout_id
from modelkeep.vault.commit import Stream, Writer, put_sealed, stored
from modelkeep.vault.load import Reader, places_in
from modelkeep.vault.pieces import Pieces, pieces_of
from modelkeep.vault.settings import VaultSettings
from modelkeep.vault.snapshot import ArtifactEntry, Snapshot


@dataclass(frozen=True, slots=True)
class Rekeyed:
    """What a rekey did.

    Attributes:
        artifacts: encrypted anew by this run.
        removed: objects that were under the old key.
    """

    keep: OpenKeep
    artifacts: int
    removed: int


def rekeyed(
    keep: OpenKeep,
    name: str,
    *,
    vault: VaultSettings,
    keep_old: bool = False,
    progress: Callable[[int], None] = lambda _: None,
) -> Rekeyed:
    """Give a domain a new key; earlier snapshots, which need the old one, are gone afterwards.

    Args:
        keep_old: stop before the old key goes: encrypted columns of a database still need it.

    Raises:
        MissingError: `keys.domain`.
        UsageError: `keys.columns`, for a domain that columns of a database are encrypted under.
        RefusedError: `keys.revoked`: what is revoked is not touched.
        UnavailableError: `keys.rekey`, when a store could not be brought up: the old key is kept
            until all hold what is new, and the same command goes on.
    """
    keep.domains.named(name)
    if any(
        row.name == name and row.status is not DomainStatus.LIVE for row in keep.state.rows(Domain)
    ):
        raise RefusedError(
            "keys.revoked", f"the domain {name} is revoked", hint="`modelkeep keys restore` first"
        )
    is_under_way = any(each.is_retiring for each in keep.domains.all_of(name))
    if not (keep_old or is_under_way) and has_columns(keep, name):
        raise UsageError(
            "keys.columns",
            f"columns of a database are encrypted under {name}: they need both keys for a while",
            hint="rekey with --keep-old, rotate the columns, then rekey once more to finish",
        )
    if not is_under_way:
        body = with_domain(keep.ring.body, new_domain_key(name, keep.entropy))
        keep = with_ring(keep, body, reason=f"rekey {name}")
    remove_unreadable(keep)  # what a run that was cut short left: it would not be copied
    done = _moved(keep, name, vault, progress)
    if keep_old:
        return Rekeyed(keep=keep, artifacts=done, removed=0)
    behind = [each.store for each in backed_up(keep) if not each.is_whole]
    if behind:
        raise UnavailableError(
            "keys.rekey",
            f"{', '.join(behind)} could not be brought up: the old key of {name} is still needed",
            hint="mend that (`modelkeep check --repair`), then run the same command again",
        )
    body = without_domain(keep.ring.body, name, only_retiring=True)
    keep = with_ring(keep, body, reason=f"rekeyed {name}")
    removed = remove_unreadable(keep)
    record(keep, "domain.rekeyed", {"domain": name, "artifacts": done, "removed": removed})
    return Rekeyed(keep=keep, artifacts=done, removed=removed)


def _moved(keep: OpenKeep, name: str, vault: VaultSettings, progress: Callable[[int], None]) -> int:
    """Store anew whatever the current snapshot holds under a key that retires, one by one."""
    old = {each.key_id for each in keep.domains.all_of(name) if each.is_retiring}
    writer = keep.writer_to(keep.store, keep.domains.named(name), vault)
    done = 0
    reader = keep.reader()
    snapshot = reader.snapshot(current_head(keep).snapshot)
    for entry in snapshot.artifacts:
        if key_id_of(entry.envelope) in old:
            snapshot = _with_moved(keep, reader, writer, snapshot, entry, progress=progress)
            done += 1
    record_damages(keep, reader.damages)
    return done


def _with_moved(
    keep: OpenKeep,
    reader: Reader,
    writer: Writer,
    snapshot: Snapshot,
    entry: ArtifactEntry,
    *,
    progress: Callable[[int], None],
) -> Snapshot:
    """One artifact: read and proven as on any load, written under the new key, committed."""
    proof = proof_of(keep, reader, snapshot, name=entry.name, version=entry.version)
    old = key_id_of(entry.recipe)
    recipe = reader.recipe(entry.recipe)
    sources = [
        Stream(
            path=file.path,
            size_bytes=file.size_bytes,
            places=tuple(places_in(file)),
            read=partial(_chunk_into, pieces_of(file, old), reader),
            tensors=file_of(proof.manifest, file.path).tensors,
        )
        for file in recipe.files
    ]
    done = stored(
        sources,
        writer=writer,
        known=reader.index_of(keep.store, writer.domain.key_id),
        fetch=lambda chunk_id: reader.chunk(chunk_id, key_id=writer.domain.key_id),
        progress=progress,
    )
    for each in done.files:
        demand_entry(proof, each.entry)
    files = [
        replaced(file, chunks=each.recipe.chunks)
        for file, each in zip(recipe.files, done.files, strict=True)
    ]
    layouts = (
        layout_id(writer.domain.chunk_ids.reveal(), each.tensors) for each in proof.manifest.files
    )
    moved = replaced(
        entry,
        envelope=put_sealed(writer, "envelope", reader.body("envelope", entry.envelope)),
        recipe=put_sealed(writer, "recipe", to_msgpack(replaced(recipe, files=tuple(files)))),
        layouts=tuple(sorted(filter(None, layouts))),
    )
    after = replaced(
        snapshot,
        taken_ns=keep.clock.now_ns(),
        parent=keep.state.applied().snapshot,
        artifacts=tuple(moved if each is entry else each for each in snapshot.artifacts),
        indexes=(),
    )
    facts: dict[str, Fact] = {"model": entry.name, "version": entry.version}
    committed(keep, after, ("model.rekeyed", facts))
    return after


def _chunk_into(pieces: Pieces, reader: Reader, start: int, target: memoryview) -> None:
    pieces.read_into(target, pieces.number_at(start), reader)
