"""A canary at the door: what could never be asked is refused, what answers wrongly is denied.

The form is looked at before anything is let in; the model itself is asked only once its files were
allowed, by a process that is locked in as a replica is (`ports.trial`).
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence

from modelkeep.core.artifact import Canary, CanaryTensor, Port, Schema
from modelkeep.core.errors import IntegrityError, UsageError
from modelkeep.core.record import from_json
from modelkeep.core.verdict import Finding, Severity
from modelkeep.gate.schema import fits
from modelkeep.kernels.closeness import farthest
from modelkeep.kernels.wire import ELEMENT_BYTES, FLOAT_DTYPES, Tensor, element_count, packed
from modelkeep.ports.scanner import Unjudged
from modelkeep.ports.trial import Trial


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


def canary_findings(
    canary: Canary, schema: Schema, file: Unjudged, trial: Trial
) -> tuple[Finding, ...]:
    """Ask a model that was allowed for the answer that its owner expects of it.

    Raises:
        UnavailableError: `trial.start`.
    """
    try:
        answers = {each.name: each for each in trial.answered(file, schema, canary.inputs)}
    except IntegrityError as error:
        return (_of_canary("failed", file.name, f"its canary could not be asked: {error.message}"),)
    findings = []
    for each in canary.outputs:
        # As a number of its type is what it is in a record: 0.1 is none in 32 bits.
        wanted = Tensor(each.name, each.dtype, each.shape, _packed(each))
        got = answers.get(each.name)
        apart = math.inf if got is None else farthest(got, wanted)
        if apart > canary.tolerance:
            how = "has another form" if math.isinf(apart) else f"is {apart:.3g} away"
            text = f"output {each.name[:80]!r} of its canary {how}; {canary.tolerance:g} is allowed"
            findings.append(_of_canary("answer", file.name, text))
    return tuple(findings)


def canary_call(
    canary: Canary, schema: Schema
) -> tuple[tuple[tuple[int, ...], ...], tuple[bytes, ...]]:
    """What a replica is asked: shapes and bytes of the canary's inputs, in the schema's order."""
    by_name = {each.name: each for each in canary.inputs}
    given = [by_name[port.name] for port in schema.inputs]
    return tuple(each.shape for each in given), tuple(map(_packed, given))


def canary_faults(
    canary: Canary,
    schema: Schema,
    shapes: Sequence[tuple[int, ...]],
    tensors: Sequence[memoryview],
) -> tuple[str, ...]:
    """What is wrong with a replica's answer to the canary, in sentences."""
    if len(shapes) != len(schema.outputs) or len(tensors) != len(schema.outputs):
        return ("it gives another number of outputs",)
    got = {
        port.name: Tensor(port.name, port.dtype, tuple(shape), bytes(raw))
        for port, shape, raw in zip(schema.outputs, shapes, tensors, strict=True)
    }
    faults = []
    for each in canary.outputs:
        wanted = Tensor(each.name, each.dtype, each.shape, _packed(each))
        apart = farthest(got[each.name], wanted) if each.name in got else math.inf
        if apart > canary.tolerance:
            faults.append(f"output {each.name[:80]!r} is {apart:.3g} away")
    return tuple(faults)


def _of_canary(rule: str, subject: str, text: str) -> Finding:
    return Finding(
        rule=f"sanity.canary.{rule}", severity=Severity.HIGH, subject=subject, evidence=text
    )


def _packed(each: CanaryTensor) -> bytes:
    is_float = each.dtype in FLOAT_DTYPES
    return packed(each.dtype, each.values if is_float else [int(value) for value in each.values])


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
