"""Proofs for strangers: of one call, of one entry, and that the log only grew.

A call is found by its receipt: the journal's name and the position there. Should a recovered keep
have begun a journal anew under an old name, a receipt names records of several logs; the newest
batch whose root the journal's own frames give is the one. The proof leads to the checkpoint that
most of the trusted witnesses have cosigned, or to the newest one when none of those covers it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any

from modelkeep.core.call_record import IntentRecord, JournalRecord, RefusalSummary
from modelkeep.core.entry import Entry
from modelkeep.core.errors import IntegrityError, KeepError, MissingError, UsageError
from modelkeep.core.instant import rfc3339
from modelkeep.crypto.signatures import Signer
from modelkeep.flows.history import log_access
from modelkeep.flows.keep import LogEpoch, OpenKeep
from modelkeep.flows.ledger_find import entry_at, newest_first
from modelkeep.flows.ledger_read import latest_checkpoint
from modelkeep.flows.witnessed import cosignature_names
from modelkeep.ledger.batch import Batch, batch_of, prove_record, verify_record
from modelkeep.ledger.checkpoint import (
    CHECKPOINT_BYTES_MAX,
    Checkpoint,
    origin_in,
    verified_checkpoint,
)
from modelkeep.ledger.cosignature import (
    Cosignature,
    Witness,
    bare_note,
    combined,
    verified_cosignatures,
)
from modelkeep.ledger.log import LogReader, published_bodies
from modelkeep.ledger.proof import consistency_proof, inclusion_proof, proof_text
from modelkeep.ledger.proof_file import (
    ENTRY_FORMAT,
    HISTORY_FORMAT,
    EntryProof,
    HistoryProof,
    ProvenEntry,
    ProvenHistory,
    parsed_receipt,
    proven_entry,
    proven_history,
)
from modelkeep.ledger.tree import TILE_WIDTH
from modelkeep.ports.journal import Journal


def proven_call(
    keep: OpenKeep,
    receipt: str,
    *,
    open_journal: Callable[[str], Journal],
    trusted: Sequence[Witness] = (),
) -> EntryProof:
    """Find a call by its receipt and prove it against a signed checkpoint of its log.

    Raises:
        MissingError: `receipt.unknown`, also while the call is not under a checkpoint yet;
            `receipt.gone`, when the record itself is no more.
        IntegrityError: when record and log do not agree.
    """
    name, position = parsed_receipt(receipt)
    failure: KeepError | None = None
    gone = 0
    for index, entry in newest_first(keep):
        batch = _covering(entry, name, position)
        if batch is None:
            continue
        try:
            frames = _frames(open_journal(name), batch)
        except (IntegrityError, MissingError) as error:
            failure, gone = failure or error, index
            continue
        at = position - batch.first
        proof = _entry_proof(keep, index, trusted)
        return EntryProof(
            format=ENTRY_FORMAT,
            body=proof.body,
            salt=proof.salt,
            tlog_proof=proof.tlog_proof,
            receipt=receipt,
            frame=frames[at],
            path=prove_record(frames, position=at),
        )
    if isinstance(failure, IntegrityError):
        raise failure
    if failure is not None:
        raise MissingError(
            "receipt.gone",
            f"the call {name}:{position} was recorded, but its record is no longer here: "
            f"{failure.message}",
            hint="records are kept as long as their journal's retention says, on one machine; its "
            f"batch is still provable: `modelkeep ledger prove {gone}`",
        )
    raise MissingError(
        "receipt.unknown",
        f"no checkpoint covers the call {name}:{position}",
        hint="receipts are covered within a second or two of the answer; try again",
    )


def proven_at(keep: OpenKeep, index: int, *, trusted: Sequence[Witness] = ()) -> EntryProof:
    """Prove one entry; its body is disclosed, but for its private facts.

    Raises:
        MissingError: `ledger.no_entry`, or `ledger.unpublished` while no checkpoint covers it.
    """
    entry_at(keep, index)
    return _entry_proof(keep, index, trusted)


def proven_growth(keep: OpenKeep, old: bytes, *, trusted: Sequence[Witness] = ()) -> HistoryProof:
    """Prove that the log of an old checkpoint only grew to become what it is now.

    Raises:
        UsageError: `ledger.origin`, for a checkpoint of another keep's log.
        IntegrityError: `ledger.checkpoint`, or `ledger.consistency` when it is of another history;
            `ledger.rolled_back`, when our log is shorter.
    """
    epoch = _epoch_of(keep, origin_in(old))
    public = _public(keep)
    seen = verified_checkpoint(old, origin=epoch.origin, public=public)
    log, newest = _newest(keep, epoch)
    if seen.size > newest.size:
        raise IntegrityError(
            "ledger.rolled_back",
            f"{epoch.origin} has {newest.size} entries, the checkpoint {seen.size}",
            hint="recover from a store that is newer",
        )
    proof = HistoryProof(
        format=HISTORY_FORMAT,
        old=bare_note(old, origin=epoch.origin, public=public).decode(),
        new=_cosigned_note(keep, newest, trusted).decode(),
        path=consistency_proof(seen.size, size=newest.size, range_root=log.range_root(newest.size)),
    )
    proven_history(proof, origin=epoch.origin, public=public)
    return proof


def cosigned_checkpoint(keep: OpenKeep, trusted: Sequence[Witness]) -> bytes:
    """The newest checkpoint that a trusted witness has cosigned, with all their signatures.

    Raises:
        MissingError: `ledger.not_witnessed`.
    """
    epoch = keep.epochs[-1]
    notes = _notes(keep, epoch, trusted)
    if not notes:
        raise MissingError(
            "ledger.not_witnessed",
            f"no trusted witness has cosigned a checkpoint of {epoch.origin}",
            hint="name its key in [ledger.witness] keys; it runs `modelkeep ledger cosign`",
        )
    size = max(checkpoint.size for _, checkpoint, _ in notes)
    return combined(raw for raw, checkpoint, _ in notes if checkpoint.size == size)


def record_facts(record: JournalRecord) -> dict[str, Any]:
    """What a journal's record says, for people; its bytes are what is proven."""
    if isinstance(record, RefusalSummary):
        return {"refusals": record.count, "prefix": record.prefix, "reason": record.reason}
    facts = {
        "at": rfc3339(record.at_ns),
        "call_id": record.call_id.hex(),
        "principal": record.principal,
        "model": f"{record.model}:{record.version}",
        "input_commitment": record.input_commitment.hex(),
        "trace": record.trace.hex(),
    }
    if isinstance(record, IntentRecord):
        return {**facts, "stream": "begins"}
    return {
        **facts,
        "status": record.status,
        "code": record.code,
        "latency_us": record.latency_us,
        "output_commitment": record.output_commitment.hex(),
        "tokens_in": record.tokens_in,
        "tokens_out": record.tokens_out,
    }


