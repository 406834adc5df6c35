"""Least loaded first, equals in turn."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from modelkeep.gate.balance import least_loaded, warmth, weighed


@given(st.lists(st.integers(0, 50), min_size=1, max_size=20), st.integers(0, 10**9))
def test_the_choice_is_one_of_the_least_loaded(loads, turn):
    assert loads[least_loaded(loads, turn=turn)] == min(loads)


def test_equals_take_turns():
    chosen = Counter(least_loaded([3, 3, 3], turn=turn) for turn in range(30))
    assert chosen == {0: 10, 1: 10, 2: 10}


def test_a_replica_that_is_back_gets_more_from_second_to_second():
    shares = []
    for seconds in (0.0, 1.0, 2.0, 4.0):
        given_to = [0, 0]
        for turn in range(110):
            weights = (1.0, warmth(seconds, 4.0))
            loads = [weighed(many, each) for many, each in zip(given_to, weights, strict=True)]
            given_to[least_loaded(loads, turn=turn)] += 1
        shares.append(given_to[1])
    assert shares == sorted(shares)
    assert shares[0] == 10
    assert shares[-1] == 55


@given(st.floats(0, 100), st.floats(0.1, 100))
def test_warmth_is_a_share_and_grows(seconds, slow_start_s):
    assert 0.1 <= warmth(seconds, slow_start_s) <= warmth(seconds + 1, slow_start_s) <= 1


def test_without_a_slow_start_everybody_is_warm_at_once():
    assert warmth(0.0, 0.0) == 1
