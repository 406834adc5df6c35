"""Less of an answer: outputs blurred, cut to the largest, rounded, or reduced to a label.

Only floating-point tensors change; integers and booleans pass. Name, type and shape stay, so what
was of a schema still is. What is taken away is gone: equal results come of inputs that differed
only in it, the sign of a zero included.
"""

from __future__ import annotations

import numpy as np

from modelkeep.kernels.digest import keyed_stream
from modelkeep.kernels.wire import FLOAT_DTYPES, Tensor, array_of, tensor_of

# From here on every number of 64 bits is whole: there is nothing behind the point to take away.
_WHOLE = 2.0**53
# Noise moves on a grid of this part of its scale: the last bits of a sum of floats would tell
# what the noise was added to (Mironov, "On significance of the least significant bits", 2012).
_GRID = 2.0**-10
_UNIFORM_BYTES = 8


def rounded(tensor: Tensor, decimals: int) -> Tensor:
    """Round to so many digits behind the point; NaN and infinities stay what they are.

    It is computed in 64 bits and rounded once more to the tensor's own type: in 16 bits already
    `1000 * 100` would be an infinity.
    """
    if tensor.dtype not in FLOAT_DTYPES:
        return tensor
    values = array_of(tensor).astype(np.float64)
    scale = 10.0**decimals
    with np.errstate(over="ignore", invalid="ignore"):
        scaled = values * scale
        near = np.rint(scaled) / scale + 0.0  # -0.0 + 0.0 is 0.0
        kept = np.where(np.abs(scaled) < _WHOLE, near, values)
    return tensor_of(tensor.name, tensor.dtype, kept)


def labelled(tensor: Tensor, *, is_row_each: bool = False) -> Tensor:
    """Put 1 where a row is largest (the first of equals) and 0 elsewhere; a row is the last axis.

    A row with a NaN has no largest element and becomes NaN throughout: no label is made up.

    Args:
        is_row_each: every element is a row of its own, so each becomes 1.
    """
    if tensor.dtype not in FLOAT_DTYPES:
        return tensor
    values = array_of(tensor)
    if values.size == 0:
        return tensor
    width = 1 if is_row_each or values.ndim == 0 else values.shape[-1]
    rows = values.reshape(-1, width)
    made = np.zeros_like(rows)
    made[np.arange(len(rows)), np.argmax(rows, axis=-1)] = 1
    made[np.isnan(rows).any(axis=-1)] = np.nan
    return tensor_of(tensor.name, tensor.dtype, made.reshape(values.shape))


def topmost(tensor: Tensor, count: int) -> Tensor:
    """Keep the largest of each row (of equals the first), put 0 for the others.

    A row is the last axis. NaN counts as the largest: it stays, and nothing is made up of it.
    """
    if tensor.dtype not in FLOAT_DTYPES:
        return tensor
    values = array_of(tensor)
    if values.ndim == 0 or values.size == 0 or values.shape[-1] <= count:
        return tensor
    rows = values.reshape(-1, values.shape[-1])
    kept = np.argsort(np.where(np.isnan(rows), -np.inf, -rows), axis=-1, kind="stable")[:, :count]
    made = np.zeros_like(rows)
    np.put_along_axis(made, kept, np.take_along_axis(rows, kept, axis=-1), axis=-1)
    return tensor_of(tensor.name, tensor.dtype, made.reshape(values.shape))


def blurred(tensor: Tensor, scale: float, *, seed: bytes) -> Tensor:
    """Add Laplace noise to every element; NaN and infinities stay what they are.

    Args:
        scale: of the distribution, in units of the output.
        seed: 32 bytes that nobody else knows; the same seed makes the same noise.
    """
    if tensor.dtype not in FLOAT_DTYPES:
        return tensor
    values = array_of(tensor).astype(np.float64)
    drawn = np.frombuffer(keyed_stream(seed, 2 * _UNIFORM_BYTES * values.size), "<u8")
    # Two exponential variables; their difference is a Laplace variable. Never log(0).
    waits = -np.log((drawn.astype(np.float64) + 0.5) * 2.0**-64).reshape(2, *values.shape)
    grid = 2.0 ** np.floor(np.log2(scale * _GRID))
    with np.errstate(over="ignore", invalid="ignore"):
        moved = np.rint((values + scale * (waits[0] - waits[1])) / grid) * grid + 0.0
    kept = np.where(np.isfinite(values), moved, values)
    return tensor_of(tensor.name, tensor.dtype, kept)
