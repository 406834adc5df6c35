"""The stopwatch of a recovery: named laps on a clock that never goes back."""

from __future__ import annotations

from modelkeep.core.instant import NS_PER_S
from modelkeep.core.record import Record
from modelkeep.ports.clock import Clock


class Lap(Record, frozen=True):
    """One step of a recovery and how long after the start it was done."""

    name: str
    at_s: float


class Stopwatch:
    """Starts when it is made; `lap` names what has just been done."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._start_ns = clock.monotonic_ns()
        self._laps: list[Lap] = []

    def lap(self, name: str) -> float:
        """Note that a step is done; return the seconds since the start."""
        at_s = (self._clock.monotonic_ns() - self._start_ns) / NS_PER_S
        self._laps.append(Lap(name=name, at_s=round(at_s, 3)))
        return at_s

    def laps(self) -> tuple[Lap, ...]:
        """All laps so far, in order."""
        return tuple(self._laps)