def checked_entry(proof: EntryProof, keep: OpenKeep) -> ProvenEntry:
    """Check a proof of ours under the key of its own log."""
    origin = origin_in(proof.tlog_proof.partition("\n\n")[2].encode())
    return proven_entry(proof, origin=origin, public=_public(keep))


def checked_history(proof: HistoryProof, keep: OpenKeep) -> ProvenHistory:
    """Check a proof of ours under the key of its own log."""
    return proven_history(proof, origin=origin_in(proof.new.encode()), public=_public(keep))


def _covering(entry: Entry, name: str, position: int) -> Batch | None:
    batch = batch_of(entry)
    is_it = batch is not None and batch.journal == name and batch.first <= position < batch.end
    return batch if is_it else None


def _frames(journal: Journal, batch: Batch) -> list[bytes]:
    """The records of a batch, which must give its root.

    Raises:
        IntegrityError: `ledger.inclusion`, when they are other records.
        MissingError: `journal.expired`, or when the journal ends before them.
    """
    frames = [frame for _, frame in islice(journal.read(batch.first), batch.count)]
    if len(frames) < batch.count:
        raise MissingError("journal.expired", "the journal ends before it")
    verify_record(
        frames[0],
        position=0,
        count=batch.count,
        proof=prove_record(frames, position=0),
        root=bytes.fromhex(batch.root),
    )
    return frames


