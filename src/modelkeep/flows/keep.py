"""An opened keep: its keys, stores, history and State, and how they are brought into agreement.

Everything that changes a keep is a ledger entry first. Opening a keep therefore replays what the
ledger holds beyond State: tokens and aliases go into State, and a commit whose head was not
written (power cut between the two) gets its head now.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from modelkeep.core.entry import Entry, Fact
from modelkeep.core.errors import IntegrityError, MissingError, UnavailableError
from modelkeep.core.record import replaced
from modelkeep.crypto.certificates import Authority
from modelkeep.crypto.hierarchy import DomainKeys, Domains, KeepKeys
from modelkeep.flows.keyring import OpenRing
from modelkeep.ports.clock import Clock
from modelkeep.ports.entropy import Entropy
from modelkeep.ports.load_proofs import NO_LOAD_PROOFS, LoadProofs
from modelkeep.ports.recorder import Recorder
from modelkeep.ports.state import State
from modelkeep.ports.store import Store
from modelkeep.ports.workers import SERIAL, Workers
from modelkeep.vault.commit import Writer
from modelkeep.vault.encode import Policy
from modelkeep.vault.load import Damage, Reader
from modelkeep.vault.mend import mended_index, mended_packs
from modelkeep.vault.objects import N, Numbered, latest, series_member
from modelkeep.vault.settings import VaultSettings
from modelkeep.vault.snapshot import Head, Snapshot

REPLAY_BATCH = 1000
# What a damaged object shows itself by; a store that does not answer is left as it is.
_MENDABLE = (
    "aead.",
    "codec.",
    "record.",
    "signature.",
    "store.missing",
    "store.size",
    "vault.",
)

# From an index on: the ledger's entries as far as they are durable now.
History = Callable[[int], Iterator[tuple[int, Entry]]]


def _unproven() -> str:
    """Nothing proves which host this is."""
    return ""


class LogEpoch(Numbered, frozen=True):
    """One log of the keep's history; the highest number is the one that is written to.

    Attributes:
        origin: of its checkpoints (C2SP).
        base: how many entries of earlier logs come before its first one.
        resumed: the checkpoint (its text) of the log before, which this one goes on from.
        head: number of the head that this log begins with.
        snapshot: name of the snapshot that this head names.
    """

    origin: str
    base: int
    resumed: str
    head: int = 0
    snapshot: str = ""


@dataclass(frozen=True, slots=True)
class OpenKeep:
    """A keep whose keys are at hand.

    Attributes:
        stores: the first is authoritative; reads fall over to the others.
        epochs: the keep's logs in order; the last one is written to.
        history: reads the ledger from an index on.
        actor: who acts, for the ledger, such as `cli:root`.
        workers: the threads that hash, encode and encrypt.
        policies: how each store encodes, by label; a store that is not named keeps chunks as they
            are.
        host: proves which host this is and gives its identifier (UEID); empty when nothing proves
            it.
        load_proofs: which models this host has hashed against their manifests before.
    """

    keep_id: str
    stores: tuple[Store, ...]
    clock: Clock
    entropy: Entropy
    ring: OpenRing
    keys: KeepKeys
    domains: Domains
    authority: Authority
    epochs: tuple[LogEpoch, ...]
    state: State
    recorder: Recorder
    history: History
    actor: str
    workers: Workers = SERIAL
    policies: Mapping[str, Policy] = field(default_factory=dict)
    host: Callable[[], str] = _unproven
    load_proofs: LoadProofs = NO_LOAD_PROOFS

    @property
    def store(self) -> Store:
        """The authoritative store."""
        return self.stores[0]

    @property
    def origin(self) -> str:
        """Origin of the log that is written to."""
        return self.epochs[-1].origin

    @property
    def public(self) -> bytes:
        """The keep's own public signing key."""
        return self.keys.signer.public

    def reader(self, *, may_heal: bool = True) -> Reader:
        """A reader over all stores."""
        return self.reader_of(self.stores, may_heal=may_heal)

    def reader_of(self, stores: Sequence[Store], *, may_heal: bool = False) -> Reader:
        """A reader over some stores only."""
        return Reader(
            stores=stores,
            domains=self.domains,
            public=self.public,
            workers=self.workers,
            may_heal=may_heal,
        )

    def policy_of(self, store: Store) -> Policy:
        """How a store encodes what is written to it."""
        return self.policies.get(store.label, Policy.FAST)

    def writer_to(self, store: Store, domain: DomainKeys, vault: VaultSettings) -> Writer:
        """A writer into one store, under one domain's key."""
        return Writer(
            store=store,
            domain=domain,
            signer=self.keys.signer,
            entropy=self.entropy,
            settings=vault,
            workers=self.workers,
            policy=self.policy_of(store),
        )


def latest_of(type_: type[N], stores: Sequence[Store], kind: str, *, public: bytes) -> N:
    """The highest valid member of a series over all stores that answer.

    A store that was rolled back, or whose newest members are damaged, is outvoted by any other.

    Raises:
        MissingError: `series.none`, when no store holds a valid member.
    """
    found: list[N] = []
    failure: MissingError | UnavailableError | None = None
    for store in stores:
        try:
            found.append(latest(type_, store, kind, public=public).member)
        except (MissingError, UnavailableError) as error:
            failure = failure or error
    if not found:
        raise failure or MissingError("series.none", f"there is no store to read {kind} from")
    return max(found, key=lambda member: member.number)


