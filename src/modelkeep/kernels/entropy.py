"""Entropy coding of bytes: static rANS with 32 interleaved states, a table for each context.

The bytes are fixed in docs/design/encoding.md. What decides (frequencies, costs, tables) is
integer arithmetic in one place; the coder itself exists in C (`native/entropy.c`) and here, where
NumPy walks all blocks of 2^18 symbols side by side, for machines without a compiler.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from modelkeep.core.errors import IntegrityError
from modelkeep.kernels import native
from modelkeep.kernels.native import address

Bytes = npt.NDArray[np.uint8]
Frequencies = npt.NDArray[np.uint16]  # (contexts, 256); a row's sum is TOTAL, or 0: never used

SCALE = 12
TOTAL = 1 << SCALE
CONTEXTS_MAX = 16
BLOCK = 1 << 18  # symbols; its states cost 0.05 % of what they code at 8 bits, 1 % at 0.4
_LANES = 32
_LOW = 1 << 16
_HEAD_BYTES = 4 + 4 * _LANES
_SCRATCH_BYTES = CONTEXTS_MAX * TOTAL * 4

# log2 of a frequency in 1/65536 bits, rounded: every machine gets the same integers.
_LOG = np.array([0, *(round(math.log2(f) * 65536) for f in range(1, TOTAL + 1))], np.int64)
_FULL_BITS = SCALE << 16

_scratch = native.Pool(kept_bytes=8 * _SCRATCH_BYTES)


def counted(symbols: Bytes, contexts: Bytes | None, context_count: int) -> npt.NDArray[np.int64]:
    """How often each symbol comes in each context: (contexts, 256)."""
    if native.LIBRARY is None:
        joint = symbols if contexts is None else contexts.astype(np.uint16) * 256 + symbols
        found = np.bincount(joint, minlength=context_count * 256)
        return found.astype(np.int64).reshape(context_count, 256)
    hist = np.empty((context_count, 256), np.uint32)
    native.LIBRARY.mk_count(
        address(symbols),
        None if contexts is None else address(contexts),
        symbols.size,
        context_count,
        address(hist),
    )
    return hist.astype(np.int64)


def frequencies(counts: npt.NDArray[np.int64]) -> Frequencies:
    """Counts as frequencies out of 4096, at least 1 for each symbol that comes."""
    sums = np.maximum(counts.sum(axis=1, keepdims=True), 1)
    scaled = counts * TOTAL
    freqs = np.where(counts > 0, np.maximum(scaled // sums, 1), 0)
    lacking = np.where(counts.any(axis=1), TOTAL - freqs.sum(axis=1), 0)
    for row in np.flatnonzero(lacking > 0):
        # The largest remainders are rounded up.
        order = np.argsort(-(scaled[row] % sums[row]), kind="stable")
        freqs[row, order[: lacking[row]]] += 1
    for row in np.flatnonzero(lacking < 0):
        excess = int(-lacking[row])
        while excess:
            largest = int(freqs[row].argmax())
            less = min(excess, max(1, int(freqs[row, largest]) >> 4))
            freqs[row, largest] -= less
            excess -= less
    result: Frequencies = freqs.astype(np.uint16)
    return result


def cost_bytes(counts: npt.NDArray[np.int64], freqs: Frequencies) -> int:
    """How many bytes the symbols will take, without tables and states; the same everywhere."""
    return int((counts * (_FULL_BITS - _LOG[freqs])).sum()) >> 19


def overhead_bytes(freqs: Frequencies, count: int) -> int:
    """What table and states take."""
    return len(table_bytes(freqs)) + -(-count // BLOCK) * _HEAD_BYTES


# ---- the table -------------------------------------------------------------------------------


def table_bytes(freqs: Frequencies) -> bytes:
    """Frequencies as bytes: which symbols there are, then frequency - 1 of each, 7 bits a byte."""
    present = freqs > 0
    width = -(-(int(np.flatnonzero(present.any(axis=0))[-1]) + 1) // 8)
    bitmap = np.packbits(present[:, : width * 8], axis=1, bitorder="little")
    values = freqs[present].astype(np.uint16) - 1
    pairs = np.empty((values.size, 2), np.uint8)
    pairs[:, 0] = (values & 0x7F) | np.where(values > 0x7F, 0x80, 0)
    pairs[:, 1] = values >> 7
    kept = np.ones(pairs.shape, np.bool_)
    kept[:, 1] = values > 0x7F
    return bytes([width]) + bitmap.tobytes() + pairs[kept].tobytes()


def read_table(raw: Bytes, context_count: int) -> tuple[Frequencies, int]:
    """The frequencies, and how many bytes they took.

    Raises:
        IntegrityError: `codec.table`.
    """
    width = int(raw[0]) if raw.size else 0
    start = 1 + width * context_count
    if not 1 <= width <= 32 or raw.size < start:
        raise IntegrityError("codec.table", "a table of frequencies is malformed")
    bitmap = raw[1:start].reshape(context_count, width)
    present = np.zeros((context_count, 256), np.bool_)
    present[:, : width * 8] = np.unpackbits(bitmap, axis=1, bitorder="little")
    count = int(present.sum())
    coded = raw[start : start + 2 * count]
    lasts = np.flatnonzero(coded < 0x80)[:count]
    lengths = np.diff(lasts, prepend=-1)
    if lasts.size < count or (lengths > 2).any():
        raise IntegrityError("codec.table", "a table of frequencies is malformed")
    low = coded[lasts - lengths + 1].astype(np.uint16) & 0x7F
    high = np.where(lengths == 2, coded[lasts].astype(np.uint16) << 7, 0)
    freqs = np.zeros((context_count, 256), np.uint16)
    freqs[present] = low + high + 1
    sums = freqs.sum(axis=1, dtype=np.int64)
    if not ((sums == 0) | (sums == TOTAL)).all():
        raise IntegrityError("codec.table", "a table's frequencies do not sum up")
    return freqs, start + (int(lasts[-1]) + 1 if count else 0)


# ---- the coder -------------------------------------------------------------------------------


def size_max(count: int) -> int:
    """The most bytes that `encode_into` can write."""
    return -(-count // BLOCK) * _HEAD_BYTES + 2 * count + 128


def encode_into(symbols: Bytes, contexts: Bytes | None, freqs: Frequencies, out: Bytes) -> int:
    """Code the symbols into out, which has room for `size_max`; returns the bytes written."""
    assert out.size >= size_max(symbols.size)
    if native.LIBRARY is None:
        return _encoded_here(symbols, contexts, freqs, out)
    scratch = _scratch.taken(_SCRATCH_BYTES)
    wrote: int = native.LIBRARY.mk_rans_encode(
        address(symbols),
        None if contexts is None else address(contexts),
        symbols.size,
        len(freqs),
        address(freqs),
        address(scratch),
        address(out),
        size_max(symbols.size),  # words are written from its end: near, not far behind
    )
    _scratch.give_back(scratch)
    assert wrote >= 0, wrote
    return wrote


def decode_into(payload: Bytes, contexts: Bytes | None, freqs: Frequencies, out: Bytes) -> int:
    """Fill out with symbols; returns how many bytes of the payload they took.

    Raises:
        IntegrityError: `codec.stream`.
    """
    if native.LIBRARY is None:
        return _decoded_here(payload, contexts, freqs, out)
    scratch = _scratch.taken(_SCRATCH_BYTES)
    took: int = native.LIBRARY.mk_rans_decode(
        address(payload),
        payload.size,
        None if contexts is None else address(contexts),
        out.size,
        len(freqs),
        address(freqs),
        address(scratch),
        address(out),
    )
    _scratch.give_back(scratch)
    if took < 0:
        raise IntegrityError("codec.stream", "an entropy-coded stream is malformed")
    return took


# ---- the coder in Python ---------------------------------------------------------------------
# Blocks lie side by side as rows of 32 states; one step codes 32 symbols of every block. What is
# behind the end of the last block is not `live`.


def _stacked(symbols: Bytes, contexts: Bytes | None) -> npt.NDArray[np.uint16]:
    """Symbols with their contexts, as (groups, blocks, 32), what is missing as zeros."""
    blocks = -(-symbols.size // BLOCK)
    groups = -(-min(symbols.size, BLOCK) // _LANES)
    joint = np.zeros((blocks, groups * _LANES), np.uint16)
    for index in range(blocks):
        part = slice(index * BLOCK, (index + 1) * BLOCK)
        values = symbols[part].astype(np.uint16)
        if contexts is not None:
            values |= contexts[part].astype(np.uint16) << 8
        joint[index, : values.size] = values
    return joint.reshape(blocks, groups, _LANES).transpose(1, 0, 2)


def _live(count: int, group: int) -> npt.NDArray[np.bool_]:
    """Which states have a symbol in this group: (blocks, 32)."""
    starts = np.arange(0, count, BLOCK)
    left = np.minimum(count - starts, BLOCK) - group * _LANES
    live: npt.NDArray[np.bool_] = np.arange(_LANES) < left[:, None]
    return live


def _encoded_here(symbols: Bytes, contexts: Bytes | None, freqs: Frequencies, out: Bytes) -> int:
    joint = _stacked(symbols, contexts)
    groups, blocks, _ = joint.shape
    freq_of = freqs.astype(np.uint64).ravel()
    start_of = (np.cumsum(freqs, axis=1, dtype=np.uint64) - freqs).ravel()
    full = np.zeros(joint.shape, np.bool_)
    words = np.zeros(joint.shape, np.uint16)
    x = np.full((blocks, _LANES), _LOW, np.uint64)
    whole = symbols.size % BLOCK // _LANES if symbols.size % BLOCK else groups
    for group in range(groups - 1, -1, -1):
        freq, start = freq_of[joint[group]], start_of[joint[group]]
        leaves = x >= freq << 20
        live = True if group < whole else _live(symbols.size, group)
        full[group] = leaves & live
        words[group] = x & 0xFFFF
        y = np.where(leaves, x >> 16, x)
        quotient = y // np.maximum(freq, 1)
        y += start + quotient * (TOTAL - freq)
        x = y if live is True else np.where(live, y, x)
    used = 0
    for index in range(blocks):
        coded = words[:, index][full[:, index]].astype("<u2")
        head = np.array([coded.size, *x[index]], "<u4")
        raw = np.frombuffer(head.tobytes() + coded.tobytes(), np.uint8)
        out[used : used + raw.size] = raw
        used += raw.size
    return used


def _blocks_of(payload: Bytes, count: int) -> tuple[list[tuple[int, int]], int]:
    """Where each block's words lie (start and end, in bytes), and where the last one ends."""
    places, at = [], 0
    for _ in range(0, count, BLOCK):
        head = at + _HEAD_BYTES
        if payload.size < head:
            raise IntegrityError("codec.stream", "an entropy-coded stream is cut")
        at = head + 2 * int.from_bytes(payload[at : at + 4].tobytes(), "little")
        if payload.size < at:
            raise IntegrityError("codec.stream", "an entropy-coded stream is cut")
        places.append((head, at))
    return places, at


