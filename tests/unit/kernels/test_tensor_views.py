"""Unit tests of kernels.tensor_views: the file's own bytes, read-only, and never past its end."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mapped_files import mapped, safetensors_file

from modelkeep.core.artifact import TensorEntry
from modelkeep.core.digest import Digest
from modelkeep.core.errors import IntegrityError, KeepError, UsageError
from modelkeep.kernels.arrays import NUMPY_BY_DTYPE
from modelkeep.kernels.tensor_views import safetensors_dtypes, view_of, views
from modelkeep.kernels.tensors import tensor_entries

DTYPES = [*NUMPY_BY_DTYPE, "BF16", "RAW", "BYTES", "?"]


def entry(dtype, shape, offset, length, name="t"):
    digest = Digest("blake3:" + "0" * 64)
    return TensorEntry(
        name=name, dtype=dtype, shape=shape, offset=offset, length=length, digest=digest
    )


def address(array):
    return array.__array_interface__["data"][0]


def test_every_view_lies_in_the_file_and_cannot_be_written():
    numbers = np.arange(6, dtype=np.float32).reshape(2, 3)
    raw = mapped(
        safetensors_file(
            {
                "byte": ("U8", (1,), b"a"),
                "odd": ("F32", (2, 3), numbers.tobytes()),
                "half": ("BF16", (2,), b"\x80\x3f\x00\x40"),
                "tiny": ("F8_E4M3", (2, 2), b"abcd"),
                "pair": ("C64", (1,), b"abcdefgh"),
                "none": ("F64", (0, 7), b""),
                "one": ("I64", (), b"\x07" + bytes(7)),
            }
        )
    )
    entries = tensor_entries("m.safetensors", raw, "safetensors")
    found = views(raw, entries)
    start = address(np.frombuffer(raw, np.uint8))
    assert {each.name: start + each.offset for each in entries} == {
        name: address(array) for name, array in found.items()
    }
    assert not any(array.flags.writeable for array in found.values())
    assert (found["odd"] == numbers).all()
    assert not found["odd"].flags.aligned
    wide = found["half"].astype(np.uint32) << 16
    assert wide.view(np.float32).tolist() == [1.0, 2.0]
    assert (found["tiny"].dtype, found["tiny"].shape) == (np.uint8, (2, 2))
    assert (found["pair"].dtype, found["pair"].shape) == (np.uint8, (8,))
    assert found["none"].shape == (0, 7)
    assert found["one"] == 7


def test_a_view_keeps_the_file_mapped():
    raw = mapped(b"12345678")
    array = view_of(raw, entry("UINT8", (4,), 2, 4))
    del raw
    assert bytes(array) == b"3456"


@pytest.mark.parametrize(
    ("code", "each"),
    [
        ("tensor.bounds", entry("UINT8", (9,), 0, 9)),
        ("tensor.bounds", entry("UINT8", (1,), 8, 1)),
        ("tensor.bounds", entry("UINT8", (1,), -1, 1)),
        ("tensor.bounds", entry("UINT8", (1,), 9, -1)),
        ("tensor.size", entry("FP32", (1,), 0, 8)),
        ("tensor.size", entry("FP32", (-1, -2), 0, 8)),
        ("tensor.size", entry("FP32", (1,) * 65 + (2,), 0, 8)),
        ("tensor.size", entry("FP32", (1 << 62, 1 << 62), 0, 8)),
    ],
)
def test_an_entry_that_does_not_fit_is_refused(code, each):
    with pytest.raises(IntegrityError) as error:
        view_of(memoryview(b"12345678"), each)
    assert error.value.code == code


def test_two_tensors_of_one_name_are_refused():
    with pytest.raises(UsageError) as error:
        views(memoryview(b"12"), [entry("UINT8", (1,), 0, 1), entry("UINT8", (1,), 1, 1)])
    assert error.value.code == "tensor.ambiguous"


numbers_near = st.integers(-(1 << 70), 1 << 70) | st.integers(-2, 20)


@given(
    st.sampled_from(DTYPES),
    st.lists(numbers_near, max_size=5).map(tuple),
    numbers_near,
    numbers_near,
)
def test_no_entry_leads_out_of_the_file(dtype, shape, offset, length):
    raw = memoryview(bytes(range(16)))
    try:
        array = view_of(raw, entry(dtype, shape, offset, length))
    except KeepError:
        return
    assert array.tobytes() == bytes(raw[offset : offset + length])


def test_a_safetensors_file_names_its_own_types():
    raw = safetensors_file({"a": ("F8_E5M2", (1,), b"a"), "b": ("C64", (1,), bytes(8))})
    assert safetensors_dtypes(memoryview(raw)) == {"a": "F8_E5M2", "b": "C64"}
    assert safetensors_dtypes(memoryview(b"another kind of file")) == {}


@pytest.mark.parametrize("shape", [(0, 2**62), (0, 2**62, 2**62), (2**70, 0)])
def test_nothing_in_a_shape_that_no_array_has_is_refused(shape):
    with pytest.raises(IntegrityError) as refused:
        view_of(memoryview(bytes(8)), entry("FP32", shape, 0, 0))
    assert refused.value.code == "tensor.size"
