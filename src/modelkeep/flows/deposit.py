"""How files enter the keep: their chunks first, which takes long; then the commit, which is short.

Chunks may be written while others change the keep: nothing refers to them yet. Whoever writes many
gives up its turn at changing the keep meanwhile. The commit, in a turn of its own, reads the
snapshot that counts then, and checks that no prune or rekey took what it is about to name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from typing import Protocol, TypeVar

from modelkeep.core.artifact import Manifest, parsed_reference
from modelkeep.core.entry import Fact
from modelkeep.core.errors import MissingError, UnavailableError, UsageError
from modelkeep.core.limits import OBJECT_BYTES_MAX
from modelkeep.core.record import replaced, to_msgpack
from modelkeep.core.rows import DEFAULT_DOMAIN
from modelkeep.crypto.hierarchy import DomainKeys
from modelkeep.flows.candidates import Candidates
from modelkeep.flows.commit import committed
from modelkeep.flows.keep import OpenKeep, current_snapshot
from modelkeep.flows.registry import resolved
from modelkeep.kernels.digest import digest_of
from modelkeep.seal.envelope import sealed
from modelkeep.vault.bases import layout_id
from modelkeep.vault.commit import Deposit, Stored, Stream, put_sealed, stored
from modelkeep.vault.load import Damage
from modelkeep.vault.settings import VaultSettings
from modelkeep.vault.snapshot import ArtifactEntry, Recipe, Snapshot, next_version

T = TypeVar("T")
# Gives an entry for the ledger of the version with this number: its kind and facts.
Also = Callable[[int], tuple[str, dict[str, Fact]]]

# Below this a deposit is over sooner than a keep is opened again.
KEPT_TURN_BYTES_MAX = 64 * 1024 * 1024
# A prune or a rekey may take what was written; one that does so twice is answered with an error.
ATTEMPTS = 3
# What sealing adds to an object.
_OVERHEAD_BYTES = 4096
# Versions of the same name that are looked at for a base.
_OWN_BASES = 4


class Turn(Protocol):
    """Our turn at changing the keep, which can be given up for a while."""

    @property
    def opened(self) -> OpenKeep:
        """The keep as it is now; another one after each `released`."""
        ...

    def released(self) -> AbstractContextManager[None]:
        """Let others change the keep meanwhile; afterwards it is ours again.

        Raises:
            KeepError: when the keep cannot be opened again.
        """
        ...


@dataclass(frozen=True, slots=True)
class SoleTurn:
    """A turn that is not given up: of those who hold on to a keep that is open."""

    opened: OpenKeep

    def released(self) -> AbstractContextManager[None]:
        """Nothing changes."""
        return nullcontext()


def lent(turn: Turn, size_bytes: int) -> AbstractContextManager[None]:
    """Give up the turn while so much is written, where that takes long."""
    return turn.released() if size_bytes > KEPT_TURN_BYTES_MAX else nullcontext()


def retried(story: Callable[[], T]) -> T:
    """Do it again when a prune or a rekey took what was written before it could be named.

    Raises:
        UnavailableError: `vault.pruned`, of the last attempt.
    """
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return story()
        except UnavailableError as error:
            if error.code != "vault.pruned" or attempt == ATTEMPTS:
                raise
    raise AssertionError("the last attempt returns or raises")


@dataclass(frozen=True, slots=True)
class Deposited:
    """Files whose chunks are in the authoritative store, not yet named by anything.

    Attributes:
        damages: what was met on the way and is not recorded yet.
    """

    domain: DomainKeys
    wrote: Stored
    damages: tuple[Damage, ...] = ()

    def recipe(self) -> Recipe:
        """How the files are put together."""
        return Recipe(files=tuple(each.recipe for each in self.wrote.files))


def domain_for(keep: OpenKeep, snapshot: Snapshot, name: str, domain: str) -> DomainKeys:
    """Where an artifact is kept: all of its versions in one domain.

    Args:
        domain: that was asked for; empty for that of the version before, or `default`.

    Raises:
        MissingError: `keys.domain`.
        UsageError: `admit.domain`.
    """
    before = {each.domain for each in snapshot.artifacts if each.name == name}
    chosen = domain or next(iter(before), DEFAULT_DOMAIN)
    if before and chosen not in before:
        raise UsageError(
            "admit.domain",
            f"{name} is kept in the domain {next(iter(before))}, not in {chosen}",
            hint="leave the domain out, or admit it under another name",
        )
    return keep.domains.named(chosen)


def bases_of(keep: OpenKeep, snapshot: Snapshot, name: str, base: str) -> list[tuple[str, int]]:
    """Where to look first for a base: what was given, then earlier versions, the latest first."""
    given: list[tuple[str, int]] = []
    if base:
        reference = parsed_reference(base)
        with suppress(MissingError):  # lineage may name what the keep does not hold
            given.append((reference.name, resolved(reference, snapshot, keep.state)))
    own = sorted((each.version for each in snapshot.artifacts if each.name == name), reverse=True)
    return [*given, *((name, version) for version in own[:_OWN_BASES])]


def written(
    keep: OpenKeep,
    sources: Iterable[Stream],
    *,
    domain: DomainKeys,
    snapshot: Snapshot,
    first: Sequence[tuple[str, int]] = (),
    vault: VaultSettings,
    progress: Callable[[int], None] = lambda _: None,
) -> Deposited:
    """Write the chunks of files into the authoritative store; nothing refers to them yet.

    The keep's turn is not needed: nothing of State or the ledger is touched.

    Args:
        first: (name, version) of artifacts that are looked at first for a base.

    Raises:
        UnavailableError: from the store; retry is safe.
    """
    reader = keep.reader()
    key_id = domain.key_id
    candidates = Candidates(
        reader=reader,
        snapshot=snapshot,
        key_id=key_id,
        layout_key=domain.chunk_ids.reveal(),
        first=first,
    )
    wrote = stored(
        sources,
        writer=keep.writer_to(keep.store, domain, vault),
        known=reader.index_of(keep.store, key_id),
        candidates=candidates.of,
        fetch=lambda chunk_id: reader.chunk(chunk_id, key_id=key_id),
        progress=progress,
    )
    return Deposited(domain=domain, wrote=wrote, damages=tuple(reader.damages))


def entered(
    keep: OpenKeep,
    manifest: Manifest,
    recipe: Recipe,
    *,
    domain: DomainKeys,
    kind: str,
    vault: VaultSettings,
    also: Sequence[Also] = (),
) -> tuple[Manifest, str]:
    """Recipe -> envelope -> snapshot -> ledger entry -> head.

    Args:
        manifest: of the new version, which gets its number here.
        kind: of the ledger entry, such as `model.admitted`.
        also: each gives one more entry, of the version, for the same write to the ledger.

    Returns:
        The manifest with its number, and its digest.

    Raises:
        UnavailableError: `vault.pruned`, when a prune took chunks since they were written.
        UsageError: `admit.domain` or `manifest.size`.
    """
    before = current_snapshot(keep)
    domain_for(keep, before, manifest.name, domain.name)
    demand_indexed(keep, recipe, domain)
    manifest = replaced(manifest, version=next_version(before, manifest.name))
    writer = keep.writer_to(keep.store, keep.domains.named(domain.name), vault)
    envelope = sealed(manifest, signer=keep.keys.signer)
    body = to_msgpack(recipe)
    if max(len(body), len(envelope.manifest)) > OBJECT_BYTES_MAX - _OVERHEAD_BYTES:
        raise UsageError(
            "manifest.size",
            f"{manifest.name} has too many files and tensors for one manifest",
            hint="save parts of it under names of their own",
        )
    layouts = {layout_id(domain.chunk_ids.reveal(), each.tensors) for each in manifest.files}
    artifact = ArtifactEntry(
        name=manifest.name,
        version=manifest.version,
        domain=manifest.domain,
        recipe=put_sealed(writer, "recipe", body),
        envelope=put_sealed(writer, "envelope", to_msgpack(envelope)),
        layouts=tuple(sorted(filter(None, layouts))),
    )
    after = replaced(
        before,
        taken_ns=keep.clock.now_ns(),
        parent=keep.state.applied().snapshot,
        artifacts=(*before.artifacts, artifact),
        indexes=(),
    )
    digest = digest_of(envelope.manifest)
    facts: dict[str, Fact] = {
        "model": manifest.name,
        "version": manifest.version,
        "manifest": digest,
        "size_bytes": sum(each.size_bytes for each in manifest.files),
        "domain": manifest.domain,
    }
    committed(keep, after, (kind, facts), *(each(manifest.version) for each in also))
    return manifest, digest


def demand_indexed(keep: OpenKeep, recipe: Recipe, domain: DomainKeys) -> None:
    """Check that the authoritative store still holds what a recipe is about to name.

    Its indexes are read anew; each pack that is named is asked for once, each base of a delta too.

    Raises:
        UnavailableError: `vault.pruned`.
    """
    index = keep.reader().index_of(keep.store, domain.key_id)
    deposit = Deposit(keep.writer_to(keep.store, domain, VaultSettings()), index)
    if domain.key_id != keep.domains.named(domain.name).key_id or not all(
        _is_there(deposit, chunk_id)
        for chunk_id in {each for file in recipe.files for each, _ in file.chunks}
    ):
        raise UnavailableError(
            "vault.pruned",
            "a prune or a rekey took what was written while this command ran",
            hint="run the same command again",
        )


def _is_there(deposit: Deposit, chunk_id: bytes) -> bool:
    bases = [segment.base for _, segment in deposit.known.find_all(chunk_id)]
    return deposit.holds(chunk_id) and any(not each or deposit.holds(each) for each in bases)
