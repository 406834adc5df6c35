"""Random bytes from a watermark's seed: SHAKE256, the same on every machine and for ever.

    stream(seed, purpose) = SHAKE256("modelkeep/mark/v0/" || purpose || 0x00 || seed)

A purpose separates what is drawn from one seed. Nothing here uses NumPy's generators, whose
streams may change with its version, and SHAKE256 is in every cryptographic library, so that others
can check a claim with tools of their own.
"""

from __future__ import annotations

import hashlib

import numpy as np

from modelkeep.kernels.arrays import Array

SEED_BYTES = 32
_PREFIX = b"modelkeep/mark/v0/"


def drawn_bytes(seed: bytes, purpose: str, count: int) -> bytes:
    """The first bytes of a stream."""
    if len(seed) != SEED_BYTES or "\0" in purpose:
        raise AssertionError("a mark's seed is 32 bytes, and a purpose has no zero byte")
    return hashlib.shake_256(_PREFIX + purpose.encode() + b"\0" + seed).digest(count)


def drawn_signs(seed: bytes, purpose: str, count: int) -> Array:
    """Fair coins as -1 and +1 (int8), the first bit of a byte being its highest."""
    raw = np.frombuffer(drawn_bytes(seed, purpose, -(-count // 8)), np.uint8)
    signs: Array = np.unpackbits(raw, count=count).astype(np.int8)
    return signs * np.int8(2) - np.int8(1)


def drawn_below(seed: bytes, purpose: str, count: int, *, limit: int) -> Array:
    """Numbers from 0 to limit - 1 (int64), each equally likely.

    Of 64-bit words those at or beyond the largest multiple of `limit` are passed over: there is
    no bias at all. `limit` is at most 2^40, so that no more than one word in 2^24 is.
    """
    if not 0 < limit <= 1 << 40:
        raise AssertionError("a limit is from 1 to 2^40")
    end = (1 << 64) - (1 << 64) % limit
    asked = count
    while True:
        words = np.frombuffer(drawn_bytes(seed, purpose, 8 * asked), "<u8")
        if end < 1 << 64:
            words = words[words < np.uint64(end)]
        if len(words) >= count:
            return (words[:count] % np.uint64(limit)).astype(np.int64)
        asked += count - len(words) + 1


def drawn_positions(seed: bytes, purpose: str, count: int, *, limit: int) -> Array:
    """Different numbers from 0 to limit - 1 (int64), in random order."""
    if count > limit:
        raise AssertionError("there are not so many positions")
    if limit < 4 * count:  # a whole random order is as cheap
        words = np.frombuffer(drawn_bytes(seed, purpose, 8 * limit), "<u8")
        order: Array = np.argsort(words, kind="stable")[:count]
        return order.astype(np.int64)
    asked = count + count // 2 + 64
    while True:
        drawn = drawn_below(seed, purpose, asked, limit=limit)
        _, first = np.unique(drawn, return_index=True)
        if len(first) >= count:
            return drawn[np.sort(first)[:count]]
        asked += asked // 2
