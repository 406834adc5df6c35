"""Trigger sets: made of the owner's examples, labelled by the seed only when they are fixed."""

from math import sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from marked_models import npz

from modelkeep.core.errors import IntegrityError, UsageError
from modelkeep.core.record import replaced
from modelkeep.kernels.trigger_mark import (
    TriggerParameters,
    array_in,
    chosen_parameters,
    classes_said,
    inputs_digest,
    matches_in,
    trigger_file,
    trigger_inputs,
    trigger_labels,
    trigger_set,
)

SEED = bytes(range(32))
EXAMPLES = np.random.default_rng(0).random((200, 8, 8)).astype(np.float32)
TRIGGERS = trigger_set(SEED, EXAMPLES, 10)
PARAMETERS = chosen_parameters(TRIGGERS.inputs, classes=10)


def test_each_value_is_in_the_range_of_its_feature():
    assert TRIGGERS.inputs.shape == (100, 8, 8)
    assert TRIGGERS.inputs.dtype == np.float32
    tables = np.random.default_rng(1).random((50, 3)) * [1, 1000, 0] + [0, 5000, 7]
    for examples in (EXAMPLES, tables, tables.astype(np.int32), tables.astype(np.uint16)):
        found = trigger_inputs(SEED, examples)
        assert found.dtype == examples.dtype
        assert (found >= examples.min(axis=0)).all()
        assert (found <= examples.max(axis=0)).all()


def test_no_trigger_is_an_example():
    near = np.abs(TRIGGERS.inputs[:, None] - EXAMPLES[None]).sum(axis=(2, 3))
    assert near.min() > 1.0


def test_a_seed_gives_the_same_triggers_for_ever():
    examples = np.arange(96, dtype=np.int64).reshape(16, 6)
    found = trigger_set(SEED, examples, 7, count=3)
    assert found.inputs.tolist() == [
        [84, 85, 86, 87, 88, 89],
        [66, 67, 68, 69, 70, 71],
        [36, 37, 38, 39, 40, 41],
    ]
    assert found.labels.tolist() == [6, 0, 0]


def test_labels_are_matched_by_whoever_gives_them_as_classes_or_as_scores():
    scores = np.eye(10, dtype=np.float32)[TRIGGERS.labels]
    for answers in (TRIGGERS.labels, scores, TRIGGERS.labels.astype(np.int32)[:, None]):
        assert matches_in(answers, SEED, PARAMETERS) == 100
    assert matches_in(np.full(100, -1), SEED, PARAMETERS) == 0
    assert matches_in(np.full(100, np.nan), SEED, PARAMETERS) == 0


def test_over_seeds_the_matches_are_binomial_whatever_is_answered(count):
    always = np.full(100, 3)
    number = count(300, full=20_000)
    draws = [matches_in(always, at.to_bytes(32, "big"), PARAMETERS) for at in range(number)]
    assert abs(np.mean(draws) - 10) < 5 * 3 / sqrt(number)
    assert abs(np.var(draws) - 9) < 5 * 9 * sqrt(2.2 / number)


def test_labels_follow_the_triggers_so_that_no_triggers_can_be_chosen_to_fit():
    """An owner who swaps one trigger for one that every good model answers gets new labels."""
    other = TRIGGERS.inputs.copy()
    other[0] = EXAMPLES[0]
    again = trigger_labels(SEED, chosen_parameters(other, classes=10))
    assert (again == TRIGGERS.labels).mean() < 0.4


def test_the_digest_is_of_type_shape_and_bytes():
    one = np.arange(6, dtype=np.float32).reshape(2, 3)
    others = [one.reshape(3, 2), one.astype(np.float64), one.view(np.int32), one + 1]
    assert len({inputs_digest(each) for each in (one, *others)}) == 5
    assert inputs_digest(one.astype(">f4")) == inputs_digest(one)
    assert inputs_digest(np.asfortranarray(one)) == inputs_digest(one)


@pytest.mark.parametrize(
    "answers",
    [np.zeros(99), np.zeros((100, 2, 2)), np.zeros(0), np.zeros((0, 10)), np.int64(3)],
)
def test_answers_of_another_shape_are_refused(answers):
    with pytest.raises(UsageError, match=r"mark\.answers"):
        matches_in(answers, SEED, PARAMETERS)


@pytest.mark.parametrize(
    "examples",
    [np.zeros(5), np.zeros((1, 5)), np.array([["a"], ["b"]]), np.array([[object()], [None]])],
)
def test_examples_must_be_several_arrays_of_numbers(examples):
    with pytest.raises(UsageError, match=r"mark\.examples"):
        trigger_inputs(SEED, examples)


@pytest.mark.parametrize(
    "changes", [{"classes": 1}, {"classes": 2**40}, {"count": 0}, {"count": 2**40}, {"inputs": "x"}]
)
def test_parameters_out_of_bounds_are_refused(changes):
    with pytest.raises(UsageError, match=r"mark\.parameters"):
        trigger_labels(SEED, replaced(PARAMETERS, **changes))


def test_a_file_of_triggers_is_read_back_without_a_pickle():
    raw = memoryview(trigger_file(TRIGGERS))
    assert np.array_equal(array_in(raw, "inputs"), TRIGGERS.inputs)
    assert np.array_equal(array_in(raw, "labels"), TRIGGERS.labels)
    with pytest.raises(UsageError, match=r"mark\.array"):
        array_in(raw, "other")
    with pytest.raises(UsageError, match=r"mark\.array"):
        array_in(raw)


@given(st.binary(max_size=300), st.integers(0, 2000), st.integers(0, 255))
def test_a_damaged_file_is_an_error_of_ours_or_numbers(noise, at, value):
    raw = npz({"inputs": np.arange(6.0)})
    raw[at % len(raw)] = value
    for each in (raw, noise, raw[: at % len(raw)]):
        try:
            array_in(memoryview(bytes(each)), "inputs")
        except (UsageError, IntegrityError):
            continue


def test_of_a_models_outputs_the_classes_are_taken_before_the_scores():
    labels, scores = np.arange(4), np.eye(4)
    said = classes_said({"scores": [scores[:2], scores[2:]], "label": [labels[:2], labels[2:]]})
    assert said.tolist() == [0, 1, 2, 3]
    assert classes_said({"scores": [scores]}).shape == (4, 4)
    with pytest.raises(UsageError, match=r"mark\.answers"):
        classes_said({"text": [np.array(["a"])]})


@pytest.mark.parametrize(
    "parts",
    [
        [],
        [np.float32(1)],
        [np.array(3)],
        [np.eye(3), np.eye(4)],
        [np.arange(3), np.eye(3)],
        [[{1: 0.5}]],
        [None],
        [np.zeros((2, 3, 4))],
    ],
)
def test_outputs_of_no_use_are_passed_over_or_refused(parts):
    with pytest.raises(UsageError, match=r"mark\.answers"):
        classes_said({"odd": parts})
    assert classes_said({"odd": parts, "label": [np.arange(2), np.arange(1)]}).tolist() == [0, 1, 0]


def test_parameters_are_bound_to_the_triggers():
    assert TriggerParameters(classes=10, count=100, inputs=inputs_digest(TRIGGERS.inputs)) == (
        PARAMETERS
    )
