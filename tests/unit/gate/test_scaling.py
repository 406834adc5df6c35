"""How many replicas a model gets: up at once, down slowly, never outside the bounds."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from modelkeep.gate.scaling import QUIET_S, Bounds, Pace, paced, scaled

BOUNDS = Bounds(least=1, most=8, calls=10)


def after(loads, *, running=1, bounds=BOUNDS):
    """The number of replicas after each second of a load."""
    pace, counts = Pace(), []
    for second, load in enumerate(loads):
        running, pace = scaled(paced(pace, load), running, bounds, now_s=float(second))
        counts.append(running)
    return counts


def test_more_calls_get_more_replicas_within_seconds_and_never_more_than_permitted():
    counts = after([0] * 3 + [60] * 10)
    assert counts[2] == 1
    assert counts[8] >= 6
    assert after([1000] * 30)[-1] == BOUNDS.most


def test_a_burst_does_not_start_everything_at_once():
    assert after([1000] * 2)[:2] == [2, 4]


def test_fewer_calls_end_replicas_one_by_one_after_a_while():
    counts = after([80] * 20 + [0] * int(QUIET_S * 9))
    assert counts[19] == 8
    assert counts[25] == 8
    assert counts[-1] == 1
    steps = [before - now for before, now in pairwise(counts[20:])]
    assert set(steps) == {0, 1}


def test_a_load_that_swings_keeps_its_replicas():
    swinging = ([40] * 20 + [5] * 20) * 10
    counts = after(swinging)
    assert len(set(counts[60:])) == 1


def test_what_an_operator_changes_holds_at_once():
    assert scaled(Pace(), 5, Bounds(least=1, most=3, calls=10), now_s=0)[0] == 3
    assert scaled(Pace(), 1, Bounds(least=4, most=8, calls=10), now_s=0)[0] == 4
    assert scaled(Pace(), 4, Bounds(least=4, most=2, calls=10), now_s=0)[0] == 2


@given(
    st.lists(st.integers(0, 10_000), max_size=200),
    st.integers(1, 70),
    st.integers(1, 70),
    st.integers(1, 70),
)
def test_the_bounds_hold_for_every_load(loads, least, most, running):
    bounds = Bounds(least=least, most=most, calls=10)
    for count in after(loads, running=running, bounds=bounds):
        assert min(least, most) <= count <= most
