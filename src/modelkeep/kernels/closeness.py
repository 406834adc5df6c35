"""Whether two tensors say the same, up to a tolerance."""

from __future__ import annotations

import numpy as np

from modelkeep.kernels.wire import Tensor, array_of


def farthest(got: Tensor, wanted: Tensor) -> float:
    """The largest difference of two numbers that stand in the same place.

    Infinite where type or shape differ, and where one is no number and the other is one.
    """
    if (got.dtype, got.shape) != (wanted.dtype, wanted.shape):
        return float("inf")
    if len(got.raw) != len(wanted.raw):
        return float("inf")
    one, other = (array_of(each).astype(np.float64) for each in (got, wanted))
    if not one.size:
        return 0.0
    with np.errstate(invalid="ignore"):
        apart = np.where(one == other, 0.0, np.abs(one - other))
    return float("inf") if np.isnan(apart).any() else float(apart.max())
