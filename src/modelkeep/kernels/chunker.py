"""Content-defined chunks under a key: where a file is cut follows its bytes, and tells nothing.

A rolling hash alone, keyed or not, gives itself away by the borders it sets: known files and the
lengths of their chunks are equations for its table, and whoever has solved them recognises files by
the lengths of their chunks (Alexeev, Percival and Zhang, ePrint 2025/532; Truong, Merz, Scarlata,
Günther and Paterson, ePrint 2025/558). So, as the second of these proposes, the rolling hash (Gear
over 64 bytes, its table derived from the key) is only the input of a keyed pseudo-random function,
SipHash-2-4, at every position, and its output alone decides. `native/chunker.c` does the same.
"""

from __future__ import annotations

import blake3
import numpy as np
import numpy.typing as npt

from modelkeep.kernels import native
from modelkeep.kernels.native import address

Words = npt.NDArray[np.uint64]

AVERAGE_BYTES = 1024 * 1024
MINIMUM_BYTES = 256 * 1024
MAXIMUM_BYTES = 4 * 1024 * 1024

_WINDOW = 64
_TABLE_CONTEXT = b"modelkeep 2026 content-defined chunks: table and key"
# What NumPy hashes at once: its arrays stay in the second cache.
_STEP = 32 * 1024


def chunk_lengths(
    raw: memoryview,
    *,
    key: bytes,
    average: int = AVERAGE_BYTES,
    minimum: int = MINIMUM_BYTES,
    maximum: int = MAXIMUM_BYTES,
) -> list[int]:
    """The lengths of the chunks of a file, in order; an empty file has none.

    It reads forward and keeps nothing, so `raw` may be a map of a file of any size.

    Args:
        raw: the whole file.
        key: 32 bytes; the same key cuts the same bytes the same way.
        average: of the chunks of unpredictable bytes.
        minimum: no chunk but the last is shorter; at least 64.
        maximum: no chunk is longer.
    """
    assert _WINDOW <= minimum < average < maximum
    derived = blake3.blake3(_TABLE_CONTEXT, key=key).digest(length=256 * 8 + 16)
    words = np.frombuffer(derived, "<u8").astype(np.uint64)
    table, halves = words[:256], (int(words[256]), int(words[257]))
    threshold = 2**64 // (average - minimum)
    whole = np.frombuffer(raw, np.uint8)
    lengths, start = [], 0
    while start < whole.size:
        part = whole[start : start + maximum]
        if native.LIBRARY is None:
            length = _first_length(part, minimum, table, halves, threshold)
        else:
            length = native.LIBRARY.mk_chunk_length(
                address(part), part.size, minimum, address(table), *halves, threshold
            )
            assert 0 < length <= part.size, length
        lengths.append(length)
        start += length
    return lengths


# ---- the same in Python ----------------------------------------------------------------------


def _first_length(
    part: npt.NDArray[np.uint8], minimum: int, table: Words, halves: tuple[int, int], threshold: int
) -> int:
    """Where the first chunk of some bytes ends."""
    for at in range(minimum - 1, part.size, _STEP):
        window = part[at - _WINDOW + 1 : at + _STEP]
        hashes = table[window]
        for shift in (1, 2, 4, 8, 16, 32):
            # 2k bytes from two hashes of k: the older one is k positions further left.
            hashes = hashes[shift:] + (hashes[:-shift] << np.uint64(shift))
        below = np.flatnonzero(siphash(hashes, halves) < np.uint64(threshold))
        if below.size:
            return at + int(below[0]) + 1
    return part.size


def siphash(words: Words, key: tuple[int, int]) -> Words:
    """SipHash-2-4 of each number, taken as 8 little-endian bytes."""
    last = np.uint64(8 << 56)  # the second and last block: the length alone
    k0, k1 = np.uint64(key[0]), np.uint64(key[1])
    state = [
        np.full(words.size, k0 ^ np.uint64(0x736F6D6570736575)),
        np.full(words.size, k1 ^ np.uint64(0x646F72616E646F6D)),
        np.full(words.size, k0 ^ np.uint64(0x6C7967656E657261)),
        np.full(words.size, k1 ^ np.uint64(0x7465646279746573)) ^ words,
    ]
    _rounds(state, 2)
    state[0] ^= words
    state[3] ^= last
    _rounds(state, 2)
    state[0] ^= last
    state[2] ^= np.uint64(0xFF)
    _rounds(state, 4)
    hashed: Words = state[0] ^ state[1] ^ state[2] ^ state[3]
    return hashed


def _rounds(v: list[Words], count: int) -> None:
    for _ in range(count):
        _mixed(v, 0, 1, 13)
        v[0] = _rotated(v[0], 32)
        _mixed(v, 2, 3, 16)
        _mixed(v, 0, 3, 21)
        _mixed(v, 2, 1, 17)
        v[2] = _rotated(v[2], 32)


def _mixed(v: list[Words], a: int, b: int, turn: int) -> None:
    v[a] = v[a] + v[b]
    v[b] = _rotated(v[b], turn) ^ v[a]


def _rotated(words: Words, turn: int) -> Words:
    result: Words = words << np.uint64(turn) | words >> np.uint64(64 - turn)
    return result
