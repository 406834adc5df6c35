"""Which replicas get calls: failures in a row, ejection that grows, the way back.

The rules are those of Envoy's outlier detection (its documentation of
`config.cluster.v3.OutlierDetection`), with other numbers, because ours are few processes on one
machine that a supervisor restarts:

- so many failures in a row eject (Envoy: `consecutive_5xx`, 5);
- for a base time multiplied by how often that happened (`base_ejection_time`, 30 s; ours 5 s), up
  to a maximum (`max_ejection_time`, 300 s; ours 60 s); each base time without a further ejection
  takes one back;
- never more than a share of all (`max_ejection_percent`, 10; ours 50, because two replicas are the
  rule), though one always may be. Ours keeps the last one in any case: a model that answers badly
  is better than none.

What counts as a failure is decided by whoever calls: a fault that another replica does not have
on the same call, a lost connection, silence. A fault alone does not, or a caller could eject
replicas with calls on which the model fails.
"""

from __future__ import annotations

from modelkeep.gate.pool_settings import PoolSettings


class Health:
    """What is known of one replica; times are seconds of any clock that does not go back."""

    __slots__ = ("_settled_s", "ejections", "failures", "is_ejected", "until_s")

    def __init__(self) -> None:
        self.failures = 0
        self.ejections = 0
        self.is_ejected = False
        self.until_s = 0.0
        self._settled_s = 0.0

    def failed(self, settings: PoolSettings) -> bool:
        """Count a failure; whether the replica should be ejected for it."""
        self.failures += 1
        return self.failures >= settings.failures_to_eject and not self.is_ejected

    def succeeded(self) -> None:
        """Forget the failures in a row."""
        self.failures = 0

    def eject(self, now_s: float, settings: PoolSettings) -> None:
        """No calls for a while, each time for longer."""
        self._forgive(now_s, settings)
        self.ejections += 1
        self.failures = 0
        self.is_ejected = True
        self.until_s = now_s + min(settings.ejection_s * self.ejections, settings.ejection_s_max)
        self._settled_s = self.until_s

    def may_return(self, now_s: float) -> bool:
        """Whether an ejection is over."""
        return self.is_ejected and now_s >= self.until_s

    def returned(self) -> None:
        """It gets calls again."""
        assert self.is_ejected
        self.is_ejected = False
        self.failures = 0

    def _forgive(self, now_s: float, settings: PoolSettings) -> None:
        """Take back one ejection for each base time that went well."""
        well_s = max(0.0, now_s - self._settled_s)
        self.ejections = max(0, self.ejections - int(well_s / settings.ejection_s))


def may_eject(ejected: int, total: int, settings: PoolSettings) -> bool:
    """Whether one more of a model's replicas may be without calls."""
    share = max(1, total * settings.ejected_percent_max // 100)
    return ejected + 1 <= min(share, total - 1)


def is_silent(silent_s: float, longest_pause_s: float, settings: PoolSettings) -> bool:
    """Whether a replica that owes an answer has said nothing for suspiciously long.

    Args:
        silent_s: since it said something, or since it owes something, whichever is later.
        longest_pause_s: that its model needed lately between two answers; below 0 for unknown.
    """
    if longest_pause_s < 0:
        return silent_s > settings.first_s
    return silent_s > max(settings.suspect_s, 4 * longest_pause_s)
