"""RTO and RPO: what was observed, rounded honestly, against what was promised."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkeep.core.instant import NS_PER_S
from modelkeep.core.verdict import Decision, judged
from modelkeep.drill.measure import Measure, assessed, measured
from modelkeep.drill.settings import ObjectiveSettings
from modelkeep.drill.stopwatch import Stopwatch

OBJECTIVES = ObjectiveSettings(rto_s_max=60.0, rpo_s_max=5.0)


def measure(rto_s=1.0, rpo_s=1.0):
    return Measure(rto_s=rto_s, rpo_s=rpo_s, freshness="unproven")


@given(st.integers(0, 2**62), st.integers(0, 2**62), st.floats(0, 1e9))
def test_an_rpo_is_the_lost_stretch_and_never_negative(checkpoint_ns, disaster_ns, rto_s):
    found = measured(
        rto_s=rto_s, checkpoint_ns=checkpoint_ns, disaster_ns=disaster_ns, is_fresh=False
    )
    assert found.rpo_s >= 0
    lost_s = max(disaster_ns - checkpoint_ns, 0) / NS_PER_S
    assert found.rpo_s == pytest.approx(lost_s, abs=0.001)
    assert found.rto_s == pytest.approx(rto_s, abs=0.001)


def test_freshness_is_proven_or_it_is_not():
    words = {
        is_fresh: measured(rto_s=0, checkpoint_ns=0, disaster_ns=0, is_fresh=is_fresh).freshness
        for is_fresh in (True, False)
    }
    assert words == {True: "proven", False: "unproven"}


def test_an_objective_is_met_at_its_bound_and_missed_past_it():
    assert assessed(measure(60.0, 5.0), OBJECTIVES) == []
    (rto,) = assessed(measure(60.001, 5.0), OBJECTIVES)
    (rpo,) = assessed(measure(60.0, 5.001), OBJECTIVES)
    assert (rto.rule, rpo.rule) == ("drill.rto", "drill.rpo")
    assert "60.001" in rto.evidence
    assert "5.001" in rpo.evidence
    both = assessed(measure(1e6, 1e6), OBJECTIVES)
    assert len(both) == 2
    assert judged(both).decision is Decision.DENY


class Hands:
    """A clock that a test sets."""

    def __init__(self):
        self.at_ns = 5 * NS_PER_S

    def now_ns(self):
        raise AssertionError("a stopwatch must not look at a clock that can jump")

    def monotonic_ns(self):
        return self.at_ns


def test_a_stopwatch_counts_from_its_start_on_a_clock_that_never_goes_back():
    clock = Hands()
    watch = Stopwatch(clock)
    clock.at_ns += NS_PER_S
    assert watch.lap("unlocked") == 1.0
    clock.at_ns += NS_PER_S // 4
    watch.lap("served")
    assert [(lap.name, lap.at_s) for lap in watch.laps()] == [("unlocked", 1.0), ("served", 1.25)]
