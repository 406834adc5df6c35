"""What the numbers of a tensor come to: how many are no numbers, how large they are, whether alike.

One pass over the bytes, in blocks that stay in the processor's cache. Floating-point numbers are
looked at as integers: without its sign the bits of a larger number are a larger integer, in every
IEEE format, and what is no number or infinite lies above all that is finite. So 16 bits cost no
conversion, and a NaN cannot be missed by a comparison that it makes false.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from modelkeep.kernels.arrays import NUMPY_BY_DTYPE, Array
from modelkeep.kernels.tensors import TensorPlace

# Bits of the infinity, which is the largest number; whatever lies above is none.
_INFINITY = {"FP16": 0x7C00, "BF16": 0x7F80, "FP32": 0x7F800000, "FP64": 0x7FF << 52}
_WIDTHS = {"FP16": 2, "BF16": 2, "FP32": 4, "FP64": 8}
_BLOCK_BYTES = 256 * 1024
# Numbers that the usual size is estimated from: runs from all over the tensor.
_RUNS = 64
_RUN_ITEMS = 512
# Of fewer the usual size says nothing, and there may be very many such tensors.
USUAL_ITEMS_MIN = 256
# Pages are given back after so many bytes, so that a large file never fills memory.
_FORGET_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class TensorFacts:
    """What one tensor comes to.

    Attributes:
        items: how many numbers it has.
        nans: of them are none.
        infinities: of them are infinite, `negative` of these below zero.
        is_zero: whether all are zero.
        is_constant: whether all have the same bits.
        largest: of the finite ones, without their signs; 0 for integers.
        usual: root of the mean of the squares of some of them; 0 for integers and where they are
            few.
    """

    place: TensorPlace
    items: int
    nans: int = 0
    infinities: int = 0
    negative: int = 0
    is_zero: bool = False
    is_constant: bool = False
    largest: float = 0.0
    usual: float = 0.0


def is_counted(place: TensorPlace) -> bool:
    """Whether the type is one whose numbers can be looked at, and the place has any."""
    known = place.dtype in _WIDTHS or place.dtype in NUMPY_BY_DTYPE
    width = _width(place.dtype) if known else 0
    return known and place.length >= width and place.length % width == 0


def facts_of(
    view: memoryview,
    place: TensorPlace,
    *,
    forget: Callable[[int, int], None] = lambda _start, _stop: None,
) -> TensorFacts:
    """Look at every number of a tensor whose type `is_counted`.

    Args:
        view: the whole file; of a mapped one each page is read once.
        forget: told from where to where bytes are not looked at again, now and then.
    """
    width = _width(place.dtype)
    items = place.length // width
    bits: Array = np.ndarray((items,), np.dtype(f"<u{width}"), buffer=view, offset=place.offset)
    infinity = _INFINITY.get(place.dtype, 0)
    found = _Sums(bits[0], sign=1 << (8 * width - 1), infinity=infinity)
    step = _BLOCK_BYTES // width
    given_back = 0
    for start in range(0, items, step):
        found.take(bits[start : start + step])
        if found.is_settled:
            break
        done = (start + step) * width
        if done - given_back >= _FORGET_BYTES:
            forget(place.offset + given_back, place.offset + min(done, place.length))
            given_back = done
    usual = _usual(bits, place.dtype) if infinity and items >= USUAL_ITEMS_MIN else 0.0
    forget(place.offset, place.offset + place.length)
    return TensorFacts(
        place,
        items,
        nans=found.nans,
        infinities=found.infinities,
        negative=found.negative,
        is_zero=found.largest == 0 and not found.nans and not found.infinities,
        is_constant=found.is_constant,
        largest=_value(found.largest, place.dtype) if infinity else 0.0,
        usual=usual,
    )


def are_equal(view: memoryview, one: TensorPlace, other: TensorPlace) -> bool:
    """Whether two tensors of a file have the same bytes."""
    if one.length != other.length:
        return False
    raw = np.frombuffer(view, np.uint8)
    return all(
        np.array_equal(
            raw[one.offset + at : one.offset + min(at + _FORGET_BYTES, one.length)],
            raw[other.offset + at : other.offset + min(at + _FORGET_BYTES, one.length)],
        )
        for at in range(0, one.length, _FORGET_BYTES)
    )


class _Sums:
    """What the blocks so far come to; a class because it is written in every block."""

    def __init__(self, first: np.unsignedinteger, *, sign: int, infinity: int) -> None:
        kind = first.dtype.type
        self.nans = self.infinities = self.negative = 0
        self.largest = 0
        self.is_constant = True
        self._first = first
        self._without_sign = kind(sign - 1)
        self._infinity = infinity
        self._below_zero = kind(sign | infinity)
        self._room: Array = np.empty(0, first.dtype)

    @property
    def is_settled(self) -> bool:
        """Whether nothing that follows can change what is said of integers."""
        return not self._infinity and not self.is_constant

    def take(self, block: Array) -> None:
        """Look at one block."""
        if self.is_constant:
            self.is_constant = bool(block[-1] == self._first) and bool((block == self._first).all())
        if not self._infinity:
            self.largest = max(self.largest, int(block.max()))
            return
        if len(self._room) < len(block):
            self._room = np.empty(len(block), block.dtype)
        sizes = np.bitwise_and(block, self._without_sign, out=self._room[: len(block)])
        largest = int(sizes.max())
        if largest >= self._infinity:
            infinite = int(np.count_nonzero(sizes == self._infinity))
            self.infinities += infinite
            self.nans += int(np.count_nonzero(sizes > self._infinity))
            self.negative += int(np.count_nonzero(block == self._below_zero)) if infinite else 0
            finite = sizes[sizes < self._infinity]
            largest = int(finite.max()) if len(finite) else 0
        self.largest = max(self.largest, largest)


def _width(dtype: str) -> int:
    return _WIDTHS.get(dtype) or NUMPY_BY_DTYPE[dtype].itemsize


def numbers(bits: Array, dtype: str) -> Array:
    """Floating-point numbers of these bits, in 64 bits."""
    if dtype == "BF16":
        wide = np.left_shift(bits.astype(np.uint32), np.uint32(16))
        return wide.view(np.float32).astype(np.float64)
    return bits.view(NUMPY_BY_DTYPE[dtype]).astype(np.float64)


def _value(bits: int, dtype: str) -> float:
    return float(numbers(np.array([bits], np.dtype(f"<u{_width(dtype)}")), dtype)[0])


def _usual(bits: Array, dtype: str) -> float:
    """The root of the mean square of runs from all over; of what is finite."""
    apart = max(1, (len(bits) - _RUN_ITEMS) // max(1, _RUNS - 1))
    starts = sorted({min(at * apart, max(0, len(bits) - _RUN_ITEMS)) for at in range(_RUNS)})
    runs = np.concatenate([bits[start : start + _RUN_ITEMS] for start in starts])
    with np.errstate(all="ignore"):
        values = numbers(runs, dtype)
        finite = values[np.isfinite(values)]
        if not len(finite):
            return 0.0
        scale = float(np.abs(finite).max())
        if not scale:
            return 0.0
        return scale * float(np.sqrt(np.mean(np.square(finite / scale))))
