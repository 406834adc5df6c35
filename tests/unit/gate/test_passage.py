"""The table of one call, walked to its ends: what the order promises, for every path there is."""

import pytest

from modelkeep.gate.passage import TRANSITIONS, Passage, Stage, Step


def paths(stage=Stage.ARRIVED, walked=()):
    """Every path through the table, as tuples of stages."""
    walked = (*walked, stage)
    if not TRANSITIONS[stage]:
        yield walked
    for step, following in TRANSITIONS[stage].items():
        if step is Step.PART:  # the only step that stays where it is
            assert following is stage
            continue
        assert following not in walked, "the table must not loop"
        yield from paths(following, walked)


def test_nothing_is_sent_before_it_is_recorded():
    sent = [path for path in paths() if path[-1] is Stage.SENT]
    assert sent
    for path in sent:
        assert path[-2] is Stage.RECORDED


def test_nobody_unknown_is_judged_answered_or_sent_anything_but_a_refusal():
    for path in paths():
        if Stage.KNOWN not in path:
            assert path[-1] in (Stage.TURNED_AWAY, Stage.LOST)
            assert set(path) <= {
                Stage.ARRIVED, Stage.COUNTED, Stage.TURNED_AWAY, Stage.LOST,
            }  # fmt: skip


def test_an_answer_is_judged_before_it_is_computed_and_cleared_before_it_is_recorded():
    for path in paths():
        if Stage.ANSWERED in path:
            assert Stage.JUDGED in path[: path.index(Stage.ANSWERED)]
        if Stage.RECORDED in path:
            before = path[path.index(Stage.RECORDED) - 1]
            assert before in (Stage.CLEARED, Stage.REFUSED)


def test_parts_of_a_stream_leave_only_when_its_intent_is_durable():
    leaving = [stage for stage, steps in TRANSITIONS.items() if Step.PART in steps]
    assert leaving == [Stage.OPENED]
    entering = [
        (stage, step)
        for stage, steps in TRANSITIONS.items()
        for step, following in steps.items()
        if following is Stage.OPENED and step is not Step.PART
    ]
    assert entering == [(Stage.JUDGED, Step.OPEN)]


def test_every_stage_is_reached_and_every_step_used():
    assert {stage for path in paths() for stage in path} == set(Stage) == set(TRANSITIONS)
    assert {step for steps in TRANSITIONS.values() for step in steps} == set(Step)


def test_a_step_out_of_order_stops_the_call():
    for stage, steps in TRANSITIONS.items():
        for step in set(Step) - set(steps):
            passage = Passage()
            passage.stage = stage
            with pytest.raises(AssertionError):
                passage.step(step)
            assert passage.stage is stage
