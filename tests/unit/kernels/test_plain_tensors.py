"""Tensors of every format as safetensors: as their own library has them, or refused."""

import io
import json
from contextlib import suppress
from pathlib import Path

import numpy as np
import onnx
import pytest
import safetensors
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from modelkeep.core.errors import KeepError, UsageError
from modelkeep.kernels.plain_tensors import Cut, cuts_of, layout_of, unpacked
from modelkeep.kernels.tensors import identify, places_of

VECTORS = Path(__file__).parents[2] / "vectors"
LAYOUTS, PLAIN = VECTORS / "layouts", VECTORS / "plain_tensors"
DTYPES = {"F32": "<f4", "F64": "<f8", "F16": "<f2", "I64": "<i8", "I32": "<i4", "BOOL": "?"}


def converted(files):
    """The safetensors file of some files, made of whole views: its tensors, and its bytes."""
    views = {path: memoryview(raw) for path, raw in files.items()}
    kinds = {path: identify(view) for path, view in views.items()}
    cuts = []
    for path, places in places_of(views, kinds).items():
        pieces = [Cut(p.name, p.dtype, p.shape, path, p.offset, p.length) for p in places]
        blank = bytearray(views[path])
        for place in places:  # what a tensor holds is never looked at
            blank[place.offset : place.offset + place.length] = bytes(place.length)
        found = cuts_of(path, memoryview(blank), kinds[path], pieces)
        cuts += [cut for cut in found if kinds[path] != "unknown"]
    head, ordered = layout_of(cuts)
    raw = head
    for cut in ordered:
        piece = views[cut.path][cut.offset : cut.offset + cut.length]
        raw += unpacked(cut, piece) if cut.is_packed else bytes(piece)
    return dict(safetensors.deserialize(raw)), raw


def arrays(found):
    return {
        name: np.frombuffer(each["data"], DTYPES[each["dtype"]]).reshape(each["shape"])
        for name, each in found.items()
    }


def code_of(raw, name="x"):
    with pytest.raises(UsageError) as refused:
        converted({name: raw})
    return refused.value.code


# ---- torch -------------------------------------------------------------------------------------


def test_a_checkpoint_comes_out_as_the_libraries_own_file():
    """Bit for bit: tied tensors and slices each have their own numbers."""
    found, raw = converted({"views.pt": (PLAIN / "views.pt").read_bytes()})
    wanted = (PLAIN / "views.safetensors").read_bytes()
    assert found == dict(safetensors.deserialize(wanted))
    assert len(raw) == len(wanted)


@pytest.mark.parametrize("name", ["turned", "strided", "quantised", "complex"])
def test_what_would_come_out_wrong_is_refused(name):
    assert code_of((PLAIN / f"{name}.pt").read_bytes()) == "tensors.form"


@pytest.mark.parametrize("name", ["checkpoint.pt", "module.pt", "stored.npz", "float.npy"])
def test_every_tensor_of_a_file_is_there(name):
    wanted = json.loads((LAYOUTS / "expected.json").read_text())[name]["tensors"]
    found, _ = converted({name: (LAYOUTS / name).read_bytes()})
    assert {key: each["shape"] for key, each in found.items()} == {
        key: each["shape"] for key, each in wanted.items()
    }


@pytest.mark.parametrize(
    "name", ["packed.npz", "fortran.npy", "objects.npy", "big.npy", "small.gguf", "state-4.pt"]
)
def test_a_file_with_a_tensor_that_has_no_form_is_refused(name):
    assert code_of((LAYOUTS / name).read_bytes()) == "tensors.form"


# ---- NumPy -------------------------------------------------------------------------------------


