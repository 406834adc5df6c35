"""How many records are worth waiting for before they are made durable together.

An fsync costs the same for one record as for sixteen, and calls that are recorded together are also
answered together, so their next ones come together. Waiting is worth it only as long as what is
waited for comes: the target follows what came, grows slowly while it is reached, falls at once to
what there was when a wait ended in vain, and then stays for a while. Calls that take seconds (a
stream of text) are in flight and bring nothing: they cost one vain wait in 64 batches.
"""

from __future__ import annotations

WAIT_S = 0.001
_TARGET_MAX = 16
_GROWS_AFTER = 8
_STAYS_FOR = 64


class Gathering:
    """The target of one journal: how many records its next batch ought to have."""

    __slots__ = ("_reached", "target")

    def __init__(self) -> None:
        self.target = 1
        self._reached = 0

    def is_enough(self, count: int, in_flight: int) -> bool:
        """Whether these are not worth waiting with; more than are in flight cannot come."""
        return count >= self.target or count >= in_flight

    def came(self, count: int) -> None:
        """A batch was written without waiting in vain."""
        if count > self.target:
            self.target, self._reached = min(count, _TARGET_MAX), 0
            return
        self._reached += 1
        if self._reached >= _GROWS_AFTER:
            self.target, self._reached = min(self.target + 1, _TARGET_MAX), 0

    def gave_up(self, count: int) -> None:
        """A wait ended with fewer than were waited for."""
        self.target, self._reached = max(count, 1), -_STAYS_FOR
