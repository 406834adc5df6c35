"""Two forms of a model agree when labels are equal and numbers are as near as was said."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkeep.core.artifact import Port
from modelkeep.core.errors import IntegrityError, UsageError
from modelkeep.kernels.agreement import ROWS, compared, drawn
from modelkeep.kernels.arrays import NUMPY_BY_DTYPE

NUMBERS = np.array([[1.0, -2.0], [np.nan, np.inf]], "f4")


@given(
    st.sampled_from(sorted(NUMPY_BY_DTYPE)),
    st.lists(st.integers(-1, 5), max_size=4),
    st.sampled_from(ROWS),
    st.integers(0, 2**32),
)
def test_inputs_have_the_form_of_their_port_and_come_from_the_seed(dtype, shape, rows, seed):
    port = Port(name="x", dtype=dtype, shape=tuple(shape))
    (one,), (other,) = (drawn([port], rows, seed=seed).values() for _ in range(2))
    assert one.dtype == NUMPY_BY_DTYPE[dtype]
    assert np.array_equal(one, other)
    free = [rows, *[16] * len(shape)]
    wanted = [free[min(at, 1)] if size < 0 else size for at, size in enumerate(shape)]
    assert list(one.shape) == wanted


def test_texts_are_not_drawn():
    with pytest.raises(UsageError) as refused:
        drawn([Port(name="x", dtype="BYTES", shape=(-1,))], 1, seed=0)
    assert refused.value.code == "conversion.inputs"


def test_equal_answers_agree_and_a_column_is_a_row_of_single_numbers():
    near = NUMBERS + np.array([[5e-5, 0], [0, 0]], "f4")
    labels = np.array(["a", "b"], object)
    wanted = [NUMBERS, labels, np.ones(2)]
    found = [near, labels.copy(), np.ones((2, 1), "f4")]
    numbers, many, largest = compared(wanted, found, rtol=1e-4, atol=1e-5)
    assert (numbers, many) == (6, 2)
    assert 4e-5 < largest < 6e-5


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ([NUMBERS], []),
        ([NUMBERS], [NUMBERS[:1]]),
        ([NUMBERS], [NUMBERS.reshape(1, 4)]),
        ([NUMBERS], [NUMBERS + np.float32(0.001)]),
        ([NUMBERS], [np.where(np.isnan(NUMBERS), 0, NUMBERS)]),
        ([np.array([1, 2])], [np.array([1, 3])]),
        ([np.array(["a"])], [np.array(["b"], object)]),
    ],
)
def test_others_do_not(wanted, found):
    with pytest.raises(IntegrityError) as refused:
        compared(wanted, found, rtol=1e-4, atol=1e-5)
    assert refused.value.code == "conversion.differs"
