"""How many replicas a model gets: up as soon as its calls need more, down when they long have not.

Up by doubling at most, so that one look at a burst does not start everything there is; down one by
one after `QUIET_S` in which fewer would have been enough with room to spare, so that a load that
swings does not start and end replicas all the time.
"""

from __future__ import annotations

from dataclasses import dataclass

# Fewer replicas are enough only when they would have had this share of their calls.
_ROOM = 0.7
QUIET_S = 60.0
# How much of the newest second counts: a burst is believed within about three seconds.
_NEWEST = 0.4


@dataclass(frozen=True, slots=True)
class Bounds:
    """What an operator, and the model's policy, allow.

    Attributes:
        calls: that one replica is meant to have under way at most.
    """

    least: int
    most: int
    calls: int


@dataclass(frozen=True, slots=True)
class Pace:
    """What is remembered of one model between two looks.

    Attributes:
        calls: under way, smoothed.
        quiet_since_s: since when fewer replicas would be enough; below zero while they would not.
    """

    calls: float = 0.0
    quiet_since_s: float = -1.0


def paced(pace: Pace, in_flight: int) -> Pace:
    """Learn how many calls are under way."""
    return Pace(pace.calls + (in_flight - pace.calls) * _NEWEST, pace.quiet_since_s)


def scaled(pace: Pace, running: int, bounds: Bounds, *, now_s: float) -> tuple[int, Pace]:
    """How many replicas there should be, and what to remember.

    The bounds hold whatever the load: `most` wins over `least`, for it is the policy's.
    """
    assert bounds.calls > 0
    assert bounds.most > 0
    least = min(bounds.least, bounds.most)
    if not least <= running <= bounds.most:
        return min(max(running, least), bounds.most), Pace(pace.calls)
    if pace.calls > running * bounds.calls:
        needed = -int(-pace.calls // bounds.calls)
        return min(needed, running * 2, bounds.most), Pace(pace.calls)
    if running == least or pace.calls > (running - 1) * bounds.calls * _ROOM:
        return running, Pace(pace.calls)
    if pace.quiet_since_s < 0:
        return running, Pace(pace.calls, now_s)
    if now_s - pace.quiet_since_s < QUIET_S:
        return running, pace
    return running - 1, Pace(pace.calls, now_s)
