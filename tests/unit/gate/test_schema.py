"""A V2 request against a schema: what the model gets is what the schema says, or nothing."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkeep.core.artifact import Port, Schema
from modelkeep.core.errors import IntegrityError, UsageError
from modelkeep.gate.schema import SchemaCheck, cleared, fits
from modelkeep.kernels.arrays import NUMPY_BY_DTYPE
from modelkeep.kernels.wire import array_of, tensor_of, values_of

SCHEMA = Schema(
    inputs=(
        Port(name="x", dtype="FP32", shape=(-1, 3)),
        Port(name="n", dtype="INT8", shape=(2,)),
    ),
    outputs=(
        Port(name="y", dtype="FP64", shape=(-1,)),
        Port(name="z", dtype="INT64", shape=(-1, 2)),
    ),
)
CHECK = SchemaCheck(SCHEMA)
X = {"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, 2.5, -3]}
N = {"name": "n", "shape": [2], "datatype": "INT8", "data": [-128, 127]}


def one(dtype, shape):
    return SchemaCheck(Schema(inputs=(Port(name="x", dtype=dtype, shape=shape),), outputs=()))


def request(*inputs, **more):
    return json.dumps({"inputs": inputs or (X, N), **more}).encode()


def code_of(body, check=CHECK, head_bytes=None):
    with pytest.raises(UsageError) as raised:
        check.checked(body, head_bytes=head_bytes)
    assert raised.value.http_status == 400
    return raised.value.code


def test_a_good_request_becomes_tensors_in_the_schemas_order():
    checked = CHECK.checked(request(N, X, id="7"))
    assert checked.identifier == "7"
    assert [each.name for each in checked.inputs] == ["x", "n"]
    assert array_of(checked.inputs[0]).tolist() == [[1.0, 2.5, -3.0]]
    assert values_of(checked.inputs[1]) == (-128, 127)
    assert [(each.index, each.is_binary) for each in checked.outputs] == [(0, False), (1, False)]


def test_nested_data_is_the_same_as_flat():
    nested = {**X, "shape": [2, 3], "data": [[1, 2, 3], [4, 5, 6]]}
    assert values_of(CHECK.checked(request(nested, N)).inputs[0]) == (1, 2, 3, 4, 5, 6)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"shape": [1, 4]}, "schema.shape"),
        ({"shape": [0, 3]}, "schema.shape"),
        ({"shape": [-1, 3]}, "schema.shape"),
        ({"shape": [3]}, "schema.shape"),
        ({"shape": []}, "schema.shape"),
        ({"shape": [1] * 65}, "schema.shape"),
        ({"shape": [2, 3]}, "schema.shape"),
        ({"shape": [10**30, 3]}, "schema.shape"),
        ({"shape": [1.5, 3]}, "schema.json"),
        ({"datatype": "FP64"}, "schema.dtype"),
        ({"name": "w"}, "schema.input"),
        ({"data": []}, "schema.shape"),
        ({"data": [1, 2, True]}, "schema.data"),
        ({"data": [1, 2, None]}, "schema.data"),
        ({"data": [1, 2, "3"]}, "schema.data"),
        ({"data": [1, 2, 1e39]}, "schema.range"),
        ({"data": [[1, 2], [3]]}, "schema.data"),
        ({"data": [[[1, 2, 3]]]}, "schema.data"),
        ({"data": {"a": 1}}, "schema.data"),
        ({"data": 3}, "schema.data"),
        ({"extra": 1}, "schema.json"),
        ({"parameters": {"shared_memory_region": "a"}}, "schema.parameter"),
        ({"parameters": {"binary_data_size": -1}}, "schema.binary"),
        ({"parameters": {"binary_data_size": True}}, "schema.binary"),
        ({"parameters": {"binary_data_size": 12}}, "schema.binary"),
    ],
)
def test_a_bad_input_is_refused_with_its_code(change, code):
    assert code_of(request({**X, **change}, N)) == code


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (request(X), "schema.missing"),
        (request(X, X, N), "schema.duplicate"),
        (request({key: X[key] for key in ("name", "shape", "datatype")}, N), "schema.data"),
        (request(X, {**N, "data": [1, 128]}), "schema.range"),
        (request(X, {**N, "data": [1, 2.5]}), "schema.data"),
        (request(X, {**N, "data": [1, 1e300]}), "schema.data"),
        (request(parameters={"priority": 1}), "schema.parameter"),
        (request(parameters={"binary_data_output": 1}), "schema.parameter"),
        (request(id="x" * 257), "schema.id"),
        (request(outputs=[{"name": "nothing"}]), "schema.output"),
        (request(outputs=[{"name": "y"}, {"name": "y"}]), "schema.duplicate"),
        (
            request(outputs=[{"name": "y", "parameters": {"classification": -1}}]),
            "schema.parameter",
        ),
        (request(surprise=1), "schema.json"),
        (request() + b"x", "schema.json"),
        (b"", "schema.json"),
        (b"null", "schema.json"),
    ],
)
def test_a_bad_request_is_refused_with_its_code(body, code):
    assert code_of(body) == code


def test_outputs_are_what_was_asked_for():
    asked = [{"name": "z", "parameters": {"binary_data": True}}, {"name": "y"}]
    checked = CHECK.checked(request(outputs=asked))
    assert [(each.index, each.is_binary) for each in checked.outputs] == [(1, True), (0, False)]
    checked = CHECK.checked(request(parameters={"binary_data_output": True}))
    assert all(each.is_binary for each in checked.outputs)


# ---- binary tensors ------------------------------------------------------------------------------


def binary(raw, *, size=None, shape=(1, 3), dtype="FP32", rest=b"", data=None):
    given_input = {
        "name": "x",
        "shape": shape,
        "datatype": dtype,
        "parameters": {"binary_data_size": len(raw) if size is None else size},
    }
    if data is not None:
        given_input["data"] = data
    head = json.dumps({"inputs": [given_input]}).encode()
    return head + raw + rest, len(head)


@pytest.mark.parametrize("dtype", sorted(NUMPY_BY_DTYPE))
def test_binary_and_json_say_the_same(dtype):
    values = [True, False, True] if dtype == "BOOL" else [1, 0, 7]
    check = one(dtype, (-1, 3))
    array = np.array([values], NUMPY_BY_DTYPE[dtype])
    body, head = binary(array.tobytes(), dtype=dtype)
    from_binary = check.checked(body, head_bytes=head).inputs[0]
    given_input = {"name": "x", "shape": [1, 3], "datatype": dtype, "data": values}
    from_json = check.checked(json.dumps({"inputs": [given_input]}).encode()).inputs[0]
    assert bytes(from_binary.raw) == bytes(from_json.raw)
    assert array_of(from_binary).tolist() == array.tolist()


@pytest.mark.parametrize("dtype", ["FP16", "FP32", "FP64"])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_refused(dtype, bad):
    body, head = binary(np.array([1, bad, 2], NUMPY_BY_DTYPE[dtype]).tobytes(), dtype=dtype)
    assert code_of(body, one(dtype, (-1, 3)), head) == "schema.finite"


def test_booleans_are_0_or_1():
    body, head = binary(b"\0\1\2", dtype="BOOL")
    assert code_of(body, one("BOOL", (-1, 3)), head) == "schema.finite"


def test_lengths_that_disagree_are_refused():
    check = one("FP32", (-1, 3))
    row = np.ones(3, np.float32).tobytes()
    for body, head in (
        binary(row[:-1]),
        binary(row, size=11),
        binary(row, size=13),
        binary(row[:-1], size=12),
        binary(row, rest=b"x"),
        binary(row, data=[1, 2, 3]),
        (binary(row)[0], 10**6),
    ):
        assert code_of(body, check, head) == "schema.binary"
    body, head = binary(row)
    assert check.checked(body, head_bytes=head)
    assert code_of(body, check, head - 1) == "schema.json"
    assert code_of(body, check, 0) == "schema.json"


# ---- properties ----------------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["inputs", "name", "shape", "datatype", "data", "parameters", "id", "x"]
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=20,
)


@given(st.binary(max_size=300) | JSON.map(lambda value: json.dumps(value).encode()))
def test_no_bytes_do_anything_but_pass_or_be_refused(body):
    for head_bytes in (None, 0, 3, len(body)):
        code = "schema."
        try:
            assert len(CHECK.checked(body, head_bytes=head_bytes).inputs) == 2
        except UsageError as error:
            code = error.code
        assert code.startswith("schema.")


@given(
    st.dictionaries(
        st.sampled_from(["name", "shape", "datatype", "data", "parameters"]), JSON, max_size=3
    )
)
def test_whatever_passes_is_of_the_schemas_form(change):
    try:
        checked = CHECK.checked(request({**X, **change}, N))
    except UsageError:
        return
    for tensor, port in zip(checked.inputs, SCHEMA.inputs, strict=True):
        assert fits(port.shape, tensor.shape)
        assert len(tensor.raw) == math.prod(tensor.shape) * NUMPY_BY_DTYPE[port.dtype].itemsize
        assert np.isfinite(array_of(tensor)).all()


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=3, max_size=3))
def test_every_finite_number_arrives_unchanged(values):
    checked = CHECK.checked(request({**X, "data": values}, N))
    assert array_of(checked.inputs[0]).ravel().tolist() == values


# ---- answers -------------------------------------------------------------------------------------


def test_a_replica_is_not_trusted_with_the_form_of_its_answer():
    y, z = b"\0" * 16, b"\0" * 32
    good = (((2,), (2, 2)), (y, z))
    assert [each.name for each in cleared(SCHEMA, *good)] == ["y", "z"]
    for shapes, tensors in (
        (((2,),), (y,)),
        (((2,), (2, 2)), (y,)),
        (((2,), (2, 3)), (y, z)),
        (((2,), (2, 2)), (y, z[:-1])),
        (((2, 1), (2, 2)), (y, z)),
        (((-2,), (2, 2)), (y, z)),
        (((0,), (2, 2)), (b"", z)),
    ):
        with pytest.raises(IntegrityError) as raised:
            cleared(SCHEMA, shapes, tensors)
        assert raised.value.code == "answer.form"


def test_tensors_of_arrays_round_trip():
    for dtype, kind in NUMPY_BY_DTYPE.items():
        array = np.array([[1, 0], [0, 1]], kind)
        assert array_of(tensor_of("a", dtype, array.T)).tolist() == array.T.tolist()
