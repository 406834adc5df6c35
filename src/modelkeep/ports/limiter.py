"""What several gateways use up together: windows that are lent in slices, and places."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from modelkeep.core.record import Row

NOW = -1  # in a Change: the bucket of the moment in which it is counted


class Meter(Row, frozen=True):
    """What is counted.

    Attributes:
        key: 16 bytes that name it, the same in every gateway and after every restart.
        window_ns: length of its window, a multiple of a millisecond; 0 counts places.
        limit: how much may be used in any window, or how many places there are. It may differ from
            the last time: settings change while gateways run.
    """

    key: bytes
    window_ns: int
    limit: int


class Change(Row, frozen=True):
    """A correction of what was counted before.

    Attributes:
        bucket: that the lease was for, or `NOW`.
        amount: positive for what was used without being lent, negative for what is given back.
    """

    bucket: int
    amount: int


class Lease(Row, frozen=True):
    """A part of a window's limit.

    Attributes:
        amount: that may be used, 0 for none.
        bucket: that it is counted in.
        ends_ns: by `now_ns`; what is not used before *must not* be used.
        opens_ns: by `now_ns`; when what was refused may fit. -1 for never, 0 where nothing was
            refused.
    """

    amount: int
    bucket: int
    ends_ns: int
    opens_ns: int = 0


class Limiter(Protocol):
    """One worker's access to what all of them count.

    Promises, over all workers that share it and whichever of them is killed at whichever moment:

    1. What is lent in any window of a meter's length, less what was given back, is never more than
       its limit. Charges that nobody asked for (a Change above zero) count and may pass it.
    2. What a worker lent and neither used nor gave back is missing for one window at most.
    3. Places held are never more than the limit; places of a dead worker come back.
    4. An operation that raises may have counted what it was asked for, and never less.
    5. If what was counted is damaged, the meter is closed for one window.
    """

    def now_ns(self) -> int:
        """Nanoseconds on the clock of leases; never goes back, not after a restart either."""
        ...

    async def lease(
        self, meter: Meter, *, least: int, wish: int, changes: Sequence[Change] = ()
    ) -> Lease:
        """Apply changes, then lend `least` at least or nothing.

        Args:
            least: 0 to apply changes only.
            wish: lent instead where there is plenty.

        Raises:
            UnavailableError: `gate.limiter`, when it cannot be known what was used.
        """
        ...

    async def hold(self, meter: Meter, change: int, *, spare: int = 0) -> int:
        """Take `change` places or none, with up to `spare` more if there is plenty; or free some.

        Returns:
            How many this worker got more; negative for what it gave back.

        Raises:
            UnavailableError: `gate.limiter`.
        """
        ...

    async def tend(self) -> frozenset[bytes]:
        """Show that this worker lives; called several times a second.

        Returns:
            The keys of meters of which another worker was lately refused a place, while this one
            may hold some that it does not use.

        Raises:
            UnavailableError: `gate.limiter`.
        """
        ...

    async def close(self) -> None:
        """Give places back, keep what was counted; idempotent."""
        ...
