"""Who guesses passwords has to wait, longer and longer: per account, and per network.

An attempt is counted before it is checked, and forgiven when it was right, so that many at once
cannot get in under the count. After `failures_free` of them the next has to wait a second, then
two, four, … up to `delay_s_max`. What nobody adds to is forgotten after a day.

Names and addresses come from strangers. So names that nobody has count like others; and since
anybody can fail in somebody's name, whoever logged in from a network before is not held up there by
what others do elsewhere: there, the account is counted for that network alone.
"""

from __future__ import annotations

from collections import OrderedDict

from modelkeep.core.errors import LimitError
from modelkeep.core.instant import NS_PER_S

# Distinct accounts, networks and pairs that are counted; the one that is quiet for longest goes.
# To push an account's count out takes an attempt, from a network that waits, for each of them.
COUNTED_MAX = 65_536
FORGOTTEN_NS = 86_400 * NS_PER_S
# A network may hold many people: it is given this many times what one account is.
NETWORK_SHARE = 4
_DELAY_BITS_MAX = 30


class _Count:
    """Failures of one account or network, and until when the next attempt has to wait."""

    __slots__ = ("failures", "last_ns", "waits_until_ns")

    def __init__(self) -> None:
        self.failures = 0
        self.last_ns = 0
        self.waits_until_ns = 0


class Lockout:
    """Counts attempts in one gateway.

    Each of several gateways counts what it sees and lets so much less pass: fewer attempts before
    the first wait, and waits that are longer by as many times as there are gateways. So together
    they let no more than `failures_free` pass at once (or one each), and in the long run as many as
    one of them would: while waits still grow, one more for each doubling and gateway.

    Args:
        failures_free: before the first wait.
        delay_s_max: of one wait.
        gateways: that count apart.
    """

    def __init__(self, *, failures_free: int, delay_s_max: float, gateways: int = 1) -> None:
        self._failures_free = max(failures_free // gateways, 1)
        self._delay_s_max = delay_s_max
        self._gateways = gateways
        self._counts: OrderedDict[tuple[str, str], _Count] = OrderedDict()
        self._known: OrderedDict[tuple[str, str], int] = OrderedDict()

    def attempt(self, account: str, network: str, *, now_ns: int) -> None:
        """Count an attempt, unless it has to wait; one that waits is not counted.

        Raises:
            LimitError: `quota.attempts`.
        """
        keys = self._keys(account, network, now_ns)
        counts = [(self._count(key, now_ns), free) for key, free in keys]
        wait_ns = max(count.waits_until_ns - now_ns for count, _ in counts)
        if wait_ns > 0:
            raise LimitError(
                "quota.attempts",
                "too many attempts",
                hint="wait, and be sure of the password",
                retry_after_s=-(-wait_ns // NS_PER_S),
            )
        for count, free in counts:
            count.failures += 1
            count.last_ns = now_ns
            over = count.failures - free
            if over >= 0:
                delay_s = min(2.0 ** min(over, _DELAY_BITS_MAX), self._delay_s_max)
                count.waits_until_ns = now_ns + int(delay_s * self._gateways * NS_PER_S)

    def forgive(self, account: str, network: str, *, now_ns: int) -> None:
        """The last attempt was right: the account is as if there had been none."""
        for key, _ in self._keys(account, network, now_ns):
            count = self._counts.get(key)
            if count is None:
                continue
            if key[0]:  # the account, or the account in this network
                del self._counts[key]
            else:  # others in this network may be guessing all the same
                count.failures -= 1
                count.waits_until_ns = 0
        self._known[account, network] = now_ns
        self._known.move_to_end((account, network))
        while len(self._known) > COUNTED_MAX:
            self._known.popitem(last=False)

    def _keys(
        self, account: str, network: str, now_ns: int
    ) -> tuple[tuple[tuple[str, str], int], ...]:
        """What an attempt counts for, each with the failures that it is allowed."""
        logged_in_ns = self._known.get((account, network))
        is_known = logged_in_ns is not None and now_ns - logged_in_ns < FORGOTTEN_NS
        own = (account, network if is_known else "")
        return (own, self._failures_free), (("", network), self._failures_free * NETWORK_SHARE)

    def _count(self, key: tuple[str, str], now_ns: int) -> _Count:
        count = self._counts.get(key)
        if count is None or now_ns - count.last_ns > FORGOTTEN_NS:
            count = self._counts[key] = _Count()
        self._counts.move_to_end(key)
        while len(self._counts) > COUNTED_MAX:
            self._counts.popitem(last=False)
        return count
