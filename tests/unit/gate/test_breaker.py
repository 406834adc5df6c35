"""A circuit opens after failures in a row, lets one call try, and closes when it is answered."""

from hypothesis import given
from hypothesis import strategies as st

from modelkeep.gate.breaker import Breaker, Circuit
from modelkeep.gate.pool_settings import PoolSettings

SETTINGS = PoolSettings(open_after_failures=3, open_s=1.0, open_s_max=4.0)


def opened():
    breaker = Breaker(SETTINGS)
    for _ in range(3):
        breaker.failed(0.0)
    return breaker


def test_failures_in_a_row_open_it_and_an_answer_between_them_does_not():
    breaker = Breaker(SETTINGS)
    for _ in range(5):
        breaker.failed(0.0)
        breaker.failed(0.0)
        breaker.succeeded()
    assert breaker.state is Circuit.CLOSED
    assert not opened().permits(0.9)


def test_one_call_at_a_time_tries_and_an_answer_closes():
    breaker = opened()
    assert [breaker.permits(1.0) for _ in range(4)] == [True, False, False, False]
    breaker.succeeded()
    assert all(breaker.permits(1.0) for _ in range(4))


def test_each_failed_try_keeps_it_open_for_longer_up_to_a_bound():
    breaker, now_s, waits = opened(), 0.0, []
    for _ in range(4):
        wait_s = breaker.retry_after_s(now_s)
        waits.append(wait_s)
        now_s += wait_s
        assert breaker.permits(now_s)
        breaker.failed(now_s)
    assert waits == [1.0, 2.0, 4.0, 4.0]


def test_a_try_that_is_never_heard_of_again_does_not_keep_it_shut():
    breaker = opened()
    assert breaker.permits(1.0)
    assert breaker.permits(2.0)


@given(st.lists(st.tuples(st.sampled_from("afp"), st.floats(0, 5)), max_size=60))
def test_whatever_happens_it_asks_again_within_its_longest_time(steps):
    breaker, now_s = Breaker(SETTINGS), 0.0
    for what, seconds in steps:
        now_s += seconds
        if what == "a":
            breaker.succeeded()
        elif what == "f":
            breaker.failed(now_s)
        else:
            breaker.permits(now_s)
        assert breaker.retry_after_s(now_s) <= SETTINGS.open_s_max
    assert breaker.permits(now_s + SETTINGS.open_s_max)
