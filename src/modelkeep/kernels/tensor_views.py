"""NumPy views of the tensors of a loaded file, where they lie.

Nothing is copied and nothing is converted. A view is read-only where the memory is; what NumPy has
no type for is given as the unsigned integers of its bytes:

| in the manifest | view |
|---|---|
| `FP32`, `INT8`, `BOOL`, ... | that type, in the tensor's shape |
| `BF16` | `uint16` in the tensor's shape; shifted left by 16 bits these are the bits of a float32 |
| `RAW`, one byte per element (8-bit floats) | `uint8` in the tensor's shape |
| other `RAW` and `BYTES` | flat `uint8` |

An offset may be odd: NumPy takes an array that is not aligned to its elements. Big-endian hosts are
not supported by whoever uses the raw pointer of a view; NumPy itself is told the byte order.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from modelkeep.core.artifact import TensorEntry
from modelkeep.core.errors import IntegrityError, UsageError
from modelkeep.core.limits import TENSOR_RANK_MAX
from modelkeep.kernels.arrays import NUMPY_BY_DTYPE, Array
from modelkeep.kernels.formats import identify
from modelkeep.kernels.safetensors import PREFIX_BYTES, safetensors_layout

_BYTE = np.dtype(np.uint8)
_BFLOAT16 = np.dtype("<u2")


def views(raw: memoryview, tensors: Sequence[TensorEntry]) -> dict[str, Array]:
    """View every tensor of a file, by name; the views keep `raw` alive.

    Args:
        raw: the whole file, as it was loaded.
        tensors: its tensors, as they stand in the manifest.

    Raises:
        IntegrityError: `tensor.bounds` or `tensor.size`, when an entry does not fit the file or
            itself.
        UsageError: `tensor.ambiguous`, when two tensors have one name.
    """
    found: dict[str, Array] = {}
    for entry in tensors:
        if entry.name in found:
            raise UsageError(
                "tensor.ambiguous",
                f"a file has several tensors {entry.name!r:.80}",
                hint="take the file, and a tensor of it by its place in the manifest",
            )
        found[entry.name] = view_of(raw, entry)
    return found


def view_of(raw: memoryview, entry: TensorEntry) -> Array:
    """View one tensor.

    Raises:
        IntegrityError: as `views`.
    """
    if entry.offset < 0 or not 0 <= entry.length <= len(raw) - entry.offset:
        raise IntegrityError("tensor.bounds", f"tensor {entry.name!r:.80} leaves its file")
    if len(entry.shape) > TENSOR_RANK_MAX or any(size < 0 for size in entry.shape):
        raise IntegrityError("tensor.size", f"tensor {entry.name!r:.80} has no possible shape")
    dtype = _BFLOAT16 if entry.dtype == "BF16" else NUMPY_BY_DTYPE.get(entry.dtype)
    shape = entry.shape
    if dtype is None:
        dtype = _BYTE
        if math.prod(shape) != entry.length:
            shape = (entry.length,)
    if math.prod(shape) * dtype.itemsize != entry.length:
        raise IntegrityError(
            "tensor.size", f"tensor {entry.name!r:.80} has a length that does not fit its shape"
        )
    try:
        return np.ndarray(shape, dtype, buffer=raw, offset=entry.offset)
    except (ValueError, OverflowError) as error:  # nothing times a size that no array has
        raise IntegrityError(
            "tensor.size", f"tensor {entry.name!r:.80} has no possible shape"
        ) from error


def safetensors_dtypes(raw: memoryview) -> dict[str, str]:
    """What a safetensors file itself calls the types of its tensors, by name; else nothing.

    The manifest has no names for 8-bit floats and complex numbers, this format has.

    Raises:
        IntegrityError: `safetensors.*`.
    """
    if identify(raw) != "safetensors":
        return {}
    safetensors_layout(raw)  # checked: what follows is a small object of objects
    stop = PREFIX_BYTES + int.from_bytes(raw[:PREFIX_BYTES], "little")
    header: dict[str, dict[str, Any]] = json.loads(bytes(raw[PREFIX_BYTES:stop]))
    return {name: each["dtype"] for name, each in header.items() if name != "__metadata__"}
