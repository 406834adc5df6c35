"""Journal frames: whatever the bytes, a frame is one that was written here, or none."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from modelkeep.kernels.frames import (
    FRAME_HEAD_BYTES,
    MARK,
    MARK_BYTES,
    framed,
    last_mark,
    mark_bytes,
    marks_after,
    parsed_mark,
    parsed_piece,
)

PAYLOADS = st.lists(st.binary(max_size=60), max_size=8)
POSITIONS = st.integers(0, 2**63)


@given(PAYLOADS, POSITIONS)
def test_what_was_framed_is_parsed_in_order(payloads, first):
    raw = b"".join(framed(payloads, first=first)) + mark_bytes(first + len(payloads))
    at = 0
    for position, payload in enumerate(payloads, start=first):
        piece = parsed_piece(raw, at, position=position, base=7)
        assert (piece.position, piece.payload) == (position, payload)
        assert piece.start == 7 + at
        at += FRAME_HEAD_BYTES + len(payload)
        assert piece.end == 7 + at
    mark = parsed_piece(raw, at, position=first + len(payloads), base=0)
    assert (mark.payload, mark.end) == (None, len(raw))


@given(st.binary(max_size=200), POSITIONS)
def test_other_bytes_are_no_frame_and_no_mark(raw, position):
    assert parsed_piece(raw, 0, position=position, base=0) is None
    assert parsed_piece(MARK + raw, 0, position=position, base=0) is None
    assert last_mark(MARK + raw, position_max=2**64) is None
    assert not marks_after(MARK + raw, 0)


@given(st.binary(min_size=1, max_size=60), POSITIONS, st.data())
def test_a_flipped_bit_or_another_position_is_no_frame(payload, position, data):
    [raw] = framed([payload], first=position)
    bit = data.draw(st.integers(0, len(raw) * 8 - 1))
    flipped = bytearray(raw)
    flipped[bit // 8] ^= 1 << bit % 8
    assert parsed_piece(bytes(flipped), 0, position=position, base=0) is None
    assert parsed_piece(raw, 0, position=position + 1, base=0) is None
    assert parsed_piece(raw[:-1], 0, position=position, base=0) is None


@given(st.lists(st.tuples(st.binary(max_size=20), st.integers(0, 50)), max_size=6), st.data())
def test_the_last_mark_at_or_before_a_position_is_found(parts, data):
    raw, marks = b"", []
    for noise, position in parts:
        raw += noise.replace(b"\xff", b"") + mark_bytes(position)
        marks.append((position, len(raw)))
    wanted = data.draw(st.integers(0, 60))
    right = [mark for mark in marks if mark[0] <= wanted]
    assert last_mark(raw, position_max=wanted) == (right[-1] if right else None)
    assert last_mark(raw[: MARK_BYTES - 1], position_max=wanted) is None
    assert all(parsed_mark(raw, end - MARK_BYTES) == position for position, end in marks)
