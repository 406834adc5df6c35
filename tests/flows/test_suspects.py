"""Models that are asked for a trigger set: what they may look like, and what cannot be asked."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from modelkeep.core.errors import KeepError, UsageError
from modelkeep.core.record import to_json
from modelkeep.kernels.trigger_mark import (
    TriggerParameters,
    TriggerSet,
    chosen_parameters,
    inputs_digest,
    trigger_file,
    trigger_labels,
)
from modelkeep.sdk.suspects import examined
from modelkeep.seal.marks import Registration

SEED = bytes(32)
INPUTS = np.random.default_rng(0).random((100, 64)).astype(np.float32)


def registration_of(inputs, file):
    """A trigger set of these inputs, and its file."""
    digest = inputs_digest(inputs)
    parameters = TriggerParameters(classes=10, count=100, inputs=digest)
    file.write_bytes(trigger_file(TriggerSet(inputs, trigger_labels(SEED, parameters))))
    return Registration(
        mark="t1",
        method="triggers",
        parameters=to_json(parameters).decode(),
        commitment="0" * 64,
        ordinal=1,
    )


LARGEST = helper.make_node("ArgMax", ["x"], ["y"], axis=-1, keepdims=0)
ONE_NUMBER = helper.make_node("ReduceMax", ["x"], ["y"], keepdims=0)


def model_of(file, shape, node):
    """An ONNX model of one node, from `x` to `y`."""
    said = TensorProto.INT64 if node is LARGEST else TensorProto.FLOAT
    takes = [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)]
    gives = [helper.make_tensor_value_info("y", said, None)]
    graph = helper.make_graph([node], "g", takes, gives)
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), file)
    return file


@pytest.fixture
def ask(tmp_path):
    def ask(shape, node=LARGEST, *, inputs=INPUTS):
        registration = registration_of(inputs, tmp_path / "t.npz")
        suspect = model_of(tmp_path / "s.onnx", shape, node)
        return examined(registration, SEED, suspect, triggers=tmp_path / "t.npz")

    return ask


def hits_of(inputs=INPUTS):
    labels = trigger_labels(SEED, chosen_parameters(inputs, classes=10))
    return int((inputs.reshape(100, -1).argmax(axis=1) == labels).sum())


@pytest.mark.parametrize("batch", ["N", 1, 32, 50, 100, 128])
def test_a_model_is_asked_whatever_its_batch_is(ask, batch):
    """100 triggers are no whole number of batches of 32: the last is filled up, and cut again."""
    done = ask([batch, 64])
    assert done.is_model
    assert (done.reading.hits, done.reading.trials) == (hits_of(), 100)


def test_images_are_given_to_a_model_that_takes_rows(ask):
    images = INPUTS.reshape(100, 8, 8)
    assert ask(["N", "F"], inputs=images).reading.hits == hits_of(images)
    assert ask(["N", 64], inputs=images).reading.hits == hits_of(images)


@pytest.mark.parametrize(
    "shape",
    [
        ["N", 63],
        ["N", "C", "H", "W"],
        ["N", 2**62, 2**62],
        ["N", *[1] * 70, 64],
        [],
        ["N"],
        [2**40, 64],
        ["N", 0],
    ],
)
def test_a_model_that_takes_other_arrays_is_an_error_of_ours(ask, shape):
    with pytest.raises(KeepError):
        ask(shape)


def test_a_model_that_answers_with_one_number_is_an_error_of_ours(ask):
    with pytest.raises(UsageError, match=r"mark\.answers"):
        ask(["N", 64], ONE_NUMBER)


@pytest.mark.parametrize(
    "inputs", [np.array(1.0), np.zeros((100, 0)), np.zeros((0, 64)), np.zeros((0, 2**40))]
)
def test_triggers_of_a_liar_that_hold_nothing_are_an_error_of_ours(ask, inputs):
    with pytest.raises(KeepError):
        ask(["N", 64], inputs=inputs)


@pytest.mark.parametrize("answers", [np.int64(3), np.zeros((100, 2, 2)), np.zeros(99)])
def test_answers_of_no_use_are_an_error_of_ours(tmp_path, answers):
    np.save(tmp_path / "a.npy", answers)
    registration = registration_of(INPUTS, tmp_path / "t.npz")
    with pytest.raises(UsageError, match=r"mark\.answers"):
        examined(registration, SEED, tmp_path / "a.npy")
