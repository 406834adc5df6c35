"""What an infer request says beside its tensors: V2's parameters, known ones only.

Some clients send parameters that mean nothing here (a sequence of id 0): these are taken. One that
would mean something which is not done is refused, because a call that says something we would
ignore is not the call that its caller meant.

| parameter | taken |
|---|---|
| `binary_data_output` | true or false |
| `timeout` | microseconds; an answer that takes longer is refused with 504 |
| `sequence_id`, `sequence_start`, `sequence_end` | 0 or empty, false: models keep no state |
| `priority` | 0: who goes first is the operator's to say |
| `triton_enable_empty_final_response` | true or false; a stream's answers are then marked |
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modelkeep.core.errors import UsageError
from modelkeep.core.record import Row

Parameter = str | int | float | bool | None
Parameters = Mapping[str, Parameter]

FINAL = "triton_enable_empty_final_response"
REQUEST_PARAMETERS = (
    "binary_data_output",
    "timeout",
    "sequence_id",
    "sequence_start",
    "sequence_end",
    "priority",
    FINAL,
)
_EXACT_MAX = 2**53  # beyond it a number that was read as floating-point is not what was written
TIMEOUT_US_MAX = _EXACT_MAX  # 285 years
# More are never worth a text; a model's row may be shorter.
CLASSES_MAX = 1000


class CallOptions(Row, frozen=True):
    """What a request asks for.

    Attributes:
        is_binary: whether outputs are binary unless they say otherwise.
        timeout_us: how long an answer may take; 0 for as long as the gateway lets it.
        marks_final: whether an answer says that none follows.
    """

    is_binary: bool = False
    timeout_us: int = 0
    marks_final: bool = False


PLAIN = CallOptions()


def options_of(parameters: Parameters) -> CallOptions:
    """Read a request's parameters.

    Raises:
        UsageError: `schema.parameter`.
    """
    if not parameters:
        return PLAIN
    demand_known(parameters, REQUEST_PARAMETERS)
    if parameters.get("sequence_id", 0) not in (0, ""):
        raise UsageError(
            "schema.parameter",
            "sequences are not supported: a model keeps nothing from call to call",
            hint="leave `sequence_id` out",
        )
    for name in ("sequence_start", "sequence_end"):
        if flag(parameters, name, default=False):
            raise UsageError(
                "schema.parameter",
                f"`{name}` without a sequence",
                hint=f"leave `{name}` out",
            )
    if number(parameters, "priority", most=2**64 - 1):
        raise UsageError(
            "schema.parameter",
            "a call cannot raise its own priority",
            hint="leave `priority` out; the operator sets it",
        )
    return CallOptions(
        is_binary=flag(parameters, "binary_data_output", default=False),
        timeout_us=number(parameters, "timeout", most=TIMEOUT_US_MAX),
        marks_final=flag(parameters, FINAL, default=False),
    )


def demand_known(parameters: Parameters, known: tuple[str, ...]) -> None:
    """Go on only if every parameter is one of the known ones.

    Raises:
        UsageError: `schema.parameter`.
    """
    for name in parameters:
        if name not in known:
            raise UsageError(
                "schema.parameter",
                f"the parameter {name[:80]!r} is not supported",
                hint=f"supported here: {', '.join(known)}",
            )


def flag(parameters: Parameters, name: str, *, default: bool) -> bool:
    """A parameter that is true or false.

    Raises:
        UsageError: `schema.parameter`.
    """
    value = parameters.get(name, default)
    if not isinstance(value, bool):
        raise UsageError("schema.parameter", f"the parameter {name!r} is not true or false")
    return value


def whole(value: Any) -> Any:
    """A whole number that JSON writes as `1.0`, as what it is; anything else as it came."""
    if type(value) is float and value.is_integer() and abs(value) <= _EXACT_MAX:
        return int(value)
    return value


def number(parameters: Parameters, name: str, *, most: int) -> int:
    """A parameter that counts something; 0 where it is not given.

    Raises:
        UsageError: `schema.parameter`.
    """
    value = whole(parameters.get(name, 0))
    if type(value) is not int or not 0 <= value <= most:
        raise UsageError("schema.parameter", f"the parameter {name!r} is not 0 to {most}")
    return value
