"""What one model's calls look like, as JSON Schema made of its own schema, for a row and for two.

No schema can say that a shape's numbers and the count of the values belong together. So a few rows
are written out; a model takes more of them by the same rule.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import permutations
from typing import Any

from modelkeep.core.artifact import Port, Schema
from modelkeep.gate.call_options import CLASSES_MAX
from modelkeep.gate.rule_settings import InputRule
from modelkeep.gate.schema import IDENTIFIER_CHARS_MAX
from modelkeep.kernels.wire import BYTES, ELEMENT_BYTES, FLOAT_DTYPES, element_count

_ROWS = (1, 2)
# Every choice and order of outputs is written out for up to so many; 3 have 16.
_OUTPUTS_WRITTEN_MAX = 3
# Values of an example; an image's pixels would be most of the document.
_EXAMPLE_VALUES_MAX = 1000
# From here on a number rounds to infinity.
_FLOAT_END: Mapping[str, float] = {"FP16": 65520.0, "FP32": 3.4028235677973366e38}
_FLAG = {"type": "boolean"}


def call_schema(schema: Schema, rules: Sequence[InputRule] = ()) -> dict[str, Any]:
    """The JSON of a call.

    Args:
        rules: what the operator says of the model's inputs.
    """
    rows_max = min((rule.rows_max for rule in rules if rule.rows_max), default=len(_ROWS))
    is_fixed = all(-1 not in port.shape for port in schema.inputs)
    counts = _ROWS[:1] if is_fixed else _ROWS[:rows_max]
    return _object(
        {
            "inputs": {
                "anyOf": [_all_of(_input(p, n, rules) for p in schema.inputs) for n in counts]
            },
            "outputs": {"anyOf": _choices(schema.outputs)},
            "parameters": _object({"binary_data_output": _FLAG}),
            "id": {"type": "string", "maxLength": IDENTIFIER_CHARS_MAX},
        },
        required=("inputs",),
    )


def call_example(schema: Schema, rules: Sequence[InputRule] = ()) -> dict[str, Any] | None:
    """One row of what is nearest to zero; None where that is long."""
    inputs = []
    for port in schema.inputs:
        shape = _shape(port, 1)
        count = element_count(shape)
        if count > _EXAMPLE_VALUES_MAX:
            return None
        value = _plain(port, [rule for rule in rules if rule.input == port.name])
        inputs.append(
            {"name": port.name, "datatype": port.dtype, "shape": shape, "data": [value] * count}
        )
    return {"inputs": inputs}


def _shape(port: Port, rows: int) -> tuple[int, ...]:
    return tuple(
        each if each != -1 else (rows if at == 0 else 1) for at, each in enumerate(port.shape)
    )


def _input(port: Port, rows: int, rules: Sequence[InputRule]) -> dict[str, Any]:
    shape = _shape(port, rows)
    count = element_count(shape)
    value = _value(port.dtype)
    ruled = [_ruled(rule) for rule in rules if rule.input == port.name]
    return _object(
        {
            "name": {"const": port.name},
            "datatype": {"const": port.dtype},
            "shape": {"const": shape},
            "data": {
                "type": "array",
                "items": value | ({"allOf": ruled} if ruled else {}),
                "minItems": count,
                "maxItems": count,
            },
            "parameters": _object({}),
        },
        required=("name", "datatype", "shape", "data"),
    )


def _value(dtype: str) -> dict[str, Any]:
    if dtype == BYTES:
        return {"type": "string"}
    if dtype == "BOOL":
        return _FLAG
    if dtype in FLOAT_DTYPES:
        end = _FLOAT_END.get(dtype)
        bounds = {"exclusiveMinimum": -end, "exclusiveMaximum": end} if end else {}
        return {"type": "number", **bounds}
    bits = 8 * ELEMENT_BYTES[dtype]
    if dtype.startswith("U"):
        return {"type": "integer", "minimum": 0, "maximum": 2**bits - 1}
    return {"type": "integer", "minimum": -(2 ** (bits - 1)), "maximum": 2 ** (bits - 1) - 1}


def _plain(port: Port, rules: Sequence[InputRule]) -> Any:
    if port.dtype == "BOOL":
        return False
    named = [rule.texts if port.dtype == BYTES else rule.values for rule in rules]
    permitted: list[set[Any]] = [set(each) for each in named if each]
    if permitted:
        return min(set.intersection(*permitted), default=0)
    if port.dtype == BYTES:
        return ""
    least = max((rule.min for rule in rules), default=0)
    most = min((rule.max for rule in rules), default=0)
    return least if least > 0 else min(0, most)


def _ruled(rule: InputRule) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if math.isfinite(rule.min):
        found["minimum"] = rule.min
    if math.isfinite(rule.max):
        found["maximum"] = rule.max
    if rule.values or rule.texts:
        found["enum"] = [*rule.values, *rule.texts]
    if rule.text_bytes_max:  # a character has up to four bytes
        found["maxLength"] = rule.text_bytes_max // 4
    return found


def _choices(ports: Sequence[Port]) -> list[dict[str, Any]]:
    """Which outputs may be asked for: each at most once, in any order; none asks for all."""
    most = len(ports) if len(ports) <= _OUTPUTS_WRITTEN_MAX else 1
    return [
        _all_of(_output(port) for port in chosen)
        for count in range(most + 1)
        for chosen in permutations(ports, count)
    ]


def _output(port: Port) -> dict[str, Any]:
    known: dict[str, Any] = {"binary_data": _FLAG}
    if port.dtype not in ("BOOL", BYTES):
        known["classification"] = {"type": "integer", "minimum": 0, "maximum": CLASSES_MAX}
    return _object({"name": {"const": port.name}, "parameters": _object(known)}, required=("name",))


def _all_of(schemas: Any) -> dict[str, Any]:
    found = list(schemas)
    array: dict[str, Any] = {"type": "array", "minItems": len(found), "maxItems": len(found)}
    return array | ({"prefixItems": found} if found else {})


def _object(properties: Mapping[str, Any], *, required: tuple[str, ...] = ()) -> dict[str, Any]:
    found: dict[str, Any] = {"type": "object", "additionalProperties": False}
    if properties:
        found["properties"] = dict(properties)
    return found | ({"required": required} if required else {})
