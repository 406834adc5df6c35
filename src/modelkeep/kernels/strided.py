"""Numbers of a tensor that stand in any order, in row-major little-endian order, part by part."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod

import numpy as np

# Of one part: large enough for full speed, small enough not to be noticed.
PART_BYTES = 16 * 1024 * 1024


def row_major(
    view: memoryview,
    shape: Sequence[int],
    stride: Sequence[int],
    *,
    item_bytes: int,
    swapped: bool = False,
) -> Iterator[bytes | memoryview]:
    """Yield the items in the order of their indices, outermost first.

    Args:
        view: from the first item on; every index must lie in it, which the caller has checked.
        stride: in items.
        swapped: whether the items are big-endian.
    """
    total = prod(shape)
    if not total:
        return
    if is_row_major(shape, stride) and not swapped:
        yield from _slices(view[: total * item_bytes])
        return
    kind = np.dtype(f"{'>' if swapped else '<'}u{item_bytes}")
    items = np.frombuffer(view, kind, count=len(view) // item_bytes)
    array = np.lib.stride_tricks.as_strided(
        items, tuple(shape), tuple(step * item_bytes for step in stride), writeable=False
    )
    plain = kind.newbyteorder("<")
    if not shape:
        yield array.astype(plain).tobytes()
        return
    rows = max(1, PART_BYTES // max(1, prod(shape[1:]) * item_bytes))
    for start in range(0, shape[0], rows):
        yield np.ascontiguousarray(array[start : start + rows], dtype=plain).tobytes()


def is_row_major(shape: Sequence[int], stride: Sequence[int]) -> bool:
    """Whether the items stand one behind the other in the order of their indices."""
    step = 1
    for size, given in zip(reversed(shape), reversed(stride), strict=True):
        if size != 1 and given != step:
            return False
        step *= size
    return True


def _slices(view: memoryview) -> Iterator[memoryview]:
    for start in range(0, len(view), PART_BYTES):
        yield view[start : start + PART_BYTES]
