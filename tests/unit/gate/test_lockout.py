"""Who guesses waits, longer each time; who does not is not held up by those who do."""

from modelkeep.core.errors import LimitError
from modelkeep.core.instant import NS_PER_S
from modelkeep.gate import lockout
from modelkeep.gate.lockout import Lockout

HERE, THERE = "192.0.2.0/24", "198.51.100.0/24"


def waits_s(lock, account, network, at_s):
    """Seconds that an attempt has to wait; 0 if it was counted."""
    try:
        lock.attempt(account, network, now_ns=at_s * NS_PER_S)
    except LimitError as error:
        return error.context["retry_after_s"]
    return 0


def guessed(lock, account, network, times, at_s=0):
    for _ in range(times):
        assert waits_s(lock, account, network, at_s) == 0


def test_the_wait_grows_up_to_its_bound():
    lock = Lockout(failures_free=3, delay_s_max=10)
    guessed(lock, "anna", HERE, 3)
    at_s, waits = 0, []
    for _ in range(6):
        wait = waits_s(lock, "anna", HERE, at_s)
        waits.append(wait)
        at_s += wait
        assert waits_s(lock, "anna", HERE, at_s) == 0
    assert waits == [1, 2, 4, 8, 10, 10]


def test_several_gateways_together_let_guesses_pass_at_the_pace_of_one():
    def passed(gateways, seconds, asked):
        """Guesses that pass when every gateway is asked so often each second."""
        locks = [
            Lockout(failures_free=6, delay_s_max=60, gateways=gateways) for _ in range(gateways)
        ]
        return sum(
            waits_s(lock, "anna", HERE, at_s) == 0
            for at_s in range(seconds)
            for lock in locks
            for _ in range(asked)
        )

    doublings = 6  # of one second, up to a minute
    for gateways in (2, 3, 6):
        assert passed(gateways, 1, 10) == 6
        more = passed(gateways, 20_000, 1) - passed(1, 20_000, 1)
        assert 0 <= more <= doublings * gateways


def test_an_attempt_that_waits_is_not_counted():
    lock = Lockout(failures_free=1, delay_s_max=100)
    guessed(lock, "anna", HERE, 1)
    assert {waits_s(lock, "anna", HERE, 0) for _ in range(50)} == {1}


def test_a_right_password_is_as_if_there_had_been_none():
    lock = Lockout(failures_free=2, delay_s_max=100)
    for _ in range(20):
        guessed(lock, "anna", HERE, 1)
        lock.forgive("anna", HERE, now_ns=0)


def test_guesses_elsewhere_do_not_lock_out_whoever_logged_in_here():
    lock = Lockout(failures_free=2, delay_s_max=900)
    guessed(lock, "anna", HERE, 1)
    lock.forgive("anna", HERE, now_ns=0)
    guessed(lock, "anna", THERE, 2)
    assert waits_s(lock, "anna", THERE, 0) > 0
    assert waits_s(lock, "anna", HERE, 0) == 0
    assert waits_s(lock, "anna", "203.0.113.0/24", 0) > 0


def test_guesses_from_where_somebody_logged_in_count_as_well():
    lock = Lockout(failures_free=2, delay_s_max=900)
    lock.forgive("anna", HERE, now_ns=0)
    guessed(lock, "anna", HERE, 2)
    assert waits_s(lock, "anna", HERE, 0) > 0


def test_one_network_cannot_try_every_account():
    lock = Lockout(failures_free=2, delay_s_max=900)
    for number in range(2 * lockout.NETWORK_SHARE):
        guessed(lock, f"account-{number}", HERE, 1)
    assert waits_s(lock, "one-more", HERE, 0) > 0
    assert waits_s(lock, "one-more", THERE, 0) == 0


def test_what_nobody_adds_to_is_forgotten_after_a_day():
    lock = Lockout(failures_free=1, delay_s_max=10)
    guessed(lock, "anna", HERE, 1)
    assert waits_s(lock, "anna", HERE, 0) > 0
    guessed(lock, "anna", HERE, 1, at_s=86_402)


def test_what_is_counted_is_bounded(monkeypatch):
    monkeypatch.setattr(lockout, "COUNTED_MAX", 10)
    lock = Lockout(failures_free=5, delay_s_max=10)
    for number in range(100):
        guessed(lock, f"account-{number}", f"network-{number}", 1)
        lock.forgive(f"known-{number}", f"network-{number}", now_ns=0)
    assert len(lock._counts) == 10
    assert len(lock._known) == 10
