"""How many calls may be sent again: a share of the calls of the last seconds, and a few more.

As Finagle's RetryBudget (20 % of calls, at least 10 a second, over 10 s): what fails under load is
not answered by more load. What comes in by a call grows old in `WINDOW_S`; what is there in any
case fills up to that many seconds' worth.
"""

from __future__ import annotations

WINDOW_S = 10.0


class Budget:
    """Tokens, one for each call that is sent once more."""

    __slots__ = ("_at_s", "_earned", "_per_s", "_reserve", "_share")

    def __init__(self, *, percent: float, per_s_min: float, now_s: float) -> None:
        self._share = percent / 100
        self._per_s = per_s_min
        self._reserve = per_s_min * WINDOW_S
        self._earned = 0.0
        self._at_s = now_s

    @property
    def left(self) -> int:
        """How many tokens there are."""
        return int(self._earned + self._reserve)

    def earn(self, calls: int, now_s: float) -> None:
        """Take in what so many calls since the last time bring, and let the old go."""
        passed_s = max(0.0, now_s - self._at_s)
        self._at_s = now_s
        kept = self._earned * max(0.0, 1 - passed_s / WINDOW_S)
        self._earned = kept + calls * self._share
        self._reserve = min(self._reserve + passed_s * self._per_s, self._per_s * WINDOW_S)

    def take(self) -> bool:
        """Spend one token, if there is one."""
        if self._earned >= 1:
            self._earned -= 1
        elif self._reserve >= 1:
            self._reserve -= 1
        else:
            return False
        return True
