"""What a model's policy makes of its outputs, by the schema's ports."""

import numpy as np

from modelkeep.core.artifact import Port, Schema
from modelkeep.core.policy import ANYTHING, Output, Policy
from modelkeep.gate.disclosure import limit_of
from modelkeep.kernels.arrays import NUMPY_BY_DTYPE
from modelkeep.kernels.wire import array_of, tensor_of

SCHEMA = Schema(
    inputs=(),
    outputs=(
        Port(name="label", dtype="INT64", shape=(-1,)),
        Port(name="probabilities", dtype="FP32", shape=(-1, 3)),
        Port(name="score", dtype="FP32", shape=(-1,)),
        Port(name="logits", dtype="FP64", shape=(3,)),
    ),
)
VALUES = ([2, 0], [[0.111, 0.222, 0.667], [0.5, 0.3, 0.2]], [0.777, 0.123], [0.1, 0.9, 0.2])


def left(policy):
    limit = limit_of(policy, SCHEMA)
    outputs = [
        tensor_of(port.name, port.dtype, np.array(values, NUMPY_BY_DTYPE[port.dtype]))
        for port, values in zip(SCHEMA.outputs, VALUES, strict=True)
    ]
    return [np.round(array_of(each).astype(float), 6).tolist() for each in limit(outputs)]


def test_where_all_of_an_answer_leaves_nothing_is_called():
    assert limit_of(ANYTHING, SCHEMA) is None


def test_rounded_outputs_have_so_many_digits():
    got = left(Policy(output=Output.ROUNDED, decimals=1))
    assert got == [[2, 0], [[0.1, 0.2, 0.7], [0.5, 0.3, 0.2]], [0.8, 0.1], [0.1, 0.9, 0.2]]


def test_labels_say_which_class_and_rows_are_never_compared_with_each_other():
    got = left(Policy(output=Output.LABELS))
    assert got == [[2, 0], [[0, 0, 1], [1, 0, 0]], [1, 1], [0, 1, 0]]
