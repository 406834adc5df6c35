"""No work of a pool outlives the iteration over its results, however that ends."""

import signal
import threading
import time

import pytest

from modelkeep.adapters.thread_workers import ThreadWorkers


@pytest.fixture
def pool():
    made = ThreadWorkers(2)
    yield made
    made.close()


def test_results_come_in_the_order_of_the_items(pool):
    def late(number):
        time.sleep(0.002 * (5 - number % 5))
        return number

    assert list(pool.map(late, range(20))) == list(range(20))


@pytest.mark.parametrize("width", [0, 1, 2, 9])
def test_no_more_run_at_once_than_was_asked_for(pool, width):
    running, most, lock = 0, 0, threading.Lock()

    def count(_):
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.005)
        with lock:
            running -= 1

    list(pool.map(count, range(12), at_once=width))
    assert most == (1 if width == 1 else 2)


@pytest.fixture
def interruptible():
    """As a program is; a test runner's workers may ignore Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_waits_for_what_was_begun(pool):
    ended = []

    def work(number):
        if number == 0:
            for _ in range(2):  # the second one is impatient
                signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
                time.sleep(0.1)
        time.sleep(0.2)
        ended.append(number)

    with pytest.raises(KeyboardInterrupt):
        list(pool.map(work, range(2)))
    at_the_end = list(ended)
    time.sleep(0.3)
    assert 0 in at_the_end
    assert ended == at_the_end


def test_who_stops_listening_leaves_nothing_running(pool):
    ended = []

    def work(number):
        time.sleep(0.05)
        ended.append(number)
        return number

    results = pool.map(work, range(50))
    assert next(results) == 0
    results.close()
    at_the_end = len(ended)
    time.sleep(0.15)
    assert len(ended) == at_the_end < 50
