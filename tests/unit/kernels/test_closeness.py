"""How far two tensors are apart."""

import math

import numpy as np
import pytest

from modelkeep.kernels.closeness import farthest
from modelkeep.kernels.wire import tensor_of


def tensor(values, dtype="FP32"):
    return tensor_of("y", dtype, np.array(values))


@pytest.mark.parametrize(
    ("one", "other", "apart"),
    [
        ([1.0, 2.0], [1.0, 2.0], 0.0),
        ([1.0, 2.0], [1.5, 1.0], 1.0),
        ([math.inf], [math.inf], 0.0),
        ([math.inf], [1.0], math.inf),
        ([math.nan], [1.0], math.inf),
        ([1.0], [[1.0]], math.inf),
        ([], [], 0.0),
    ],
)
def test_the_farthest_pair_counts(one, other, apart):
    assert farthest(tensor(one), tensor(other)) == apart


def test_another_type_is_infinitely_far():
    assert farthest(tensor([1]), tensor([1], "INT64")) == math.inf
