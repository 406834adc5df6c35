"""The entropy coder: near the bound, exact for every table, with integer decisions."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkeep.core.errors import IntegrityError
from modelkeep.kernels import entropy


@given(st.lists(st.integers(0, 2**31), min_size=1, max_size=256))
def test_frequencies_sum_up_and_forget_no_symbol(counts):
    row = np.zeros((1, 256), np.int64)
    row[0, : len(counts)] = counts
    freqs = entropy.frequencies(row)
    assert freqs.sum() == (entropy.TOTAL if any(counts) else 0)
    assert ((freqs > 0) == (row > 0)).all()


@given(st.lists(st.integers(0, 5000), min_size=1, max_size=256), st.integers(1, 16))
def test_a_table_comes_back_whatever_follows_it(counts, contexts):
    rows = np.zeros((contexts, 256), np.int64)
    rows[0, : len(counts)] = counts
    rows[-1, 7] = 1
    freqs = entropy.frequencies(rows)
    raw = entropy.table_bytes(freqs)
    again, took = entropy.read_table(np.frombuffer(raw + b"\x80\x01rest", np.uint8), contexts)
    assert (again == freqs).all()
    assert took == len(raw)


@given(st.binary(max_size=300), st.integers(1, 16))
def test_no_bytes_are_a_table_that_does_not_sum_up(raw, contexts):
    try:
        freqs, took = entropy.read_table(np.frombuffer(raw, np.uint8), contexts)
    except IntegrityError:
        return
    assert took <= len(raw)
    assert set(freqs.sum(axis=1)) <= {0, entropy.TOTAL}


@pytest.mark.parametrize("chance", [0.5, 0.9, 0.999])
def test_it_comes_within_two_hundredths_of_a_percent_of_the_cost_and_that_near_the_bound(chance):
    symbols = np.random.default_rng(1).geometric(chance, 2**17).clip(1, 255).astype(np.uint8)
    counts = entropy.counted(symbols, None, 1)
    freqs = entropy.frequencies(counts)
    out = np.empty(entropy.size_max(symbols.size), np.uint8)
    size = entropy.encode_into(symbols, None, freqs, out)
    cost = entropy.cost_bytes(counts, freqs)
    shares = counts[counts > 0] / symbols.size
    bound = -(shares * np.log2(shares)).sum() * symbols.size / 8
    assert math.isclose(size - 132, cost, rel_tol=2e-4, abs_tol=70)
    assert cost < bound * 1.01 + 8


@pytest.mark.parametrize("count", [1, 31, 32, 33, 64, 1000])
def test_any_number_of_symbols_comes_back_under_every_table(count):
    rng = np.random.default_rng(count)
    for freq in (1, 2, 3, 2047, 2048, 4094, 4095, 4096):
        row = np.zeros((1, 256), np.uint16)
        row[0, 3], row[0, 9] = freq, entropy.TOTAL - freq
        symbols = np.where(rng.random(count) * 4096 < freq, 3, 9).astype(np.uint8)
        if freq == entropy.TOTAL:
            symbols[:] = 3
        out = np.empty(entropy.size_max(count), np.uint8)
        size = entropy.encode_into(symbols, None, row, out)
        again = np.empty(count, np.uint8)
        assert entropy.decode_into(out[:size], None, row, again) == size
        assert (again == symbols).all()


def test_a_stream_with_other_words_than_it_needs_is_refused():
    symbols = np.tile(np.arange(4, dtype=np.uint8), 100)
    freqs = entropy.frequencies(entropy.counted(symbols, None, 1))
    out = np.empty(entropy.size_max(400), np.uint8)
    size = entropy.encode_into(symbols, None, freqs, out)
    coded, again = out[:size], np.empty(400, np.uint8)
    fewer, more, low = coded[:-2].copy(), np.append(coded, [1, 2]).astype(np.uint8), coded.copy()
    fewer[0] -= 1
    more[0] += 1
    low[4:8] = [255, 255, 0, 0]  # the first state is below 2^16
    for changed in (fewer, more, low, coded[:-1], coded[:99], coded[:0]):
        with pytest.raises(IntegrityError, match=r"codec\.stream"):
            entropy.decode_into(changed, None, freqs, again)
    with pytest.raises(IntegrityError, match=r"codec\.stream"):
        entropy.decode_into(coded, None, freqs, again[:-1])
