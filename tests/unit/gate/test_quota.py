"""Goal: no window ever holds more than its limit, and little less. Against a list that is added up.

Time goes on in steps of any size, also none; slices are used in their bucket, in part, or given
back late; some is charged unasked.
"""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkeep.gate.quota import (
    AMOUNT_MAX,
    BUCKETS,
    RING,
    SLICES,
    Ring,
    begins_ns,
    bucket_of,
    slice_max,
)

WINDOWS_NS = st.sampled_from([1_000_000, 10**9, 60 * 10**9, 86_400 * 10**9])
STEPS = st.lists(
    st.tuples(
        st.one_of(st.integers(0, 40), st.integers(0, 10_000), st.integers(0, 3_000_000)),
        st.integers(1, 40),  # least
        st.integers(0, 100),  # wish
        st.integers(0, 100),  # percent of a slice that is used, the rest is given back
        st.integers(0, 3),  # steps later
    ),
    max_size=60,
)


def most_in_any_window(used, window_ns):
    """The greatest sum of any closed window, by adding up from every moment something was used."""
    return max(
        (
            sum(amount for at, amount in used if start <= at <= start + window_ns)
            for start, _ in used
        ),
        default=0,
    )


@pytest.mark.verify("limits")
@given(st.integers(0, 10**18), WINDOWS_NS, st.integers(1, 5_000), STEPS)
def test_no_window_ever_holds_more_than_the_limit(start_ns, window_ns, limit, steps):
    ring, now_ns, used, returns = Ring(), start_ns, [], []
    for number, (gap, least, wish, percent, later) in enumerate(steps):
        now_ns += gap * window_ns // 1_000_000
        bucket = bucket_of(now_ns, window_ns)
        ring.roll(bucket)
        for due, into, amount in [each for each in returns if each[0] <= number]:
            ring.give_back(into, amount)
            returns.remove((due, into, amount))
        amount = ring.lend(least=least, wish=wish, limit=limit)
        if amount:
            taken = max(least, amount * percent // 100)
            used.append((now_ns, taken))
            returns.append((number + later, bucket, amount - taken))
    assert most_in_any_window(used, window_ns) <= limit


@given(WINDOWS_NS, st.integers(1, 5_000), STEPS)
def test_who_is_refused_has_used_the_limit_in_a_window_and_one_bucket(window_ns, limit, steps):
    ring, now_ns, used = Ring(), 0, []
    for gap, least, wish, _, _ in steps:
        now_ns += gap * window_ns // 1_000_000
        bucket = bucket_of(now_ns, window_ns)
        ring.roll(bucket)
        recent = sum(amount for at, amount in used if at > bucket - RING)
        amount = ring.lend(least=least, wish=wish, limit=limit)
        assert (amount == 0) == (recent + least > limit)
        assert amount == 0 or least <= amount <= max(least, slice_max(limit - recent, limit))
        if amount:
            used.append((bucket, amount))


@given(STEPS, st.integers(1, 500), st.integers(1, 600))
def test_what_is_refused_fits_exactly_when_it_is_said_to(steps, limit, least):
    ring = Ring()
    for gap, each, wish, _, _ in steps:
        ring.roll(ring.head + gap % 30)
        ring.lend(least=each, wish=wish, limit=limit)
    opens = ring.opens(least, limit)
    if least > limit:
        assert opens == -1
        return
    if opens > ring.head:
        ring.roll(opens - 1)
        assert not Ring(ring.head, ring.counts).lend(least=least, wish=0, limit=limit)
    ring.roll(opens)
    assert ring.lend(least=least, wish=0, limit=limit) == least


@given(st.lists(st.tuples(st.integers(0, 250), st.integers(-300, 300), st.integers(0, 2**60))))
def test_the_sum_is_always_that_of_the_counts_and_none_is_below_zero(changes):
    ring = Ring()
    for step, back, amount in changes:
        ring.roll(ring.head + step - 50)  # backwards too: that moves nothing
        if back < 0:
            ring.give_back(ring.head + back, amount)
        else:
            ring.charge(amount)
        assert ring.total == sum(ring.counts)
        assert min(ring.counts) >= 0
        assert ring.total < 2**53  # exact in the doubles of Redis


@given(st.integers(0, 2**62), WINDOWS_NS)
def test_a_bucket_begins_where_its_numbers_begin(at_ns, window_ns):
    bucket = bucket_of(at_ns, window_ns)
    assert begins_ns(bucket, window_ns) <= at_ns < begins_ns(bucket + 1, window_ns)
    assert bucket_of(begins_ns(bucket, window_ns), window_ns) == bucket


def test_steady_demand_gets_at_least_ninety_eight_of_a_hundred():
    window_ns, limit, ring = 60 * 10**9, 6000, Ring()
    got = []
    for tick in range(4 * 60 * 200):  # four minutes, 200 calls a second: twice the limit
        now_ns = tick * 5_000_000
        ring.roll(bucket_of(now_ns, window_ns))
        if ring.lend(least=1, wish=1, limit=limit):
            got.append(now_ns)
    for start in range(60, 180):
        inside = sum(start * 10**9 <= each < (start + 60) * 10**9 for each in got)
        assert limit * 0.98 <= inside <= limit


def test_damage_closes_for_exactly_one_window_and_a_bucket():
    ring = Ring(1000)
    ring.fill(50)
    ring.roll(1000 + BUCKETS)
    assert not ring.lend(least=1, wish=1, limit=50)
    ring.roll(1000 + RING)
    assert ring.lend(least=50, wish=1, limit=50) == 50


def test_charges_past_every_bound_stay_within_what_a_file_can_hold():
    ring = Ring()
    for _ in range(RING):
        ring.charge(AMOUNT_MAX)
        ring.charge(AMOUNT_MAX)
        ring.roll(ring.head + 1)
    assert ring.total <= RING * AMOUNT_MAX < 2**63


def test_a_slice_is_small_and_gets_smaller_towards_the_end():
    sizes = [slice_max(free, 1_000_000) for free in (1_000_000, 50_000, 5_000, 100, 7)]
    assert sizes == [1_000_000 // SLICES, 976, 625, 12, 0]
    assert all(one >= other for one, other in pairwise(sizes))
