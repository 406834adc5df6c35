"""Whether two forms of one model say the same: inputs drawn from a seed, answers compared.

Numbers agree when they differ by no more than a share of the wanted one and a little beside; whole
numbers, truths and texts (labels) agree when they are equal.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from modelkeep.core.artifact import Port
from modelkeep.core.errors import IntegrityError, UsageError
from modelkeep.core.record import Record
from modelkeep.kernels.arrays import NUMPY_BY_DTYPE, Array

# One row, few, a prime number of them, many.
ROWS = (1, 2, 7, 64)
# What a free dimension that is not the first one is drawn as.
FREE = 16
_WHOLE_END = 10
# Half of the inputs are drawn around zero, half ten times as wide.
_WIDTHS = (1.0, 10.0)


class Agreement(Record, frozen=True):
    """How well two forms agreed.

    Attributes:
        rows: of each batch that was tried.
        seed: that the inputs were drawn from.
        numbers: how many were compared; likewise `labels`, which were equal.
        largest: difference between two numbers.
        rtol: share of a wanted number that the found one may differ by; `atol` comes beside it.
    """

    rows: tuple[int, ...]
    seed: int
    numbers: int
    labels: int
    largest: float
    rtol: float
    atol: float


def drawn(ports: Sequence[Port], rows: int, *, seed: int) -> dict[str, Array]:
    """Inputs for a model, the same ones for the same seed.

    Raises:
        UsageError: `conversion.inputs`.
    """
    source = np.random.default_rng((seed, rows))
    inputs: dict[str, Array] = {}
    for port in ports:
        dtype = NUMPY_BY_DTYPE.get(port.dtype)
        if dtype is None:
            raise UsageError(
                "conversion.inputs",
                f"input {port.name[:80]} is {port.dtype}: no such inputs are drawn",
                hint="convert a model whose inputs are numbers, and turn texts into them outside",
            )
        free = [rows, *[FREE] * len(port.shape)]
        shape = [free[min(at, 1)] if size < 0 else size for at, size in enumerate(port.shape)]
        if dtype.kind == "f":
            width = _WIDTHS[ROWS.index(rows) % 2] if rows in ROWS else 1.0
            inputs[port.name] = (source.standard_normal(shape) * width).astype(dtype)
        elif dtype.kind == "b":
            inputs[port.name] = source.integers(0, 2, shape).astype(dtype)
        else:
            inputs[port.name] = source.integers(0, _WHOLE_END, shape).astype(dtype)
    return inputs


def compared(
    wanted: Sequence[Array], found: Sequence[Array], *, rtol: float, atol: float
) -> tuple[int, int, float]:
    """Compare the outputs of two forms: numbers, labels, the largest difference.

    Raises:
        IntegrityError: `conversion.differs`.
    """
    if len(wanted) != len(found):
        raise _differs(f"{len(found)} outputs in place of {len(wanted)}")
    numbers, labels, largest = 0, 0, 0.0
    for at, (own, other) in enumerate(zip(wanted, found, strict=True)):
        if own.size != other.size or own.shape[:1] != other.shape[:1]:
            raise _differs(f"output {at} is {other.shape} in place of {own.shape}")
        other = other.reshape(own.shape)  # noqa: PLW2901 - a column is a row of single numbers
        if other.dtype.kind != "f":
            labels += own.size
            if not np.array_equal(own.astype(other.dtype), other):
                many = int(np.sum(own.astype(other.dtype) != other))
                raise _differs(f"{many} of {own.size} labels of output {at} are others")
            continue
        numbers += own.size
        finite = np.isfinite(own) & np.isfinite(other)
        both = own[finite].astype(np.float64)
        gap = np.abs(both - other[finite])
        here = float(gap.max(initial=0.0))
        largest = max(largest, here)
        same = np.array_equal(own[~finite], other[~finite], equal_nan=True)
        if not same or np.any(gap > atol + rtol * np.abs(both)):
            raise _differs(f"numbers of output {at} differ by up to {here:.3g}")
    return numbers, labels, largest


def _differs(how: str) -> IntegrityError:
    return IntegrityError(
        "conversion.differs",
        f"the ONNX model does not say what the model says: {how}",
        hint="nothing was written; numbers may be further apart with --tolerance",
    )
