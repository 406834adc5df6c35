"""Unit tests of kernels.tensors: layouts agree with the formats and with the file."""

import json
import mmap

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from modelkeep.core.errors import IntegrityError, KeepError
from modelkeep.kernels.digest import digest_of
from modelkeep.kernels.tensors import identify, onnx_layout, safetensors_layout, tensor_entries

WEIGHTS = np.arange(12, dtype=np.float32).reshape(3, 4)


def small_model(*initializers, nodes=None, **options):
    nodes = nodes or [helper.make_node("MatMul", ["x", "w"], ["y"])]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 4])],
        list(initializers) or [numpy_helper.from_array(WEIGHTS, "w")],
    )
    options.setdefault("opset_imports", [helper.make_opsetid("", 20)])
    return helper.make_model(graph, **options)


def layout(model):
    raw = model.SerializeToString()
    return onnx_layout(memoryview(raw)), raw


def safetensors(header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return memoryview(len(text).to_bytes(8, "little") + text + data)


def entry(begin, end, shape, dtype="F32"):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def test_an_onnx_model_is_read_whole():
    model = small_model(producer_name="tests")
    onnx.helper.set_model_props(model, {"author": "us"})
    found, _ = layout(model)
    assert found.ir_version == model.ir_version
    assert found.producer == "tests"
    assert found.opset_imports == (("", 20),)
    assert [(port.name, port.dtype, port.shape) for port in found.inputs] == [
        ("x", "FP32", (-1, 3))
    ]
    assert [(port.name, port.dtype, port.shape) for port in found.outputs] == [
        ("y", "FP32", (-1, 4))
    ]
    assert [(n.op_type, n.inputs, n.outputs) for n in found.graph.nodes] == [
        ("MatMul", ("x", "w"), ("y",))
    ]
    assert found.metadata == (("author", "us"),)
    assert not found.unknown_fields


def test_raw_data_is_found_where_it_lies():
    found, raw = layout(small_model())
    (tensor,) = found.initializers
    assert (tensor.storage, tensor.dtype, tensor.shape) == ("raw", "FP32", (3, 4))
    assert raw[tensor.offset : tensor.offset + tensor.length] == WEIGHTS.tobytes()


def test_packed_floats_are_flat_and_packed_integers_are_not():
    floats = helper.make_tensor("w", TensorProto.FLOAT, [3, 4], WEIGHTS.ravel())
    ints = helper.make_tensor("i", TensorProto.INT64, [3], [1, -1, 1 << 40])
    found, raw = layout(small_model(floats, ints))
    first, second = found.initializers
    assert (first.storage, first.is_flat, first.count) == ("float_data", True, 12)
    assert raw[first.offset : first.offset + first.length] == WEIGHTS.tobytes()
    assert (second.storage, second.is_flat, second.count) == ("int64_data", False, 3)
    entries = tensor_entries("m.onnx", memoryview(raw), "onnx")
    assert [(each.name, each.dtype, each.shape) for each in entries] == [
        ("w", "FP32", (3, 4)),
        ("i", "RAW", (second.length,)),
    ]


def test_inputs_with_an_initializer_need_not_be_fed():
    model = small_model()
    model.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [3, 4]))
    found, _ = layout(model)
    assert [port.name for port in found.inputs] == ["x"]
    assert [port.name for port in found.graph.inputs] == ["x", "w"]


def test_ports_of_other_than_tensors_are_raw_and_unknown_ranks_are_named():
    model = small_model()
    model.graph.output[0].type.tensor_type.ClearField("shape")
    found, _ = layout(model)
    assert found.unshaped == ("y",)


