r"""Cosignatures of witnesses on a log's checkpoints: C2SP tlog-cosignature, `cosignature/v1`.

    signed:  cosignature/v1\ntime <seconds>\n<the checkpoint's text>
    line:    — <witness> <base64(key id || seconds u64 || Ed25519 signature)>

Such a line says: as of that second, this is the largest tree of this log that the witness has
seen, and it goes on from every one that it had seen before. The key's type is 0x04, so the same
name and key never speak for a log and for a witness. The line stands in the checkpoint's own note
beside the log's signature; a verifier that does not know the witness ignores it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from modelkeep.core.errors import IntegrityError
from modelkeep.crypto.signatures import SIGNATURE_BYTES, Signer, verify_bare
from modelkeep.ledger.checkpoint import (
    WITNESS_KEY,
    Checkpoint,
    checked_origin,
    key_id,
    note_parts,
    parsed_verifier_key,
    signature_line,
    verified_checkpoint,
    verifier_key,
)

TIME_BYTES = 8
TIME_S_MAX = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Witness:
    """A witness as those know it who trust it."""

    name: str
    public: bytes

    @property
    def key_id(self) -> bytes:
        """The 4 bytes that tell its signatures."""
        return key_id(self.name, self.public, WITNESS_KEY)

    @property
    def verifier_key(self) -> str:
        """The line by which others know its key."""
        return verifier_key(self.name, self.public, WITNESS_KEY)


@dataclass(frozen=True, slots=True)
class Cosignature:
    """A cosignature that was verified by this file.

    Attributes:
        at_s: when the witness made it, in seconds since the Unix epoch, by its own clock.
    """

    witness: Witness
    at_s: int


def parsed_witness(text: str) -> Witness:
    """The witness in a line that `Witness.verifier_key` printed.

    Raises:
        UsageError: `ledger.verifier_key`.
    """
    return Witness(*parsed_verifier_key(text, WITNESS_KEY))


def cosigned(checkpoint: Checkpoint, *, name: str, signer: Signer, at_s: int) -> bytes:
    """The checkpoint's note with one more signature: the witness's; see the module."""
    witness = Witness(checked_origin(name), signer.public)
    text, _ = note_parts(checkpoint.raw)
    signature = signer.sign_bare(_message(text, at_s))
    line = signature_line(name, witness.key_id, at_s.to_bytes(TIME_BYTES, "big") + signature)
    return checkpoint.raw + f"{line}\n".encode()


def verified_cosignatures(
    raw: bytes, *, origin: str, public: bytes, witnesses: Sequence[Witness]
) -> tuple[Checkpoint, tuple[Cosignature, ...]]:
    """Check a note: the log's own signature, and those of the witnesses that are known.

    Several of one witness count as its newest. Lines of unknown keys are ignored; a line of a
    known key that does not verify condemns the whole note.

    Raises:
        IntegrityError: `ledger.checkpoint` or `ledger.cosignature`.
    """
    checkpoint = verified_checkpoint(raw, origin=origin, public=public)
    text, signatures = note_parts(raw)
    found: dict[Witness, int] = {}
    for witness in witnesses:
        key = witness.key_id
        for each in signatures:
            if each.is_by(witness.name, key):
                at_s = _demand(each.signature, text, witness)
                found[witness] = max(at_s, found.get(witness, 0))
    return checkpoint, tuple(Cosignature(*each) for each in found.items())


def bare_note(raw: bytes, *, origin: str, public: bytes) -> bytes:
    """The note with nothing but the log's own signatures: what stands in a record or a proof.

    Raises:
        IntegrityError: `ledger.checkpoint`.
    """
    verified_checkpoint(raw, origin=origin, public=public)
    text, signatures = note_parts(raw)
    key = key_id(origin, public)
    lines = [each.line for each in signatures if each.is_by(origin, key)]
    return "\n".join([text, *lines, ""]).encode()


def combined(notes: Iterable[bytes]) -> bytes:
    """One note with the signatures of all that have the text of the first.

    Of several by one key the last given stays.

    Raises:
        IntegrityError: `ledger.checkpoint`, when one of them is not a signed note.
    """
    text = ""
    lines: dict[tuple[str, bytes], str] = {}
    for raw in notes:
        own, signatures = note_parts(raw)
        text = text or own
        if own == text:
            lines |= {(each.name, each.key_id): each.line for each in signatures}
    return "\n".join([text, *lines.values(), ""]).encode()


def _message(text: str, at_s: int) -> bytes:
    if not 0 <= at_s <= TIME_S_MAX:
        raise AssertionError("a cosignature's time is a POSIX time of 63 bits")
    return f"cosignature/v1\ntime {at_s}\n{text}".encode()


def _demand(blob: bytes, text: str, witness: Witness) -> int:
    """The time of a cosignature that verifies."""
    at_s = int.from_bytes(blob[:TIME_BYTES], "big")
    if len(blob) == TIME_BYTES + SIGNATURE_BYTES and at_s <= TIME_S_MAX:
        try:
            verify_bare(blob[TIME_BYTES:], _message(text, at_s), public=witness.public)
        except IntegrityError:
            pass
        else:
            return at_s
    raise IntegrityError("ledger.cosignature", f"the cosignature of {witness.name} does not verify")
