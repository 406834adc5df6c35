"""How long a model's recent calls took: the last few hundred, exactly."""

from __future__ import annotations

from collections import deque

REMEMBERED = 512
# A quantile of fewer says little.
KNOWN_FROM = 32


class Latencies:
    """Seconds of the last calls; adding one is cheap, asking sorts them."""

    __slots__ = ("_last", "note")

    def __init__(self) -> None:
        self._last: deque[float] = deque(maxlen=REMEMBERED)
        self.note = self._last.append

    def quantile(self, share: float) -> float:
        """What this share of calls was not slower than; infinity while too few are known."""
        assert 0 < share < 1
        if len(self._last) < KNOWN_FROM:
            return float("inf")
        return sorted(self._last)[int(len(self._last) * share)]
