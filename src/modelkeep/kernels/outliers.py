"""Whether the largest of a few numbers stands out: Grubbs' test, one-sided."""

from __future__ import annotations

import math
from collections.abc import Sequence

COUNT_MIN = 3


def largest_p(values: Sequence[float]) -> float:
    """How often the largest of so many normal numbers would stand out as far, or further.

    1.0 where that cannot be said: of fewer than three numbers, or where all are alike.
    """
    count = len(values)
    if count < COUNT_MIN or not all(map(math.isfinite, values)):
        return 1.0
    scale = max(map(abs, values)) or 1.0  # squares of large numbers are infinite
    values = [value / scale for value in values]
    mean = math.fsum(values) / count
    spread = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (count - 1))
    if not spread > 0 or not math.isfinite(spread):
        return 1.0
    far = ((max(values) - mean) / spread) ** 2
    rest = (count - 1) ** 2 - count * far
    if rest <= 0:  # all but one are alike: no number can stand out further
        return 0.0
    return min(1.0, count * upper_tail(math.sqrt(count * (count - 2) * far / rest), count - 2))


def upper_tail(at: float, freedom: int) -> float:
    """How likely Student's t with whole degrees of freedom is beyond a number from 0 on.

    Abramowitz and Stegun, 26.7.3 and 26.7.4: a finite sum.
    """
    angle = math.atan2(at, math.sqrt(freedom))
    sine, square = math.sin(angle), math.cos(angle) ** 2
    is_odd = freedom % 2 == 1
    term = math.cos(angle) if is_odd else 1.0
    total = 0.0
    for step in range(freedom // 2):
        total += term
        factor = 2 * step + 2 if is_odd else 2 * step + 1
        term *= square * factor / (factor + 1)
    within = 2 / math.pi * (angle + sine * total) if is_odd else sine * total
    return max(0.0, (1 - within) / 2)
