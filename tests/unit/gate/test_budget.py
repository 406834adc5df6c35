"""No more is sent again than a share of what was sent, and a few a second."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkeep.gate.budget import WINDOW_S, Budget
from modelkeep.gate.latency import KNOWN_FROM, Latencies


def spent(budget):
    count = 0
    while budget.take():
        count += 1
    return count


@given(st.lists(st.tuples(st.integers(0, 1000), st.floats(0, 20)), max_size=30))
def test_never_more_than_the_share_and_the_floor(steps):
    budget, now_s, calls, taken = Budget(percent=20, per_s_min=3, now_s=0), 0.0, 0, 0
    for many, seconds in steps:
        now_s += seconds
        calls += many
        budget.earn(many, now_s)
        taken += spent(budget)
    assert taken <= 0.2 * calls + 3 * (now_s + WINDOW_S) + 1


def test_what_was_earned_grows_old():
    budget = Budget(percent=20, per_s_min=0, now_s=0)
    budget.earn(1000, 0.0)
    assert budget.left == 200
    budget.earn(0, 5.0)
    assert budget.left == 100
    budget.earn(0, 20.0)
    assert spent(budget) == 0


def test_a_quiet_model_may_still_try_again():
    budget = Budget(percent=20, per_s_min=10, now_s=0)
    assert spent(budget) == 100
    budget.earn(0, 1.0)
    assert spent(budget) == 10


@given(st.lists(st.floats(0, 100), min_size=KNOWN_FROM, max_size=400))
def test_a_quantile_is_exact(seconds):
    latencies = Latencies()
    for each in seconds:
        latencies.note(each)
    slower = sum(each > latencies.quantile(0.95) for each in seconds)
    assert slower <= 0.05 * len(seconds)
    assert latencies.quantile(0.95) in seconds


def test_of_a_few_calls_nothing_is_said():
    latencies = Latencies()
    latencies.note(1.0)
    assert latencies.quantile(0.95) == pytest.approx(float("inf"))