def _entry_proof(keep: OpenKeep, index: int, trusted: Sequence[Witness]) -> EntryProof:
    epoch = next(each for each in reversed(keep.epochs) if each.base <= index)
    at = index - epoch.base
    log, newest = _newest(keep, epoch)
    if at >= newest.size:
        raise MissingError(
            "ledger.unpublished",
            f"entry {index} is recorded and not under a checkpoint yet",
            hint="it will be within a second while the service runs, or when this command ends",
        )
    note, size = _best_note(keep, epoch, at, newest, trusted)
    # A tree's nodes are those of every later tree as well, so the newest tiles prove the older.
    proof = inclusion_proof(at, size=size, range_root=log.range_root(newest.size))
    bodies = published_bodies(
        log, newest.size, index=at // TILE_WIDTH, body_key=keep.keys.ledger_body
    )
    body = bodies[at % TILE_WIDTH]
    checkpoint = verified_checkpoint(note, origin=epoch.origin, public=_public(keep))
    made = EntryProof(
        format=ENTRY_FORMAT,
        body=body.body.decode(),
        salt=body.salt,
        tlog_proof=proof_text(at, proof=proof, checkpoint=checkpoint),
    )
    proven_entry(made, origin=epoch.origin, public=_public(keep))
    return made


def _best_note(
    keep: OpenKeep, epoch: LogEpoch, at: int, newest: Checkpoint, trusted: Sequence[Witness]
) -> tuple[bytes, int]:
    """The note that most witnesses have cosigned of those that cover an entry, and its size."""
    by_size: dict[int, list[bytes]] = {}
    witnesses: dict[int, set[Witness]] = {}
    for raw, checkpoint, signed in _notes(keep, epoch, trusted):
        if at < checkpoint.size <= newest.size:
            by_size.setdefault(checkpoint.size, []).append(raw)
            witnesses.setdefault(checkpoint.size, set()).update(each.witness for each in signed)
    if not by_size:
        return newest.raw, newest.size
    size = max(by_size, key=lambda each: (len(witnesses[each]), each))
    return combined(by_size[size]), size


def _cosigned_note(keep: OpenKeep, newest: Checkpoint, trusted: Sequence[Witness]) -> bytes:
    """The newest checkpoint with whatever cosignatures there are on it."""
    epoch = _epoch_of(keep, newest.origin)
    notes = [raw for raw, each, _ in _notes(keep, epoch, trusted) if each.size == newest.size]
    return combined([newest.raw, *notes])


def _notes(
    keep: OpenKeep, epoch: LogEpoch, trusted: Sequence[Witness]
) -> list[tuple[bytes, Checkpoint, tuple[Cosignature, ...]]]:
    found = []
    for store, name in cosignature_names(keep.stores, epoch.origin) if trusted else ():
        try:
            raw = store.get(name, length=CHECKPOINT_BYTES_MAX + 1)
            checkpoint, signed = verified_cosignatures(
                raw, origin=epoch.origin, public=_public(keep), witnesses=trusted
            )
        except KeepError:
            continue  # a verification of the store names it
        if signed:
            found.append((raw, checkpoint, signed))
    return found


def _newest(keep: OpenKeep, epoch: LogEpoch) -> tuple[LogReader, Checkpoint]:
    """A log in the first store that answers with a valid checkpoint of it, and that checkpoint."""
    failure: KeepError | None = None
    for store in keep.stores:
        try:
            checkpoint = latest_checkpoint(log_access(keep, epoch, store))
        except KeepError as error:
            failure = failure or error
            continue
        return LogReader(store, epoch.origin), checkpoint
    raise failure or MissingError("ledger.none", f"no store holds {epoch.origin}")


def _epoch_of(keep: OpenKeep, origin: str) -> LogEpoch:
    for epoch in keep.epochs:
        if epoch.origin == origin:
            return epoch
    raise UsageError(
        "ledger.origin",
        "this checkpoint is of another log",
        hint=f"logs: {', '.join(epoch.origin for epoch in keep.epochs)}",
    )


def _public(keep: OpenKeep) -> bytes:
    return Signer(keep.keys.ledger_seed).public
