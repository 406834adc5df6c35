"""Tensors as they travel: raw little-endian bytes, and the JSON numbers that stand for them.

A call's values are turned into bytes once and stay bytes: replicas join and split calls by joining
and slicing bytes, and whoever wants an array gets a view of them (`array_of`) for 0.2 us. `struct`
is exact where NumPy is lenient: a number outside the element type's range is an error, not an
infinity or a wrapped integer, so what comes from JSON is finite and in range by construction.
BYTES tensors have no fixed element size: `kernels.byte_tensors` says how they lie.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from modelkeep.core.errors import IntegrityError
from modelkeep.core.record import Row
from modelkeep.kernels.arrays import NUMPY_BY_DTYPE, Array
from modelkeep.kernels.byte_tensors import divided_elements, joined_elements, texts_of

STRUCT_CODE_BY_DTYPE: dict[str, str] = {
    "BOOL": "?",
    "UINT8": "B",
    "UINT16": "H",
    "UINT32": "I",
    "UINT64": "Q",
    "INT8": "b",
    "INT16": "h",
    "INT32": "i",
    "INT64": "q",
    "FP16": "e",
    "FP32": "f",
    "FP64": "d",
}
FLOAT_DTYPES = frozenset({"FP16", "FP32", "FP64"})
BYTES = "BYTES"
ELEMENT_BYTES: dict[str, int] = {name: each.itemsize for name, each in NUMPY_BY_DTYPE.items()}


class Tensor(Row, frozen=True):
    """One input or output of a call: its bytes in C order, little-endian, and how to read them."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    raw: Any  # bytes or memoryview; msgspec has no union of the two, and this is never decoded


@lru_cache(maxsize=1024)  # callers repeat their shapes
def element_count(shape: tuple[int, ...]) -> int:
    """How many elements a shape holds; 1 for a scalar."""
    return math.prod(shape)


def is_whole(dtype: str, shape: tuple[int, ...], raw: bytes | memoryview) -> bool:
    """Whether bytes are as many as a tensor of this type and shape has."""
    count = element_count(shape)
    size_bytes = ELEMENT_BYTES.get(dtype)
    if size_bytes is not None:
        return len(raw) == count * size_bytes
    try:
        divided_elements(raw, count)
    except IntegrityError:
        return False
    return True


def packed(dtype: str, values: Sequence[Any]) -> bytes:
    """Encode numbers (or booleans, or texts) as the elements of a tensor.

    Raises:
        OverflowError: a number is outside the range of the element type.
        struct.error: the same, for integers; or a value of the wrong kind.
    """
    if dtype == BYTES:
        return joined_elements([each.encode() for each in values])
    return struct.pack(f"<{len(values)}{STRUCT_CODE_BY_DTYPE[dtype]}", *values)


def values_of(tensor: Tensor) -> tuple[Any, ...]:
    """The elements of a tensor as Python numbers (or texts), flat, in C order.

    Raises:
        IntegrityError: `wire.text`, when an element of a BYTES tensor is not UTF-8.
    """
    count = element_count(tensor.shape)
    if tensor.dtype == BYTES:
        return tuple(texts_of(tensor.raw, count))
    return struct.unpack(f"<{count}{STRUCT_CODE_BY_DTYPE[tensor.dtype]}", tensor.raw)


def array_of(tensor: Tensor) -> Array:
    """A read-only view of a tensor's bytes; of a BYTES tensor, its texts as objects.

    Raises:
        IntegrityError: `wire.text`.
    """
    if tensor.dtype == BYTES:
        return np.array(values_of(tensor), np.object_).reshape(tensor.shape)
    return np.frombuffer(tensor.raw, NUMPY_BY_DTYPE[tensor.dtype]).reshape(tensor.shape)


def tensor_of(name: str, dtype: str, array: Array) -> Tensor:
    """The tensor that holds an array's elements."""
    if dtype == BYTES:
        elements = [_element(each) for each in array.reshape(-1).tolist()]
        return Tensor(name, dtype, array.shape, joined_elements(elements))
    raw = np.ascontiguousarray(array, NUMPY_BY_DTYPE[dtype]).tobytes()
    return Tensor(name, dtype, array.shape, raw)


def is_sound(dtype: str, raw: bytes | memoryview) -> bool:
    """Whether bytes from outside are elements at all: no NaN, no infinity, booleans 0 or 1.

    Of a BYTES tensor nothing is said here: `texts_of` tells.
    """
    if dtype in FLOAT_DTYPES:
        return bool(np.isfinite(np.frombuffer(raw, NUMPY_BY_DTYPE[dtype])).all())
    if dtype == "BOOL":
        return not (np.frombuffer(raw, np.uint8) > 1).any()
    return True


def _element(value: str | bytes) -> bytes:
    return value.encode() if isinstance(value, str) else bytes(value)