def test_subgraphs_functions_and_constants_are_read():
    branch = helper.make_graph(
        [helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(WEIGHTS))],
        "branch",
        [],
        [helper.make_tensor_value_info("c", TensorProto.FLOAT, None)],
    )
    node = helper.make_node("If", ["x"], ["y"], then_branch=branch, else_branch=branch)
    function = helper.make_function(
        "ours", "Twice", ["a"], ["b"], [helper.make_node("Add", ["a", "a"], ["b"])], []
    )
    found, _ = layout(small_model(nodes=[node], functions=[function]))
    (seen,) = found.graph.nodes
    assert [graph.name for graph in seen.subgraphs] == ["branch", "branch"]
    assert seen.subgraphs[0].nodes[0].tensors[0].shape == (3, 4)
    assert [(f.domain, f.name, f.inputs) for f in found.functions] == [("ours", "Twice", ("a",))]


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (b"\x0a\x01x", "onnx.wire"),
        (b"\x08\x07\x08\x08", "onnx.duplicate"),
        (b"\x3a\x00\x3a\x00", "onnx.duplicate"),
        (b"\x12\x02\xff\xff", "onnx.text"),
        (b"\x3a\x05abc", "protobuf.truncated"),
    ],
)
def test_bytes_that_are_no_model_are_refused_with_their_reason(raw, code):
    with pytest.raises(IntegrityError) as caught:
        onnx_layout(memoryview(raw))
    assert caught.value.code == code


def test_a_negative_dimension_is_refused():
    model = small_model()
    model.graph.initializer[0].dims[0] = -1
    with pytest.raises(IntegrityError) as caught:
        layout(model)
    assert caught.value.code == "onnx.dimension"


def test_unknown_fields_are_named_and_not_an_error():
    raw = small_model().SerializeToString() + b"\x98\x06\x01"
    assert onnx_layout(memoryview(raw)).unknown_fields == ("ModelProto field 99",)


def test_safetensors_are_found_where_they_lie():
    view = safetensors(
        {"b": entry(48, 52, [4], "U8"), "a": entry(0, 48, [3, 4]), "__metadata__": {"k": "v"}},
        WEIGHTS.tobytes() + b"\x01\x02\x03\x04",
    )
    found = safetensors_layout(view)
    assert [(t.name, t.dtype, t.shape) for t in found.tensors] == [
        ("a", "FP32", (3, 4)),
        ("b", "UINT8", (4,)),
    ]
    assert found.metadata == (("k", "v"),)
    entries = tensor_entries("m.safetensors", view, "safetensors")
    assert entries[0].digest == digest_of(WEIGHTS.tobytes())
    assert entries[1].offset + entries[1].length == len(view)


@pytest.mark.parametrize(
    ("header", "data", "code"),
    [
        ({"a": entry(0, 8, [2])}, 4, "safetensors.bounds"),
        ({"a": entry(0, 8, [2]), "b": entry(4, 8, [1])}, 8, "safetensors.overlap"),
        ({"a": entry(0, 4, [1]), "b": entry(8, 12, [1])}, 12, "safetensors.hole"),
        ({"a": entry(4, 8, [1])}, 8, "safetensors.hole"),
        ({"a": entry(0, 4, [1])}, 5, "safetensors.hole"),
        ({"a": entry(0, 4, [2])}, 4, "safetensors.length"),
        ({"a": entry(0, 0, [1 << 62, 1 << 62])}, 0, "safetensors.length"),
        ({"a": entry(0, 4, [1], "F99")}, 4, "safetensors.dtype"),
        ({"a": entry(0, 4, [1], ["F32"])}, 4, "safetensors.dtype"),
        ({"a": entry(4, 0, [1])}, 4, "safetensors.tensor"),
        ({"a": entry(0, 4, [-1])}, 4, "safetensors.tensor"),
        ({"a": entry(0, 4, [True])}, 4, "safetensors.tensor"),
        ({"a": entry(0, 4, [1.0])}, 4, "safetensors.tensor"),
        ({"a": {**entry(0, 4, [1]), "more": 1}}, 4, "safetensors.tensor"),
        ({"__metadata__": {"k": 1}}, 0, "safetensors.metadata"),
        (b'{"a":{},"a":{}}', 0, "safetensors.duplicate"),
        (b'{"a":{"dtype":"U8","dtype":"U8"}}', 1, "safetensors.duplicate"),
        (b"[]", 0, "safetensors.header"),
        (b" {}", 0, "safetensors.header"),
        (b'{"\\ud800":{}}', 0, "safetensors.json"),
        (b'{"a":NaN}', 0, "safetensors.json"),
        (b"{" + b'"a":[' * 5000, 0, "safetensors.json"),
        (b'{"\xff":{}}', 0, "safetensors.json"),
    ],
)  # fmt: skip
def test_safetensors_that_lie_are_refused_with_their_reason(header, data, code):
    with pytest.raises(IntegrityError) as caught:
        safetensors_layout(safetensors(header, bytes(data)))
    assert caught.value.code == code


