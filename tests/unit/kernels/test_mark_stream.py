"""What is drawn from a seed: the same for ever, and fair."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkeep.kernels.mark_stream import (
    drawn_below,
    drawn_bytes,
    drawn_positions,
    drawn_signs,
)

SEED = bytes(range(32))


def test_streams_are_the_same_for_ever():
    assert drawn_bytes(SEED, "x", 16).hex() == "66dcfd97ab9282adcc3edef3dc7055fc"
    assert drawn_signs(SEED, "x", 8).tolist() == [-1, 1, 1, -1, -1, 1, 1, -1]
    assert drawn_below(SEED, "x", 6, limit=10).tolist() == [6, 0, 3, 1, 0, 9]
    assert drawn_positions(SEED, "x", 6, limit=10).tolist() == [6, 9, 2, 7, 0, 5]
    assert drawn_positions(SEED, "x", 4, limit=10**9).tolist() == [
        220977766, 864790220, 744936033, 605806361,
    ]  # fmt: skip


def test_purposes_are_apart():
    assert drawn_bytes(SEED, "x", 16) != drawn_bytes(SEED, "y", 16)


@given(st.binary(min_size=32, max_size=32), st.integers(1, 400), st.integers(1, 2000))
def test_positions_differ_and_are_in_range(seed, count, limit):
    count = min(count, limit)
    found = drawn_positions(seed, "p", count, limit=limit)
    assert len(set(found.tolist())) == len(found) == count
    assert found.min() >= 0
    assert found.max() < limit


def test_signs_and_numbers_are_fair():
    assert abs(int(drawn_signs(SEED, "s", 100_000).sum())) < 5 * np.sqrt(100_000)
    counts = np.bincount(drawn_below(SEED, "n", 100_000, limit=7), minlength=7)
    assert float((((counts - 100_000 / 7) ** 2) / (100_000 / 7)).sum()) < 30  # 6 degrees: p < 5e-5


@pytest.mark.parametrize("seed", [b"", b"s" * 31])
def test_a_seed_has_32_bytes(seed):
    with pytest.raises(AssertionError):
        drawn_bytes(seed, "x", 1)
