"""Who computes what in a step: nobody starves, nobody waits for the slowest, bounds hold."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkeep.core.errors import UnavailableError
from modelkeep.gate.text_turns import TurnBounds, Turns

BOUNDS = TurnBounds(
    streams_max=4, queue_max=8, room_tokens_max=1000, chunk_tokens=16, chunks_beside=1
)


def turns_of(*prompts, bounds=BOUNDS, room=0):
    turns = Turns(bounds)
    for number, prompt in enumerate(prompts):
        turns.arrive(number, prompt_tokens=prompt, room_tokens=room or prompt + 10)
    turns.joined()
    return turns


def test_who_speaks_gets_a_token_in_every_step_beside_a_long_prompt():
    turns = turns_of(5)
    assert [share.is_last for share in turns.step()] == [True]
    turns.arrive(9, prompt_tokens=160, room_tokens=200)
    turns.joined()
    for step in range(10):
        shares = {share.stream: share for share in turns.step()}
        assert (shares[0].start, shares[0].length) == (5 + step, 1)
        assert (shares[9].start, shares[9].length) == (16 * step, 16)
    assert shares[9].is_last


def test_a_short_prompt_does_not_wait_behind_a_long_one():
    turns = turns_of(160, 16)
    turns.step()
    assert {share.stream for share in turns.step()} <= {0, 1}
    assert turns.step()[0].stream == 1  # it speaks since the first step


def test_chunks_begin_at_multiples_whatever_else_is_computed():
    for company in ((), (7,), (40, 3, 90)):
        turns = turns_of(100, *company)
        seen = [each for _ in range(40) for each in turns.step() if each.stream == 0][:7]
        assert [(each.start, each.length) for each in seen] == [
            *((16 * at, 16) for at in range(6)),
            (96, 4),
        ]
        assert [each.is_last for each in seen] == [False] * 6 + [True]


def test_past_the_queue_a_text_is_refused_and_one_that_leaves_makes_room():
    turns = turns_of(*[10] * 12)
    assert (turns.active_count, turns.waiting_count) == (4, 8)
    with pytest.raises(UnavailableError, match=r"text\.busy"):
        turns.demand_places(1)
    turns.leave(11)
    turns.demand_places(1)
    turns.leave(2)
    assert turns.joined() == (4,)


def test_a_text_joins_only_where_all_that_it_may_say_has_room():
    turns = turns_of(10, 10, 10, room=400)
    assert turns.active_count == 2
    turns.leave(0)
    assert turns.joined() == (2,)


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("arrive"), st.integers(1, 80), st.integers(0, 40)),
            st.tuples(st.just("leave"), st.integers(0, 30), st.just(0)),
            st.tuples(st.just("step"), st.just(0), st.just(0)),
        ),
        max_size=80,
    )
)
def test_in_any_order_of_events_bounds_hold_and_everybody_gets_on(events):
    turns, number, left, at = Turns(BOUNDS), 0, {}, {}
    for what, first, second in events:
        if what == "arrive":
            try:
                turns.demand_places(1)
            except UnavailableError:
                continue
            turns.arrive(number, prompt_tokens=first, room_tokens=first + second)
            left[number], at[number] = (first, first + second), 0
            number += 1
        elif what == "leave":
            turns.leave(first)
            left.pop(first, None)
        else:
            turns.joined()
            for share in turns.step():
                assert share.start == at[share.stream]
                at[share.stream] += share.length
                if at[share.stream] >= left[share.stream][1] or share.stream not in left:
                    turns.leave(share.stream)
                    left.pop(share.stream)
        assert turns.active_count <= BOUNDS.streams_max
        assert turns.active_count + turns.waiting_count == len(left)
    for _ in range(2000):  # whatever is left is said in the end
        turns.joined()
        for share in turns.step():
            at[share.stream] += share.length
            if at[share.stream] >= left[share.stream][1]:
                turns.leave(share.stream)
                left.pop(share.stream)
    assert not left