def test_a_header_is_refused_one_byte_past_the_bound():
    from modelkeep.kernels import safetensors as format_  # noqa: PLC0415

    bound = format_.HEADER_BYTES_MAX
    for length, says in ((bound, "ends inside"), (bound + 1, "claims")):
        with pytest.raises(IntegrityError, match=says):
            safetensors_layout(memoryview(length.to_bytes(8, "little") + b"{}"))


@pytest.mark.parametrize(
    ("raw", "kind"),
    [
        (b"", "empty"),
        (b"\x93NUMPY\x01\x00", "npy"),
        (b"GGUF\x03\x00\x00\x00", "gguf"),
        (b"\x89HDF\r\n\x1a\n", "hdf5"),
        (b"\x1f\x8b\x08\x00", "gzip"),
        (b"\x80\x04\x95\x00", "pickle"),
        (b"\x80\x02}q\x00.", "pickle"),
        (b"\x80\x02\x03\x04", "unknown"),
        (b"PK\x03\x04" + bytes(22) + b"\x08\x00\x00\x00data.pkl", "zip"),
        (b"PK\x03\x04" + bytes(22) + b"\x0a\x00\x00\x00m/data.pkl", "torch-zip"),
        (b"\x02\x00\x00\x00\x00\x00\x00\x00{}", "safetensors"),
        (b'words: {"a": 1}', "unknown"),
        (b"\x08\x0a", "unknown"),
        (b"\x08\x0a\x3a\x7f\x0a", "onnx"),
        (b"\x7fELF\x02", "elf"),
        (b"plain text, and nothing else", "unknown"),
    ],
)
def test_the_content_names_the_format(raw, kind):
    assert identify(memoryview(raw)) == kind


def test_an_onnx_file_cannot_be_disguised_by_what_loaders_skip():
    raw = small_model().SerializeToString()
    for prefix in (b"\x98\x06\x01", b"\x10\x01", b"\xa3\x06\xa4\x06", b"\x0a\x01x"):
        assert identify(memoryview(prefix + raw)) == "onnx"


def test_a_mapped_file_can_be_closed_after_its_tensors_were_read(tmp_path):
    path = tmp_path / "m.onnx"
    path.write_bytes(small_model().SerializeToString())
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        view = memoryview(mapped)
        entries = tensor_entries("m.onnx", view, identify(view))
        view.release()
    assert entries[0].digest == digest_of(WEIGHTS.tobytes())


def test_an_error_names_the_file():
    with pytest.raises(IntegrityError) as caught:
        tensor_entries("deep/m.onnx", memoryview(b"\x3a\x05abc"), "onnx")
    assert caught.value.context["file"] == "deep/m.onnx"


@given(st.binary(max_size=120), st.integers(0, 400), st.integers(0, 60))
@settings(deadline=None, max_examples=250)
def test_no_bytes_make_a_layout_raise_anything_else(noise, at, cut):
    base = small_model().SerializeToString()
    at = min(at, len(base))
    for raw in (noise, base[:at] + noise + base[at + cut :], bytes(safetensors(noise, noise))):
        for read in (onnx_layout, safetensors_layout, identify):
            try:
                read(memoryview(raw))
            except KeepError:
                continue
