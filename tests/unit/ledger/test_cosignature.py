"""A cosignature is believed only for its own text, time and witness."""

from __future__ import annotations

import base64
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkeep.core.errors import IntegrityError, KeepError, UsageError
from modelkeep.crypto.secret import Secret
from modelkeep.crypto.signatures import Signer
from modelkeep.ledger.beside import (
    COSIGNATURE,
    TIMESTAMP,
    Beside,
    abroad_name,
    beside_name,
    parsed_abroad,
    parsed_beside,
)
from modelkeep.ledger.checkpoint import (
    note_parts,
    signed_checkpoint,
    verified_checkpoint,
    verifier_key,
)
from modelkeep.ledger.cosignature import (
    TIME_S_MAX,
    Witness,
    bare_note,
    combined,
    cosigned,
    parsed_witness,
    verified_cosignatures,
)
from modelkeep.ledger.stamp import Stamp, checkpoint_beside, parsed_stamp, stamp_bytes
from modelkeep.ledger.tiles import log_prefix

ORIGIN = "example.org/keep/main"
LOG = Signer(Secret(b"l" * 32))
SIGNERS = [Signer(Secret(bytes([number]) * 32)) for number in (1, 2, 3)]
WITNESSES = [Witness(f"example.org/w{number}", each.public) for number, each in enumerate(SIGNERS)]
CHECKPOINT = signed_checkpoint(ORIGIN, size=20, root=bytes(range(32)), signer=LOG)


def by(number, at_s=1_700_000_000, checkpoint=CHECKPOINT):
    return cosigned(checkpoint, name=WITNESSES[number].name, signer=SIGNERS[number], at_s=at_s)


def verified(raw, witnesses=WITNESSES):
    return verified_cosignatures(raw, origin=ORIGIN, public=LOG.public, witnesses=witnesses)


def test_what_a_witness_signed_verifies_and_says_when():
    checkpoint, (found,) = verified(by(0))
    assert (checkpoint.size, checkpoint.root) == (20, CHECKPOINT.root)
    assert (found.witness, found.at_s) == (WITNESSES[0], 1_700_000_000)


def test_the_line_is_what_the_specification_says():
    text, (_, line) = note_parts(by(1, at_s=1679315147))
    assert line.name == "example.org/w1"
    assert line.signature[:8] == (1679315147).to_bytes(8, "big")
    message = f"cosignature/v1\ntime 1679315147\n{text}".encode()
    assert line.signature[8:] == SIGNERS[1].sign_bare(message)
    assert WITNESSES[1].verifier_key.split("+")[1] == line.key_id.hex()
    assert base64.b64decode(WITNESSES[1].verifier_key.split("+")[2])[0] == 4


def test_those_who_do_not_know_the_witness_see_the_same_checkpoint():
    raw = by(0)
    assert verified_checkpoint(raw, origin=ORIGIN, public=LOG.public).root == CHECKPOINT.root
    assert verified(raw, [WITNESSES[1]])[1] == ()
    assert bare_note(raw, origin=ORIGIN, public=LOG.public) == CHECKPOINT.raw


def test_notes_of_several_witnesses_become_one():
    raw = combined([by(0), by(1), by(2)])
    assert {each.witness for each in verified(raw)[1]} == set(WITNESSES)
    assert combined([raw, by(1)]) == raw
    newer = combined([by(0, 5), by(0, 9)])
    assert [each.at_s for each in verified(newer)[1]] == [9]
    other = signed_checkpoint(ORIGIN, size=21, root=bytes(32), signer=LOG)
    assert combined([by(0), by(1, checkpoint=other)]) == by(0)


def test_any_flipped_bit_is_refused():
    raw = by(0)
    for bit in range(len(raw) * 8):
        flipped = bytearray(raw)
        flipped[bit // 8] ^= 1 << bit % 8
        try:
            _, found = verified(bytes(flipped))
        except IntegrityError:
            continue
        assert found == ()  # the name or the key id became a stranger's, whom nobody asks


def test_a_cosignature_of_one_thing_is_none_of_another():
    _, (_, line) = note_parts(by(0))
    other = signed_checkpoint(ORIGIN, size=21, root=bytes(range(32)), signer=LOG)
    with pytest.raises(IntegrityError, match=r"ledger\.cosignature"):
        verified(other.raw + f"{line.line}\n".encode())
    renamed = Witness("example.org/w9", SIGNERS[0].public)
    assert verified(by(0), [renamed])[1] == ()


def test_the_key_of_a_log_is_none_of_a_witness():
    """The type byte parts them: a log's signature never counts as a witness's, nor the reverse."""
    own = Witness(ORIGIN, LOG.public)
    assert verified(CHECKPOINT.raw, [own])[1] == ()
    with pytest.raises(UsageError):
        parsed_witness(verifier_key(ORIGIN, LOG.public))
    assert parsed_witness(own.verifier_key) == own
    with pytest.raises(IntegrityError):
        verified_checkpoint(by(0), origin="example.org/w0", public=SIGNERS[0].public)


def test_a_time_beyond_63_bits_is_refused():
    assert verified(by(0, TIME_S_MAX))[1][0].at_s == TIME_S_MAX
    with pytest.raises(AssertionError):
        by(0, TIME_S_MAX + 1)


@given(st.binary(max_size=400))
def test_rubbish_raises_nothing_but_an_integrity_error(raw):
    with pytest.raises(IntegrityError):
        verified(raw)
    with pytest.raises(IntegrityError):
        bare_note(raw, origin=ORIGIN, public=LOG.public)
    with pytest.raises(IntegrityError):
        parsed_stamp(raw)
    with suppress(IntegrityError):  # a well-formed note that nobody signed is still a note
        note_parts(raw)


@given(st.text(max_size=200))
def test_no_text_is_a_witness_but_a_key(text):
    with pytest.raises(UsageError):
        parsed_witness(text)


@given(st.text(alphabet="0123456789abcdefx/.cosignaturetimp", max_size=80))
def test_a_name_that_is_read_is_the_one_that_is_written(name):
    prefix = log_prefix(ORIGIN)
    found = parsed_beside(prefix, prefix + name)
    assert found is None or beside_name(prefix, found) == prefix + name
    size = parsed_abroad(ORIGIN, name)
    assert size is None or abroad_name(ORIGIN, size) == name


def test_names_are_read_as_written():
    prefix = log_prefix(ORIGIN)
    for kind in (COSIGNATURE, TIMESTAMP):
        beside = Beside(kind, 12, "0a0b0c0d", 1_700_000_000)
        assert parsed_beside(prefix, beside_name(prefix, beside)) == beside
    assert parsed_abroad(ORIGIN, abroad_name(ORIGIN, 99)) == 99
    assert parsed_abroad("example.org/other", abroad_name(ORIGIN, 99)) is None


def test_what_lies_beside_a_checkpoint_is_of_the_size_that_its_name_says():
    at = Beside(COSIGNATURE, 20, "0a0b0c0d", 1)
    stamp = stamp_bytes(Stamp(note=CHECKPOINT.raw.decode(), answer=b"x", url="https://tsa"))
    for beside, raw in ((at, by(0)), (Beside(TIMESTAMP, 20, "0a0b0c0d", 1), stamp)):
        found = checkpoint_beside(raw, beside, origin=ORIGIN, public=LOG.public)
        assert found.root == CHECKPOINT.root
        moved = Beside(beside.kind, 21, beside.author, 1)
        with pytest.raises(KeepError):
            checkpoint_beside(raw, moved, origin=ORIGIN, public=LOG.public)
