"""Questions about all elements of a tensor: the least, the largest, whether there are others."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from modelkeep.kernels.wire import Tensor, array_of


def bounds_of(tensor: Tensor) -> tuple[float, float]:
    """The least and the largest element; of none (0, 0)."""
    values = array_of(tensor)
    if values.size == 0:
        return 0.0, 0.0
    return float(values.min()), float(values.max())


def has_others(tensor: Tensor, permitted: Sequence[float]) -> bool:
    """Whether an element is none of these, each taken as the tensor's type has it."""
    values = array_of(tensor)
    if values.dtype.kind in "iu":  # 1.5 is no whole number, so it permits none
        permitted = [value for value in permitted if float(value).is_integer()]
    return not bool(np.isin(values, np.asarray(permitted).astype(values.dtype)).all())
