"""Proof of one call: its record, its place in a batch, and the batch's place in the log."""

from __future__ import annotations

from itertools import islice
from typing import Any

from modelkeep.core.call_record import CallRecord, decoded_record
from modelkeep.core.errors import MissingError
from modelkeep.core.instant import rfc3339
from modelkeep.flows.ledger_read import LogAccess, entry_proof, find_entries
from modelkeep.ledger.batch import BATCH_KIND, Batch, batch_of, prove_record, verify_record
from modelkeep.ports.journal import Journal


def proven_call(access: LogAccess, journal: Journal, *, name: str, position: int) -> dict[str, Any]:
    """Find a call by its receipt and prove it against the latest signed checkpoint.

    record -> Merkle path in its batch -> entry of the batch -> inclusion proof (C2SP tlog-proof)

    Raises:
        MissingError: `receipt.unknown`, also while the call is not under a checkpoint yet.
        IntegrityError: when record and log do not agree.
    """
    index, batch = _batch(access, name, position)
    frames = [frame for _, frame in islice(journal.read(batch.first), batch.count)]
    at = position - batch.first
    proof = prove_record(frames, position=at)
    verify_record(
        frames[at], position=at, count=batch.count, proof=proof, root=bytes.fromhex(batch.root)
    )
    return {
        "receipt": f"{name}:{position}",
        "record": record_facts(frames[at]),
        "position": at,
        "count": batch.count,
        "frame": frames[at].hex(),
        "batch_proof": [each.hex() for each in proof],
        "batch_root": batch.root,
        "entry": index,
        "tlog_proof": entry_proof(access, index),
    }


def _batch(access: LogAccess, name: str, position: int) -> tuple[int, Batch]:
    for index, entry in find_entries(access, kind=BATCH_KIND):
        batch = batch_of(entry)
        if batch and batch.journal == name and batch.first <= position < batch.end:
            return index, batch
    raise MissingError(
        "receipt.unknown",
        f"no checkpoint covers the call {name}:{position}",
        hint="receipts are covered within a second or two of the answer; try again",
    )


def record_facts(frame: bytes) -> dict[str, Any]:
    """What a journal's frame says, for people; the frame itself is what is proven."""
    record = decoded_record(frame)
    if not isinstance(record, CallRecord):
        return {"refusals": record.count, "prefix": record.prefix, "reason": record.reason}
    return {
        "at": rfc3339(record.at_ns),
        "principal": record.principal,
        "model": f"{record.model}:{record.version}",
        "status": record.status,
        "code": record.code,
        "latency_us": record.latency_us,
        "input_commitment": record.input_commitment.hex(),
        "output_commitment": record.output_commitment.hex(),
    }
