"""One leaf for a batch of call records: their Merkle root as an entry, and proofs against it.

A record is a leaf of a small RFC 6962 tree over the raw frames of one call journal from
position `first` on. The root stands in a ledger entry of kind `calls.batch`, so a call is proven
by two short paths: record in batch, batch in log. Frames are opaque bytes here.

Now and then an entry of kind `calls.covered` says of every call journal how far batches cover it,
so that a start need not read the whole log to know it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from modelkeep.core.entry import Entry
from modelkeep.core.errors import IntegrityError
from modelkeep.core.record import Record
from modelkeep.ledger.proof import inclusion_proof, verify_inclusion
from modelkeep.ledger.tree import leaf_hash, range_root_over, root_of

BATCH_KIND = "calls.batch"
GAP_KIND = "calls.gap"
EXPIRED_KIND = "calls.expired"
COVERED_KIND = "calls.covered"
BATCH_ACTOR = "recorder"


class Batch(Record, frozen=True):
    """Which records an entry of kind `calls.batch` commits to.

    Attributes:
        journal: the call journal's name.
        first: position of the first record in its journal.
        root: hex of the Merkle root over the raw frames.
    """

    journal: str
    first: int
    count: int
    root: str

    @property
    def end(self) -> int:
        """The position after the last record."""
        return self.first + self.count


def batch_entry(frames: Sequence[bytes], *, journal: str, first: int, at_ns: int) -> Entry:
    """The entry that commits to consecutive frames of a call journal; at least one."""
    if not frames:
        raise AssertionError("an empty batch commits to nothing")
    root = root_of([leaf_hash(frame) for frame in frames])
    return Entry(
        kind=BATCH_KIND,
        at_ns=at_ns,
        actor=BATCH_ACTOR,
        facts={"journal": journal, "first": first, "count": len(frames), "root": root.hex()},
    )


def batch_of(entry: Entry) -> Batch | None:
    """The batch that an entry commits to; None for entries of other kinds.

    Raises:
        IntegrityError: `ledger.batch`, when such an entry lacks its facts.
    """
    if entry.kind != BATCH_KIND:
        return None
    facts = entry.facts
    journal, first = facts.get("journal"), facts.get("first")
    count, root = facts.get("count"), facts.get("root")
    if (
        isinstance(journal, str)
        and isinstance(first, int)
        and isinstance(count, int)
        and isinstance(root, str)
    ):
        return Batch(journal=journal, first=first, count=count, root=root)
    raise IntegrityError("ledger.batch", "a calls.batch entry lacks its facts")


def coverage_entry(covered: Mapping[str, int], *, at_ns: int) -> Entry:
    """The entry that says of every call journal up to which position it is covered."""
    return Entry(kind=COVERED_KIND, at_ns=at_ns, actor=BATCH_ACTOR, facts=dict(covered))


def coverage_of(entry: Entry) -> dict[str, int]:
    """What an entry says of how far call journals are covered: one, all of them, or nothing."""
    batch = batch_of(entry)
    if batch is not None:
        return {batch.journal: batch.end}
    facts = entry.facts
    if entry.kind == GAP_KIND:
        journal, following = facts.get("journal"), facts.get("next")
        if isinstance(journal, str) and isinstance(following, int):
            return {journal: following}
    if entry.kind == COVERED_KIND:
        return {name: at for name, at in facts.items() if isinstance(at, int)}
    return {}


def prove_record(frames: Sequence[bytes], *, position: int) -> tuple[bytes, ...]:
    """The path from the record at `position` (from 0 within the batch) to the batch's root.

    Raises:
        UsageError: `ledger.proof_range`.
    """
    hashes = [leaf_hash(frame) for frame in frames]
    return inclusion_proof(position, size=len(hashes), range_root=range_root_over(hashes))


def verify_record(
    frame: bytes, *, position: int, count: int, proof: tuple[bytes, ...], root: bytes
) -> None:
    """Check that a record stands at `position` of a batch.

    Raises:
        IntegrityError: `ledger.inclusion`.
    """
    verify_inclusion(leaf_hash(frame), index=position, size=count, proof=proof, root=root)
