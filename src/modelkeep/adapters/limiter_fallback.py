"""A limiter that goes on with this machine's share while the one of all machines is away.

The shares of all machines together are at most the limit, so nobody gets more than it while Redis
is away. What was used before and after the change is counted in different places: a window that
the change lies in may hold up to twice the limit.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from modelkeep.core.errors import UnavailableError
from modelkeep.ports.limiter import Change, Lease, Limiter, Meter


class FallbackLimiter:
    """Asks the first, and the second with a share of each limit if the first is away."""

    def __init__(self, first: Limiter, second: Limiter, *, share: float) -> None:
        self._first = first
        self._second = second
        self._share = share
        self._held: dict[bytes, int] = {}

    def now_ns(self) -> int:
        return self._first.now_ns()

    async def lease(
        self, meter: Meter, *, least: int, wish: int, changes: Sequence[Change] = ()
    ) -> Lease:
        try:
            return await self._first.lease(meter, least=least, wish=wish, changes=changes)
        except UnavailableError:
            lease = await self._second.lease(
                self._shared(meter), least=least, wish=wish, changes=changes
            )
        ahead_ns = self._first.now_ns() - self._second.now_ns()
        opens_ns = lease.opens_ns + ahead_ns if lease.opens_ns > 0 else lease.opens_ns
        return Lease(lease.amount, lease.bucket, lease.ends_ns + ahead_ns, opens_ns)

    async def hold(self, meter: Meter, change: int, *, spare: int = 0) -> int:
        if change < 0:
            return await self._freed(meter, -change)
        try:
            return await self._first.hold(meter, change, spare=spare)
        except UnavailableError:
            got = await self._second.hold(self._shared(meter), change, spare=0)
        self._held[meter.key] = self._held.get(meter.key, 0) + got
        return got

    async def tend(self) -> frozenset[bytes]:
        wanted = await self._second.tend()
        with contextlib.suppress(UnavailableError):
            wanted |= await self._first.tend()
        return wanted

    async def close(self) -> None:
        await self._first.close()
        await self._second.close()

    async def _freed(self, meter: Meter, count: int) -> int:
        here = min(count, self._held.get(meter.key, 0))
        if here:
            await self._second.hold(self._shared(meter), -here)
            self._held[meter.key] -= here
            if not self._held[meter.key]:
                del self._held[meter.key]
        if count > here:
            with contextlib.suppress(UnavailableError):  # it hears of it with the next word
                await self._first.hold(meter, here - count)
        return -count

    def _shared(self, meter: Meter) -> Meter:
        return Meter(meter.key, meter.window_ns, int(meter.limit * self._share))
