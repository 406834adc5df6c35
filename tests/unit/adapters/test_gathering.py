"""Waiting for more records pays, or soon stops."""

from hypothesis import given
from hypothesis import strategies as st

from modelkeep.adapters.gathering import Gathering


def test_what_comes_together_is_waited_for():
    gathering = Gathering()
    gathering.came(7)
    assert not gathering.is_enough(6, 32)
    assert gathering.is_enough(7, 32)
    assert gathering.is_enough(3, 3), "more than are in flight cannot come"


def test_a_target_that_is_reached_grows_slowly_and_never_past_its_bound():
    gathering = Gathering()
    for _ in range(10_000):
        gathering.came(gathering.target)
    assert gathering.target == 16
    gathering.came(1000)
    assert gathering.target == 16


def test_calls_that_bring_nothing_cost_one_vain_wait_in_64_batches_at_most():
    gathering = Gathering()
    vain = 0
    for _ in range(1000):
        if gathering.is_enough(1, 50):
            gathering.came(1)
        else:
            vain += 1
            gathering.gave_up(1)
    assert vain <= 1000 / 64 + 1


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 100)), max_size=200))
def test_the_target_stays_within_its_bounds(events):
    gathering = Gathering()
    for is_enough, count in events:
        (gathering.came if is_enough else gathering.gave_up)(min(count, 16))
        assert 1 <= gathering.target <= 16
