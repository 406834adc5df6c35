"""Reading the ledger: entries published and not yet published, proofs, healing.

Entries come in order: those under the latest valid checkpoint from the store, the rest from the
write-ahead journal. A log may grow under its reader: what was superseded meanwhile is read again
from the newer checkpoint. Bodies are authenticated by their encryption and compared with the
leaves; who also wants every tile proven calls `verified_log` first.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import islice

from modelkeep.core.entry import Entry
from modelkeep.core.errors import IntegrityError, MissingError
from modelkeep.core.verdict import Severity
from modelkeep.crypto.secret import Secret
from modelkeep.ledger.batch import COVERED_KIND, coverage_of
from modelkeep.ledger.checkpoint import Checkpoint
from modelkeep.ledger.entry import FrameReader
from modelkeep.ledger.log import LogReader, published_bodies
from modelkeep.ledger.proof import consistency_proof, inclusion_proof, proof_text
from modelkeep.ledger.tiles import log_prefix
from modelkeep.ledger.tree import TILE_WIDTH
from modelkeep.ledger.verify import verified_log
from modelkeep.ports.journal import Journal
from modelkeep.ports.store import Store

_WINDOW = 16 * TILE_WIDTH


@dataclass(frozen=True, slots=True)
class LogAccess:
    """A log that can be read.

    Attributes:
        public: the key that signs its checkpoints.
        journal: the write-ahead journal, where it is at hand.
    """

    store: Store
    origin: str
    public: bytes
    body_key: Secret
    journal: Journal | None = None


@dataclass(frozen=True, slots=True)
class Coverage:
    """How far batches in the log cover the call journals.

    Attributes:
        at: index of the last entry that says it of all of them; 0 when there is none.
        positions: by journal; one that is not here is not covered at all.
    """

    at: int
    positions: dict[str, int]


def read_entries(access: LogAccess, start: int = 0) -> Iterator[tuple[int, Entry]]:
    """Entries with their indices from `start` on, as far as they are durable now.

    Raises:
        IntegrityError: `ledger.checkpoint`, `ledger.body`, `ledger.gap` and those of the parts.
        MissingError: `store.missing`, when a bundle is lost.
    """
    log = LogReader(access.store, access.origin)
    at = start
    while True:
        size = _size(access, log)
        try:
            for number, entry in _published(access, log, at, size):
                yield number, entry
                at = number + 1
            for number, entry in _pending(access, log, at):
                yield number, entry
                at = number + 1
        except MissingError as error:
            if _size(access, log) > size:
                continue  # superseded while it was read
            if error.code == "journal.expired":
                raise IntegrityError(
                    "ledger.gap", f"entry {at} is neither in the journal nor under a checkpoint"
                ) from error
            raise
        return


def tail_entries(access: LogAccess, *, count: int) -> Iterator[tuple[int, Entry]]:
    """The last entries, oldest first."""
    return read_entries(access, max(0, log_size(access) - count))


def find_entries(
    access: LogAccess, *, kind: str = "", actor: str = "", since_ns: int = 0, until_ns: int = 2**63
) -> Iterator[tuple[int, Entry]]:
    """Entries of a kind (or of a family: `model` finds `model.admitted`), actor and time."""
    for index, entry in read_entries(access):
        is_kind = not kind or entry.kind == kind or entry.kind.startswith(kind + ".")
        is_actor = not actor or entry.actor == actor
        if is_kind and is_actor and since_ns <= entry.at_ns < until_ns:
            yield index, entry


def log_size(access: LogAccess) -> int:
    """How many entries there are, published or not."""
    size = _size(access, LogReader(access.store, access.origin))
    return max(size, access.journal.next_position()) if access.journal is not None else size


def covered_positions(access: LogAccess) -> Coverage:
    """How far the log covers the call journals.

    Read from the log's end backwards to the last `calls.covered`, which says it of them all.
    """
    covered: dict[str, int] = {}
    at = 0
    end = log_size(access)
    while end > 0 and at == 0:
        start = max(0, (end - 1) // _WINDOW * _WINDOW)
        here: dict[str, int] = {}
        for index, entry in islice(read_entries(access, start), end - start):
            here |= coverage_of(entry)
            at = index if entry.kind == COVERED_KIND else at
        covered = here | covered
        end = start
    return Coverage(at, covered)


def latest_checkpoint(access: LogAccess) -> Checkpoint:
    """The checkpoint that counts.

    Raises:
        MissingError: `ledger.none`.
    """
    latest = LogReader(access.store, access.origin).latest(public=access.public)
    if latest.checkpoint is None:
        raise MissingError(
            "ledger.none", f"{access.store.label} holds no valid checkpoint of {access.origin}"
        )
    return latest.checkpoint


def entry_proof(access: LogAccess, index: int) -> str:
    """A C2SP tlog-proof that the entry stands in the log; checked offline.

    Raises:
        MissingError: `ledger.none`.
        UsageError: `ledger.proof_range`, also while the entry is not under a checkpoint yet.
    """
    checkpoint = latest_checkpoint(access)
    log = LogReader(access.store, access.origin)
    root = log.range_root(checkpoint.size)
    proof = inclusion_proof(index, size=checkpoint.size, range_root=root)
    return proof_text(index, proof=proof, checkpoint=checkpoint)


def history_proof(access: LogAccess, old: int) -> tuple[Checkpoint, tuple[bytes, ...]]:
    """The latest checkpoint, and the proof that it extends the tree of `old` entries.

    Raises:
        MissingError: `ledger.none`.
        UsageError: `ledger.proof_range`.
    """
    checkpoint = latest_checkpoint(access)
    root = LogReader(access.store, access.origin).range_root(checkpoint.size)
    return checkpoint, consistency_proof(old, size=checkpoint.size, range_root=root)


def healed_log(store: Store, source: LogAccess) -> tuple[str, ...]:
    """Replace the damaged objects of a log by those of a store in which they are right.

    A log without any valid checkpoint is copied whole, checkpoints last.

    Returns:
        The names of the objects that were replaced; what still is wrong, a verification tells.

    Raises:
        IntegrityError: `ledger.fork`, when the two stores hold different histories.
        MissingError: `ledger.none`, when the source has no such log.
    """
    theirs = LogReader(store, source.origin).latest(public=source.public).checkpoint
    ours = latest_checkpoint(source)
    good = verified_log(
        source.store,
        origin=source.origin,
        public=source.public,
        body_key=source.body_key,
        at_least=theirs if theirs is not None and theirs.size <= ours.size else None,
    )
    if any(finding.rule == "ledger.fork" for finding in good.findings):
        raise IntegrityError(
            "ledger.fork", f"{store.label} and {source.store.label} hold different histories"
        )
    tried = {finding.subject for finding in good.findings}
    if theirs is None:
        prefix = log_prefix(source.origin)
        names = {stat.name for stat in source.store.list(prefix)} - tried
        return tuple(_replaced(store, source, names))
    healed: list[str] = []
    while names := _damaged(store, source) - tried:
        tried |= names
        healed += _replaced(store, source, names)
    return tuple(healed)


def _replaced(store: Store, source: LogAccess, names: Collection[str]) -> Iterator[str]:
    """Give a store the source's objects, checkpoints last; the names of those that differed."""
    for name in sorted(names, key=lambda name: ("/checkpoint/" in name, name)):
        try:
            raw = source.store.get(name)
        except MissingError:
            continue
        if store.stat(name) is None or store.get(name) != raw:
            store.delete(name)
            store.put(name, raw)
            yield name


