"""A time stamp on a checkpoint: the note, and what an RFC 3161 authority answered about it."""

from __future__ import annotations

from modelkeep.core.errors import IntegrityError
from modelkeep.core.record import Record, from_json, to_json
from modelkeep.kernels.digest import hex_of
from modelkeep.ledger.beside import AUTHOR_DIGITS, COSIGNATURE, Beside
from modelkeep.ledger.checkpoint import CHECKPOINT_BYTES_MAX, Checkpoint, verified_checkpoint

# An answer with a chain of certificates has about 6 kB; base64 and the note come on top.
ANSWER_BYTES_MAX = 64 * 1024
STAMP_BYTES_MAX = 2 * ANSWER_BYTES_MAX + 2 * CHECKPOINT_BYTES_MAX


class Stamp(Record, frozen=True):
    """The object beside a checkpoint.

    Attributes:
        note: the checkpoint with the log's own signature: what was stamped, byte for byte.
        answer: the authority's TimeStampResp, DER.
        url: of the authority, as it was asked.
    """

    note: str
    answer: bytes
    url: str


def author_of(url: str) -> str:
    """What names an authority in an object's name."""
    return hex_of(url.encode())[:AUTHOR_DIGITS]


def stamp_bytes(stamp: Stamp) -> bytes:
    """The bytes of the object."""
    return to_json(stamp) + b"\n"


def parsed_stamp(raw: bytes) -> Stamp:
    """Read a stamp; neither note nor answer is verified yet.

    Raises:
        IntegrityError: `ledger.stamp`.
    """
    if len(raw) > STAMP_BYTES_MAX:
        raise IntegrityError("ledger.stamp", "a time stamp is too long")
    try:
        return from_json(Stamp, raw, what="a time stamp")
    except IntegrityError as error:
        raise IntegrityError("ledger.stamp", error.message) from error


def checkpoint_beside(raw: bytes, beside: Beside, *, origin: str, public: bytes) -> Checkpoint:
    """The checkpoint, signed by the log, in a cosignature or time stamp of a certain name.

    Raises:
        IntegrityError: `ledger.checkpoint` or `ledger.stamp`.
    """
    note = raw if beside.kind == COSIGNATURE else parsed_stamp(raw).note.encode()
    checkpoint = verified_checkpoint(note, origin=origin, public=public)
    if checkpoint.size != beside.size:
        raise IntegrityError(
            "ledger.checkpoint", f"it holds the checkpoint of size {checkpoint.size}"
        )
    return checkpoint
