"""Being witnessed: checkpoints go elsewhere, and what is elsewhere must be in our history.

Two kinds of witness. Another keep cosigns (`flows.witness`): its notes lie beside our checkpoints
and count when their key is trusted. A store elsewhere merely keeps checkpoints: best one to which
this keep may add and not remove. What such a witness holds and our log does not contain was
rolled back or rewritten, whoever has the signing key.

What is claimed is this and nothing more: tampering with anything older than the last checkpoint
that an external witness holds is found. Entries after it are proven by nobody but us.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from modelkeep.core.errors import IntegrityError, KeepError, MissingError, UnavailableError
from modelkeep.core.instant import NS_PER_S
from modelkeep.core.record import Record
from modelkeep.core.verdict import Finding, Severity
from modelkeep.crypto.secret import Secret
from modelkeep.crypto.signatures import Signer
from modelkeep.flows.create import Unlocked
from modelkeep.flows.keep import LogEpoch, OpenKeep
from modelkeep.ledger.beside import (
    COSIGNATURE,
    abroad_name,
    abroad_prefix,
    parsed_abroad,
    parsed_beside,
)
from modelkeep.ledger.checkpoint import CHECKPOINT_BYTES_MAX, Checkpoint, verified_checkpoint
from modelkeep.ledger.cosignature import Witness, verified_cosignatures
from modelkeep.ledger.entry import FrameReader, leaf_of
from modelkeep.ledger.log import LogReader
from modelkeep.ledger.tiles import log_prefix
from modelkeep.ledger.tree import Edge, leaf_hash
from modelkeep.ports.clock import Clock
from modelkeep.ports.journal import Journal
from modelkeep.ports.store import Store

# Checkpoints of one log that are read from one witness at the opening of a keep: the newest. A
# verification reads all of them, so that forged ones cannot hide those that matter.
NEWEST = 8
# A log of fewer entries is new: a store that witnesses need not hold anything of it yet.
NEW_LOG_ENTRIES = 64


class Seen(Record, frozen=True):
    """What one witness has seen of one log, and whether our log still is that.

    Attributes:
        witness: the name of its key, or the label of the store.
        key: its public key in hex, which is what a quorum counts; empty for a store.
        size: entries of the last checkpoint that it holds; 0 when it has seen nothing.
        root: hex.
        at_s: when it cosigned that one; 0 for a store, which states no time.
        objects: how many of its objects were read.
    """

    witness: str
    key: str
    origin: str
    size: int
    root: str
    at_s: int
    objects: int
    findings: tuple[Finding, ...]

    @property
    def is_whole(self) -> bool:
        """Whether our history holds all that this witness has seen."""
        return not any(finding.severity is Severity.HIGH for finding in self.findings)


class Poster:
    """Puts checkpoints into the stores that witness; one that fails is tried again next time.

    A folder that holds nothing of a log that is not new may be a mount point with nothing mounted:
    it is not written to until it is announced (`announce`).

    Args:
        interval_s: a store gets at most one checkpoint in this time.
    """

    def __init__(self, stores: Sequence[Store], *, interval_s: float, clock: Clock) -> None:
        self._stores = tuple(stores)
        self._interval_ns = int(interval_s * NS_PER_S)
        self._clock = clock
        self._due_ns = [0] * len(self._stores)

    def post(self, newest: Callable[[], Checkpoint | None]) -> tuple[tuple[str, KeepError], ...]:
        """Put the newest checkpoint where one is due; labels and errors of the stores that fail.

        Args:
            newest: asked only when one is due; None while there is none yet.

        Raises:
            KeepError: of `newest`.
        """
        now_ns = self._clock.monotonic_ns()
        due = [number for number, at_ns in enumerate(self._due_ns) if now_ns >= at_ns]
        checkpoint = newest() if due else None
        if checkpoint is None:
            return ()
        failed = []
        for number in due:
            self._due_ns[number] = now_ns + self._interval_ns
            store = self._stores[number]
            try:
                _demand_ours(store, checkpoint)
                announce(store, checkpoint)
            except KeepError as error:
                failed.append((store.label, error))
        return tuple(failed)


def announce(store: Store, checkpoint: Checkpoint) -> None:
    """Put a checkpoint into a store that witnesses; from then on it is known to be one.

    Raises:
        UnavailableError: of the store.
    """
    store.put(abroad_name(checkpoint.origin, checkpoint.size), checkpoint.raw)


def _demand_ours(store: Store, checkpoint: Checkpoint) -> None:
    if checkpoint.size >= NEW_LOG_ENTRIES and not _abroad_names(store, checkpoint.origin):
        raise UnavailableError(
            "witness.empty",
            f"{store.label} holds nothing of this log, which is not new: is it mounted?",
            hint="announce a new one: `modelkeep ledger verify --new-witness LABEL`",
            store=store.label,
        )


def demand_witnessed(
    opened: Unlocked | OpenKeep,
    stores: Sequence[Store],
    abroad: Sequence[Store],
    *,
    journal: Journal | None = None,
    warn: Callable[[str], None] = lambda _: None,
) -> None:
    """Before anything new is signed: compare the newest log with what the witnesses hold.

    Args:
        stores: our own.
        abroad: the stores that witness; one that does not answer, or holds nothing of a log that
            is not new, is passed over with a warning.
        journal: the write-ahead journal of the newest log: its entries, published or not.

    Raises:
        IntegrityError: `ledger.rolled_back`, `ledger.forked`, or `ledger.unproven` where our own
            log cannot be compared.
    """
    public = _public(opened)
    recorded = None if journal is None else _Recorded(journal, opened.keys.ledger_body)
    ours = _Ours(stores, opened.epochs[-1], public, recorded=recorded)
    for store in abroad:
        try:
            notes = list(_abroad(store, ours.epoch, public, newest=NEWEST))
        except UnavailableError as error:
            warn(f"the witness {store.label} does not answer: {error.message}")
            continue
        if ours.entries >= NEW_LOG_ENTRIES and not any(each.checkpoint for each in notes):
            warn(f"the witness {store.label} holds nothing of this log: is it mounted?")
        for finding in (ours.compared(each, store.label) for each in notes):
            if finding is not None and finding.severity is Severity.HIGH:
                raise _refusal(finding)


def _refusal(finding: Finding) -> IntegrityError:
    if finding.rule == "ledger.rollback":
        return IntegrityError(
            "ledger.rolled_back",
            finding.evidence,
            hint="recover from the newest store; what only a witness saw is lost",
        )
    if finding.rule == "ledger.fork":
        return IntegrityError(
            "ledger.forked",
            finding.evidence,
            hint="keep every store as evidence; `modelkeep ledger verify` says more",
        )
    return IntegrityError(
        "ledger.unproven",
        finding.evidence,
        hint="bring back a store with all tiles; a keep opens unproven only without this witness",
    )


def witnessed(
    keep: OpenKeep, *, trusted: Sequence[Witness], abroad: Sequence[Store]
) -> tuple[Seen, ...]:
    """Compare every log with everything that any witness holds of it."""
    public = _public(keep)
    found: list[Seen] = []
    for epoch in keep.epochs:
        is_last = epoch is keep.epochs[-1]
        following = None if is_last else keep.epochs[keep.epochs.index(epoch) + 1]
        ours = _Ours(keep.stores, epoch, public, following=following)
        notes = list(_cosigned(keep.stores, epoch, public, trusted))
        for witness in trusted:
            own = [(each, at_s) for each, by, at_s in notes if by == witness]
            if own or is_last:
                found.append(_seen(witness, epoch, ours, own))
        for store in abroad:
            try:
                held = [(each, 0) for each in _abroad(store, epoch, public)]
            except UnavailableError as error:
                found.append(_away(store, epoch, error))
                continue
            if held or is_last:
                found.append(_seen(store, epoch, ours, held))
    return tuple(found)


def quorum_size(seen: Sequence[Seen], *, origin: str, quorum: int, since_s: int) -> int:
    """How many entries of a log a quorum of keys has cosigned since then; -1 for no quorum."""
    by_key: dict[str, int] = {}  # one key under two names is one witness
    for each in seen:
        if each.origin == origin and each.at_s >= since_s and each.at_s and each.is_whole:
            by_key[each.key] = max(each.size, by_key.get(each.key, 0))
    sizes = sorted(by_key.values(), reverse=True)
    return sizes[quorum - 1] if 0 < quorum <= len(sizes) else -1


@dataclass(frozen=True, slots=True)
class _Note:
    """A checkpoint of ours that a witness holds, or what it holds in its place."""

    name: str
    checkpoint: Checkpoint | None


@dataclass(frozen=True, slots=True)
class _Recorded:
    """The entries of the newest log that are durable, published or not."""

    journal: Journal
    body_key: Secret


class _Ours:
    """Our own log, from whichever store has the most of it."""

    def __init__(
        self,
        stores: Sequence[Store],
        epoch: LogEpoch,
        public: bytes,
        *,
        following: LogEpoch | None = None,
        recorded: _Recorded | None = None,
    ) -> None:
        self.epoch = epoch
        self._following = following
        self._recorded = recorded
        self._logs: list[tuple[Checkpoint, LogReader]] = []  # the one with the most first
        for store in stores:
            log = LogReader(store, epoch.origin)
            try:
                latest = log.latest(public=public)
            except UnavailableError:
                continue
            if latest.checkpoint is not None:
                self._logs.append((latest.checkpoint, log))
        self._logs.sort(key=lambda each: each[0].size, reverse=True)
        self._size = self._logs[0][0].size if self._logs else 0

    @property
    def entries(self) -> int:
        """How many there are, published or not."""
        recorded = self._recorded
        return max(self._size, recorded.journal.next_position() if recorded is not None else 0)

    def compared(self, note: _Note, witness: str) -> Finding | None:
        """What is wrong with our log if the witness is right; None when nothing is."""
        theirs = note.checkpoint
        if theirs is None:
            evidence = f"{witness} holds something that is no checkpoint of this log"
            return _finding(Severity.MEDIUM, note.name, evidence)
        if theirs.size > self.entries:
            return self._shorter(theirs, witness)
        try:
            root = self._root(theirs.size)
        except (IntegrityError, MissingError) as error:
            return Finding(
                rule="ledger.unproven",
                severity=Severity.HIGH,
                subject=note.name,
                evidence=f"our tiles cannot prove what {witness} saw: {error.message}",
            )
        if root == theirs.root:
            return None
        return Finding(
            rule="ledger.fork",
            severity=Severity.HIGH,
            subject=note.name,
            evidence=f"{witness} saw another history of {theirs.size} entries: "
            f"expected {theirs.root.hex()}, got {root.hex()}",
        )

    def _root(self, size: int) -> bytes:
        """The root of our first entries, from the first store whose tiles give one."""
        if size > self._size:
            return self._recorded_root(size)
        failure: KeepError | None = None
        for checkpoint, log in self._logs:
            if checkpoint.size >= size:
                try:
                    return log.range_root(checkpoint.size)(0, size)
                except KeepError as error:
                    failure = failure or error
        raise failure or AssertionError("some store has so many entries")

    def _recorded_root(self, size: int) -> bytes:
        """The same where the last of them are not published (again) yet: the journal has them."""
        if self._recorded is None:
            raise AssertionError("what is not published is in the journal")
        edge, prefix = Edge(), log_prefix(self.epoch.origin)
        if self._logs:
            checkpoint, log = self._logs[0]
            edge = log.edge(checkpoint)
        frames = FrameReader(self._recorded.body_key, prefix=prefix)
        fresh = islice(self._recorded.journal.read(edge.size), size - edge.size)
        for index, frame in fresh:
            edge.push(leaf_hash(leaf_of(frames.record(frame, index=index))))
        return edge.root()

    def _shorter(self, theirs: Checkpoint, witness: str) -> Finding:
        """A log that a recovery went on from is known to have ended early; its loss is no crime."""
        resumed = self._following is not None and self._size >= _resumed_size(self._following)
        lost = f"{witness} saw {theirs.size} entries of {theirs.origin}, we have {self._size}"
        return Finding(
            rule="ledger.rollback",
            severity=Severity.MEDIUM if resumed else Severity.HIGH,
            subject=self.epoch.origin,
            evidence=f"{lost}: lost before the recovery that went on from there"
            if resumed
            else f"{lost}: it was rolled back",
        )


def _seen(
    by: Witness | Store, epoch: LogEpoch, ours: _Ours, notes: Sequence[tuple[_Note, int]]
) -> Seen:
    name = by.name if isinstance(by, Witness) else by.label
    findings = [finding for each, _ in notes if (finding := ours.compared(each, name)) is not None]
    if not notes:
        evidence = f"{name} has seen nothing of this log yet; is it mounted, does it still cosign?"
        findings.append(_finding(Severity.MEDIUM, name, evidence))
    newest: Checkpoint | None = None
    newest_s = 0
    for note, at_s in notes:
        if note.checkpoint is None:
            continue
        if newest is None or (note.checkpoint.size, at_s) > (newest.size, newest_s):
            newest, newest_s = note.checkpoint, at_s
    return Seen(
        witness=name,
        key=by.public.hex() if isinstance(by, Witness) else "",
        origin=epoch.origin,
        size=newest.size if newest else 0,
        root=newest.root.hex() if newest else "",
        at_s=newest_s,
        objects=len(notes),
        findings=tuple(findings),
    )


def _away(store: Store, epoch: LogEpoch, error: UnavailableError) -> Seen:
    evidence = f"the witness does not answer: {error.message}"
    return Seen(
        witness=store.label,
        key="",
        origin=epoch.origin,
        size=0,
        root="",
        at_s=0,
        objects=0,
        findings=(_finding(Severity.MEDIUM, store.label, evidence),),
    )


def _finding(severity: Severity, subject: str, evidence: str) -> Finding:
    return Finding(rule="ledger.witness", severity=severity, subject=subject, evidence=evidence)


def _abroad(
    store: Store, epoch: LogEpoch, public: bytes, *, newest: int | None = None
) -> Iterator[_Note]:
    """The checkpoints of a log in a store that witnesses; all, or so many of the newest."""
    names = _abroad_names(store, epoch.origin)
    for name in names if newest is None else names[-newest:]:
        yield _note(store, name, epoch.origin, public)


def _abroad_names(store: Store, origin: str) -> list[str]:
    names = (stat.name for stat in store.list(abroad_prefix(origin)))
    return sorted(name for name in names if parsed_abroad(origin, name) is not None)


def _note(store: Store, name: str, origin: str, public: bytes) -> _Note:
    try:
        raw = store.get(name, length=CHECKPOINT_BYTES_MAX + 1)
        return _Note(name, verified_checkpoint(raw, origin=origin, public=public))
    except (IntegrityError, MissingError):
        return _Note(name, None)


def _cosigned(
    stores: Sequence[Store], epoch: LogEpoch, public: bytes, trusted: Sequence[Witness]
) -> Iterator[tuple[_Note, Witness, int]]:
    """The notes beside our checkpoints that a trusted witness has cosigned, in any store."""
    for store, name in cosignature_names(stores, epoch.origin):
        try:
            raw = store.get(name, length=CHECKPOINT_BYTES_MAX + 1)
            checkpoint, signed = verified_cosignatures(
                raw, origin=epoch.origin, public=public, witnesses=trusted
            )
        except KeepError:
            continue  # a verification of the store names it
        for each in signed:
            yield _Note(name, checkpoint), each.witness, each.at_s


def cosignature_names(stores: Sequence[Store], origin: str) -> Iterator[tuple[Store, str]]:
    """Where cosigned notes of a log lie; a store that does not answer has none."""
    prefix = LogReader(stores[0], origin).prefix
    for store in stores:
        try:
            names = [stat.name for stat in store.list(f"{prefix}{COSIGNATURE}/")]
        except UnavailableError:
            continue
        yield from ((store, name) for name in names if parsed_beside(prefix, name) is not None)


def _resumed_size(epoch: LogEpoch) -> int:
    lines = epoch.resumed.split("\n")
    return int(lines[1]) if len(lines) > 1 and lines[1].isdecimal() else 0


def _public(opened: Unlocked | OpenKeep) -> bytes:
    return Signer(opened.keys.ledger_seed).public