def _decoded_here(payload: Bytes, contexts: Bytes | None, freqs: Frequencies, out: Bytes) -> int:
    places, used = _blocks_of(payload, out.size)
    if not places:
        return 0
    states = [payload[head - 4 * _LANES : head].tobytes() for head, _ in places]
    x = np.stack([np.frombuffer(each, "<u4") for each in states]).astype(np.uint64)
    raw = b"".join(payload[head:end].tobytes() for head, end in places) + bytes(2 * _LANES)
    words = np.frombuffer(raw, "<u2").astype(np.uint64)
    ends = np.cumsum([(end - head) // 2 for head, end in places])
    at = np.concatenate(([0], ends[:-1]))
    symbol_at, freq_at, rest_at = _slots(freqs)
    shape = _stacked(out, contexts)
    base = (shape >> 8).astype(np.int64) << SCALE if contexts is not None else None
    whole = out.size % BLOCK // _LANES if out.size % BLOCK else len(shape)
    decoded = np.empty(shape.shape, np.uint8)
    sound = bool((x >= _LOW).all())
    for group in range(len(shape)):
        slot = (x & (TOTAL - 1)).astype(np.int64)
        if base is not None:
            slot |= base[group]
        y = freq_at[slot] * (x >> SCALE) + rest_at[slot]
        decoded[group] = symbol_at[slot]
        reads = y < _LOW
        live = True if group < whole else _live(out.size, group)
        reads &= live
        order = at[:, None] + np.cumsum(reads, axis=1) - reads
        more = words[np.minimum(order, words.size - 1)]
        y = np.where(reads, y << 16 | more, y)
        x = y if live is True else np.where(live, y, x)
        at = at + reads.sum(axis=1)
    if not sound or (at != ends).any() or (x != _LOW).any():
        raise IntegrityError("codec.stream", "an entropy-coded stream is malformed")
    flat = decoded.transpose(1, 0, 2).reshape(len(places), -1)
    for index in range(len(places)):
        part = out[index * BLOCK : (index + 1) * BLOCK]
        part[:] = flat[index, : part.size]
    return used


def _slots(freqs: Frequencies) -> tuple[Bytes, npt.NDArray[np.uint64], npt.NDArray[np.uint64]]:
    """Symbol, frequency and distance from the symbol's first slot, by context and slot."""
    symbols = np.zeros((len(freqs), TOTAL), np.uint8)
    freq = np.ones((len(freqs), TOTAL), np.uint64)
    rest = np.zeros((len(freqs), TOTAL), np.uint64)
    for row in np.flatnonzero(freqs.any(axis=1)):
        counts = freqs[row].astype(np.int64)
        symbols[row] = np.repeat(np.arange(256), counts)
        freq[row] = np.repeat(counts, counts)
        rest[row] = np.arange(TOTAL) - np.repeat(np.cumsum(counts) - counts, counts)
    return symbols.ravel(), freq.ravel(), rest.ravel()
