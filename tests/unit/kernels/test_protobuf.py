"""Unit tests of kernels.protobuf: where fields lie, and what no walk may believe."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelkeep.core.errors import IntegrityError, KeepError
from modelkeep.kernels import protobuf
from modelkeep.kernels.protobuf import FIXED32, FIXED64, LENGTH, VARINT, fields, run_of


def walk(raw, **options):
    return list(fields(memoryview(raw), **options))


def test_every_wire_type_is_placed():
    raw = b"\x08\x96\x01" + b"\x12\x03abc" + b"\x1d\x01\x02\x03\x04" + b"\x21" + bytes(8)
    assert walk(raw) == [
        (1, VARINT, 150, 1, 2, 1),
        (2, LENGTH, 0, 5, 3, 1),
        (3, FIXED32, 0, 9, 4, 1),
        (4, FIXED64, 0, 14, 8, 1),
    ]


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (b"\x12\x04abc", "protobuf.truncated"),
        (b"\x12", "protobuf.truncated"),
        (b"\x08", "protobuf.truncated"),
        (b"\x08\x80", "protobuf.truncated"),
        (b"\x1d\x01\x02\x03", "protobuf.truncated"),
        (b"\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "protobuf.truncated"),
        (b"\x08" + b"\x80" * 10 + b"\x01", "protobuf.varint"),
        (b"\x08" + b"\xff" * 9 + b"\x02", "protobuf.varint"),
        (b"\x00\x01", "protobuf.number"),
        (b"\x0b", "protobuf.wire"),
        (b"\x0c", "protobuf.wire"),
        (b"\x0e", "protobuf.wire"),
        (b"\x0f", "protobuf.wire"),
    ],
)
def test_malformed_bytes_are_refused_with_their_reason(raw, code):
    with pytest.raises(IntegrityError) as caught:
        walk(raw)
    assert caught.value.code == code


def test_depth_is_refused_one_past_the_bound():
    assert walk(b"", depth=protobuf.DEPTH_MAX) == []
    with pytest.raises(IntegrityError) as caught:
        walk(b"", depth=protobuf.DEPTH_MAX + 1)
    assert caught.value.code == "protobuf.depth"


def test_the_largest_varint_passes_and_signs():
    value, after = protobuf.varint(memoryview(b"\xff" * 9 + b"\x01"), 0, 10)
    assert (value, after) == ((1 << 64) - 1, 10)
    assert protobuf.signed(value) == -1


def test_a_length_is_held_against_its_own_message_and_not_the_file():
    raw = b"\x12\x04" + b"abcd"
    with pytest.raises(IntegrityError):
        list(fields(memoryview(raw), 0, 4))


@given(st.lists(st.integers(0, (1 << 64) - 1), max_size=40))
@settings(deadline=None, max_examples=60)
def test_a_run_stands_for_exactly_its_fields(values):
    raw = b"".join(b"\x40" + _varint(value) for value in values) + b"\x0a\x01x"
    plain = walk(raw)
    run = walk(raw, runs=dict([run_of(8, VARINT)]))
    assert sum(field.many for field in run) == len(plain)
    assert run[-1] == plain[-1]
    assert len(run) <= 3


@given(st.lists(st.integers(0, (1 << 64) - 1), max_size=40))
@settings(deadline=None, max_examples=60)
def test_packed_numbers_are_counted(values):
    raw = b"".join(map(_varint, values))
    assert protobuf.packed_count(memoryview(raw), 0, len(raw)) == len(values)


@pytest.mark.parametrize("raw", [b"\x80", b"\x01\xff", b"\x80" * 10 + b"\x01"])
def test_packed_numbers_that_do_not_end_are_refused(raw):
    with pytest.raises(IntegrityError):
        protobuf.packed_count(memoryview(raw), 0, len(raw))


@given(st.binary(max_size=200))
@settings(deadline=None, max_examples=300)
def test_no_bytes_make_the_walk_raise_anything_else(raw):
    runs = dict([run_of(8, VARINT), run_of(7, FIXED32), run_of(10, FIXED64)])
    for options in ({}, {"groups_pass": True}, {"runs": runs}):
        try:
            found = walk(raw, **options)
        except KeepError:
            continue
        assert all(0 <= field.offset <= field.offset + field.length <= len(raw) for field in found)


def _varint(value):
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])
