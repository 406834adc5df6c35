"""Is this a call that the model can take: a V2 request against the model's schema.

This is where blame changes sides: whatever is wrong with bytes up to here is the caller's, a
UsageError that says which input and what was wanted; past here a tensor has the element type,
the shape and the number of bytes that the schema says, and no NaN and no infinity in it.

The reading is strict where V2 leaves room: unknown fields and parameters, duplicate and missing
inputs are refused, because a call that says something we would ignore is not the call that the
caller meant. Names and shapes are compared before any value is decoded.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from itertools import chain
from typing import Any

from modelkeep.core.artifact import Port, Schema
from modelkeep.core.errors import IntegrityError, UsageError
from modelkeep.core.limits import TENSOR_RANK_MAX
from modelkeep.core.record import RawJson, Record, Row, json_decoder, to_json
from modelkeep.kernels.wire import (
    ELEMENT_BYTES,
    FLOAT_DTYPES,
    Tensor,
    element_count,
    is_sound,
    packed,
)

IDENTIFIER_CHARS_MAX = 256  # tritonclient's own ids are under 40

Parameters = dict[str, str | int | float | bool | None]


class RequestInput(Record, frozen=True):
    """One input as V2 writes it."""

    name: str
    shape: tuple[int, ...]
    datatype: str
    parameters: Parameters = {}
    data: RawJson = RawJson()


class RequestOutput(Record, frozen=True):
    """One wanted output as V2 writes it."""

    name: str
    parameters: Parameters = {}


class InferRequest(Record, frozen=True):
    """The JSON part of an infer request."""

    inputs: tuple[RequestInput, ...]
    id: str = ""
    parameters: Parameters = {}
    outputs: tuple[RequestOutput, ...] = ()


class WantedOutput(Row, frozen=True):
    """An output to send: its index in the schema, and whether as binary tensor."""

    index: int
    is_binary: bool


class CheckedCall(Row, frozen=True):
    """A call that the schema permits; only `SchemaCheck` makes it."""

    identifier: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[WantedOutput, ...]


_request = json_decoder(InferRequest, what="the request")
_floats = json_decoder(list[float], what="data")
_integers = json_decoder(list[int], what="data")
_booleans = json_decoder(list[bool], what="data")
_anything = json_decoder(list[Any], what="data")


class SchemaCheck:
    """A model's schema, prepared for checking calls."""

    __slots__ = ("_indexes", "_output_indexes", "schema")

    def __init__(self, schema: Schema) -> None:
        self.schema = schema
        self._indexes = {port.name: index for index, port in enumerate(schema.inputs)}
        self._output_indexes = {port.name: index for index, port in enumerate(schema.outputs)}

    def checked(self, body: bytes, *, head_bytes: int | None = None) -> CheckedCall:
        """Read and check one infer request.

        Args:
            body: the JSON document, followed by binary tensors if there are any.
            head_bytes: length of the JSON document; None when it is the whole body.

        Raises:
            UsageError: `schema.*`.
        """
        raw, rest = _divided(body, head_bytes)
        request = _parsed(raw)
        _demand_known(request.parameters, ("binary_data_output",))
        if len(request.id) > IDENTIFIER_CHARS_MAX:
            raise UsageError("schema.id", f"the id is longer than {IDENTIFIER_CHARS_MAX}")
        inputs = self._inputs(request.inputs, rest)
        return CheckedCall(request.id, inputs, self._outputs(request))

    def _inputs(self, given: tuple[RequestInput, ...], rest: memoryview) -> tuple[Tensor, ...]:
        found: list[Tensor | None] = [None] * len(self.schema.inputs)
        for each in given:
            index = self._indexes.get(each.name)
            if index is None:
                raise UsageError(
                    "schema.input",
                    f"the model has no input named {each.name[:80]!r}",
                    hint=f"its inputs are {_names(self.schema.inputs)}",
                )
            if found[index] is not None:
                raise UsageError("schema.duplicate", f"input {each.name!r} is given twice")
            port = self.schema.inputs[index]
            _demand_form(port, each)
            size_bytes = _binary_size(each)
            raw: bytes | memoryview
            if size_bytes is None:
                raw = _json_values(port, each)
            else:
                raw, rest = _binary_values(port, each, size_bytes, rest)
            found[index] = Tensor(port.name, port.dtype, each.shape, raw)
        missing = [port.name for port, tensor in zip(self.schema.inputs, found, strict=True)
                   if tensor is None]  # fmt: skip
        if missing:
            raise UsageError(
                "schema.missing",
                f"input {missing[0]!r} is missing",
                hint=f"the model's inputs are {_names(self.schema.inputs)}",
            )
        if rest:
            raise UsageError("schema.binary", f"{len(rest)} bytes after the last binary tensor")
        return tuple(tensor for tensor in found if tensor is not None)

    def _outputs(self, request: InferRequest) -> tuple[WantedOutput, ...]:
        default = _flag(request.parameters, "binary_data_output", default=False)
        if not request.outputs:
            count = len(self.schema.outputs)
            return tuple(WantedOutput(index, default) for index in range(count))
        wanted: dict[int, WantedOutput] = {}
        for each in request.outputs:
            index = self._output_indexes.get(each.name)
            if index is None:
                raise UsageError(
                    "schema.output",
                    f"the model has no output named {each.name[:80]!r}",
                    hint=f"its outputs are {_names(self.schema.outputs)}",
                )
            if index in wanted:
                raise UsageError("schema.duplicate", f"output {each.name!r} is asked for twice")
            _demand_known(each.parameters, ("binary_data",))
            is_binary = _flag(each.parameters, "binary_data", default=default)
            wanted[index] = WantedOutput(index, is_binary)
        return tuple(wanted.values())


