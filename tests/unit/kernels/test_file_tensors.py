"""Unit tests of kernels.file_tensors and kernels.strided: every number in its place, or refused."""

import io
import pickle
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_files import Kept, View, legacy_file, zip_file

from modelkeep.core.errors import IntegrityError, KeepError, UsageError
from modelkeep.kernels.file_tensors import head_of, pieces_of
from modelkeep.kernels.safetensors import safetensors_layout
from modelkeep.kernels.strided import row_major

NUMBERS = np.arange(24, dtype="<f4")
FLOATS = Kept("0", "FloatStorage", NUMBERS.tobytes())


def file_of(raw, name="m"):
    """The whole safetensors file that a file becomes, and its tensors' bytes."""
    head, pieces = head_of(pieces_of(name, memoryview(raw)))
    blocks = [b"".join(map(bytes, parts(each))) for each in pieces]
    whole = head + b"".join(blocks)
    safetensors_layout(memoryview(whole))
    return {each.name: (each, block) for each, block in zip(pieces, blocks, strict=True)}


def parts(piece):
    return row_major(
        piece.view, piece.shape, piece.stride, item_bytes=piece.item_bytes, swapped=piece.swapped
    )


@pytest.mark.parametrize("make", [zip_file, legacy_file])
def test_views_of_one_storage_come_out_as_their_own_numbers(make):
    views = [
        View("whole", "0", (4, 6), (6, 1)),
        View("turned", "0", (6, 4), (1, 6)),
        View("row", "0", (6,), (1,), 12),
        View("column", "0", (4,), (6,), 3),
        View("steps", "0", (2, 2), (12, 3)),
        View("spread", "0", (3, 2), (0, 1)),
        View("scalar", "0", (), (), 5),
        View("empty", "0", (0, 3), (3, 1)),
    ]
    found = file_of(make(views, [FLOATS]))
    grid = NUMBERS.reshape(4, 6)
    wanted = {
        "whole": grid, "turned": grid.T, "row": grid[2], "column": grid[:, 3],
        "steps": grid[::2, ::3][:, :2], "spread": np.stack([grid[0, :2]] * 3),
        "scalar": grid[0, 5], "empty": grid[:0, :3],
    }  # fmt: skip
    for name, array in wanted.items():
        piece, block = found[name]
        assert (piece.dtype, block) == ("F32", np.ascontiguousarray(array).tobytes()), name
        assert piece.shares == "storage 0"


def test_types_without_a_twin_in_numpy_keep_their_bits():
    storages = [
        Kept("0", "BFloat16Storage", bytes(range(8))),
        Kept("1", "BoolStorage", b"\x01\x00"),
        Kept("2", "UntypedStorage", bytes(range(8))),
    ]
    views = [
        View("b", "0", (4,), (1,)),
        View("t", "1", (2,), (1,)),
        View("u", "2", (4,), (1,), 0, "uint16"),
        View("e", "2", (8,), (1,), 0, "float8_e4m3fn"),
    ]
    found = file_of(zip_file(views, storages))
    assert [found[name][0].dtype for name in "btue"] == ["BF16", "BOOL", "U16", "F8_E4M3"]
    assert found["b"][1] == found["u"][1] == found["e"][1] == bytes(range(8))


def test_nested_names_are_joined_by_dots():
    found = file_of(zip_file([View("w", "0", (24,), (1,))], [FLOATS], nested="model"))
    assert list(found) == ["model.w"]


def test_a_big_endian_file_comes_out_little_endian():
    kept = Kept("0", "FloatStorage", NUMBERS.byteswap().tobytes())
    found = file_of(zip_file([View("w", "0", (24,), (1,))], [kept], order="big"))
    assert found["w"][1] == NUMBERS.tobytes()


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_pickle_of_arrays_comes_out_in_every_protocol(protocol):
    arrays = {
        "c": NUMBERS.reshape(4, 6),
        "f": np.asfortranarray(NUMBERS.reshape(4, 6)),
        "big": np.arange(5, dtype=">i4"),
        "inner": {"h": np.float16([1, 2]), "b": np.array([True, False])},
        "long": np.arange(2000, dtype="u1"),
    }
    found = file_of(pickle.dumps(arrays, protocol))
    assert found["c"][1] == found["f"][1] == NUMBERS.tobytes()
    assert found["big"][1] == np.arange(5, dtype="<i4").tobytes()
    assert found["inner.h"][1] == np.float16([1, 2]).tobytes()
    assert found["long"][1] == arrays["long"].tobytes()


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_an_archive_of_arrays_comes_out(save):
    into = io.BytesIO()
    save(into, c=NUMBERS.reshape(4, 6), f=np.asfortranarray(NUMBERS.reshape(4, 6)))
    found = file_of(into.getvalue())
    assert found["c"][1] == found["f"][1] == NUMBERS.tobytes()


def test_one_array_is_called_as_its_file():
    into = io.BytesIO()
    np.save(into, NUMBERS)
    assert list(file_of(into.getvalue(), "features")) == ["features"]


def saved(array):
    into = io.BytesIO()
    np.save(into, array, allow_pickle=True)
    return into.getvalue()


@pytest.mark.parametrize(
    "raw",
    [
        zip_file([View("c", "0", (1,), (1,))], [Kept("0", "ComplexFloatStorage", bytes(8))]),
        zip_file([View("w", "0", (1,), (1,)), View("w", "0", (2,), (1,))], [FLOATS]),
        legacy_file([View("w", "0", (1 << 20, 1 << 6), (0, 0))], [FLOATS]),
        saved(np.zeros(2, "c8")),
        saved(np.zeros(2, [("a", "f4")])),
        saved(np.array([1, "x"], object)),
        pickle.dumps({"a": 1}),
    ],
)
def test_what_has_no_form_is_refused(raw):
    with pytest.raises(UsageError):
        head_of(pieces_of("m", memoryview(raw)))


@pytest.mark.parametrize(
    ("shape", "stride", "offset"), [((25,), (1,), 0), ((4, 6), (7, 1), 0), ((1,), (1,), 24)]
)  # fmt: skip
def test_a_tensor_past_its_storage_is_refused(shape, stride, offset):
    view = View("w", "0", shape, stride, offset)
    with pytest.raises(IntegrityError):
        pieces_of("m", memoryview(zip_file([view], [FLOATS])))


@given(
    st.sampled_from([zip_file, legacy_file]),
    st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 255)), max_size=3),
)
@settings(deadline=None, max_examples=150)  # fmt: skip
def test_a_changed_file_comes_out_or_is_refused(make, changes):
    raw = bytearray(
        make([View("a", "0", (4, 6), (6, 1)), View("b", "0", (6, 4), (1, 6))], [FLOATS])
    )
    for at, value in changes:
        raw[at % len(raw)] = value
    with suppress(KeepError):
        file_of(bytes(raw))
