"""The largest values of an output, with their places, as the protocol writes them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from modelkeep.kernels.arrays import NUMPY_BY_DTYPE
from modelkeep.kernels.classes import classified
from modelkeep.kernels.wire import tensor_of, values_of

DTYPES = sorted(set(NUMPY_BY_DTYPE) - {"BOOL"})


def found(values, count, dtype="FP32"):
    output = tensor_of("y", dtype, np.array(values, NUMPY_BY_DTYPE[dtype]))
    made = classified(output, count)
    assert (made.name, made.dtype) == ("y", "BYTES")
    return made.shape, list(values_of(made))


def test_each_row_has_its_own():
    assert found([[0.25, 0.5, 0.25], [1, 0, 2]], 2) == (
        (2, 2),
        ["0.500000:1", "0.250000:0", "2.000000:2", "1.000000:0"],
    )


def test_there_are_no_more_than_there_are():
    assert found([[1, 2]], 9) == ((1, 2), ["2.000000:1", "1.000000:0"])


def test_a_single_axis_is_one_row():
    assert found([3, 9, 9], 2, "INT64") == ((2,), ["9:1", "9:2"])


def test_further_axes_are_part_of_the_row():
    assert found([[[1, 2], [4, 3]]], 1, "INT8") == ((1, 1), ["4:2"])


@pytest.mark.parametrize("dtype", ["INT64", "UINT64"])
def test_large_integers_are_exact(dtype):
    most = int(np.iinfo(NUMPY_BY_DTYPE[dtype]).max)
    assert found([[most - 1, most]], 1, dtype)[1] == [f"{most}:1"]


@given(
    st.sampled_from(DTYPES).flatmap(
        lambda dtype: st.tuples(
            st.just(dtype),
            hnp.arrays(NUMPY_BY_DTYPE[dtype], hnp.array_shapes(min_dims=2, max_dims=2)),
        )
    ),
    st.integers(1, 8),
)
def test_they_are_the_largest_in_order(drawn, count):
    dtype, array = drawn
    if array.dtype.kind == "f":
        array = np.nan_to_num(array)
    _, texts = found(array, count, dtype)
    kept = min(count, array.shape[1])
    for row, start in zip(array.tolist(), range(0, len(texts), kept), strict=True):
        places = [int(text.partition(":")[2]) for text in texts[start : start + kept]]
        order = sorted(range(len(row)), key=lambda at: (-row[at], at))
        assert places == order[:kept]
