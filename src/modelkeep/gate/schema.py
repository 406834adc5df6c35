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
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import chain
from typing import Any

from modelkeep.core.artifact import Port, Schema
from modelkeep.core.errors import IntegrityError, UsageError
from modelkeep.core.limits import TENSOR_RANK_MAX
from modelkeep.core.record import RawJson, Record, Row, absent_json, json_decoder, to_json
from modelkeep.gate.call_options import (
    CLASSES_MAX,
    demand_known,
    flag,
    number,
    options_of,
    whole,
)
from modelkeep.gate.refinement import refinements_of
from modelkeep.gate.rule_settings import InputRule
from modelkeep.kernels.byte_tensors import texts_of
from modelkeep.kernels.json_numbers import LONG_BYTES, long_numbers
from modelkeep.kernels.wire import (
    BYTES,
    ELEMENT_BYTES,
    FLOAT_DTYPES,
    Tensor,
    element_count,
    is_sound,
    is_whole,
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
    data: RawJson = absent_json()


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
    """An output to send: its index in the schema, and how.

    Attributes:
        is_binary: whether as binary tensor.
        classes: how many of the largest values with their places, in place of it all; 0 for all.
    """

    index: int
    is_binary: bool
    classes: int = 0


class CheckedCall(Row, frozen=True):
    """A call that the schema permits; only `SchemaCheck` makes it.

    Attributes:
        timeout_us: how long the answer may take, if its caller says so; 0 for no wish.
        marks_final: whether the answer says that none follows.
    """

    identifier: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[WantedOutput, ...]
    timeout_us: int = 0
    marks_final: bool = False


# Reads the values of one input; its form was compared already.
Values = Callable[[Port, RequestInput], bytes | memoryview]


_request = json_decoder(InferRequest, what="the request")
_floats = json_decoder(list[float], what="data")
_integers = json_decoder(list[int], what="data")
_booleans = json_decoder(list[bool], what="data")
_texts = json_decoder(list[str], what="data")
_anything = json_decoder(list[Any], what="data")


class SchemaCheck:
    """A model's schema, prepared for checking calls.

    Args:
        rules: what the operator says of its inputs beyond the schema.
    """

    __slots__ = ("_all_outputs", "_indexes", "_output_indexes", "_refinements", "rules", "schema")

    def __init__(self, schema: Schema, rules: Sequence[InputRule] = ()) -> None:
        self.schema = schema
        self.rules = tuple(rules)
        self._refinements = refinements_of(schema.inputs, rules) if rules else ()
        self._indexes = {port.name: index for index, port in enumerate(schema.inputs)}
        self._output_indexes = {port.name: index for index, port in enumerate(schema.outputs)}
        self._all_outputs = [
            tuple(WantedOutput(index, is_binary) for index in range(len(schema.outputs)))
            for is_binary in (False, True)
        ]

    def checked(self, body: bytes | bytearray, *, head_bytes: int | None = None) -> CheckedCall:
        """Read and check one infer request.

        Args:
            body: the JSON document, followed by binary tensors if there are any.
            head_bytes: length of the JSON document; None when it is the whole body.

        Raises:
            UsageError: `schema.*`.
        """
        raw, rest = _divided(body, head_bytes)
        request = _parsed(raw)
        parts = _Parts(rest)
        call = self.checked_request(request, parts.values)
        if parts.rest:
            raise UsageError(
                "schema.binary", f"{len(parts.rest)} bytes after the last binary tensor"
            )
        return call

    def checked_request(self, request: InferRequest, values: Values) -> CheckedCall:
        """Check one request whose values are read by its surface.

        Raises:
            UsageError: `schema.*`.
        """
        options = options_of(request.parameters)
        if len(request.id) > IDENTIFIER_CHARS_MAX:
            raise UsageError("schema.id", f"the id is longer than {IDENTIFIER_CHARS_MAX}")
        inputs = self._inputs(request.inputs, values)
        for refinement, tensor in zip(self._refinements, inputs, strict=False):
            if refinement is not None:
                refinement.demand(tensor)
        outputs = self._outputs(request, is_binary=options.is_binary)
        return CheckedCall(request.id, inputs, outputs, options.timeout_us, options.marks_final)

    def _inputs(self, given: tuple[RequestInput, ...], values: Values) -> tuple[Tensor, ...]:
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
            found[index] = Tensor(port.name, port.dtype, each.shape, values(port, each))
        missing = [port.name for port, tensor in zip(self.schema.inputs, found, strict=True)
                   if tensor is None]  # fmt: skip
        if missing:
            raise UsageError(
                "schema.missing",
                f"input {missing[0]!r} is missing",
                hint=f"the model's inputs are {_names(self.schema.inputs)}",
            )
        return tuple(tensor for tensor in found if tensor is not None)

    def _outputs(self, request: InferRequest, *, is_binary: bool) -> tuple[WantedOutput, ...]:
        if not request.outputs:
            return self._all_outputs[is_binary]
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
            wanted[index] = _wanted(index, each, self.schema.outputs[index], is_binary=is_binary)
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
        if not fits(port.shape, shape) or not is_whole(port.dtype, shape, raw):
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


def _divided(
    body: bytes | bytearray, head_bytes: int | None
) -> tuple[bytes | bytearray, memoryview]:
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


def _parsed(raw: bytes | bytearray) -> InferRequest:
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


class _Parts:
    """What follows the JSON document, taken input by input."""

    __slots__ = ("rest",)

    def __init__(self, rest: memoryview) -> None:
        self.rest = rest

    def values(self, port: Port, each: RequestInput) -> bytes | memoryview:
        """The next input's values."""
        size_bytes = _binary_size(each)
        if size_bytes is None:
            return _json_values(port, each)
        if size_bytes > len(self.rest):
            raise _unlike(port, each.shape, len(self.rest))
        if bytes(each.data):
            raise UsageError("schema.binary", f"input {port.name!r} has data and binary_data_size")
        raw, self.rest = self.rest[:size_bytes], self.rest[size_bytes:]
        return demand_sound(port, each.shape, raw)


def demand_sound(port: Port, shape: tuple[int, ...], raw: bytes | memoryview) -> bytes | memoryview:
    """Go on only with bytes that are this tensor's: as many as it has, finite, text where it is.

    Raises:
        UsageError: `schema.binary`, `schema.finite` or `schema.data`.
    """
    if port.dtype == BYTES:
        try:
            texts_of(raw, element_count(shape))
        except IntegrityError as error:
            raise UsageError(
                "schema.data",
                f"input {port.name!r}: {error.message}",
                hint="each element is its length (4 bytes, little-endian) and text in UTF-8",
            ) from None
        return raw
    if len(raw) != element_count(shape) * ELEMENT_BYTES[port.dtype]:
        raise _unlike(port, shape, len(raw))
    if not is_sound(port.dtype, raw):
        raise UsageError(
            "schema.finite", f"input {port.name!r} has values that are not finite numbers"
        )
    return raw


def _unlike(port: Port, shape: tuple[int, ...], size_bytes: int) -> UsageError:
    width = ELEMENT_BYTES.get(port.dtype, 0)
    return UsageError(
        "schema.binary",
        f"input {port.name!r} has {size_bytes} bytes",
        hint=f"its shape and type need {element_count(shape) * width}" if width else "",
    )


def _wanted(index: int, each: RequestOutput, port: Port, *, is_binary: bool) -> WantedOutput:
    if not each.parameters:
        return WantedOutput(index, is_binary)
    demand_known(each.parameters, ("binary_data", "classification"))
    classes = number(each.parameters, "classification", most=CLASSES_MAX)
    if classes and port.dtype in ("BOOL", BYTES):
        raise UsageError(
            "schema.parameter", f"output {port.name!r} is {port.dtype}: it has no largest values"
        )
    is_binary = flag(each.parameters, "binary_data", default=is_binary)
    return WantedOutput(index, is_binary, classes)


def _binary_size(each: RequestInput) -> int | None:
    if not each.parameters:
        return None
    demand_known(each.parameters, ("binary_data_size",))
    size_bytes = each.parameters["binary_data_size"]
    if type(size_bytes) is not int or size_bytes < 0:
        raise UsageError("schema.binary", f"binary_data_size of {each.name!r} is not a size")
    return size_bytes


def _json_values(port: Port, each: RequestInput) -> bytes:
    if len(memoryview(each.data)) >= LONG_BYTES and port.dtype in ELEMENT_BYTES:
        raw = long_numbers(port.dtype, bytes(each.data))
        if raw is not None and len(raw) == element_count(each.shape) * ELEMENT_BYTES[port.dtype]:
            return raw
    decode = _floats if port.dtype in FLOAT_DTYPES else _integers
    if port.dtype == "BOOL":
        decode = _booleans
    elif port.dtype == BYTES:
        decode = _texts
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

    The slow way, taken only when the flat reading failed. A whole number may be written `1.0`.
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
    if any(isinstance(part, list) for part in values):
        if len(each.shape) < 2 or len(values) != each.shape[0]:
            raise refusal
        for width in each.shape[1:]:
            if not all(isinstance(part, list) and len(part) == width for part in values):
                raise refusal
            values = list(chain.from_iterable(values))
    if decode is _integers:
        values = [whole(part) for part in values]
    try:
        return decode(to_json(values))
    except IntegrityError:
        raise refusal from None


def _names(ports: tuple[Port, ...]) -> str:
    return ", ".join(f"{port.name} ({port.dtype} {list(port.shape)})" for port in ports)


def _without_prefix(message: str) -> str:
    return message.partition("is not valid: ")[2] or message
