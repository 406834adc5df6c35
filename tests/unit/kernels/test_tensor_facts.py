"""What the numbers of a tensor come to."""

import warnings

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from modelkeep.kernels.tensor_facts import are_equal, facts_of, is_counted
from modelkeep.kernels.tensors import TensorPlace

FLOATS = {"FP16": "<f2", "FP32": "<f4", "FP64": "<f8"}


def place(dtype, length, *, offset=0):
    return TensorPlace("t", dtype, (length,), offset, length)


@given(st.sampled_from(sorted(FLOATS)), st.binary(min_size=8, max_size=4000), st.integers(0, 3))
def test_any_bits_are_counted_as_numpy_counts_them(dtype, raw, offset):
    raw = raw[: offset + (len(raw) - offset) // 8 * 8]
    if len(raw) - offset < 8:
        return
    values = np.frombuffer(raw[offset:], FLOATS[dtype])
    found = facts_of(memoryview(raw), place(dtype, len(raw) - offset, offset=offset))
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        finite = np.abs(values[np.isfinite(values)].astype(np.float64))
    assert found.items == len(values)
    assert found.nans == np.isnan(values).sum()
    assert found.infinities == np.isinf(values).sum()
    assert found.negative == np.isneginf(values).sum()
    assert found.largest == (finite.max() if len(finite) else 0)
    assert found.is_zero == bool((values == 0).all())
    assert found.is_constant == (len(set(values.view(f"<u{values.itemsize}").tolist())) == 1)
    assert np.isfinite(found.usual)


def test_bfloat16_is_counted_as_the_upper_half_of_a_float32():
    values = np.array([1.0, -2.5, np.nan, np.inf, -np.inf, 0.0], np.float32)
    raw = memoryview((values.view(np.uint32) >> 16).astype("<u2").tobytes())
    found = facts_of(raw, place("BF16", len(raw)))
    assert (found.nans, found.infinities, found.negative, found.largest) == (1, 2, 1, 2.5)


def test_the_usual_size_is_that_of_all_numbers():
    values = np.random.default_rng(1).standard_normal(1_000_000).astype(np.float32) * 3
    found = facts_of(memoryview(values.tobytes()), place("FP32", values.nbytes))
    assert abs(found.usual - 3) < 0.1


def test_a_lone_nan_is_found_wherever_it_stands():
    for at in (0, 65_535, 65_536, 99_999):
        values = np.ones(100_000, np.float32)
        values[at] = np.nan
        found = facts_of(memoryview(values.tobytes()), place("FP32", values.nbytes))
        assert (found.nans, found.is_constant) == (1, False)


def test_pages_are_given_back_once_and_in_order():
    told = []
    values = np.ones(12_000_000, np.float32)
    facts_of(
        memoryview(values.tobytes()),
        place("FP32", values.nbytes),
        forget=lambda start, stop: told.append((start, stop)),
    )
    assert len(told) == 3
    assert told[0][1] == told[1][0]
    assert told[-1] == (0, values.nbytes)


def test_integers_are_only_asked_whether_they_are_alike():
    zeros, other = np.zeros(1000, np.int32), np.arange(1000, dtype=np.int32)
    assert facts_of(memoryview(zeros.tobytes()), place("INT32", 4000)).is_zero
    found = facts_of(memoryview(other.tobytes()), place("INT32", 4000))
    assert (found.is_zero, found.is_constant, found.usual) == (False, False, 0.0)


def test_only_whole_numbers_of_known_types_are_counted():
    assert is_counted(place("FP32", 8))
    assert not is_counted(place("FP32", 7))
    assert not is_counted(place("FP32", 0))
    assert not is_counted(place("RAW", 8))


def test_equal_bytes_are_equal_and_others_not():
    raw = memoryview(bytes(100) + bytes(99) + b"\x01")
    one, other = place("UINT8", 100), place("UINT8", 100, offset=100)
    assert are_equal(raw, one, one)
    assert not are_equal(raw, one, other)
    assert not are_equal(raw, one, place("UINT8", 99))
