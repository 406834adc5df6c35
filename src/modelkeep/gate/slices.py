"""What one worker holds of the meters that all workers share: slices of windows, and places."""

from __future__ import annotations

from collections.abc import Sequence

from modelkeep.core.errors import LimitError
from modelkeep.core.instant import NS_PER_S
from modelkeep.gate.quota import AMOUNT_MAX
from modelkeep.ports.limiter import NOW, Change, Lease, Meter

WINDOWS_NS = {
    "second": NS_PER_S,
    "minute": 60 * NS_PER_S,
    "hour": 3600 * NS_PER_S,
    "day": 86_400 * NS_PER_S,
}
CALLS, TOKENS, BYTES = range(3)
UNITS = {"calls": CALLS, "tokens": TOKENS, "bytes": BYTES}
RETRY_S_MAX = 86_400


class Gauge:
    """One meter as this worker knows it: what is left of its lease, what it has to tell."""

    __slots__ = (
        "bucket", "changes", "closed_amount", "closed_ns", "ends_ns",
        "key", "left", "limit_name", "meter", "opens_ns", "unit", "wish",
    )  # fmt: skip

    def __init__(self, meter: Meter, *, unit: int, key: str, limit_name: str) -> None:
        self.meter = meter
        self.unit = unit
        self.key = key
        self.limit_name = limit_name
        self.left = 0
        self.bucket = NOW
        self.ends_ns = 0
        self.wish = 0
        self.changes: dict[int, int] = {}
        self.closed_ns = 0
        self.closed_amount = 0
        self.opens_ns = 0

    def accept(self, lease: Lease, used: int) -> None:
        """Take a lease of which some is used at once."""
        rest = lease.amount - used
        if lease.bucket < self.bucket:  # a newer one came first
            self.tell(lease.bucket, -rest)
            return
        if lease.bucket > self.bucket:
            self.tell(self.bucket, -self.left)
            self.left = 0
            self.bucket = lease.bucket
        self.left += rest
        self.ends_ns = lease.ends_ns

    def owed(self) -> tuple[Change, ...]:
        """What has to be told, with what is left of the lease; it counts as told from now on."""
        self.tell(self.bucket, -self.left)
        self.left = 0
        changes, self.changes = self.changes, {}
        return tuple(Change(bucket, amount) for bucket, amount in changes.items() if amount)

    def untold(self, changes: Sequence[Change]) -> None:
        """Nobody knows whether these were heard: what was used is told again, the rest is lost."""
        for each in changes:
            if each.amount > 0:
                self.tell(each.bucket, each.amount)

    def tell(self, bucket: int, amount: int) -> None:
        """Remember a change."""
        if amount:
            self.changes[bucket] = self.changes.get(bucket, 0) + amount

    def correct(self, bucket: int, amount: int, now_ns: int) -> None:
        """Charge what was used beyond what was known, or take back what was not used."""
        if amount < 0:
            if bucket == self.bucket:
                self.left -= amount
            else:
                self.tell(bucket, amount)
        elif self.left >= amount and now_ns < self.ends_ns:
            self.left -= amount
        else:
            self.tell(NOW, amount)
            self.tell(self.bucket, -self.left)
            self.left = 0  # so that the next call brings the news

    def wish_of(self, amount: int, now_ns: int) -> int:
        """How much to ask for: twice as much as the last time in this bucket, less in a new one."""
        if now_ns >= self.ends_ns:
            self.wish //= 2
        else:
            self.wish = min(max(self.wish, amount) * 2, AMOUNT_MAX)
        return max(self.wish, amount)


class Places:
    """The places of one limit on concurrent calls as this worker knows them."""

    __slots__ = ("held", "limit_name", "meter", "peak", "used")

    def __init__(self, meter: Meter, limit_name: str) -> None:
        self.meter = meter
        self.limit_name = limit_name
        self.held = 0
        self.used = 0
        self.peak = 0  # of `used` since the last tend


def refusal(gauge: Gauge, now_ns: int) -> LimitError:
    """What is said to who has reached a limit."""
    unit, _, window = gauge.key.partition("_per_")
    said = f"the limit {gauge.limit_name} of {gauge.meter.limit} {unit} in any {window} is reached"
    wait_ns = gauge.opens_ns - now_ns if gauge.opens_ns > 0 else gauge.meter.window_ns
    seconds = max(1, min(-(-wait_ns // NS_PER_S), RETRY_S_MAX))
    hint = f"try again in {seconds} s"
    if gauge.opens_ns < 0:
        hint = "one call alone asks for more than that: ask for less"
    if unit == "tokens":
        return LimitError("quota.tokens", said, hint=hint, retry_after_s=seconds)
    if unit == "bytes":
        return LimitError("quota.bytes", said, hint=hint, retry_after_s=seconds)
    return LimitError("quota.calls", said, hint=hint, retry_after_s=seconds)