def cleared(schema: Schema, shapes: Any, tensors: Any) -> tuple[Tensor, ...]:
    """Check what a replica sent against the model's outputs: a replica is not trusted.

    Raises:
        IntegrityError: `answer.form`, when count, shape or size is not what the schema says.
    """
    if len(shapes) != len(schema.outputs) or len(tensors) != len(schema.outputs):
        raise IntegrityError("answer.form", "the replica sent another number of outputs")
    found = []
    for port, shape, raw in zip(schema.outputs, shapes, tensors, strict=True):
        if (
            not fits(port.shape, shape)
            or len(raw) != element_count(shape) * ELEMENT_BYTES[port.dtype]
        ):
            raise IntegrityError("answer.form", f"output {port.name!r} is not of the model's form")
        found.append(Tensor(port.name, port.dtype, shape, raw))
    return tuple(found)


@lru_cache(maxsize=1024)  # callers repeat their shapes; the answer is worth 1 us a tensor
def fits(wanted: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    """Whether a shape is one that the schema allows; free dimensions are at least 1."""
    if shape == wanted:
        return True
    return len(shape) == len(wanted) and all(
        have == want or (want == -1 and have >= 1) for want, have in zip(wanted, shape, strict=True)
    )


def _divided(body: bytes, head_bytes: int | None) -> tuple[bytes, memoryview]:
    if head_bytes is None:
        return body, memoryview(b"")
    if head_bytes > len(body):
        raise UsageError(
            "schema.binary",
            "Inference-Header-Content-Length is larger than the body",
            wanted=head_bytes,
            got=len(body),
        )
    return body[:head_bytes], memoryview(body)[head_bytes:]


def _parsed(raw: bytes) -> InferRequest:
    try:
        request = _request(raw)
    except IntegrityError as error:
        raise UsageError(
            "schema.json",
            _without_prefix(error.message),
            hint="see the Open Inference Protocol V2, `$inference_request`",
        ) from None
    assert isinstance(request, InferRequest)
    return request


def _demand_form(port: Port, each: RequestInput) -> None:
    if each.datatype != port.dtype:
        raise UsageError(
            "schema.dtype",
            f"input {port.name!r} is {each.datatype[:20]!r}",
            hint=f"the model takes {port.dtype}",
        )
    if len(each.shape) > TENSOR_RANK_MAX or not fits(port.shape, each.shape):
        raise UsageError(
            "schema.shape",
            f"input {port.name!r} has the shape {list(each.shape[:TENSOR_RANK_MAX])}",
            hint=f"the model takes {list(port.shape)}, where -1 is any number from 1 on",
        )


def _binary_size(each: RequestInput) -> int | None:
    if not each.parameters:
        return None
    _demand_known(each.parameters, ("binary_data_size",))
    size_bytes = each.parameters["binary_data_size"]
    if type(size_bytes) is not int or size_bytes < 0:
        raise UsageError("schema.binary", f"binary_data_size of {each.name!r} is not a size")
    return size_bytes


def _binary_values(
    port: Port, each: RequestInput, size_bytes: int, rest: memoryview
) -> tuple[memoryview, memoryview]:
    wanted = element_count(each.shape) * ELEMENT_BYTES[port.dtype]
    if size_bytes != wanted or size_bytes > len(rest):
        raise UsageError(
            "schema.binary",
            f"input {port.name!r} has {min(size_bytes, len(rest))} bytes",
            hint=f"its shape and type need {wanted}",
        )
    if bytes(each.data):
        raise UsageError("schema.binary", f"input {port.name!r} has data and binary_data_size")
    raw = rest[:size_bytes]
    if not is_sound(port.dtype, raw):
        raise UsageError(
            "schema.finite", f"input {port.name!r} has values that are not finite numbers"
        )
    return raw, rest[size_bytes:]


def _json_values(port: Port, each: RequestInput) -> bytes:
    decode = _floats if port.dtype in FLOAT_DTYPES else _integers
    if port.dtype == "BOOL":
        decode = _booleans
    count = element_count(each.shape)
    try:
        values = decode(each.data)
    except IntegrityError as error:
        values = _flattened(port, each, error, decode)
    if len(values) != count:
        raise UsageError(
            "schema.shape",
            f"input {port.name!r} has {len(values)} values",
            hint=f"its shape {list(each.shape)} holds {count}",
        )
    try:
        return packed(port.dtype, values)
    except (OverflowError, struct.error):
        raise UsageError(
            "schema.range", f"input {port.name!r} has a number outside the range of {port.dtype}"
        ) from None


def _flattened(port: Port, each: RequestInput, error: IntegrityError, decode: Any) -> Any:
    """Values given as nested lists, which V2 permits, flat; their nesting must be the shape.

    The slow way, taken only when the flat reading failed.
    """
    if not bytes(each.data):
        raise UsageError("schema.data", f"input {port.name!r} has no data")
    refusal = UsageError(
        "schema.data",
        f"data of input {port.name!r}: {_without_prefix(error.message)}",
        hint=f"give {port.dtype} values, flat in row-major order or nested as the shape says",
    )
    try:
        values = _anything(each.data)
    except IntegrityError:
        raise refusal from None
    if len(each.shape) < 2 or len(values) != each.shape[0]:
        raise refusal
    for width in each.shape[1:]:
        if not all(isinstance(part, list) and len(part) == width for part in values):
            raise refusal
        values = list(chain.from_iterable(values))
    try:
        return decode(to_json(values))
    except IntegrityError:
        raise refusal from None


def _demand_known(parameters: Parameters, known: tuple[str, ...]) -> None:
    for name in parameters:
        if name not in known:
            raise UsageError(
                "schema.parameter",
                f"the parameter {name[:80]!r} is not supported",
                hint=f"supported here: {', '.join(known)}",
            )


def _flag(parameters: Parameters, name: str, *, default: bool) -> bool:
    value = parameters.get(name, default)
    if not isinstance(value, bool):
        raise UsageError("schema.parameter", f"the parameter {name!r} is not true or false")
    return value


def _names(ports: tuple[Port, ...]) -> str:
    return ", ".join(f"{port.name} ({port.dtype} {list(port.shape)})" for port in ports)


def _without_prefix(message: str) -> str:
    return message.partition("is not valid: ")[2] or message
