"""Tensors that came split are checked as JSON is, and mean the same."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkeep.core.artifact import Port, Schema
from modelkeep.core.errors import UsageError
from modelkeep.core.record import to_json
from modelkeep.gate.schema import InferRequest, RequestInput, SchemaCheck
from modelkeep.gate.schema_tensors import TYPED_BY_DTYPE, Typed, checked_tensors
from modelkeep.kernels.arrays import NUMPY_BY_DTYPE
from modelkeep.kernels.byte_tensors import joined_elements

DTYPES = (*NUMPY_BY_DTYPE, "BYTES")


def check_of(*dtypes):
    ports = tuple(Port(name=f"x{n}", dtype=each, shape=(-1, 2)) for n, each in enumerate(dtypes))
    return SchemaCheck(Schema(inputs=ports, outputs=()))


def request_of(*dtypes, shape=(1, 2), **more):
    inputs = tuple(
        RequestInput(name=f"x{n}", shape=shape, datatype=each) for n, each in enumerate(dtypes)
    )
    return InferRequest(inputs=inputs, **more)


def code_of(check, request, raws=(), typed=()):
    with pytest.raises(UsageError) as raised:
        checked_tensors(check, request, raws, typed)
    return raised.value.code


def values_for(dtype):
    match dtype:
        case "BYTES":
            return ["", "ä"]
        case "BOOL":
            return [True, False]
    return [1, 3]


def raw_for(dtype):
    values = values_for(dtype)
    if dtype == "BYTES":
        return joined_elements([each.encode() for each in values])
    return np.array(values, NUMPY_BY_DTYPE[dtype]).tobytes()


@pytest.mark.parametrize("dtype", DTYPES)
def test_raw_typed_and_json_are_one(dtype):
    check, request = check_of(dtype), request_of(dtype)
    raw = checked_tensors(check, request, [raw_for(dtype)], [None])
    tensor = {"name": "x0", "shape": [1, 2], "datatype": dtype, "data": values_for(dtype)}
    json = check.checked(to_json({"inputs": [tensor]}))
    assert bytes(raw.inputs[0].raw) == bytes(json.inputs[0].raw) == raw_for(dtype)
    if dtype in TYPED_BY_DTYPE:
        values = [v.encode() if dtype == "BYTES" else v for v in values_for(dtype)]
        typed = checked_tensors(check, request, [], [Typed(TYPED_BY_DTYPE[dtype], values)])
        assert bytes(typed.inputs[0].raw) == raw_for(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_another_number_of_bytes_is_refused(dtype):
    raw = raw_for(dtype)
    for wrong in (b"", raw[:-1], raw + b"\0", raw + raw):
        code = code_of(check_of(dtype), request_of(dtype), [wrong], [None])
        assert code == ("schema.data" if dtype == "BYTES" else "schema.binary")


@pytest.mark.parametrize("dtype", sorted(TYPED_BY_DTYPE))
def test_values_in_another_field_are_refused(dtype):
    for field in {*TYPED_BY_DTYPE.values(), ""} - {TYPED_BY_DTYPE[dtype]}:
        typed = [Typed(field, [1, 1])]
        assert code_of(check_of(dtype), request_of(dtype), [], typed) == "schema.data"


@pytest.mark.parametrize(
    ("dtype", "values", "code"),
    [
        ("FP32", [1.0], "schema.shape"),
        ("FP32", [1.0, float("nan")], "schema.finite"),
        ("FP64", [1.0, float("-inf")], "schema.finite"),
        ("FP32", [1.0, 1e39], "schema.range"),
        ("INT8", [1, 128], "schema.range"),
        ("UINT16", [1, 65536], "schema.range"),
        ("BYTES", [b"a", b"\xff"], "schema.data"),
    ],
)
def test_values_that_are_none_of_the_type_are_refused(dtype, values, code):
    typed = [Typed(TYPED_BY_DTYPE[dtype], values)]
    assert code_of(check_of(dtype), request_of(dtype), [], typed) == code


def test_raw_and_typed_do_not_mix():
    check, request, raw = check_of("FP32", "FP32"), request_of("FP32", "FP32"), raw_for("FP32")
    typed = Typed("fp32_contents", [1.0, 1.0])
    assert code_of(check, request, [raw], [None, None]) == "schema.binary"
    assert code_of(check, request, [raw, raw, raw], [None, None]) == "schema.binary"
    assert code_of(check, request, [raw, raw], [None, typed]) == "schema.binary"
    assert code_of(check, request, [], [typed, None]) == "schema.data"


def test_nan_in_raw_bytes_is_refused():
    raw = np.array([1, np.nan], np.float32).tobytes()
    assert code_of(check_of("FP32"), request_of("FP32"), [raw], [None]) == "schema.finite"


def test_a_type_without_a_typed_field_comes_as_bytes():
    typed = [Typed("fp32_contents", [1.0, 1.0])]
    assert code_of(check_of("FP16"), request_of("FP16"), [], typed) == "schema.data"


@given(
    dtype=st.sampled_from(DTYPES),
    shape=st.lists(st.integers(-(2**63), 2**63 - 1), max_size=3).map(tuple) | st.just((1, 2)),
    raws=st.lists(st.binary(max_size=24), max_size=2),
    typed=st.none()
    | st.builds(
        Typed,
        st.sampled_from(sorted(set(TYPED_BY_DTYPE.values()))),
        st.lists(
            st.integers(-(2**63), 2**64 - 1) | st.floats() | st.binary(max_size=3), max_size=3
        ),
    ),
)
def test_any_split_tensors_are_checked_or_refused(dtype, shape, raws, typed):
    if typed is not None:  # a field holds values of its own kind only
        kinds = {"bytes_contents": bytes, "fp32_contents": float, "fp64_contents": float}
        kind = kinds.get(typed.field, int)
        typed = Typed(typed.field, [each for each in typed.values if type(each) is kind])
    try:
        call = checked_tensors(check_of(dtype), request_of(dtype, shape=shape), raws, [typed])
    except UsageError as error:
        assert error.code.startswith("schema.")  # noqa: PT017 - most are refused, some are not
    else:
        assert call.inputs[0].shape == shape
