"""What is taken away from an answer is gone, and nothing else changes."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from modelkeep.kernels.arrays import NUMPY_BY_DTYPE
from modelkeep.kernels.outputs import labelled, rounded
from modelkeep.kernels.wire import FLOAT_DTYPES, array_of, tensor_of

SHAPES = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)


@st.composite
def outputs(draw):
    dtype = draw(st.sampled_from(sorted(FLOAT_DTYPES)))
    array = draw(hnp.arrays(NUMPY_BY_DTYPE[dtype], SHAPES))
    return tensor_of("y", dtype, array)


def tensor(values, dtype="FP32"):
    return tensor_of("y", dtype, np.array(values, NUMPY_BY_DTYPE[dtype]))


def values(output):
    return array_of(output).tolist()


@given(outputs(), st.integers(0, 15))
def test_rounding_keeps_the_form_and_what_is_no_number(output, decimals):
    done = rounded(output, decimals)
    assert (done.name, done.dtype, done.shape) == (output.name, output.dtype, output.shape)
    before, after = array_of(output), array_of(done)
    finite = np.isfinite(before)
    assert np.isfinite(after[finite]).all()
    assert np.array_equal(before[~finite], after[~finite], equal_nan=True)


@given(outputs(), st.integers(0, 15))
def test_nothing_moves_further_than_half_a_digit(output, decimals):
    finite = np.isfinite(array_of(output))
    before = array_of(output)[finite].astype(np.float64)
    after = array_of(rounded(output, decimals))[finite].astype(np.float64)
    coarse = float(np.finfo(NUMPY_BY_DTYPE[output.dtype]).eps)
    assert (np.abs(after - before) <= 0.5 * 10.0**-decimals * 1.001 + coarse * abs(before)).all()


@given(st.lists(st.floats(-1000, 1000, width=32), min_size=1, max_size=8), st.integers(0, 4))
def test_what_is_left_is_one_of_few_values(numbers, decimals):
    """Each result is the nearest of its type to a decimal number of so many digits."""
    for got in values(rounded(tensor(numbers), decimals)):
        assert np.float32(f"{got:.{decimals}f}") == np.float32(got)
        assert math.copysign(1, got) == 1 or got < 0, "the sign of a zero tells what was there"


def test_half_precision_is_not_rounded_into_infinity():
    assert values(rounded(tensor([60000.0, 1000.126], "FP16"), 2)) == [60000.0, 1000.0]


def test_a_number_without_digits_behind_the_point_stays_bit_for_bit():
    large = tensor([1e308, -1.7e300, 2.0**53 + 2], "FP64")
    assert rounded(large, 15).raw == large.raw


@given(outputs())
def test_a_row_becomes_one_at_its_largest_and_nothing_else(output):
    done = labelled(output)
    assert (done.name, done.dtype, done.shape) == (output.name, output.dtype, output.shape)
    before, after = array_of(output), array_of(done)
    if before.size == 0:
        return
    width = before.shape[-1] if before.ndim else 1
    for row, made in zip(before.reshape(-1, width), after.reshape(-1, width), strict=True):
        if np.isnan(row).any():
            assert np.isnan(made).all(), "no label is made up"
        else:
            assert sorted(made.tolist()) == [0.0] * (width - 1) + [1.0]
            assert row[made.argmax()] == row.max()


@given(outputs())
def test_labels_of_labels_are_the_same(output):
    once = labelled(output)
    assert np.array_equal(array_of(labelled(once)), array_of(once), equal_nan=True)


@pytest.mark.parametrize("dtype", sorted(set(NUMPY_BY_DTYPE) - FLOAT_DTYPES))
def test_what_is_no_floating_point_passes_untouched(dtype):
    output = tensor([[0, 1, 1]], dtype)
    assert rounded(output, 0) is output
    assert labelled(output) is output


def test_of_equals_the_first_wins_and_a_number_alone_is_its_own_row():
    assert values(labelled(tensor([[0.5, 0.5], [-1.0, math.inf]]))) == [[1.0, 0.0], [0.0, 1.0]]
    assert values(labelled(tensor(0.3))) == 1.0
    assert values(labelled(tensor([0.1, 0.9]), is_row_each=True)) == [1.0, 1.0]
