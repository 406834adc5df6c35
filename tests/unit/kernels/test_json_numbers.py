"""Long arrays are read as the careful way reads them, or left to it."""

import json
import struct

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from modelkeep.core.errors import IntegrityError
from modelkeep.core.record import json_decoder
from modelkeep.kernels.json_numbers import long_numbers
from modelkeep.kernels.wire import ELEMENT_BYTES, FLOAT_DTYPES, packed

_floats = json_decoder(list[float], what="data")
_integers = json_decoder(list[int], what="data")
NUMBERS = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False),
    st.integers(-(2**70), 2**70),
    st.booleans(),
    st.text(max_size=2),
    st.lists(st.integers(0, 3), max_size=2),
)
TYPED = sorted(set(ELEMENT_BYTES) - {"BOOL"})


def careful(dtype, raw):
    decode = _floats if dtype in FLOAT_DTYPES else _integers
    try:
        return packed(dtype, decode(raw))
    except (IntegrityError, OverflowError, struct.error):
        return None


@given(st.lists(NUMBERS, max_size=8), st.sampled_from(TYPED), st.sampled_from(["", " ", "\n"]))
@example([1, 2.5], "FP32", "")
@example([1.0], "INT64", "")
@example([2**63], "UINT64", "")
@example([-1], "UINT8", "")
@example([70000.0], "FP16", "")
def test_what_is_taken_is_what_the_careful_way_would_have_made(values, dtype, space):
    raw = (space + json.dumps(values) + space).encode()
    fast = long_numbers(dtype, raw)
    assert fast is None or fast == careful(dtype, raw)


@given(st.binary(max_size=64), st.sampled_from(TYPED))
def test_no_bytes_make_it_do_anything_but_say_no_or_agree(raw, dtype):
    fast = long_numbers(dtype, raw)
    assert fast is None or fast == careful(dtype, raw)


@pytest.mark.parametrize("dtype", sorted(FLOAT_DTYPES - {"FP16"}))
def test_a_long_array_is_taken(dtype):
    values = np.random.default_rng(1).random(2000).tolist()
    raw = json.dumps(values).encode()
    fast = long_numbers(dtype, raw)
    assert fast is not None
    assert fast == careful(dtype, raw)


def test_a_text_too_long_to_keep_a_parser_for_is_read_too():
    raw = ("[" + ",".join(["1.25"] * 1_000_000) + "]").encode()
    assert long_numbers("FP32", raw) == struct.pack("<f", 1.25) * 1_000_000
