"""One file that proves one thing to a stranger, offline: a call, an entry, or that a log only grew.

A proof of a call goes  record -> path in its batch -> entry of the batch -> leaf -> tlog-proof ->
checkpoint, signed by the log and perhaps by witnesses; a proof of an entry begins at the entry.
The file is JSON with `format` in it; who checks it needs nothing but the log's verifier key, and
those of witnesses if their word is wanted. What it discloses is the one record and the one entry
in it, and no other; private facts in the entry stay sealed.

Nothing in the file is believed for standing there: the leaf is made again from salt and body, the
batch's root from the record, and the checkpoint must be signed by the key that the reader names.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from modelkeep.core.call_record import JournalRecord, decoded_record
from modelkeep.core.entry import Entry
from modelkeep.core.errors import IntegrityError, UsageError
from modelkeep.core.record import Record, from_json, parsed_json, to_json
from modelkeep.ledger.batch import Batch, batch_of, verify_record
from modelkeep.ledger.checkpoint import Checkpoint, origin_in, verified_checkpoint
from modelkeep.ledger.cosignature import Cosignature, Witness, verified_cosignatures
from modelkeep.ledger.entry import SALT_BYTES, CommittedBody
from modelkeep.ledger.proof import (
    PROOF_HASHES_MAX,
    note_in,
    verified_proof_text,
    verify_consistency,
)
from modelkeep.ledger.tree import leaf_hash

ENTRY_FORMAT = "modelkeep/proof/v0"
HISTORY_FORMAT = "modelkeep/consistency/v0"
# A body has 64 KiB, a note at most 128; base64 and JSON escapes at most treble them.
PROOF_BYTES_MAX = 1024 * 1024
# A journal's positions are 64-bit numbers.
POSITION_DIGITS_MAX = 18


class EntryProof(Record, frozen=True):
    """A proof of one entry, and of one call record in it where it is a batch.

    Attributes:
        body: the entry's exact JSON.
        salt: of its commitment.
        tlog_proof: C2SP tlog-proof of the leaf, with the checkpoint.
        receipt: of the call, `journal:position`; empty for a proof of the entry alone.
        frame: the call's record.
        path: from the record to the batch's root.
    """

    format: str
    body: str
    salt: bytes
    tlog_proof: str
    receipt: str = ""
    frame: bytes = b""
    path: tuple[bytes, ...] = ()


class HistoryProof(Record, frozen=True):
    """A proof that the log of an old checkpoint only grew to become that of a newer one."""

    format: str
    old: str
    new: str
    path: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class ProvenEntry:
    """What a proof showed.

    Attributes:
        index: in the log of the checkpoint's origin.
        record: of the call; None for a proof of the entry alone.
        cosignatures: of the witnesses that were asked for.
    """

    index: int
    entry: Entry
    checkpoint: Checkpoint
    cosignatures: tuple[Cosignature, ...]
    receipt: str = ""
    record: JournalRecord | None = None


@dataclass(frozen=True, slots=True)
class ProvenHistory:
    """What a proof of consistency showed."""

    old: Checkpoint
    new: Checkpoint
    cosignatures: tuple[Cosignature, ...]


def parsed_proof(raw: bytes) -> EntryProof | HistoryProof:
    """Read a proof file of either kind; nothing in it is verified yet.

    Raises:
        IntegrityError: `ledger.proof_file`.
    """
    if len(raw) > PROOF_BYTES_MAX:
        raise _bad("it is too long")
    try:
        plain = parsed_json(raw, what="the proof")
        form = plain.get("format") if isinstance(plain, dict) else None
        if form == ENTRY_FORMAT:
            return from_json(EntryProof, raw, what="the proof")
        if form == HISTORY_FORMAT:
            return from_json(HistoryProof, raw, what="the proof")
    except IntegrityError as error:
        raise _bad(error.message) from error
    raise _bad("it names no format that is known here")


def proof_bytes(proof: EntryProof | HistoryProof) -> bytes:
    """The bytes of a proof file."""
    return to_json(proof) + b"\n"


def proven_origin(proof: EntryProof | HistoryProof) -> str:
    """The log that a proof claims to be about, for choosing a key; nothing is verified."""
    note = note_in(proof.tlog_proof) if isinstance(proof, EntryProof) else proof.new.encode()
    return origin_in(note)


def proven_entry(
    proof: EntryProof, *, origin: str, public: bytes, witnesses: Sequence[Witness] = ()
) -> ProvenEntry:
    """Check a proof of an entry or call from end to end, with nothing but keys.

    Raises:
        IntegrityError: `ledger.proof_file`, `ledger.proof_text`, `ledger.checkpoint`,
            `ledger.cosignature`, `ledger.inclusion`, `ledger.batch` or `record.*`.
    """
    if len(proof.salt) != SALT_BYTES or len(proof.path) > PROOF_HASHES_MAX:
        raise _bad("a salt or a path has an impossible size")
    body = CommittedBody(proof.salt, proof.body.encode())
    index, _ = verified_proof_text(
        proof.tlog_proof, hashed_leaf=leaf_hash(body.leaf), origin=origin, public=public
    )
    checkpoint, cosignatures = verified_cosignatures(
        note_in(proof.tlog_proof), origin=origin, public=public, witnesses=witnesses
    )
    entry = body.entry()
    record = _proven_record(proof, entry) if proof.receipt else None
    return ProvenEntry(index, entry, checkpoint, cosignatures, proof.receipt, record)


def proven_history(
    proof: HistoryProof, *, origin: str, public: bytes, witnesses: Sequence[Witness] = ()
) -> ProvenHistory:
    """Check a proof of consistency with nothing but keys.

    Raises:
        IntegrityError: `ledger.checkpoint`, `ledger.cosignature` or `ledger.consistency`.
    """
    old = verified_checkpoint(proof.old.encode(), origin=origin, public=public)
    new, cosignatures = verified_cosignatures(
        proof.new.encode(), origin=origin, public=public, witnesses=witnesses
    )
    verify_consistency(
        old=old.size, old_root=old.root, size=new.size, root=new.root, proof=proof.path
    )
    return ProvenHistory(old, new, cosignatures)


def parsed_receipt(receipt: str) -> tuple[str, int]:
    """Journal and position in the receipt of a call.

    Raises:
        UsageError: `receipt.form`.
    """
    name, colon, position = receipt.rpartition(":")
    is_position = position.isascii() and position.isdecimal()
    if colon and name and is_position and len(position) <= POSITION_DIGITS_MAX:
        return name, int(position)
    raise UsageError("receipt.form", f"{receipt[:80]!r} is no receipt", hint="gateway-0-0:17")


def _proven_record(proof: EntryProof, entry: Entry) -> JournalRecord:
    name, position = parsed_receipt(proof.receipt)
    batch = _batch_with(entry, name, position)
    verify_record(
        proof.frame,
        position=position - batch.first,
        count=batch.count,
        proof=proof.path,
        root=_root(batch),
    )
    return decoded_record(proof.frame)


def _batch_with(entry: Entry, name: str, position: int) -> Batch:
    batch = batch_of(entry)
    if batch is None or batch.journal != name or not batch.first <= position < batch.end:
        raise _bad(f"its entry does not cover the receipt {name[:80]}:{position}")
    return batch


def _root(batch: Batch) -> bytes:
    try:
        return bytes.fromhex(batch.root)
    except ValueError:
        raise IntegrityError("ledger.batch", "a batch's root is not hex") from None


def _bad(why: str) -> IntegrityError:
    return IntegrityError("ledger.proof_file", f"that is not a proof: {why}")
