"""The arithmetic of a sliding window: how much may still be used, and when more comes back.

A window of length W is cut into 100 buckets, and the buckets are numbered since time began. What
is used at an instant is counted in that instant's bucket. A window, wherever it begins, touches at
most 101 buckets in a row. So:

1. `lend` lets the sum of 101 buckets never pass the limit. Whatever was lent in bucket b *must* be
   used before b ends, else given back: then no window of length W ever holds more than the limit.
2. What was used comes back when its bucket is 101 old, one hundredth of W after it left the window:
   who always asks gets at least 100/101 of the limit.

Workers borrow slices, so that a call touches only its own worker's memory. What lies unused in
slices is missing elsewhere; a slice is therefore at most 1/1024 of the limit and 1/8 of what is
free, so the last units go out one by one.

There is no clock here and no I/O; instants are nanoseconds that never go back. A bucket older than
the newest one that was seen counts as the newest one.
"""

from __future__ import annotations

from collections.abc import Iterable

BUCKETS = 100  # of one window: what comes back is 1 % of the window late
RING = BUCKETS + 1
# Redis counts in doubles, which are exact up to 2**53. 101 buckets of this stay far below.
AMOUNT_MAX = 2**46
SLICES = 1024  # of a limit: four workers with one each keep back 0.4 % of it
FREE_PARTS = 8


def bucket_of(at_ns: int, window_ns: int) -> int:
    """The number of the bucket that an instant lies in."""
    return at_ns * BUCKETS // window_ns


def begins_ns(bucket: int, window_ns: int) -> int:
    """The first instant of a bucket."""
    return -(-bucket * window_ns // BUCKETS)


def slice_max(free: int, limit: int) -> int:
    """How much one worker may borrow at once beyond what it needs now."""
    return min(limit // SLICES, free // FREE_PARTS)


class Ring:
    """The use of one window: the count of each of its newest 101 buckets, and their sum."""

    __slots__ = ("counts", "head", "total")

    def __init__(self, head: int = 0, counts: Iterable[int] = ()) -> None:
        self.head = head
        self.counts = list(counts) or [0] * RING
        self.total = sum(self.counts)
        assert len(self.counts) == RING

    def roll(self, bucket: int) -> None:
        """Go on to a bucket and forget what no window shares with it; never goes back."""
        steps = bucket - self.head
        if steps <= 0:
            return
        if steps >= RING or not self.total:
            self.counts = [0] * RING
            self.total = 0
        else:
            for each in range(self.head + 1, bucket + 1):
                place = each % RING
                self.total -= self.counts[place]
                self.counts[place] = 0
        self.head = bucket

    def lend(self, *, least: int, wish: int, limit: int) -> int:
        """Count at least `least` in the newest bucket, more of a wish if there is plenty.

        Returns:
            What may be used until the bucket ends; 0 when `least` does not fit.
        """
        assert 0 < least <= AMOUNT_MAX
        free = limit - self.total
        if free < least:
            return 0
        amount = max(least, min(wish, slice_max(free, limit)))
        self.counts[self.head % RING] += amount
        self.total += amount
        return amount

    def charge(self, amount: int) -> None:
        """Count what was used already in the newest bucket, even past the limit."""
        assert amount >= 0
        place = self.head % RING
        counted = min(self.counts[place] + amount, AMOUNT_MAX)
        self.total += counted - self.counts[place]
        self.counts[place] = counted

    def give_back(self, bucket: int, amount: int) -> None:
        """Take out of a bucket what was lent in it and not used; nothing once it is forgotten."""
        assert amount >= 0
        if self.head - RING < bucket <= self.head:
            place = bucket % RING
            taken = min(self.counts[place], amount)
            self.counts[place] -= taken
            self.total -= taken

    def fill(self, limit: int) -> None:
        """Close for a whole window: nobody knows any more what was used."""
        self.charge(max(0, min(limit, AMOUNT_MAX) - self.total))

    def opens(self, amount: int, limit: int) -> int:
        """The first bucket in which so much fits if nobody else asks; -1 for never."""
        if amount > limit:
            return -1
        missing = self.total + amount - limit
        if missing <= 0:
            return self.head
        for bucket in range(self.head - BUCKETS, self.head + 1):
            missing -= self.counts[bucket % RING]
            if missing <= 0:
                return bucket + RING
        raise AssertionError("the counts do not add up to their sum")
