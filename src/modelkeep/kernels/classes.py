"""The largest values of a tensor with their places, as V2's classification extension writes them.

Each is `value:index`, a BYTES element; the largest comes first, of equal ones the lower index. A
tensor of two or more dimensions is looked at row by row, along its first one.
"""

from __future__ import annotations

import numpy as np

from modelkeep.kernels.byte_tensors import joined_elements
from modelkeep.kernels.wire import FLOAT_DTYPES, Tensor, array_of


def classified(output: Tensor, count: int) -> Tensor:
    """The `count` largest values of each row; all of them where there are fewer."""
    array = array_of(output)
    rows = array.reshape(array.shape[0] if array.ndim > 1 else 1, -1)
    kept = min(count, rows.shape[1])
    # Negated floats sort descending and stay stable; integers are reversed, twice, to stay exact.
    if output.dtype in FLOAT_DTYPES:
        order = np.argsort(-rows, axis=1, kind="stable")[:, :kept]
        form = "{:f}:{}"
    else:
        last = rows.shape[1] - 1
        order = last - np.argsort(rows[:, ::-1], axis=1, kind="stable")[:, ::-1][:, :kept]
        form = "{}:{}"
    elements = [
        form.format(row[index], index).encode()
        for row, places in zip(rows, order, strict=True)
        for index in places
    ]
    shape = (array.shape[0], kept) if array.ndim > 1 else (kept,)
    return Tensor(output.name, "BYTES", shape, joined_elements(elements))
