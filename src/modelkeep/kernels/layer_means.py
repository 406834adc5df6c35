"""The mean weight of each class in a layer."""

from __future__ import annotations

import numpy as np

from modelkeep.kernels.arrays import Array
from modelkeep.kernels.tensor_facts import numbers
from modelkeep.kernels.tensors import TensorPlace

_WIDTHS = {"FP16": 2, "BF16": 2, "FP32": 4, "FP64": 8}
_BLOCK_ITEMS = 1 << 20


def class_means(view: memoryview, place: TensorPlace, *, classes_first: bool) -> tuple[float, ...]:
    """The mean of each row, or of each column, of a matrix of floating-point numbers.

    Copies a megabyte of numbers at a time. Empty for another kind of tensor.
    """
    width = _WIDTHS.get(place.dtype, 0)
    if len(place.shape) != 2 or place.shape[0] * place.shape[1] * width != place.length:
        return ()
    if not place.length:
        return ()
    rows, columns = place.shape
    bits: Array = np.ndarray(
        (rows, columns), np.dtype(f"<u{width}"), buffer=view, offset=place.offset
    )
    sums = np.zeros(rows if classes_first else columns)
    step = max(1, _BLOCK_ITEMS // columns)
    with np.errstate(all="ignore"):
        for at in range(0, rows, step):
            block = numbers(np.ascontiguousarray(bits[at : at + step]), place.dtype)
            if classes_first:
                sums[at : at + step] = block.sum(axis=1)
            else:
                sums += block.sum(axis=0)
    return tuple((sums / (columns if classes_first else rows)).tolist())
