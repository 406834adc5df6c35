"""BLAKE3 against the published test vectors of its authors (BLAKE3-team, test_vectors.json)."""

import pytest

from modelkeep.kernels.digest import digest_of, hex_of, keyed_id

KEY = b"whats the Elvish word for friend"
VECTORS = {
    0: (
        "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262",
        "92b2b75604ed3c761f9d6f62392c8a9227ad0ea3f09573e783f1498a4ed60d26",
    ),
    1: (
        "2d3adedff11b61f14c886e35afa036736dcd87a74d27b5c1510225d0f592e213",
        "6d7878dfff2f485635d39013278ae14f1454b8c0a3a2d34bc1ab38228a80c95b",
    ),
}


@pytest.mark.parametrize("length", VECTORS)
def test_the_published_vectors_hold(length):
    plain, keyed = VECTORS[length]
    raw = bytes(at % 251 for at in range(length))
    assert hex_of(raw) == plain
    assert digest_of(raw) == f"blake3:{plain}"
    assert keyed_id(KEY, raw).hex() == keyed


def test_a_view_hashes_like_its_bytes():
    raw = bytes(range(100))
    assert digest_of(memoryview(raw)[10:20]) == digest_of(raw[10:20])


def test_without_the_key_nobody_can_test_a_guess():
    assert keyed_id(KEY, b"guess") != keyed_id(bytes(32), b"guess")
    assert keyed_id(KEY, b"guess").hex() != hex_of(b"guess")
