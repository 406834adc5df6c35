"""Proofs are accepted exactly where they are true."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkeep.core.errors import IntegrityError, UsageError
from modelkeep.crypto.secret import Secret
from modelkeep.crypto.signatures import Signer
from modelkeep.ledger.batch import batch_entry, batch_of, prove_record, verify_record
from modelkeep.ledger.checkpoint import signed_checkpoint
from modelkeep.ledger.proof import (
    consistency_proof,
    inclusion_proof,
    proof_text,
    verified_proof_text,
    verify_consistency,
    verify_inclusion,
)
from modelkeep.ledger.tree import EMPTY_ROOT, leaf_hash, range_root_over, root_of

HASHES = [leaf_hash(b"%d" % number) for number in range(300)]
ROOT = range_root_over(HASHES)
SIZES = [1, 2, 3, 4, 5, 7, 8, 9, 31, 33, 64, 65]


def test_every_leaf_of_small_trees_is_proven():
    for size in SIZES:
        for index in range(size):
            proof = inclusion_proof(index, size=size, range_root=ROOT)
            verify_inclusion(HASHES[index], index=index, size=size, proof=proof, root=ROOT(0, size))


def test_every_pair_of_small_trees_is_consistent():
    for size in SIZES:
        for old in range(size + 1):
            proof = consistency_proof(old, size=size, range_root=ROOT)
            verify_consistency(
                old=old, old_root=ROOT(0, old), size=size, root=ROOT(0, size), proof=proof
            )


@given(st.integers(1, 300), st.data())
def test_a_wrong_inclusion_is_refused(size, data):
    index = data.draw(st.integers(0, size - 1))
    proof = inclusion_proof(index, size=size, range_root=ROOT)
    root = ROOT(0, size)
    wrong = [
        {"index": index + 1},
        {"index": -1},
        {"index": size},
        {"root": EMPTY_ROOT},
        {"proof": (*proof, EMPTY_ROOT)},
    ]
    if proof:
        at = data.draw(st.integers(0, len(proof) - 1))
        wrong.append({"proof": (*proof[:at], EMPTY_ROOT, *proof[at + 1 :])})
        wrong.append({"proof": proof[:-1]})
    for change in wrong:
        arguments = {"index": index, "size": size, "proof": proof, "root": root} | change
        with pytest.raises(IntegrityError):
            verify_inclusion(HASHES[index], **arguments)


@given(st.integers(2, 300), st.data())
def test_a_wrong_consistency_is_refused(size, data):
    old = data.draw(st.integers(1, size - 1))
    proof = consistency_proof(old, size=size, range_root=ROOT)
    right = {
        "old": old,
        "old_root": ROOT(0, old),
        "size": size,
        "root": ROOT(0, size),
        "proof": proof,
    }
    at = data.draw(st.integers(0, len(proof) - 1))
    for change in (
        {"old_root": EMPTY_ROOT},
        {"root": EMPTY_ROOT},
        {"proof": (*proof, EMPTY_ROOT)},
        {"proof": proof[:-1]},
        {"proof": (*proof[:at], EMPTY_ROOT, *proof[at + 1 :])},
        {"old": size + 1},
        {"old": 0},
        {"old": size},
    ):
        with pytest.raises(IntegrityError):
            verify_consistency(**(right | change))


def test_what_is_not_there_cannot_be_proven():
    for index in (-1, 5):
        with pytest.raises(UsageError):
            inclusion_proof(index, size=5, range_root=ROOT)
    with pytest.raises(UsageError):
        consistency_proof(6, size=5, range_root=ROOT)


def test_pymerkle_makes_and_takes_the_same_proofs():
    pymerkle = pytest.importorskip("pymerkle", reason="pymerkle is not installed")
    theirs = pymerkle.InmemoryTree(algorithm="sha256")
    for number in range(100):
        theirs.append_entry(b"%d" % number)
    for index in (0, 1, 50, 98, 99):
        path = theirs.prove_inclusion(index + 1, 100).path
        ours = inclusion_proof(index, size=100, range_root=ROOT)
        assert set(ours) <= set(path)


SIGNER = Signer(Secret(b"s" * 32))
CHECKPOINT = signed_checkpoint("example.org/log", size=300, root=ROOT(0, 300), signer=SIGNER)


def read_proof(text, hashed_leaf):
    return verified_proof_text(
        text, hashed_leaf=hashed_leaf, origin="example.org/log", public=SIGNER.public
    )


def test_a_written_proof_is_checked_offline():
    proof = inclusion_proof(57, size=300, range_root=ROOT)
    text = proof_text(57, proof=proof, checkpoint=CHECKPOINT)
    assert text.startswith("c2sp.org/tlog-proof@v1\nindex 57\n")
    assert read_proof(text, HASHES[57]) == (57, CHECKPOINT)
    extra = text.replace("\nindex", "\nextra AAAA\nindex", 1)
    assert read_proof(extra, HASHES[57])[0] == 57
    with pytest.raises(IntegrityError):
        read_proof(text, HASHES[58])


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("v1", "v2"),
        ("index 57", "index 057"),
        ("index 57", "index 58"),
        ("index 57", "57"),
        ("\n\n", "\n"),
        ("=\n", "\n"),
        ("300", "299"),
    ],
)
def test_a_written_proof_that_was_changed_is_refused(old, new):
    proof = inclusion_proof(57, size=300, range_root=ROOT)
    text = proof_text(57, proof=proof, checkpoint=CHECKPOINT)
    with pytest.raises(IntegrityError):
        read_proof(text.replace(old, new, 1), HASHES[57])


def test_a_record_is_proven_within_its_batch():
    frames = [b"record %d" % number for number in range(37)]
    entry = batch_entry(frames, journal="gateway-0", first=1000, at_ns=1)
    batch = batch_of(entry)
    assert (batch.journal, batch.first, batch.count, batch.end) == ("gateway-0", 1000, 37, 1037)
    assert batch.root == root_of([leaf_hash(frame) for frame in frames]).hex()
    root = bytes.fromhex(batch.root)
    for position, frame in enumerate(frames):
        proof = prove_record(frames, position=position)
        verify_record(frame, position=position, count=37, proof=proof, root=root)
        with pytest.raises(IntegrityError):
            verify_record(b"other", position=position, count=37, proof=proof, root=root)


def test_an_entry_of_another_kind_is_no_batch():
    entry = batch_entry([b"x"], journal="g", first=0, at_ns=0)
    assert batch_of(type(entry)(kind="model.admitted", at_ns=0, actor="x")) is None
    with pytest.raises(IntegrityError):
        batch_of(type(entry)(kind="calls.batch", at_ns=0, actor="x"))