def _damaged(store: Store, source: LogAccess) -> set[str]:
    report = verified_log(
        store, origin=source.origin, public=source.public, body_key=source.body_key
    )
    return {
        finding.subject
        for finding in report.findings
        if finding.severity is not Severity.NOTE and finding.rule != "ledger.stray"
    }


def _size(access: LogAccess, log: LogReader) -> int:
    latest = log.latest(public=access.public)
    if latest.checkpoint is None and latest.sizes:
        raise IntegrityError(
            "ledger.checkpoint",
            f"{access.store.label}: no checkpoint of {access.origin} is valid",
            hint="is it the right log, and the right key?",
        )
    return latest.size


def _published(
    access: LogAccess, log: LogReader, start: int, size: int
) -> Iterator[tuple[int, Entry]]:
    for index in range(start // TILE_WIDTH, -(-size // TILE_WIDTH)):
        bodies = published_bodies(log, size, index=index, body_key=access.body_key)
        for number, body in enumerate(bodies, start=index * TILE_WIDTH):
            if number >= start:
                yield number, body.entry()


def _pending(access: LogAccess, log: LogReader, start: int) -> Iterator[tuple[int, Entry]]:
    if access.journal is None:
        return
    frames = FrameReader(access.body_key, prefix=log.prefix)
    for number, frame in access.journal.read(start):
        yield number, frames.body(frame, index=number).entry()
