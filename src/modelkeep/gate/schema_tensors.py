"""The values of inputs that a surface has split already: bytes of each, or typed numbers.

gRPC says names, types and shapes in a message and the values either all as bytes or all as typed
fields. They go through the same check as JSON (`gate.schema`), by the same words; only how an
input's values become bytes is here.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

from modelkeep.core.artifact import Port
from modelkeep.core.errors import UsageError
from modelkeep.core.record import Row
from modelkeep.gate.schema import CheckedCall, InferRequest, RequestInput, SchemaCheck, demand_sound
from modelkeep.kernels.byte_tensors import joined_elements
from modelkeep.kernels.wire import BYTES, FLOAT_DTYPES, element_count, packed

# The field of typed values for each element type; FP16 and BF16 have none.
TYPED_BY_DTYPE: dict[str, str] = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}


class Typed(Row, frozen=True):
    """Typed values of one input: the field's name, empty for none, and what is in it."""

    field: str
    values: Any


def checked_tensors(
    check: SchemaCheck, request: InferRequest, raws: Sequence[bytes], typed: Sequence[Typed | None]
) -> CheckedCall:
    """Check one request.

    Args:
        raws: bytes of each input, in the request's order; empty where values are typed.
        typed: of each input, None where it has no typed values at all.

    Raises:
        UsageError: `schema.*`.
    """
    taker = _Taker(raws, typed)
    call = check.checked_request(request, taker.values)
    if raws and len(raws) != len(request.inputs):
        raise UsageError(
            "schema.binary", f"{len(raws)} raw tensors for {len(request.inputs)} inputs"
        )
    return call


class _Taker:
    """Takes the values of input after input."""

    __slots__ = ("_index", "_raws", "_typed")

    def __init__(self, raws: Sequence[bytes], typed: Sequence[Typed | None]) -> None:
        self._raws = raws
        self._typed = typed
        self._index = -1

    def values(self, port: Port, each: RequestInput) -> bytes | memoryview:
        """The next input's."""
        self._index = index = self._index + 1
        if each.parameters:
            name = next(iter(each.parameters))
            raise UsageError(
                "schema.parameter",
                f"the parameter {name[:80]!r} is not supported",
                hint="inputs have no parameters here",
            )
        typed = self._typed[index] if index < len(self._typed) else None
        if self._raws:
            if index >= len(self._raws):
                raise UsageError("schema.binary", f"input {port.name!r} has no raw tensor")
            if typed is not None:
                raise UsageError("schema.binary", f"input {port.name!r} has raw and typed values")
            return demand_sound(port, each.shape, self._raws[index])
        return _typed_bytes(port, each, typed)


def _typed_bytes(port: Port, each: RequestInput, typed: Typed | None) -> bytes | memoryview:
    wanted = TYPED_BY_DTYPE.get(port.dtype)
    if wanted is None:
        raise UsageError(
            "schema.data",
            f"input {port.name!r} is {port.dtype}, which has no typed field",
            hint="send it in raw_input_contents",
        )
    if typed is None:
        raise UsageError("schema.data", f"input {port.name!r} has no data")
    if typed.field != wanted:
        raise UsageError(
            "schema.data",
            f"input {port.name!r} has its values in the wrong field",
            hint=f"{port.dtype} goes into {wanted} alone",
        )
    count = element_count(each.shape)
    if len(typed.values) != count:
        raise UsageError(
            "schema.shape",
            f"input {port.name!r} has {len(typed.values)} values",
            hint=f"its shape {list(each.shape)} holds {count}",
        )
    if port.dtype == BYTES:
        return demand_sound(port, each.shape, joined_elements(typed.values))
    try:
        raw = packed(port.dtype, typed.values)
    except (OverflowError, struct.error):
        raise UsageError(
            "schema.range", f"input {port.name!r} has a number outside the range of {port.dtype}"
        ) from None
    return demand_sound(port, each.shape, raw) if port.dtype in FLOAT_DTYPES else raw
