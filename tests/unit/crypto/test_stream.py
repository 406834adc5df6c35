"""The STREAM construction: any length comes back, and no cut, move or addition does."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkeep.core.errors import IntegrityError, LimitError
from modelkeep.crypto import stream
from modelkeep.crypto.secret import Secret
from modelkeep.crypto.stream import (
    CHUNK_BYTES,
    SEALED_CHUNK_BYTES,
    exactly,
    opened_chunks,
    pieces,
    sealed_chunks,
)

KEY = Secret(bytes(range(32)))


def drip(raw, step):
    """A pipe that gives little at a time."""
    source = io.BytesIO(raw)
    return lambda size: source.read(min(size, step))


def cut(raw, size, tail=0, step=1 << 20):
    """All pieces, as bytes, and what is behind them."""
    found = []
    generator = pieces(drip(raw, step), size, tail_bytes=tail)
    while True:
        try:
            piece, is_last = next(generator)
        except StopIteration as end:
            return found, end.value
        found.append((bytes(piece), is_last))


def sealed(plain):
    return b"".join(sealed_chunks(KEY, pieces(io.BytesIO(plain).read, CHUNK_BYTES)))


def opened(raw, key=KEY):
    return b"".join(opened_chunks(key, pieces(io.BytesIO(raw).read, SEALED_CHUNK_BYTES)))


def demand_refusal(raw, key=KEY):
    with pytest.raises(IntegrityError) as refused:
        opened(raw, key)
    assert refused.value.code == "sealed.chunk"


@given(st.binary(max_size=80), st.integers(1, 9), st.integers(0, 12), st.integers(1, 20))
def test_pieces_are_the_stream_cut_at_one_size(raw, size, tail, step):
    found, rest = cut(raw, size, tail, step)
    end = max(len(raw) - tail, 0)
    assert b"".join(piece for piece, _ in found) + rest == raw
    assert rest == raw[end:]
    assert [is_last for _, is_last in found] == [False] * (len(found) - 1) + [True]
    assert all(len(piece) == size for piece, _ in found[:-1])
    assert len(found) == max(-(-end // size), 1)


@given(st.binary(max_size=80), st.integers(0, 90), st.integers(1, 9))
def test_exactly_reads_what_is_there_from_a_pipe_too(raw, size, step):
    assert exactly(drip(raw, step), size) == raw[:size]


EDGES = [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 2 * CHUNK_BYTES, 2 * CHUNK_BYTES + 7]


@pytest.mark.parametrize("size", EDGES)
def test_every_length_comes_back(size):
    plain = bytes(range(256)) * (size // 256 + 1)
    whole = sealed(plain[:size])
    assert opened(whole) == plain[:size]
    chunks = max(-(-size // CHUNK_BYTES), 1)
    assert len(whole) == size + 16 * chunks


@pytest.mark.parametrize("size", EDGES)
def test_a_cut_anywhere_near_a_boundary_is_noticed(size):
    whole = sealed(bytes(size))
    boundaries = range(0, len(whole) + 1, SEALED_CHUNK_BYTES)
    cuts = {at + d for at in (*boundaries, len(whole)) for d in (-17, -16, -1, 0, 1, 15, 16, 17)}
    for at in sorted(cuts & set(range(len(whole)))):
        demand_refusal(whole[:at])


@given(st.integers(0, 2 * CHUNK_BYTES + 99), st.binary(min_size=1, max_size=40))
def test_bytes_after_the_end_are_noticed(size, more):
    demand_refusal(sealed(bytes(size)) + more)


def test_chunks_that_are_moved_dropped_or_doubled_are_noticed():
    plain = b"".join(bytes([n]) * CHUNK_BYTES for n in range(3)) + b"end"
    whole = sealed(plain)
    one, two, three, end = (
        whole[at : at + SEALED_CHUNK_BYTES] for at in range(0, len(whole), SEALED_CHUNK_BYTES)
    )
    for order in (
        (two, one, three, end),
        (one, three, two, end),
        (one, two, end),
        (two, three, end),
        (one, one, two, three, end),
        (one, two, three, end, end),
        (one, two, three),
        (end,),
    ):
        demand_refusal(b"".join(order))
    demand_refusal(whole, key=Secret(bytes(32)))


@given(st.integers(0, CHUNK_BYTES + 300), st.integers(0, 7))
def test_any_flipped_bit_is_noticed_and_nothing_of_its_chunk_comes_out(at, bit):
    plain = bytes(CHUNK_BYTES + 300 - 16)
    changed = bytearray(sealed(plain))
    changed[at] ^= 1 << bit
    released = []
    chunks = opened_chunks(KEY, pieces(io.BytesIO(changed).read, SEALED_CHUNK_BYTES))
    with pytest.raises(IntegrityError):
        released.extend(chunks)
    assert released == ([] if at < SEALED_CHUNK_BYTES else [plain[:CHUNK_BYTES]])


def test_an_empty_last_chunk_after_a_full_one_is_noticed():
    """age's rule: one plaintext has one form."""
    parts = [(memoryview(bytes(CHUNK_BYTES)), False), (memoryview(b""), True)]
    demand_refusal(b"".join(sealed_chunks(KEY, parts)))


def test_a_stream_has_an_end(monkeypatch):
    monkeypatch.setattr(stream, "CHUNKS_MAX", 2)
    assert opened(sealed(bytes(2 * CHUNK_BYTES)))
    with pytest.raises(LimitError) as refused:
        sealed(bytes(2 * CHUNK_BYTES + 1))
    assert refused.value.code == "sealed.size"
    raw = bytes(3 * SEALED_CHUNK_BYTES)
    with pytest.raises((LimitError, IntegrityError)):
        opened(raw)
