"""Unit tests of kernels.onnx_split: graph and weights together are the file, no more, no less."""

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from modelkeep.core.errors import IntegrityError, KeepError
from modelkeep.kernels.onnx_split import ELEMENT_BYTES, LOCATION, split_onnx

NAMES = st.sampled_from(["w", "v", "b", "ß", "x", "y", ""])
# float, int8, int64, bool, float16, double, bfloat16, complex64, float8, int4
TYPES = st.sampled_from([1, 3, 7, 9, 10, 11, 16, 14, 17, 22])


def tensor(name, shape, element_type=1, *, typed=False, placed=False):
    made = TensorProto(name=name, dims=shape, data_type=element_type)
    bits = {14: 64, 22: 4}.get(element_type, 8 * ELEMENT_BYTES.get(element_type, 0))
    count = int(np.prod(shape, dtype=np.int64))
    if typed and element_type == 1:
        made.float_data.extend(float(each) for each in range(count))
    else:
        made.raw_data = bytes(each % 251 for each in range(-(-count * bits // 8)))
    if placed:
        made.data_location = TensorProto.DEFAULT
    return made


def subgraph(names, initializers):
    nodes = [helper.make_node("Mul", [name, name], [f"{name}2"]) for name in names]
    value = helper.make_tensor_value_info("i", TensorProto.FLOAT, None)
    return helper.make_graph(nodes, "inner", [], [value], initializers)


def model(initializers, names, *, inner=(), constant=None, outputs=("y",)):
    nodes = [helper.make_node("Add", [name, "x"], [f"{name}+"]) for name in names]
    nodes.append(helper.make_node("If", ["c"], ["z"], then_branch=subgraph(("x",), list(inner))))
    if constant is not None:
        nodes.append(helper.make_node("Constant", [], ["k"], value=constant))
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["b", 3])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        list(initializers),
        doc_string="a graph",
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], producer_name="t")
    helper.set_model_props(made, {"author": "us"})
    return made


def reattached(raw, split):
    """The model again, by the format's own library."""
    made = onnx.ModelProto.FromString(split.graph)
    left = {weight.offset: weight for weight in split.weights}
    for each in made.graph.initializer:
        if each.data_location == TensorProto.EXTERNAL:
            entries = {pair.key: pair.value for pair in each.external_data}
            weight = left.pop(int(entries["offset"]))
            assert entries == {
                "location": LOCATION,
                "offset": str(weight.offset),
                "length": str(weight.length),
            }
            assert (each.name, each.data_type, tuple(each.dims)) == (
                weight.name,
                weight.element_type,
                weight.shape,
            )
            each.raw_data = raw[weight.offset : weight.offset + weight.length]
            del each.external_data[:]
            each.ClearField("data_location")
    assert not left
    return made


@st.composite
def models(draw):
    shapes = st.lists(st.integers(0, 4), max_size=3)
    drawn = st.builds(tensor, NAMES, shapes, TYPES, typed=st.booleans(), placed=st.booleans())
    return model(
        draw(st.lists(drawn, max_size=5)),
        draw(st.lists(NAMES, max_size=4)),
        inner=draw(st.lists(drawn, max_size=2)),
        constant=draw(st.none() | drawn),
        outputs=draw(st.lists(NAMES, max_size=2)),
    )


@pytest.mark.verify("runtime")
@given(models(), st.integers(0, 40))
def test_graph_and_weights_together_are_the_model(made, least):
    raw = made.SerializeToString()
    split = split_onnx(memoryview(raw), weight_bytes_min=least)
    for each in made.graph.initializer:
        if each.data_location == TensorProto.DEFAULT:
            each.ClearField("data_location")  # said or not, it means the same
    again = reattached(raw, split)
    for each in again.graph.initializer:
        if each.data_location == TensorProto.DEFAULT:
            each.ClearField("data_location")
    assert again == made


@pytest.mark.verify("runtime")
@given(st.data())
def test_a_mutated_model_is_refused_or_split_within_its_bounds(data):
    raw = bytearray(data.draw(models()).SerializeToString())
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    del raw[len(raw) - data.draw(st.integers(0, 3)) :]
    try:
        split = split_onnx(memoryview(raw), weight_bytes_min=1)
    except KeepError:
        return
    for weight in split.weights:
        assert 0 < weight.offset < weight.offset + weight.length <= len(raw)


def test_large_weights_leave_the_graph_small():
    made = model([tensor("w", (64, 64)), tensor("v", (2, 2))], ["w", "v"])
    raw = made.SerializeToString()
    split = split_onnx(memoryview(raw), weight_bytes_min=1024)
    assert [weight.name for weight in split.weights] == ["w"]
    assert len(split.graph) < len(raw) - 64 * 64 * 4 + 100


@pytest.mark.parametrize(
    ("made", "why"),
    [
        (model([tensor("w", (4,))], []), "no node takes it"),
        (model([tensor("w", (4,))], ["w"], outputs=("w",)), "the graph gives it back"),
        (model([tensor("w", (4,)), tensor("w", (4,))], ["w"]), "two have its name"),
        (model([tensor("w", (4,))], ["w"], inner=[tensor("w", (4,))]), "a subgraph has its name"),
        (model([tensor("w", (4,), typed=True)], ["w"]), "its data is typed"),
        (model([tensor("w", (4,), 14)], ["w"]), "its type is complex"),
        (model([tensor("w", (4,), 22)], ["w"]), "two elements share a byte"),
        (model([], ["k"], constant=tensor("k", (4,))), "it is a constant node"),
    ],
    ids=lambda each: each if isinstance(each, str) else "",
)
def test_what_is_in_doubt_stays_in_the_graph(made, why):
    raw = made.SerializeToString()
    split = split_onnx(memoryview(raw), weight_bytes_min=1)
    assert (split.graph, split.weights) == (raw, ()), why


def test_a_weight_that_is_shorter_than_its_shape_stays():
    short = tensor("w", (4,))
    short.raw_data = short.raw_data[:-1]
    assert split_onnx(memoryview(model([short], ["w"]).SerializeToString())).weights == ()


def test_a_weight_that_only_a_subgraph_takes_is_parted_off():
    made = model([tensor("x", (4,))], [])  # the subgraph multiplies x by itself
    found = split_onnx(memoryview(made.SerializeToString()), weight_bytes_min=1)
    assert [weight.name for weight in found.weights] == ["x"]


@pytest.mark.parametrize("inside", [False, True])
def test_a_model_that_keeps_data_in_other_files_is_refused(inside):
    outside = numpy_helper.from_array(np.zeros(4, np.float32), "w")
    onnx.external_data_helper.set_external_data(outside, "elsewhere", 0, 16)
    outside.ClearField("raw_data")
    made = model([], [], constant=outside) if inside else model([outside], ["w"])
    with pytest.raises(IntegrityError) as error:
        split_onnx(memoryview(made.SerializeToString()))
    assert error.value.code == "onnx.external"


def test_texts_in_another_file_are_refused_too():
    texts = onnx.TensorProto(
        name="t",
        data_type=TensorProto.STRING,
        dims=[2],
        data_location=TensorProto.EXTERNAL,
        external_data=[onnx.StringStringEntryProto(key="location", value="texts.bin")],
    )
    with pytest.raises(IntegrityError) as error:
        split_onnx(memoryview(model([texts], ["t"]).SerializeToString()))
    assert error.value.code == "onnx.external"