def current_head(keep: OpenKeep) -> Head:
    """The head that counts: never one older than the last that the ledger committed.

    A head that the stores have lost is made again from what the ledger says.

    Raises:
        IntegrityError: `keep.fork`, when a store holds another head of the same number.
    """
    applied = keep.state.applied()
    wanted = Head(number=applied.head, keep_id=keep.keep_id, snapshot=applied.snapshot)
    found = _newest_heads(keep)
    newest = max(found.values(), key=lambda head: head.number, default=wanted)
    if newest.number > wanted.number or (newest.number == wanted.number and newest != wanted):
        raise IntegrityError(
            "keep.fork",
            f"the stores hold head {newest.number}, the ledger committed head {wanted.number}: "
            "they are not of one history",
            hint="`modelkeep state rebuild`; if it stays, recover from the store you trust",
        )
    own = found.get(keep.store.label)
    if own is None or own.number < wanted.number:
        try:
            put_head(keep, wanted)
        except UnavailableError:
            return wanted  # it is not mounted, or its disk is full: reads go on from the others
        facts: dict[str, Fact] = {"store": keep.store.label, "object": f"head {wanted.number}"}
        record(keep, "vault.healed", facts)
    return wanted


def _newest_heads(keep: OpenKeep) -> dict[str, Head]:
    """The newest valid head of every store that has one, by label."""
    found: dict[str, Head] = {}
    for store in keep.stores:
        try:
            found[store.label] = latest(Head, store, "head", public=keep.public).member
        except (MissingError, UnavailableError):
            continue
    return found


def current_snapshot(keep: OpenKeep, reader: Reader | None = None) -> Snapshot:
    """The snapshot that counts."""
    return (reader or keep.reader()).snapshot(current_head(keep).snapshot)


def record(keep: OpenKeep, kind: str, facts: dict[str, Fact]) -> int:
    """Record one entry, durably, then bring State up to it.

    Returns:
        The entry's index, over all logs.
    """
    entry = Entry(kind=kind, at_ns=keep.clock.now_ns(), actor=keep.actor, facts=facts)
    return recorded(keep, [entry])


def recorded(keep: OpenKeep, entries: Sequence[Entry]) -> int:
    """Record entries, durably, bring State up to them; the first one's index, over all logs."""
    first = keep.epochs[-1].base + keep.recorder.record(entries)  # a recorder knows its own log
    replay(keep)
    return first


def record_damages(keep: OpenKeep, damages: Sequence[Damage]) -> None:
    """Mend what reads came across where that is possible; record it, per object and store."""
    for damage in [mended(keep, each) for each in damages]:
        record(
            keep,
            "vault.healed" if damage.healed else "vault.damaged",
            {"store": damage.store, "object": damage.object, "code": damage.code},
        )


def mended(keep: OpenKeep, damage: Damage) -> Damage:
    """Make a damaged pack or index good again from the other stores; the damage as it then is."""
    kind = damage.object.partition("/")[0]
    store = next((each for each in keep.stores if each.label == damage.store), None)
    if damage.healed or store is None or kind not in ("pack", "index"):
        return damage
    if not damage.code.startswith(_MENDABLE):
        return damage
    reader = keep.reader(may_heal=False)
    try:
        writer = keep.writer_to(store, keep.domains.of(damage.object), VaultSettings())
        if kind == "pack":
            healed = not mended_packs(writer, reader, [damage.object]).lost
        else:
            healed = mended_index(writer, reader, damage.object)
    except (IntegrityError, MissingError, UnavailableError):
        return damage
    return replaced(damage, healed=healed)


def replay(keep: OpenKeep) -> int:
    """Apply what the ledger holds beyond State; finish commits that lack their head.

    Returns:
        How many entries were applied.

    Raises:
        IntegrityError: `keep.history`, when State is ahead of the ledger: one was rolled back.
    """
    start = keep.state.applied().entries
    batch: list[Entry] = []
    heads: list[Entry] = []
    position = start
    for index, entry in keep.history(start):
        if index != position:
            raise IntegrityError("keep.history", f"ledger entry {position} is missing")
        position += 1
        batch.append(entry)
        if entry.kind == "vault.committed":
            heads.append(entry)
        if len(batch) >= REPLAY_BATCH:
            _apply(keep, position - len(batch), batch, heads)
            batch, heads = [], []
    if batch:
        _apply(keep, position - len(batch), batch, heads)
    return position - start


def _apply(keep: OpenKeep, first: int, batch: list[Entry], heads: list[Entry]) -> None:
    newest = keep.state.applied().head
    for head in (_committed(keep, entry) for entry in heads):
        if head.number > newest:  # of two commits with one number the first counts, see `commit`
            put_head(keep, head)
            newest = head.number
    keep.state.apply(first, batch)


def put_head(keep: OpenKeep, head: Head) -> None:
    """Write a head into the authoritative store, over a damaged one; idempotent."""
    name, raw = series_member("head", head, signer=keep.keys.signer)
    try:
        keep.store.put(name, raw)
    except IntegrityError:
        keep.store.delete(name)
        keep.store.put(name, raw)


def _committed(keep: OpenKeep, entry: Entry) -> Head:
    number, snapshot = entry.facts.get("head"), entry.facts.get("snapshot")
    if not isinstance(number, int) or not isinstance(snapshot, str):
        raise IntegrityError("keep.entry", "a vault.committed entry names no head")
    return Head(number=number, keep_id=keep.keep_id, snapshot=snapshot)
