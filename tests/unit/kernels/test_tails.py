"""Tails of the binomial distribution: exact, never too small, at every size."""

from fractions import Fraction
from math import comb

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkeep.kernels.tails import SMALLEST, binomial_tail, log_binomial_tail, randomised_tail


def exact(hits, trials, classes):
    """P[X >= hits] for X ~ Bin(trials, 1/classes), as a fraction."""
    ways = range(max(hits, 0), trials + 1)
    total = sum(comb(trials, number) * (classes - 1) ** (trials - number) for number in ways)
    return Fraction(total, classes**trials)


@given(st.integers(0, 300), st.sampled_from([2, 3, 10, 1000]), st.floats(-0.01, 1.01))
def test_it_is_the_sum_of_the_terms(trials, classes, share):
    hits = round(share * trials)
    wanted = float(exact(hits, trials, classes))
    assert binomial_tail(hits, trials, 1 / classes) == pytest.approx(
        wanted, rel=1e-10, abs=SMALLEST
    )


def test_large_numbers_cost_little_and_stay_right():
    assert binomial_tail(500_000, 1_000_000, 0.5) == pytest.approx(0.5003989, abs=1e-7)
    assert log_binomial_tail(600_000, 1_000_000, 0.5) == pytest.approx(-20141.528, abs=0.001)


def test_a_tail_below_what_a_float_holds_is_not_zero():
    assert binomial_tail(4096, 4096, 0.5) == SMALLEST
    assert log_binomial_tail(4096, 4096, 0.5) == pytest.approx(-2839.13, abs=0.01)


@given(st.integers(0, 60), st.integers(0, 60), st.sampled_from([2, 10]))
def test_the_randomised_tail_lies_between_two_tails(trials, hits, classes):
    hits, p = min(hits, trials), 1 / classes
    below, above = (randomised_tail(hits, trials, p, u) for u in (0.0, 1.0))
    assert below == pytest.approx(float(exact(hits + 1, trials, classes)), rel=1e-9, abs=1e-300)
    assert above == pytest.approx(float(exact(hits, trials, classes)), rel=1e-9)


@pytest.mark.parametrize(("trials", "p"), [(-1, 0.5), (1, 0.0), (1, 1.0)])
def test_no_distribution_is_refused(trials, p):
    with pytest.raises(ValueError, match="binomial"):
        binomial_tail(0, trials, p)


def test_a_draw_outside_of_the_interval_is_refused():
    with pytest.raises(ValueError, match="u is not"):
        randomised_tail(1, 2, 0.5, 1.5)
