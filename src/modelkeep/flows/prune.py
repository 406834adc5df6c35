"""Prune: what no kept snapshot needs goes, from every store that is whole.

new snapshot with `oldest` -> ledger -> head -> store by store: that snapshot and head -> what is
needed of wasteful packs, in new packs -> new indexes -> old indexes go -> packs go -> small objects
go -> heads of pruned snapshots go

Everything that goes is named by nothing before it goes, so a cut at any point leaves every kept
snapshot whole; the next prune goes on. A store that lacks something, or whose indexes cannot be
read, is passed over and named: `backup` or `repair` comes first.

It runs under the keep's writer lock. While something uploads without that lock, what no snapshot
ever named stays; and a commit checks under the lock that all it names is there
(`flows.deposit.demand_indexed`).

A store that refuses to delete (object lock, an append-only key) keeps what it has. Where it keeps
an index, it keeps packs too: an index must not name what is gone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from modelkeep.core.entry import Fact
from modelkeep.core.errors import IntegrityError, KeepError, MissingError, UsageError
from modelkeep.core.instant import NS_PER_S
from modelkeep.core.names import key_id_of
from modelkeep.core.record import Record, replaced, to_msgpack
from modelkeep.crypto.hierarchy import DomainKeys
from modelkeep.flows.commit import committed
from modelkeep.flows.keep import OpenKeep, current_head, record, record_damages
from modelkeep.flows.keyring import demand_ours
from modelkeep.kernels.pack_rows import IdSet
from modelkeep.ports.store import Store
from modelkeep.vault.check import snapshots
from modelkeep.vault.commit import Deposit, put_sealed
from modelkeep.vault.index import ChunkIndex, Index
from modelkeep.vault.load import Reader
from modelkeep.vault.mend import opened_indexes, picked
from modelkeep.vault.objects import demand_digest, member_names, opened_member, series_member
from modelkeep.vault.pack import Encoded, PackEntry
from modelkeep.vault.prune import WASTE_MAX, Moment, Plan, Survey, joined, oldest_kept
from modelkeep.vault.settings import VaultSettings
from modelkeep.vault.snapshot import Head, Snapshot

# A store that refuses so many deletions one after the other is not asked any further.
_REFUSALS_MAX = 16
_SMALL_KINDS = ("recipe", "envelope", "snapshot")


class PrunePolicy(Record, frozen=True):
    """Which snapshots stay, and how tidy packs are kept.

    Attributes:
        keep_last: how many changes of the keep, counted from the newest; 0 for no wish.
        keep_within_s: how far back all of them are kept; 0 for no wish. Without any wish all are.
        waste_max: from which useless share on a pack is written anew.
    """

    keep_last: int = 0
    keep_within_s: float = 0.0
    waste_max: float = WASTE_MAX


class StorePruned(Record, frozen=True):
    """What went from one store, or would go.

    Attributes:
        packs: that went.
        moved: of those, how many held something that was written anew.
        objects: small objects that went, indexes and heads included.
        freed_bytes: what went less what was written; estimated in a dry run.
        refused: deletions that the store did not carry out.
        error: why the store was passed over, or empty.
    """

    store: str
    packs: int = 0
    moved: int = 0
    objects: int = 0
    freed_bytes: int = 0
    refused: int = 0
    error: str = ""


class PruneReport(Record, frozen=True):
    """What a prune did, or would do.

    Attributes:
        oldest: the earliest snapshot that is kept.
        kept: snapshots that stay, without the one that the prune itself commits.
        dropped: snapshots that do not.
    """

    oldest: str
    kept: int
    dropped: int
    stores: tuple[StorePruned, ...]

    @property
    def is_done(self) -> bool:
        """Whether no store was passed over."""
        return not any(each.error for each in self.stores)


@dataclass(slots=True)
class _Needs:
    """What kept snapshots name: small objects, and chunks by the id of their key.

    Attributes:
        known: while something uploads, chunks of all snapshots, kept or not; else None.
    """

    objects: set[str] = field(default_factory=set)
    chunks: dict[str, IdSet] = field(default_factory=dict)
    known: dict[str, IdSet] | None = None


def pruned(
    keep: OpenKeep,
    policy: PrunePolicy,
    *,
    vault: VaultSettings,
    dry_run: bool = False,
    uploading: bool = False,
    progress: Callable[[int], None] = lambda _: None,
) -> PruneReport:
    """Drop old snapshots, and from every store what no other one needs.

    Args:
        dry_run: only say what would go; nothing is changed.
        uploading: whether somebody may be writing chunks that nothing names yet.

    Raises:
        UsageError: `prune.policy`.
        KeepError: when a kept snapshot or recipe cannot be read; nothing was changed.
    """
    _demand_sound(policy)
    reader = keep.reader(may_heal=not dry_run)
    head = current_head(keep)
    chain = list(_chain(reader, head.snapshot))
    since_ns = keep.clock.now_ns() - int(policy.keep_within_s * NS_PER_S)
    oldest = ""
    if chain:
        wish = since_ns if policy.keep_within_s else None
        oldest = oldest_kept(chain, last=policy.keep_last, since_ns=wish)
    kept = 1 + [each.name for each in chain].index(oldest) if chain else 0
    dropped = chain[kept:]
    needs = _needs(reader, head.snapshot, kept, uploading=uploading)
    if dropped and not dry_run:
        facts: dict[str, Fact] = {"oldest": oldest, "snapshots": len(dropped)}
        before = reader.snapshot(head.snapshot)
        after = replaced(
            before, taken_ns=keep.clock.now_ns(), parent=head.snapshot, oldest=oldest, indexes=()
        )
        committed(keep, after, ("vault.pruned", facts))
        head = current_head(keep)
        needs.objects.add(head.snapshot)
    pruning = _Pruning(keep, head, needs, policy, vault, dry_run=dry_run, progress=progress)
    stores = tuple(map(pruning.store, keep.stores))
    if not dry_run:
        record_damages(keep, reader.damages)
    return PruneReport(oldest=oldest, kept=kept, dropped=len(dropped), stores=stores)


def _demand_sound(policy: PrunePolicy) -> None:
    if policy.keep_last < 0 or policy.keep_within_s < 0 or not 0 <= policy.waste_max <= 1:
        raise UsageError(
            "prune.policy",
            "a number of snapshots and a time are not below zero, a share is from 0 to 1",
            hint="`modelkeep prune --keep-last 10` or `--keep-within 30d`",
        )


def _chain(reader: Reader, newest: str) -> Iterator[Moment]:
    """The snapshots that are kept so far, newest first."""
    newer: tuple[str, Snapshot] | None = None
    for name, snapshot in snapshots(reader, newest):
        if newer is not None:
            is_change = newer[1].artifacts != snapshot.artifacts
            yield Moment(newer[0], newer[1].taken_ns, is_change)
        newer = (name, snapshot)
    if newer is not None:
        yield Moment(newer[0], newer[1].taken_ns, is_change=True)


def _needs(reader: Reader, newest: str, kept: int, *, uploading: bool) -> _Needs:
    """What the newest snapshots name; where something uploads, what the others name too."""
    needs = _Needs(known={} if uploading else None)
    recipes: dict[str, bool] = {}
    for number, (name, snapshot) in enumerate(snapshots(reader, newest)):
        if number < kept:
            needs.objects.add(name)
        elif not uploading:
            break
        for each in snapshot.artifacts:
            if not reader.holds(each.recipe):
                continue
            if number < kept:
                needs.objects.update((each.envelope, each.recipe))
            recipes.setdefault(each.recipe, number < kept)
    for name, is_kept in recipes.items():
        chunk_ids = [each for file in reader.recipe(name).files for each, _ in file.chunks]
        if is_kept:
            needs.chunks.setdefault(key_id_of(name), IdSet()).update(chunk_ids)
        if needs.known is not None:
            needs.known.setdefault(key_id_of(name), IdSet()).update(chunk_ids)
    return needs


@dataclass(slots=True)
class _Tally:
    """What one store has lost and got so far."""

    packs: int = 0
    moved: int = 0
    objects: int = 0
    freed_bytes: int = 0
    refused: int = 0
    refused_in_row: int = 0


@dataclass(frozen=True, slots=True)
class _Pruning:
    """One prune under way."""

    keep: OpenKeep
    head: Head
    needs: _Needs
    policy: PrunePolicy
    vault: VaultSettings
    dry_run: bool = field(kw_only=True)
    progress: Callable[[int], None] = field(kw_only=True)

    def store(self, store: Store) -> StorePruned:
        """Prune one store, or say why it is passed over."""
        tally, error = _Tally(), ""
        try:
            demand_ours(store, public=self.keep.public)
            self._demand_whole(store)
            plans = [(domain, self._plan(store, domain)) for domain in self._domains()]
            if not self.dry_run:
                self._put_head(store)
            for domain, plan in plans:
                self._key(store, domain, plan, tally)
            self._objects(store, tally)
            self._heads(store, tally)
        except KeepError as failure:
            error = str(failure)
        done = StorePruned(
            store=store.label,
            packs=tally.packs,
            moved=tally.moved,
            objects=tally.objects,
            freed_bytes=tally.freed_bytes,
            refused=tally.refused,
            error=error,
        )
        if not self.dry_run and (done.packs or done.objects or done.refused or error):
            facts: dict[str, Fact] = {
                "store": done.store,
                "objects": done.packs + done.objects,
                "freed_bytes": done.freed_bytes,
                "refused": done.refused,
                "error": error,
            }
            record(self.keep, "vault.swept", facts)
        return done

    def _domains(self) -> list[DomainKeys]:
        domains = self.keep.domains
        return [each for name in domains.names() for each in domains.all_of(name)]

    def _demand_whole(self, store: Store) -> None:
        """Nothing goes from a store that lacks a small object of a kept snapshot."""
        there = {stat.name for kind in _SMALL_KINDS for stat in store.list(f"{kind}/")}
        if store is not self.keep.store:
            there.add(self.head.snapshot)  # it is carried there before anything goes
        lacking = self.needs.objects - there - {""}
        if lacking:
            self._lacks(store, f"{len(lacking)} objects")

    def _lacks(self, store: Store, what: str) -> None:
        raise IntegrityError(
            "prune.lacks",
            f"{store.label} lacks {what} that kept snapshots need: nothing was deleted there",
            hint="`modelkeep backup`, or `modelkeep repair`, then prune again",
        )

    def _plan(self, store: Store, domain: DomainKeys) -> Plan:
        survey = Survey()
        for name, index in opened_indexes(store, domain=domain, public=self.keep.public):
            survey.add(name, index)
        there = {each.name: each.size_bytes for each in store.list(f"pack/{domain.key_id}/")}
        known = None
        if self.needs.known is not None:
            known = self.needs.known.get(domain.key_id, IdSet())
        proven: set[str] = set()
        damaged: set[str] = set()
        while True:
            plan = survey.plan(
                self.needs.chunks.get(domain.key_id, IdSet()),
                there=there,
                known=known,
                damaged=damaged,
                waste_max=self.policy.waste_max,
            )
            if plan.missing:
                self._lacks(store, f"{plan.missing} chunks")
            unproven = set(plan.proofs) - proven
            if not unproven:
                return plan
            bad = {name for name in sorted(unproven) if not _is_whole(store, name)}
            proven |= unproven - bad
            damaged |= bad

    def _put_head(self, store: Store) -> None:
        """Let another store name the newest snapshot before anything goes there."""
        if store is self.keep.store or not self.head.snapshot:
            return
        store.put(self.head.snapshot, self.keep.store.get(self.head.snapshot))
        store.put(*series_member("head", self.head, signer=self.keep.keys.signer))

    def _key(self, store: Store, domain: DomainKeys, plan: Plan, tally: _Tally) -> None:
        """What goes of one store under one key."""
        tally.moved += len(plan.moved)
        if self.dry_run:
            tally.packs += len(plan.gone) + len(plan.stray)
            tally.freed_bytes += plan.freed_bytes
            return
        kept = self._moved(store, domain, plan, tally) if plan.moved else frozenset()
        tally.moved -= len(kept)
        gone = plan.gone - kept
        if (gone or plan.is_scattered) and not self._reindexed(store, domain, plan, gone, tally):
            tally.refused += len(gone)
            gone = frozenset()
        for name in (*sorted(gone), *plan.stray):
            if self._deleted(store, name, plan.sizes.get(name, 0), tally):
                tally.packs += 1

    def _moved(self, store: Store, domain: DomainKeys, plan: Plan, tally: _Tally) -> frozenset[str]:
        """Write what is needed of wasteful packs anew; those that were not whole stay."""
        deposit = Deposit(self.keep.writer_to(store, domain, self.vault), ChunkIndex())

        def opened(entry: PackEntry) -> tuple[PackEntry, list[Encoded] | None]:
            try:
                return entry, picked(store, entry, plan.moved[entry.name], domain=domain)
            except (IntegrityError, MissingError):
                return entry, None

        kept = set()
        entries = _entries(self._indexes(store, domain), plan)
        for entry, chunks in self.keep.workers.map(opened, entries):
            if chunks is None:
                kept.add(entry.name)
                continue
            for chunk in chunks:
                deposit.add(chunk)
            self.progress(entry.size_bytes)
        deposit.finished()
        tally.freed_bytes -= sum(each.size_bytes for each in deposit.packs)
        return frozenset(kept)

    def _indexes(self, store: Store, domain: DomainKeys) -> Iterator[tuple[str, Index]]:
        return opened_indexes(store, domain=domain, public=self.keep.public)

    def _reindexed(
        self,
        store: Store,
        domain: DomainKeys,
        plan: Plan,
        gone: frozenset[str],
        tally: _Tally,
    ) -> bool:
        """Write indexes without the packs that go, then delete the old ones; whether they went."""
        writer = self.keep.writer_to(store, domain, self.vault)
        outdated: list[str] = []
        indexes = self._indexes(store, domain)
        for index, old in joined(indexes, gone=gone, is_scattered=plan.is_scattered):
            if index is not None:
                name = put_sealed(writer, "index", to_msgpack(index))
                stat = store.stat(name)
                tally.freed_bytes -= 0 if stat is None else stat.size_bytes
            outdated += old
        return self._all_deleted(store, outdated, tally)

    def _objects(self, store: Store, tally: _Tally) -> None:
        """Recipes, envelopes and snapshots that no kept snapshot names."""
        holds = self.keep.domains.holds
        for kind in _SMALL_KINDS:
            dead = [
                stat
                for stat in store.list(f"{kind}/")
                if stat.name not in self.needs.objects and (kind == "snapshot" or holds(stat.name))
            ]
            for stat in dead:
                if self._deleted(store, stat.name, stat.size_bytes, tally):
                    tally.objects += 1

    def _heads(self, store: Store, tally: _Tally) -> None:
        """Heads of snapshots that are gone; one that cannot be read is for a check to judge."""
        for name in member_names(store, "head"):
            try:
                raw = store.get(name)
                head = opened_member(Head, name, raw, kind="head", public=self.keep.public)
            except (IntegrityError, MissingError):
                continue
            is_dead = head.snapshot and head.snapshot not in self.needs.objects
            if is_dead and self._deleted(store, name, len(raw), tally):
                tally.objects += 1

    def _all_deleted(self, store: Store, names: Iterable[str], tally: _Tally) -> bool:
        is_whole = True
        for name in names:
            stat = store.stat(name)
            if self._deleted(store, name, 0 if stat is None else stat.size_bytes, tally):
                tally.objects += 1
            else:
                is_whole = False
        return is_whole

    def _deleted(self, store: Store, name: str, size_bytes: int, tally: _Tally) -> bool:
        """Delete an object, if this is no dry run; whether it went, or would."""
        if self.dry_run:
            tally.freed_bytes += size_bytes
            return True
        if tally.refused_in_row < _REFUSALS_MAX:
            try:
                store.delete(name)
            except KeepError:
                tally.refused_in_row += 1
            else:
                tally.refused_in_row = 0
                tally.freed_bytes += size_bytes
                return True
        tally.refused += 1
        return False


def _entries(indexes: Iterable[tuple[str, Index]], plan: Plan) -> Iterator[PackEntry]:
    """The packs that chunks move out of, each once."""
    seen: set[str] = set()
    for _, index in indexes:
        for pack in index.packs:
            if pack.name in plan.moved and pack.name not in seen:
                seen.add(pack.name)
                yield pack


def _is_whole(store: Store, name: str) -> bool:
    try:
        demand_digest(name, store.get(name))
    except (IntegrityError, MissingError):
        return False
    return True
