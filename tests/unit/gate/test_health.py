"""Ejection and return, as a machine that Hypothesis drives."""

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from modelkeep.gate.health import Health, is_silent, may_eject
from modelkeep.gate.pool_settings import PoolSettings

SETTINGS = PoolSettings(failures_to_eject=3, ejection_s=5.0, ejection_s_max=20.0)


class HealthOfSome(RuleBasedStateMachine):
    """A few replicas; each step is what a group does with one of them."""

    def __init__(self):
        super().__init__()
        self.now_s = 100.0
        self.all = [Health() for _ in range(4)]
        self.in_a_row = [0] * 4

    @rule(seconds=st.floats(0, 40))
    def time_passes(self, seconds):
        self.now_s += seconds

    @rule(which=st.integers(0, 3))
    def succeeds(self, which):
        self.all[which].succeeded()
        self.in_a_row[which] = 0

    @rule(which=st.integers(0, 3))
    def fails(self, which):
        health = self.all[which]
        wants = health.failed(SETTINGS)
        self.in_a_row[which] += 1
        assert wants == (self.in_a_row[which] >= 3 and not health.is_ejected)
        out = sum(each.is_ejected for each in self.all)
        if wants and may_eject(out, len(self.all), SETTINGS):
            before = health.ejections
            health.eject(self.now_s, SETTINGS)
            self.in_a_row[which] = 0
            assert 4.999 < health.until_s - self.now_s < 20.001
            assert 1 <= health.ejections <= before + 1

    @precondition(lambda self: any(each.is_ejected for each in self.all))
    @rule()
    def those_whose_time_is_over_return(self):
        for at, health in enumerate(self.all):
            over = health.is_ejected and self.now_s >= health.until_s
            assert health.may_return(self.now_s) == over
            if over:
                health.returned()
                self.in_a_row[at] = 0

    @invariant()
    def never_more_than_half_are_out(self):
        assert sum(each.is_ejected for each in self.all) <= 2


TestHealthOfSome = HealthOfSome.TestCase


def test_the_last_replica_is_never_ejected_and_one_of_two_may_be():
    assert not may_eject(0, 1, PoolSettings())
    assert may_eject(0, 2, PoolSettings(ejected_percent_max=1))
    assert not may_eject(1, 2, PoolSettings(ejected_percent_max=100))
    assert may_eject(4, 10, PoolSettings())
    assert not may_eject(5, 10, PoolSettings())


def test_each_ejection_is_longer_until_it_went_well_for_a_while():
    health = Health()
    lasted = []
    now_s = 0.0
    for _ in range(6):
        health.eject(now_s, SETTINGS)
        lasted.append(health.until_s - now_s)
        now_s = health.until_s + 1
        health.returned()
    assert lasted == [5, 10, 15, 20, 20, 20]
    health.eject(now_s + 100, SETTINGS)
    assert health.until_s - (now_s + 100) == 5


def test_silence_is_measured_by_what_the_model_usually_needs():
    settings = PoolSettings(suspect_s=1.0, first_s=10.0)
    assert not is_silent(9.9, -1.0, settings)
    assert is_silent(10.1, -1.0, settings)
    assert not is_silent(1.0, 0.001, settings)
    assert is_silent(1.1, 0.001, settings)
    assert not is_silent(7.9, 2.0, settings)
    assert is_silent(8.1, 2.0, settings)
