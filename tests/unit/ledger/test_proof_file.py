"""A proof file shows what it says to whoever has the key, and nothing when a bit is wrong."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkeep.core.call_record import CallRecord, encoded_record
from modelkeep.core.entry import Entry
from modelkeep.core.errors import IntegrityError, KeepError, RefusedError, UsageError
from modelkeep.crypto.secret import Secret
from modelkeep.crypto.signatures import Signer
from modelkeep.ledger.batch import batch_entry, prove_record
from modelkeep.ledger.checkpoint import signed_checkpoint, verifier_key
from modelkeep.ledger.cosignature import Witness, combined, cosigned
from modelkeep.ledger.entry import committed
from modelkeep.ledger.proof import consistency_proof, inclusion_proof, proof_text
from modelkeep.ledger.proof_file import (
    ENTRY_FORMAT,
    HISTORY_FORMAT,
    PROOF_BYTES_MAX,
    EntryProof,
    HistoryProof,
    parsed_proof,
    parsed_receipt,
    proof_bytes,
    proven_entry,
    proven_history,
    proven_origin,
)
from modelkeep.ledger.tree import leaf_hash, range_root_over
from modelkeep.sdk.evidence import verified_proof

ORIGIN = "example.org/keep/main"
SIGNER = Signer(Secret(b"s" * 32))
OTHER = Signer(Secret(b"w" * 32))
WITNESS = Witness("example.org/witness", OTHER.public)


def call(number):
    return encoded_record(
        CallRecord(
            call_id=bytes(8),
            at_ns=number,
            principal="alice",
            tenant="default",
            model="fraud",
            version=1,
            status=200,
            code="",
            input_commitment=b"i",
            output_commitment=b"o",
            latency_us=1,
            nonce=bytes(16),
        )
    )


FRAMES = [call(number) for number in range(10)]
BODIES = [
    committed(
        batch_entry(FRAMES, journal="gateway-0-0", first=100, at_ns=5)
        if number == 4
        else Entry(kind="note.x", at_ns=number, actor="a", facts={"n": number}),
        salt=bytes([number]) * 32,
    )
    for number in range(9)
]
ROOTS = range_root_over([leaf_hash(each.leaf) for each in BODIES])


def checkpoint(size):
    return signed_checkpoint(ORIGIN, size=size, root=ROOTS(0, size), signer=SIGNER)


def proof_of(index, *, position=None, note=None):
    head = checkpoint(9)
    if note is not None:
        head = type(head)(head.origin, head.size, head.root, note)
    path = inclusion_proof(index, size=9, range_root=ROOTS)
    return EntryProof(
        format=ENTRY_FORMAT,
        body=BODIES[index].body.decode(),
        salt=BODIES[index].salt,
        tlog_proof=proof_text(index, proof=path, checkpoint=head),
        receipt="" if position is None else f"gateway-0-0:{position}",
        frame=b"" if position is None else FRAMES[position - 100],
        path=() if position is None else prove_record(FRAMES, position=position - 100),
    )


def proven(proof, **options):
    return proven_entry(proof, origin=ORIGIN, public=SIGNER.public, **options)


def test_every_entry_and_every_call_is_proven_from_its_file_alone():
    for index in range(9):
        proof = parsed_proof(proof_bytes(proof_of(index)))
        found = proven(proof)
        assert (found.index, found.record) == (index, None)
        assert found.entry.at_ns == (5 if index == 4 else index)
    for position in range(100, 110):
        proof = parsed_proof(proof_bytes(proof_of(4, position=position)))
        assert proven_origin(proof) == ORIGIN
        assert proven(proof).record.at_ns == position - 100


def test_witnesses_count_only_where_they_are_known():
    note = cosigned(checkpoint(9), name=WITNESS.name, signer=OTHER, at_s=77)
    proof = proof_of(3, note=note)
    assert proven(proof).cosignatures == ()
    (found,) = proven(proof, witnesses=[WITNESS]).cosignatures
    assert (found.witness, found.at_s) == (WITNESS, 77)


def test_one_key_under_two_names_is_one_witness_of_a_proof():
    """Names are free; the holder of one key must not be a quorum alone."""
    named = [Witness(f"example.org/{name}", OTHER.public) for name in "ab"]
    notes = [cosigned(checkpoint(9), name=each.name, signer=OTHER, at_s=77) for each in named]
    raw = proof_bytes(proof_of(3, note=combined(notes)))
    known = {"keys": [verifier_key(ORIGIN, SIGNER.public)]}
    known["witnesses"] = [each.verifier_key for each in named]
    assert len(verified_proof(raw, quorum=1, **known).cosignatures) == 2
    with pytest.raises(RefusedError, match=r"ledger\.quorum"):
        verified_proof(raw, quorum=2, **known)


def test_growth_is_proven_from_its_file_alone():
    for old in range(1, 10):
        proof = HistoryProof(
            format=HISTORY_FORMAT,
            old=checkpoint(old).raw.decode(),
            new=checkpoint(9).raw.decode(),
            path=consistency_proof(old, size=9, range_root=ROOTS),
        )
        found = proven_history(
            parsed_proof(proof_bytes(proof)), origin=ORIGIN, public=SIGNER.public
        )
        assert (found.old.size, found.new.size) == (old, 9)
    forked = signed_checkpoint(ORIGIN, size=5, root=bytes(32), signer=SIGNER)
    wrong = HistoryProof(
        format=HISTORY_FORMAT,
        old=forked.raw.decode(),
        new=checkpoint(9).raw.decode(),
        path=consistency_proof(5, size=9, range_root=ROOTS),
    )
    with pytest.raises(IntegrityError, match=r"ledger\.consistency"):
        proven_history(wrong, origin=ORIGIN, public=SIGNER.public)


def test_any_changed_byte_shows_nothing_else():
    """A change is refused, or it is none: another spelling of the same JSON or base64."""
    raw = proof_bytes(proof_of(4, position=103))
    right = proven(parsed_proof(raw))
    for at in range(0, len(raw), 3):
        changed = raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :]
        try:
            found = proven(parsed_proof(changed))
        except KeepError:
            continue
        assert found == right


@pytest.mark.parametrize("receipt", ["gateway-0-0:104", "gateway-0-0:99", "gateway-0-1:103"])
def test_a_record_is_not_that_of_another_receipt(receipt):
    plain = json.loads(proof_bytes(proof_of(4, position=103)))
    with pytest.raises(IntegrityError):
        proven(parsed_proof(json.dumps({**plain, "receipt": receipt}).encode()))


def test_an_entry_that_is_no_batch_proves_no_call():
    plain = json.loads(proof_bytes(proof_of(3)))
    with pytest.raises(IntegrityError):
        proven(parsed_proof(json.dumps({**plain, "receipt": "gateway-0-0:103"}).encode()))


def test_another_key_proves_nothing():
    with pytest.raises(IntegrityError):
        proven_entry(proof_of(3), origin=ORIGIN, public=OTHER.public)
    with pytest.raises(IntegrityError):
        proven_entry(proof_of(3), origin="example.org/other", public=SIGNER.public)


@given(st.binary(max_size=300))
def test_rubbish_is_no_proof(raw):
    with pytest.raises(IntegrityError):
        parsed_proof(raw)


@given(
    st.fixed_dictionaries(
        {
            "format": st.sampled_from([ENTRY_FORMAT, HISTORY_FORMAT, "x"]),
            "body": st.text(max_size=20),
            "salt": st.sampled_from(["", "AA==", "A" * 43 + "="]),
            "tlog_proof": st.text(max_size=80),
        },
        optional={"receipt": st.text(max_size=20), "frame": st.just("AA=="), "path": st.just([])},
    )
)
def test_a_file_of_the_right_form_raises_nothing_but_ours(plain):
    with pytest.raises(KeepError):
        proven(parsed_proof(json.dumps(plain).encode()))


def test_a_proof_is_bounded():
    with pytest.raises(IntegrityError, match="too long"):
        parsed_proof(b" " * (PROOF_BYTES_MAX + 1))


@pytest.mark.parametrize(
    "text", ["", ":", "a", "a:", ":1", "a:-1", "a:1.0", "a:1x", "a:²", "a:" + "9" * 19, "a: 1"]
)
def test_what_is_no_receipt_is_refused(text):
    with pytest.raises(UsageError, match=r"receipt\.form"):
        parsed_receipt(text)


def test_a_receipt_is_a_journal_and_a_position():
    assert parsed_receipt("gateway-0-0:17") == ("gateway-0-0", 17)
    assert parsed_receipt("a:" + "9" * 18) == ("a", 10**18 - 1)
