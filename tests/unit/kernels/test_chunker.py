"""Content-defined chunks: whole, bounded, found again after an insertion, and bound to a key."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkeep.kernels import native
from modelkeep.kernels.chunker import chunk_lengths, siphash

KEY = bytes(range(32))
SMALL = {"average": 2048, "minimum": 512, "maximum": 8192}
needs_native = pytest.mark.skipif(native.LIBRARY is None, reason="the kernels in C are not built")


def noise(count, seed=1):
    return np.random.default_rng(seed).bytes(count)


def cut(raw, key=KEY, **sizes):
    return chunk_lengths(memoryview(raw), key=key, **(sizes or SMALL))


def pieces(raw, **named):
    ends = np.cumsum([0, *cut(raw, **named)])
    return {raw[a:b] for a, b in itertools.pairwise(ends)}


def test_siphash_gives_the_published_value():
    # J.-P. Aumasson's vectors: key 00 01 … 0f, the message 00 01 … 07.
    key = (0x0706050403020100, 0x0F0E0D0C0B0A0908)
    words = np.array([key[0]], np.uint64)
    assert int(siphash(words, key)[0]) == 0x93F5F5799A932462


@given(st.binary(max_size=3000), st.integers(64, 300))
def test_chunks_cover_a_file_within_their_bounds(raw, minimum):
    sizes = {"minimum": minimum, "average": 2 * minimum, "maximum": 4 * minimum}
    lengths = cut(raw, **sizes)
    assert sum(lengths) == len(raw)
    assert all(minimum <= length <= 4 * minimum for length in lengths[:-1])
    assert all(0 < length <= 4 * minimum for length in lengths[-1:])


def test_their_average_is_about_what_was_asked_for():
    lengths = cut(noise(2_000_000))
    assert 1800 < np.mean(lengths) < 2300


def test_an_insertion_changes_the_chunks_around_it_only():
    raw = noise(500_000)
    other = raw[:200_000] + b"something new" + raw[200_000:]
    assert len(pieces(other) - pieces(raw)) <= 4


def test_another_key_cuts_elsewhere():
    raw = noise(500_000)
    ends = [set(np.cumsum(cut(raw, key=key))) for key in (KEY, bytes(32))]
    assert len(ends[0] & ends[1]) <= 5  # the end, and chance


def test_the_border_depends_on_the_last_64_bytes_alone():
    raw = noise(100_000)
    first, second = cut(raw)[:2]
    end = first + second
    shifted = noise(first, 2)[: first - 64] + raw[first - 64 : end]
    tail = noise(5000, 3)
    assert end in np.cumsum(cut(shifted + tail))


@needs_native
@pytest.mark.parametrize("length", [0, 1, 511, 512, 513, 65_000, 150_001])
def test_c_and_python_cut_alike(length, monkeypatch):
    raw = noise(length)
    lengths = cut(raw)
    monkeypatch.setattr(native, "LIBRARY", None)
    assert cut(raw) == lengths