@given(
    st.dictionaries(
        st.text("abc.é", min_size=1, max_size=5),
        st.tuples(
            st.sampled_from(["<f4", "<f8", "<f2", "<i8", "<i4", "?"]),
            st.lists(st.integers(0, 4), max_size=3),
        ),
        max_size=5,
    )
)
def test_arrays_come_out_as_they_went_in(wanted):
    rng = np.random.default_rng(1)
    made = {
        name: rng.integers(0, 2, shape).astype(dtype) for name, (dtype, shape) in wanted.items()
    }
    saved = io.BytesIO()
    np.savez(saved, **made)
    found, raw = converted({"x.npz": saved.getvalue()})
    assert {name: each.tobytes() for name, each in made.items()} == {
        name: bytes(each["data"]) for name, each in found.items()
    }
    for name, array in arrays(found).items():
        assert array.shape == made[name].shape
        assert array.dtype == made[name].dtype
    assert int.from_bytes(raw[:8], "little") % 8 == 0


# ---- ONNX --------------------------------------------------------------------------------------


def onnx_of(*tensors):
    nodes = [helper.make_node("Identity", [tensors[0].name], ["y"])]
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "g", [], [output], initializer=list(tensors))
    return helper.make_model(graph).SerializeToString()


@given(st.lists(st.integers(-(2**31), 2**31 - 1), max_size=6))
def test_numbers_that_onnx_packs_are_unpacked(values):
    array = np.array(values, np.int32)
    tensors = [
        helper.make_tensor("wide", TensorProto.INT64, [len(values)], values),
        helper.make_tensor("small", TensorProto.INT8, [len(values)], array.astype(np.int8)),
        helper.make_tensor(
            "half", TensorProto.FLOAT16, [len(values)], (array % 99).astype(np.float16)
        ),
        helper.make_tensor("plain", TensorProto.FLOAT, [len(values)], array.astype(np.float32)),
        numpy_helper.from_array(array, "raw"),
    ]
    found, _ = converted({"m.onnx": onnx_of(*tensors)})
    assert set(found) == {each.name for each in tensors}
    for tensor in tensors:
        wanted = numpy_helper.to_array(tensor)
        assert bytes(found[tensor.name]["data"]) == wanted.tobytes()
        assert tuple(found[tensor.name]["shape"]) == wanted.shape


def test_what_onnx_keeps_beside_a_model_is_named_by_the_model():
    paths = [path for path in (LAYOUTS / "external").iterdir() if path.is_file()]
    files = {path.name: path.read_bytes() for path in paths}
    found, _ = converted(files)
    (model,) = (path for path in paths if path.suffix == ".onnx")
    wanted = {each.name: numpy_helper.to_array(each) for each in onnx.load(model).graph.initializer}
    assert {name: bytes(each["data"]) for name, each in found.items()} == {
        name: array.tobytes() for name, array in wanted.items()
    }


def test_text_in_a_graph_has_no_form():
    tensor = helper.make_tensor("words", TensorProto.STRING, [1], [b"x"])
    assert code_of(onnx_of(tensor)) == "tensors.form"


# ---- the header --------------------------------------------------------------------------------


def test_two_of_one_name_are_refused():
    cuts = [Cut("w", "FP32", (1,), path, 0, 4) for path in ("a", "b")]
    with pytest.raises(UsageError) as refused:
        layout_of(cuts)
    assert refused.value.code == "tensors.twice"
    with pytest.raises(UsageError):
        layout_of([Cut("__metadata__", "FP32", (1,), "a", 0, 4)])


@pytest.mark.verify("plain-tensors")
@given(st.data())
def test_an_altered_file_is_refused_or_gives_what_the_library_takes(data):
    name = data.draw(st.sampled_from(["views.pt", "turned.pt", "x.npz", "m.onnx"]))
    if name == "x.npz":
        raw = bytearray((LAYOUTS / "stored.npz").read_bytes())
    elif name == "m.onnx":
        raw = bytearray((LAYOUTS / "inline.onnx").read_bytes())
    else:
        raw = bytearray((PLAIN / name).read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    with suppress(KeepError):
        converted({name: bytes(raw)})
