"""Numeric differences to a base, as tokens whose likelihood depends on the base's exponent.

Floats are mapped to integers of the same order; the difference to the base's element, folded so
that both signs are small numbers, becomes a token and some bits that nothing predicts. One unit
in that order is one unit in the last place, whose size the base's exponent gives: so the exponent
is the context of the token. docs/design/encoding.md has the bytes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from modelkeep.core.errors import IntegrityError
from modelkeep.kernels import native
from modelkeep.kernels.entropy import CONTEXTS_MAX, Bytes
from modelkeep.kernels.native import address

Elements = npt.NDArray[np.unsignedinteger[npt.NBitBase]]

_DIRECT = 16  # smaller numbers are their own tokens
_DIRECT_BITS = 4
_FIELD_BITS = 2  # of a larger number, below its highest bit, that belong to the token
# At most this part of a chunk has an exponent above the first context's: outliers share it.
_OUTLIERS_SHIFT = 8


@dataclass(frozen=True, slots=True)
class Form:
    """What the elements are: their size, and a float's exponent; no exponent means integers."""

    element_bytes: int
    shift: int = 0
    exponent_bits: int = 0

    @property
    def context_count(self) -> int:
        """How many tables a difference has."""
        return CONTEXTS_MAX if self.exponent_bits else 1


def top_of(base: Bytes, form: Form) -> int:
    """The exponent of the first context: all but a few of the base's are at most that."""
    if not form.exponent_bits:
        return 0
    exponents = _exponents(base, form)
    counts = np.bincount(exponents, minlength=1 << form.exponent_bits)
    above = exponents.size - np.cumsum(counts)
    return int(np.flatnonzero(above <= exponents.size >> _OUTLIERS_SHIFT)[0])


def _exponents(base: Bytes, form: Form) -> npt.NDArray[np.int64]:
    values = base.view(f"<u{form.element_bytes}")
    mask = (1 << form.exponent_bits) - 1
    return (values >> form.shift).astype(np.int64) & mask


def contexts_into(base: Bytes, form: Form, top: int, out: Bytes) -> Bytes | None:
    """The context of each element, in out; None where there is but one."""
    if not form.exponent_bits:
        return None
    if native.LIBRARY is None:
        out[:] = np.clip(top - _exponents(base, form), 0, CONTEXTS_MAX - 1)
        return out
    done = native.LIBRARY.mk_contexts(
        address(base),
        out.size,
        form.element_bytes,
        form.shift,
        form.exponent_bits,
        top,
        address(out),
    )
    assert done == 0, done
    return out


def bits_size_max(count: int, form: Form) -> int:
    """The most bytes of bits that so many elements have."""
    return count * form.element_bytes + 16


def tokens_into(plain: Bytes, base: Bytes, form: Form, tokens: Bytes, bits: Bytes) -> int:
    """One token an element, and the bits; returns how many bytes of bits there are."""
    if native.LIBRARY is None:
        return _tokens_here(plain, base, form, tokens, bits)
    wrote: int = native.LIBRARY.mk_tokens(
        address(plain),
        address(base),
        tokens.size,
        form.element_bytes,
        int(form.exponent_bits > 0),
        address(tokens),
        address(bits),
        bits.size,
    )
    assert wrote >= 0, wrote
    return wrote


def untoken_into(tokens: Bytes, bits: Bytes, base: Bytes, form: Form, out: Bytes) -> None:
    """The elements, from tokens, bits and the base's.

    Raises:
        IntegrityError: `codec.bits`.
    """
    if native.LIBRARY is None:
        _untoken_here(tokens, bits, base, form, out)
        return
    done = native.LIBRARY.mk_untoken(
        address(tokens),
        address(base),
        tokens.size,
        form.element_bytes,
        int(form.exponent_bits > 0),
        address(bits),
        bits.size,
        address(out),
    )
    if done < 0:
        raise IntegrityError("codec.bits", "the bits of a difference are malformed")


# ---- the same in Python ----------------------------------------------------------------------


def _ordered(values: Elements, form: Form) -> Elements:
    """Integers in the order of the floats: all bits of the negative flipped, else the first."""
    if not form.exponent_bits:
        return values
    width = 8 * form.element_bytes
    sign = values.dtype.type(1 << (width - 1))
    return np.where(values >> (width - 1), ~values, values | sign)


