"""Goal: whoever asks for a lot does not make others wait, and nobody waits for nothing.

One place serves all: calls leave one after the other, and the order they went in is what counts.
"""

import asyncio
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkeep.core.errors import UnavailableError
from modelkeep.gate.fairness import FairQueue
from modelkeep.gate.limit_settings import QueueSettings

S = 10**9


class Hall:
    """A queue whose clock the test turns; `went` is the order in which calls had their turn."""

    def __init__(self, room=1, shared=0, **settings):
        self.at_ns = S
        self.went = []
        self.refused = []
        self.tasks = []
        self.queue = FairQueue(
            QueueSettings(**settings),
            room=(room, shared or room),
            make_turn=asyncio.get_running_loop().create_future,
            now_ns=lambda: self.at_ns,
        )

    async def _call(self, name, priority):
        try:
            await self.queue.enter(("tenant", name), priority)
        except UnavailableError as error:
            self.refused.append((name, error.context["retry_after_s"]))
        else:
            self.went.append(name)

    async def come(self, name, many=1, *, priority=4):
        for _ in range(many):
            self.tasks.append(asyncio.create_task(self._call(name, priority)))
        await asyncio.sleep(0)  # they come
        await asyncio.sleep(0)  # who lost its place for them hears of it

    async def serve(self, many, *, each_s=0.001):
        for _ in range(many):
            self.at_ns += int(each_s * S)
            if self.queue.in_flight:
                self.queue.leave()
            await asyncio.sleep(0)


def play(act, **knobs):
    async def whole():
        hall = Hall(**knobs)
        await act(hall)
        for each in hall.tasks:
            each.cancel()
        await asyncio.gather(*hall.tasks, return_exceptions=True)

    asyncio.run(whole())


def test_who_finds_room_does_not_wait():
    async def act(hall):
        entering = hall.queue.enter(("t", "a"))
        with pytest.raises(StopIteration):
            entering.send(None)  # it never suspended
        assert hall.queue.in_flight == 1

    play(act, room=2)


def test_one_with_a_thousand_calls_gets_as_many_turns_as_one_with_one_at_a_time():
    async def act(hall):
        await hall.come("hostile", 1000)
        for _ in range(50):
            await hall.come("honest")
            before = len(hall.went)
            await hall.serve(2)
            assert "honest" in hall.went[before:]

    play(act, room=1)


def test_a_step_of_priority_doubles_the_share_and_nobody_starves():
    async def act(hall):
        for name, priority in (("low", 3), ("usual", 4), ("high", 5)):
            await hall.come(name, 200, priority=priority)
        await hall.serve(140)
        shares = Counter(hall.went[1:141])
        assert shares["high"] == pytest.approx(80, abs=3)
        assert shares["usual"] == pytest.approx(40, abs=3)
        assert shares["low"] == pytest.approx(20, abs=3)

    play(act)


def test_who_had_turns_and_comes_back_does_not_go_before_those_who_waited():
    async def act(hall):
        await hall.come("holder")
        await hall.come("patient", 50)
        for _ in range(20):  # leaves its line empty each time, so that it would count as new
            await hall.come("sly")
            await hall.serve(1)
        shares = Counter(hall.went[1:])
        assert abs(shares["sly"] - shares["patient"]) <= 2

    play(act)


def test_when_the_room_to_wait_is_full_the_lowest_priority_is_refused_first():
    async def act(hall):
        await hall.come("holder")
        await hall.come("low", 10, priority=0)
        await hall.come("high", 4, priority=9)
        assert [name for name, _ in hall.refused] == ["low"] * 4
        await hall.come("low", 1, priority=0)
        assert [name for name, _ in hall.refused] == ["low"] * 5
        assert all(after >= 1 for _, after in hall.refused)

    play(act, waiting_max=10)


def test_among_equals_the_longest_line_is_refused_first():
    async def act(hall):
        await hall.come("holder")
        await hall.come("hostile", 10)
        await hall.come("honest", 2)
        assert [name for name, _ in hall.refused] == ["hostile"] * 2
        await hall.serve(3)
        assert hall.went.count("honest") >= 1

    play(act, waiting_max=10)


def test_a_line_has_a_bound_of_its_own():
    async def act(hall):
        await hall.come("holder")
        await hall.come("hostile", 100)
        assert len(hall.refused) == 95

    play(act, waiting_each_max=5)


def test_who_would_wait_too_long_is_refused_at_once_and_told_when_to_come_again():
    async def act(hall):
        await hall.come("slow", 40)
        await hall.serve(20, each_s=1.0)
        assert not hall.refused
        await hall.come("slow", 40)
        assert hall.refused
        assert all(10 <= after <= 60 for _, after in hall.refused)

    play(act, wait_s_max=30.0)


def test_whose_time_runs_out_while_it_waits_is_refused():
    async def act(hall):
        await hall.come("a", 3)
        hall.at_ns += 2 * S
        hall.queue.tend((1, 1))
        await asyncio.sleep(0)
        assert len(hall.refused) == 2
        assert hall.queue.waiting == 0

    play(act, wait_s_max=1.0)


def test_more_room_lets_waiting_calls_in():
    async def act(hall):
        await hall.come("a", 10)
        hall.queue.tend((4, 4))
        await asyncio.sleep(0)
        assert len(hall.went) == 4

    play(act)


def test_while_several_wait_fewer_calls_are_under_way():
    async def act(hall):
        await hall.come("hostile", 100)
        assert hall.queue.in_flight == 8
        await hall.come("honest")
        await hall.serve(8)
        assert hall.went[8:] == ["hostile", "honest"]  # with one call ahead of it, not seven
        assert hall.queue.in_flight == 2
        await hall.serve(30)
        assert hall.queue.in_flight == 2
        await hall.serve(4, each_s=0.5)  # the honest one was not seen for more than a second
        assert hall.queue.in_flight == 8

    play(act, room=8, shared=2)


def test_who_goes_away_with_its_turn_just_given_passes_it_on():
    async def act(hall):
        await hall.come("a", 3)
        hall.queue.leave()  # the second call has its turn, and does not know yet
        hall.tasks[1].cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert hall.went == ["a", "a"]
        assert (hall.queue.in_flight, hall.queue.waiting) == (1, 0)

    play(act)


@given(
    st.lists(st.tuples(st.sampled_from("abcleavegonetend"), st.integers(0, 9)), max_size=120),
    st.integers(1, 4),
)
def test_no_order_of_events_loses_a_turn_or_gives_one_twice(steps, room):
    async def act(hall):
        for step, number in steps:
            if step in "abc":
                await hall.come(step, 1 + number % 3, priority=number)
            elif step in "leav":
                await hall.serve(1, each_s=0.1 * number)
            elif step == "g" and hall.tasks:
                hall.tasks[number * 7 % len(hall.tasks)].cancel()
            elif step == "n":
                hall.queue.leave() if hall.queue.in_flight else None
                if hall.tasks:
                    hall.tasks[number * 5 % len(hall.tasks)].cancel()
            else:
                hall.queue.tend((room, room))
            assert 0 <= hall.queue.in_flight <= room
            assert 0 <= hall.queue.waiting <= 8
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        waiting = [each for each in hall.tasks if not each.done()]
        assert hall.queue.waiting == len(waiting)
        await hall.serve(100)
        assert hall.queue.is_idle()
        assert not hall.queue._lines
        assert not hall.queue._heap
        assert hall.queue._weights == 0

    play(act, room=room, waiting_max=8, wait_s_max=1.0)
