"""A model that nobody answers for is not asked for a while: closed, open, half open.

    CLOSED --failures in a row--> OPEN --time passes--> HALF_OPEN --an answer--> CLOSED
                                   ^------- a failure, for longer ------'

A failure is a call that no replica answered before its deadline. While it is open, calls are
refused at once instead of waiting for theirs; then one call at a time tries.
"""

from __future__ import annotations

from enum import StrEnum

from modelkeep.gate.pool_settings import PoolSettings


class Circuit(StrEnum):
    """Whether calls pass."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half open"


class Breaker:
    """The circuit of one version of one model; times are seconds of a clock that only goes on."""

    __slots__ = ("_open_s", "_settings", "_until_s", "failures", "state")

    def __init__(self, settings: PoolSettings) -> None:
        self._settings = settings
        self._open_s = settings.open_s
        self._until_s = 0.0
        self.failures = 0
        self.state = Circuit.CLOSED

    def permits(self, now_s: float) -> bool:
        """Whether a call may be made now; the call that tries is counted as one."""
        if self.state is Circuit.CLOSED:
            return True
        if now_s < self._until_s:
            return False
        # The next one may try when this one's time is over, whatever became of it.
        self.state = Circuit.HALF_OPEN
        self._until_s = now_s + self._open_s
        return True

    def retry_after_s(self, now_s: float) -> float:
        """When a call that is refused may be worth another one."""
        return max(0.0, self._until_s - now_s)

    def failed(self, now_s: float) -> None:
        """Nobody answered a call."""
        self.failures += 1
        if self.state is Circuit.HALF_OPEN:
            self._open_s = min(self._open_s * 2, self._settings.open_s_max)
            self._open(now_s)
        elif self.state is Circuit.CLOSED and self.failures >= self._settings.open_after_failures:
            self._open(now_s)

    def succeeded(self) -> None:
        """Somebody answered."""
        self.failures = 0
        self.state = Circuit.CLOSED
        self._open_s = self._settings.open_s

    def _open(self, now_s: float) -> None:
        self.state = Circuit.OPEN
        self._until_s = now_s + self._open_s
