"""A canary at the door: a call that could never be asked is refused, not found in a recovery."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence

from modelkeep.core.artifact import Canary, CanaryTensor, Port, Schema
from modelkeep.core.errors import IntegrityError, UsageError
from modelkeep.core.record import from_json
from modelkeep.gate.schema import fits
from modelkeep.kernels.wire import ELEMENT_BYTES, FLOAT_DTYPES, element_count, packed


def parsed_canary(raw: bytes, *, what: str) -> Canary:
    """Read a canary as its owner wrote it.

    Raises:
        UsageError: `canary.form`.
    """
    try:
        return from_json(Canary, raw, what=what)
    except IntegrityError as error:
        raise UsageError(
            "canary.form",
            error.message,
            hint='{"inputs": [{"name", "dtype", "shape", "values"}], "outputs": […]}',
        ) from error


def demand_canary(canary: Canary, schema: Schema | None) -> None:
    """Accept a canary that the model can be asked and whose answer can be compared.

    Raises:
        UsageError: `canary.*`.
    """
    if schema is None:
        raise UsageError(
            "canary.schema",
            "the model's format does not say what it takes, so no canary can be asked",
            hint="leave --canary out",
        )
    if not math.isfinite(canary.tolerance) or canary.tolerance < 0:
        raise UsageError("canary.tolerance", "the canary's tolerance is no number from 0 on")
    _demand_side("input", canary.inputs, schema.inputs)
    _demand_side("output", canary.outputs, schema.outputs)
    missing = {port.name for port in schema.inputs} - {each.name for each in canary.inputs}
    if missing:
        raise UsageError("canary.missing", f"the canary lacks the input {min(missing)[:80]!r}")


def _demand_side(side: str, given: Sequence[CanaryTensor], ports: Sequence[Port]) -> None:
    by_name = {port.name: port for port in ports}
    if not given:
        raise UsageError("canary.empty", f"the canary has no {side}s")
    if len({each.name for each in given}) != len(given):
        raise UsageError("canary.duplicate", f"the canary gives an {side} twice")
    for each in given:
        port = by_name.get(each.name)
        if port is None:
            raise UsageError(
                "canary.name",
                f"the model has no {side} named {each.name[:80]!r}",
                hint=f"its {side}s are {', '.join(by_name)}",
            )
        _demand_form(f"{side} {port.name!r} of the canary", each, port)


def _demand_form(what: str, each: CanaryTensor, port: Port) -> None:
    if each.dtype != port.dtype or each.dtype not in ELEMENT_BYTES:
        raise UsageError(
            "canary.dtype",
            f"{what} is {each.dtype[:20]!r}",
            hint=f"the model has {port.dtype}",
        )
    if min(each.shape, default=1) < 1 or not fits(port.shape, each.shape):
        raise UsageError(
            "canary.shape",
            f"{what} has the shape {list(each.shape[:8])}",
            hint=f"the model has {list(port.shape)}, where -1 is any number from 1 on",
        )
    if len(each.values) != element_count(each.shape):
        raise UsageError(
            "canary.values",
            f"{what} has {len(each.values)} values",
            hint=f"its shape {list(each.shape)} holds {element_count(each.shape)}",
        )
    if not _are_of(each.dtype, each.values):
        raise UsageError("canary.values", f"{what} has a value that is no {each.dtype}")


def _are_of(dtype: str, values: Sequence[float]) -> bool:
    if not all(map(math.isfinite, values)):
        return False
    if dtype not in FLOAT_DTYPES and any(value != int(value) for value in values):
        return False
    if dtype == "BOOL":
        return all(value in (0, 1) for value in values)
    try:
        packed(dtype, values if dtype in FLOAT_DTYPES else [int(value) for value in values])
    except (OverflowError, struct.error):
        return False
    return True
