"""How a chunk is encoded: the smallest of what is worth trying, lossless, by the element type.

What is tried is chosen on samples of the chunk: zstd, byte planes, and with a base of the same
length the planes of the xor and the numeric difference. What is written is small only if it pays;
else the chunk stays raw. docs/design/encoding.md has the bytes.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np
import zstandard

from modelkeep.core.errors import IntegrityError
from modelkeep.kernels import differences, entropy, native, planes
from modelkeep.kernels.differences import Form
from modelkeep.kernels.entropy import Bytes


class Encoding(IntEnum):
    """How a chunk lies in a store; XOR and DIFFERENCE need a base of the same length."""

    RAW = 0
    ZSTD = 1
    PLANES = 2
    XOR = 3
    DIFFERENCE = 4


# What a chunk may be long: larger ones are refused, so that work and memory are bounded.
CHUNK_BYTES_MAX = 16 * 1024 * 1024

# The number of a form is its place here, and written: never change one, add at the end.
_FORMS = (
    Form(1),
    Form(2),
    Form(4),
    Form(8),
    Form(2, shift=7, exponent_bits=8),
    Form(2, shift=10, exponent_bits=5),
    Form(4, shift=23, exponent_bits=8),
    Form(8, shift=52, exponent_bits=11),
)
_FORM_BY_DTYPE = {
    "BF16": 4,
    "FP16": 5,
    "FP32": 6,
    "FP64": 7,
    "INT16": 1,
    "UINT16": 1,
    "INT32": 2,
    "UINT32": 2,
    "INT64": 3,
    "UINT64": 3,
}
_ZSTD_LEVEL = 3
# Below this an encoding saves less than its index entry is worth.
_GAIN_BYTES_MIN = 16
# A sample is so many runs of so many bytes, evenly spread; a smaller chunk is its own sample.
_SAMPLE_RUNS = 16
_SAMPLE_RUN_BYTES = 2048
# zstd finds repeats further apart than a run, so it is judged on fewer and longer ones.
_ZSTD_RUNS = 2
_ZSTD_RUN_BYTES = 16 * 1024

# Four workers with the three buffers of a 4 MiB chunk; pages that nothing wrote to cost nothing.
_pool = native.Pool(kept_bytes=128 * 1024 * 1024)


def encoded(
    plain: memoryview, *, dtype: str, base: memoryview | None = None
) -> tuple[Encoding, bytes | memoryview]:
    """The smallest of what is worth trying.

    Args:
        plain: the chunk, at most `CHUNK_BYTES_MAX` bytes; it begins at an element.
        dtype: as the Open Inference Protocol names it; RAW for 8-bit elements, empty for bytes
            that are no tensor.
        base: another chunk, of the same length, that this one may resemble.
    """
    assert len(plain) <= CHUNK_BYTES_MAX
    assert base is None or len(base) == len(plain)
    raw = np.frombuffer(plain, np.uint8)
    other = None if base is None else np.frombuffer(base, np.uint8)
    number = _FORM_BY_DTYPE.get(dtype, 0)
    if raw.size < _GAIN_BYTES_MIN:
        return Encoding.RAW, plain
    costs = _sampled(raw, other, number)
    choice = min(costs, key=lambda each: (costs[each], each))
    if choice == Encoding.RAW:
        return Encoding.RAW, plain
    if choice == Encoding.ZSTD:
        payload = zstandard.ZstdCompressor(level=_ZSTD_LEVEL).compress(plain)
    elif choice == Encoding.DIFFERENCE:
        assert other is not None
        payload = _difference(raw, other, number)
    else:
        payload = _planes(raw, other if choice == Encoding.XOR else None, number)
    if len(payload) + _GAIN_BYTES_MIN > len(plain):
        return Encoding.RAW, plain
    return choice, payload


def decode_into(
    encoding: Encoding, payload: memoryview, target: memoryview, *, base: memoryview | None = None
) -> None:
    """Fill target, whose length is known and trusted, with what the payload stands for.

    Work and memory are bounded by the lengths of both. Whether the bytes are the ones that were
    encoded is for their digest to say.

    Raises:
        IntegrityError: `codec.length`, `codec.base`, `codec.zstd`, `codec.form`, `codec.plane`,
            `codec.table`, `codec.stream`, `codec.bits`: the payload is malformed.
    """
    assert not target.readonly
    if len(target) > CHUNK_BYTES_MAX:
        raise IntegrityError("codec.length", "a chunk is longer than any that we write")
    out = np.frombuffer(target, np.uint8)
    coded = np.frombuffer(payload, np.uint8)
    other = None
    if encoding in (Encoding.XOR, Encoding.DIFFERENCE):
        if base is None or len(base) != len(target):
            raise IntegrityError("codec.base", "a difference needs a base of the same length")
        other = np.frombuffer(base, np.uint8)
    if encoding == Encoding.RAW:
        if len(payload) != len(target):
            raise IntegrityError("codec.length", "a chunk is not as long as its index says")
        out[:] = coded
    elif encoding == Encoding.ZSTD:
        _from_zstd(payload, out)
    elif encoding == Encoding.DIFFERENCE:
        assert other is not None
        _from_difference(coded, other, out)
    else:
        _from_planes(coded, other, out)


def sampled_cost(plain: memoryview, *, dtype: str, base: memoryview | None = None) -> float:
    """Estimate encoded size / raw size from samples; with a base, of the better of both deltas."""
    if not len(plain):
        return 1.0
    raw = np.frombuffer(plain, np.uint8)
    other = None if base is None else np.frombuffer(base, np.uint8)
    costs = _sampled(raw, other, _FORM_BY_DTYPE.get(dtype, 0))
    if base is not None:
        return min(costs[Encoding.XOR], costs[Encoding.DIFFERENCE])
    return min(costs.values())


# ---- samples ---------------------------------------------------------------------------------


def _runs(raw: Bytes, runs: int, run_bytes: int) -> Bytes:
    """Evenly spread runs of a chunk, beginning at multiples of 8 bytes; all of a small one."""
    if raw.size <= 2 * runs * run_bytes:
        return raw
    step = (raw.size - run_bytes) // (runs - 1) // 8 * 8
    return np.concatenate([raw[k * step : k * step + run_bytes] for k in range(runs)])


def _sampled(raw: Bytes, base: Bytes | None, number: int) -> dict[Encoding, float]:
    """What part of the chunk each encoding would take, estimated."""
    form = _FORMS[number]
    sample = _whole(_runs(raw, _SAMPLE_RUNS, _SAMPLE_RUN_BYTES), form)
    if not sample.size:
        return {Encoding.RAW: 1.0}
    size = raw.size
    costs = {Encoding.RAW: 1.0, Encoding.PLANES: _planes_cost(sample, None, form, size)}
    longer = _runs(raw, _ZSTD_RUNS, _ZSTD_RUN_BYTES)
    costs[Encoding.ZSTD] = len(_compressor().compress(longer.data)) / longer.size
    if base is not None:
        other = _whole(_runs(base, _SAMPLE_RUNS, _SAMPLE_RUN_BYTES), form)
        costs[Encoding.XOR] = _planes_cost(sample, other, form, size)
        costs[Encoding.DIFFERENCE] = _difference_cost(sample, other, form, size)
    return costs


def _whole(raw: Bytes, form: Form) -> Bytes:
    return raw[: raw.size // form.element_bytes * form.element_bytes]


def _compressor() -> zstandard.ZstdCompressor:
    return zstandard.ZstdCompressor(level=_ZSTD_LEVEL)


def _planes_cost(sample: Bytes, base: Bytes | None, form: Form, size: int) -> float:
    split = np.empty_like(sample)
    planes.split_into(
        sample, base, split, element_bytes=form.element_bytes, rotate=form.exponent_bits > 0
    )
    rows = split.reshape(form.element_bytes, -1)
    count = size // form.element_bytes
    return sum(planes.estimated_bytes(row, count) for row in rows) / size


def _difference_cost(sample: Bytes, base: Bytes, form: Form, size: int) -> float:
    count = sample.size // form.element_bytes
    tokens, contexts = np.empty(count, np.uint8), np.empty(count, np.uint8)
    bits = np.empty(differences.bits_size_max(count, form), np.uint8)
    length = differences.tokens_into(sample, base, form, tokens, bits)
    top = differences.top_of(base, form)
    each = differences.contexts_into(base, form, top, contexts)
    counts = entropy.counted(tokens, each, form.context_count)
    freqs = entropy.frequencies(counts)
    coded = entropy.cost_bytes(counts, freqs)
    fixed = entropy.overhead_bytes(freqs, size // form.element_bytes)
    return (coded + length) / sample.size + fixed / size


# ---- planes ----------------------------------------------------------------------------------


def _planes(raw: Bytes, base: Bytes | None, number: int) -> bytes:
    form = _FORMS[number]
    whole = _whole(raw, form)
    count = whole.size // form.element_bytes
    split = _pool.taken(whole.size)
    size_max = 1 + form.element_bytes * planes.plane_size_max(count) + 8
    out = _pool.taken(size_max)
    other = None if base is None else base[: whole.size]
    lines = split[: whole.size]
    planes.split_into(
        whole, other, lines, element_bytes=form.element_bytes, rotate=form.exponent_bits > 0
    )
    out[0] = number
    used = 1
    if count:
        for row in lines.reshape(form.element_bytes, count):
            used += planes.write_plane(row, out[used:])
    payload: bytes = out[:used].tobytes() + raw[whole.size :].tobytes()
    _pool.give_back(split)
    _pool.give_back(out)
    return payload


def _form_of(coded: Bytes) -> Form:
    if not coded.size or coded[0] >= len(_FORMS):
        raise IntegrityError("codec.form", "a chunk's elements are of no known form")
    return _FORMS[int(coded[0])]


def _from_planes(coded: Bytes, base: Bytes | None, out: Bytes) -> None:
    form = _form_of(coded)
    whole = _whole(out, form)
    count = whole.size // form.element_bytes
    scratch = _pool.taken(whole.size)
    at, rows = 1, []
    try:
        for index in range(form.element_bytes if count else 0):
            place = scratch[index * count : (index + 1) * count]
            row, took = planes.read_plane(coded[at:], place)
            rows.append(row)
            at += took
        _tail(coded[at:], out[whole.size :])
        if count:
            other = None if base is None else base[: whole.size]
            planes.merge_into(rows, other, whole, rotate=form.exponent_bits > 0)
    finally:
        _pool.give_back(scratch)


def _tail(rest: Bytes, out: Bytes) -> None:
    """What is left of a chunk that does not end at an element stands at the end, as it is."""
    if rest.size != out.size:
        raise IntegrityError("codec.length", "an encoded chunk is not as long as it must be")
    out[:] = rest


# ---- differences -----------------------------------------------------------------------------
_HEAD_BYTES = 8


def _difference(raw: Bytes, base: Bytes, number: int) -> bytes:
    form = _FORMS[number]
    whole = _whole(raw, form)
    count = whole.size // form.element_bytes
    other = base[: whole.size]
    scratch = _pool.taken(2 * count)
    bits = _pool.taken(differences.bits_size_max(count, form))
    out = _pool.taken(entropy.size_max(count))
    tokens = scratch[:count]
    length = differences.tokens_into(whole, other, form, tokens, bits)
    top = differences.top_of(_runs(other, _SAMPLE_RUNS, _SAMPLE_RUN_BYTES), form)
    contexts = differences.contexts_into(other, form, top, scratch[count : 2 * count])
    freqs = entropy.frequencies(entropy.counted(tokens, contexts, form.context_count))
    used = entropy.encode_into(tokens, contexts, freqs, out)
    parts = (
        bytes([number]),
        top.to_bytes(2, "little"),
        entropy.table_bytes(freqs),
        out[:used].tobytes(),
        bits[:length].tobytes(),
        raw[whole.size :].tobytes(),
    )
    for each in (scratch, bits, out):
        _pool.give_back(each)
    return b"".join(parts)


def _from_difference(coded: Bytes, base: Bytes, out: Bytes) -> None:
    form = _form_of(coded)
    whole = _whole(out, form)
    count = whole.size // form.element_bytes
    if coded.size < 3 or not count:
        raise IntegrityError("codec.length", "an encoded chunk is not as long as it must be")
    top = int(coded[1]) | int(coded[2]) << 8
    freqs, took = entropy.read_table(coded[3:], form.context_count)
    at = 3 + took
    other = base[: whole.size]
    scratch = _pool.taken(2 * count)
    try:
        tokens = scratch[:count]
        contexts = differences.contexts_into(other, form, top, scratch[count : 2 * count])
        at += entropy.decode_into(coded[at:], contexts, freqs, tokens)
        end = coded.size - (out.size - whole.size)
        if at > end:
            raise IntegrityError("codec.length", "an encoded chunk is not as long as it must be")
        differences.untoken_into(tokens, coded[at:end], other, form, whole)
        _tail(coded[end:], out[whole.size :])
    finally:
        _pool.give_back(scratch)


# ---- zstd ------------------------------------------------------------------------------------


def _from_zstd(payload: memoryview, out: Bytes) -> None:
    try:
        size = zstandard.get_frame_parameters(payload).content_size
        if size != out.size:
            raise IntegrityError("codec.zstd", "a compressed chunk is of another length")
        plain = zstandard.ZstdDecompressor().decompress(payload, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise IntegrityError("codec.zstd", "a compressed chunk is malformed") from error
    if len(plain) != out.size:
        raise IntegrityError("codec.zstd", "a compressed chunk is of another length")
    out[:] = np.frombuffer(plain, np.uint8)
