"""Files of one tensor: what others read from them is what was in it."""

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkeep.core.errors import UsageError
from modelkeep.kernels.npy import npy_array
from modelkeep.kernels.safetensors import ELEMENTS, safetensors_layout
from modelkeep.kernels.tensorfiles import npy_header, safetensors_header

TYPES = {"BOOL": bool, "FP16": np.float16, "FP32": np.float32, "INT64": np.int64, "UINT8": np.uint8}
shapes = st.lists(st.integers(0, 5), max_size=4).map(tuple)


@given(dtype=st.sampled_from(sorted(TYPES)), shape=shapes)
def test_numpy_reads_what_stands_behind_the_header(dtype, shape):
    array = np.arange(np.prod(shape, dtype=int)).astype(TYPES[dtype]).reshape(shape)
    raw = npy_header(dtype, shape) + array.tobytes()
    assert len(npy_header(dtype, shape)) % 64 == 0
    read = np.load(io.BytesIO(raw), allow_pickle=False)
    assert (read.dtype, read.shape) == (array.dtype, array.shape)
    assert np.array_equal(read, array)
    seen = npy_array(memoryview(raw))
    assert seen is not None
    assert (seen.dtype, seen.shape) == (dtype, shape)


BITS = {oip: bits for oip, bits in ELEMENTS.values() if oip != "RAW"}


@given(dtype=st.sampled_from(sorted(BITS)), shape=shapes, name=st.text(min_size=1, max_size=20))
def test_safetensors_is_read_as_the_tensor_that_it_was(dtype, shape, name):
    if name == "__metadata__" or any("\ud800" <= char <= "\udfff" for char in name):
        return
    length = int(np.prod(shape, dtype=int)) * BITS[dtype] // 8
    raw = safetensors_header(name, dtype, shape, length) + bytes(length)
    (tensor,) = safetensors_layout(memoryview(raw)).tensors
    assert (tensor.name, tensor.dtype, tensor.shape, tensor.length) == (name, dtype, shape, length)


def test_a_type_that_a_format_does_not_have_is_refused():
    for dtype in ("BF16", "RAW"):
        with pytest.raises(UsageError) as refused:
            npy_header(dtype, (2,))
        assert refused.value.code == "tensor.dtype"
    with pytest.raises(UsageError):
        safetensors_header("x", "RAW", (2,), 2)
