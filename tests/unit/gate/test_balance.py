"""Least loaded first, equals in turn."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from modelkeep.gate.balance import least_loaded


@given(st.lists(st.integers(0, 50), min_size=1, max_size=20), st.integers(0, 10**9))
def test_the_choice_is_one_of_the_least_loaded(loads, turn):
    assert loads[least_loaded(loads, turn=turn)] == min(loads)


def test_equals_take_turns():
    chosen = Counter(least_loaded([3, 3, 3], turn=turn) for turn in range(30))
    assert chosen == {0: 10, 1: 10, 2: 10}
