"""Which replica answers: the one with the fewest calls in flight, for what it can take by now."""

from __future__ import annotations

from collections.abc import Sequence

# Envoy's `min_weight_percent`: the least that a replica gets which has just come.
WEIGHT_MIN = 0.1


def least_loaded(in_flight: Sequence[float], *, turn: int) -> int:
    """The index of the least loaded of several ready replicas.

    Args:
        in_flight: calls under way at each ready replica, or their `weighed` loads; never empty.
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


def weighed(in_flight: int, weight: float) -> float:
    """The load of a replica that can take only a part of a whole one's calls by now.

    So one of half the weight is given half as much, and one call alone goes to a warm replica.
    """
    return (in_flight + 1) / weight


def warmth(since_s: float, slow_start_s: float) -> float:
    """The weight of a replica that came back so long ago: from a tenth to all, in a line.

    Envoy's slow start with an aggression of 1: `max(min weight, time / window)`.
    """
    if since_s >= slow_start_s:
        return 1.0
    return max(WEIGHT_MIN, since_s / slow_start_s)