def _unordered(values: Elements, form: Form) -> Elements:
    if not form.exponent_bits:
        return values
    width = 8 * form.element_bytes
    sign = values.dtype.type(1 << (width - 1))
    return np.where(values >> (width - 1), values & ~sign, ~values)


def _highest_bits(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
    """Where the highest bit of each number is; -1 of zero."""
    high = (values >> 32).astype(np.float64)
    low = (values & 0xFFFFFFFF).astype(np.float64)  # exact: 32 bits fit into a mantissa
    part = np.where(high > 0, high, low)
    return np.frexp(part)[1] - 1 + np.where(high > 0, 32, 0)


def _tokens_here(plain: Bytes, base: Bytes, form: Form, tokens: Bytes, bits: Bytes) -> int:
    dtype, width = f"<u{form.element_bytes}", 8 * form.element_bytes
    apart = _ordered(plain.view(dtype), form) - _ordered(base.view(dtype), form)
    signs = np.where(apart >> (width - 1), apart.dtype.type((1 << width) - 1), apart.dtype.type(0))
    folded = ((apart << 1) ^ signs).astype(np.uint64)
    highest = np.maximum(_highest_bits(folded), _DIRECT_BITS)
    lengths = highest - _FIELD_BITS
    field = (folded >> lengths.astype(np.uint64)).astype(np.int64) & 3
    large = _DIRECT + ((highest - _DIRECT_BITS) << _FIELD_BITS) + field
    tokens[:] = np.where(folded < _DIRECT, folded.astype(np.int64), large)
    chosen = folded >= _DIRECT
    counts = lengths[chosen].astype(np.uint64)
    values = folded[chosen] & ((np.uint64(1) << counts) - 1)
    raw = _packed(values, counts)
    bits[: len(raw)] = np.frombuffer(raw, np.uint8)
    return len(raw)


def _packed(values: npt.NDArray[np.uint64], counts: npt.NDArray[np.uint64]) -> bytes:
    """Numbers of so many bits each, one behind the other, least significant bit first."""
    if not values.size:
        return b""
    ends = np.cumsum(counts)
    starts = ends - counts
    total = int(ends[-1])
    words = np.zeros(total // 64 + 2, np.uint64)
    index = (starts >> 6).astype(np.int64)
    shift = starts & 63
    firsts = np.flatnonzero(np.diff(index, prepend=-1))
    # Bits do not overlap, so a sum puts together the numbers that begin in one word.
    words[index[firsts]] += np.add.reduceat(values << shift, firsts)
    spilled = np.where(shift > 0, values >> np.where(shift > 0, 64 - shift, 0), 0)
    words[index[firsts] + 1] += np.add.reduceat(spilled, firsts)
    return words.astype("<u8").tobytes()[: -(-total // 8)]


def _untoken_here(tokens: Bytes, bits: Bytes, base: Bytes, form: Form, out: Bytes) -> None:
    width = 8 * form.element_bytes
    folded = tokens.astype(np.uint64)
    chosen = tokens >= _DIRECT
    large = folded[chosen]
    counts = (large >> _FIELD_BITS) - _FIELD_BITS
    total = int(counts.sum())
    unsound = (counts + _FIELD_BITS + 1 > width).any() or -(-total // 8) != bits.size
    if unsound or (total % 8 and int(bits[-1]) >> total % 8):
        raise IntegrityError("codec.bits", "the bits of a difference are malformed")
    words = np.frombuffer(bits.tobytes() + bytes(16 + -bits.size % 8), "<u8")
    starts = np.cumsum(counts) - counts
    index = (starts >> 6).astype(np.int64)
    shift = starts & 63
    above = np.where(shift > 0, words[index + 1] << np.where(shift > 0, 64 - shift, 0), 0)
    values = (words[index] >> shift | above) & ((np.uint64(1) << counts) - 1)
    folded[chosen] = (4 | (large & 3)) << counts | values
    elements = folded.astype(f"<u{form.element_bytes}")
    one = elements.dtype.type(1)
    apart = (elements >> one) ^ (~(elements & one) + one)
    plain = _unordered(_ordered(base.view(elements.dtype), form) + apart, form)
    out[:] = plain.astype(elements.dtype).view(np.uint8)
