"""Which replica answers: the one with the fewest calls in flight."""

from __future__ import annotations

from collections.abc import Sequence


def least_loaded(in_flight: Sequence[int], *, turn: int) -> int:
    """The index of the least loaded of several ready replicas.

    Args:
        in_flight: calls under way at each ready replica; never empty.
        turn: a number that goes up with every choice, so that equals take turns.
    """
    assert in_flight
    count = len(in_flight)
    best = turn % count
    for step in range(1, count):
        index = (turn + step) % count
        if in_flight[index] < in_flight[best]:
            best = index
    return best
