"""Bodies open only with their key, in their own place, whole."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkeep.core.entry import Entry
from modelkeep.core.errors import IntegrityError, UsageError
from modelkeep.core.limits import ENTRY_BODY_BYTES_MAX
from modelkeep.crypto.secret import Secret
from modelkeep.ledger.entry import (
    FrameReader,
    committed,
    opened_bodies,
    sealed_bodies,
    sealed_frames,
)
from modelkeep.ledger.tiles import Place

KEY = Secret(b"k" * 32)
PREFIX = "ledger/0123456789abcdef/"
ENTRY = Entry(
    kind="model.admitted",
    at_ns=1,
    actor="cli:root",
    facts={"text": "x", "number": 1, "ratio": 1.0, "yes": True, "none": None, "list": ("a", "b")},
)
BODIES = tuple(committed(ENTRY, salt=bytes([number]) * 32) for number in range(3))
RECORDS = tuple(body.record for body in BODIES)
PLACE = Place("body", 7, 3)


def test_a_leaf_commits_to_salt_and_body():
    body = BODIES[0]
    assert body.leaf == b"\x01" + hashlib.sha256(body.salt + body.body).digest()
    assert len({each.leaf for each in BODIES}) == 3  # one entry, three salts
    assert body.entry() == ENTRY


def test_bodies_open_in_their_own_place_only():
    raw = sealed_bodies(RECORDS, prefix=PREFIX, place=PLACE, body_key=KEY)
    assert opened_bodies(raw, prefix=PREFIX, place=PLACE, body_key=KEY) == BODIES
    for prefix, place, key in (
        (PREFIX, Place("body", 8, 3), KEY),
        (PREFIX, Place("body", 7, 4), KEY),
        ("ledger/0000000000000000/", PLACE, KEY),
        (PREFIX, PLACE, Secret(b"x" * 32)),
    ):
        with pytest.raises(IntegrityError):
            opened_bodies(raw, prefix=prefix, place=place, body_key=key)


def test_the_same_bodies_give_the_same_bytes_and_others_another_salt():
    raw = sealed_bodies(RECORDS, prefix=PREFIX, place=PLACE, body_key=KEY)
    assert raw == sealed_bodies(RECORDS, prefix=PREFIX, place=PLACE, body_key=KEY)
    salts = {
        sealed_bodies(records, prefix=PREFIX, place=place, body_key=KEY)[:32]
        for records, place in (
            (RECORDS, PLACE),
            (RECORDS[:2], PLACE),
            (RECORDS, Place("body", 8, 3)),
        )
    }
    assert len(salts) == 3


def test_any_flipped_bit_or_cut_is_refused():
    raw = sealed_bodies(RECORDS, prefix=PREFIX, place=PLACE, body_key=KEY)
    for bit in range(0, len(raw) * 8, 7):
        flipped = bytearray(raw)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(IntegrityError):
            opened_bodies(bytes(flipped), prefix=PREFIX, place=PLACE, body_key=KEY)
    for size in (0, 10, 48, len(raw) - 1):
        with pytest.raises(IntegrityError):
            opened_bodies(raw[:size], prefix=PREFIX, place=PLACE, body_key=KEY)


def test_a_bundle_holds_exactly_its_width():
    raw = sealed_bodies(RECORDS[:2], prefix=PREFIX, place=PLACE, body_key=KEY)
    with pytest.raises(IntegrityError, match=r"ledger\.body"):
        opened_bodies(raw, prefix=PREFIX, place=PLACE, body_key=KEY)


def test_a_frame_opens_at_its_own_index_only_and_shows_nothing():
    raws = sealed_frames(RECORDS, prefix=PREFIX, first=5, body_key=KEY, salt=b"s" * 32)
    others = sealed_frames(RECORDS, prefix=PREFIX, first=5, body_key=KEY, salt=b"t" * 32)
    frames = FrameReader(KEY, prefix=PREFIX)
    for at, raw in enumerate(raws):
        assert frames.body(raw, index=5 + at) == BODIES[at]
        assert frames.record(others[at], index=5 + at) == RECORDS[at]  # another append's key
        assert b"admitted" not in raw
        for wrong in (4 + at, 6 + at):
            with pytest.raises(IntegrityError, match=r"aead\.tag"):
                frames.record(raw, index=wrong)
    for prefix, key in (("ledger/0000000000000000/", KEY), (PREFIX, Secret(b"x" * 32))):
        with pytest.raises(IntegrityError, match=r"aead\.tag"):
            FrameReader(key, prefix=prefix).record(raws[0], index=5)


@given(st.binary(max_size=200), st.integers(0, 2**64))
def test_bytes_that_are_no_frame_are_refused(raw, index):
    with pytest.raises(IntegrityError):
        FrameReader(KEY, prefix=PREFIX).record(raw, index=index)


def test_an_entry_at_the_bound_passes_and_one_past_it_does_not():
    empty = len(committed(Entry(kind="x", at_ns=0, actor="", facts={"f": ""}), salt=bytes(32)).body)
    room = ENTRY_BODY_BYTES_MAX - empty
    fits = Entry(kind="x", at_ns=0, actor="", facts={"f": "a" * room})
    assert len(committed(fits, salt=bytes(32)).body) == ENTRY_BODY_BYTES_MAX
    with pytest.raises(UsageError):
        committed(Entry(kind="x", at_ns=0, actor="", facts={"f": "a" * (room + 1)}), salt=bytes(32))
