"""A closer look at what is let in so far: the form that its owner declares, its canary's answer.

Both come after the verdict of the scan, approvals included. What contradicts its owner's own words
is denied: another file was given, or it came out wrong.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from modelkeep.core.artifact import Canary, Port, Schema
from modelkeep.core.errors import IntegrityError, UsageError
from modelkeep.core.record import Record, from_json
from modelkeep.core.verdict import Finding, Severity
from modelkeep.flows.canary import canary_findings
from modelkeep.kernels.tensors import TensorPlace, places_of
from modelkeep.ports.scanner import Unjudged
from modelkeep.ports.trial import Trial
from modelkeep.vault.streams import Plain

_TOLD_MAX = 20
_FREE = -1


class DeclaredTensor(Record, frozen=True):
    """A tensor that must be there; -1 in the shape is any size."""

    name: str
    dtype: str
    shape: tuple[int, ...]


class Declared(Record, frozen=True):
    """What an owner says of a model's form; what is not said is not looked at.

    Attributes:
        inputs: all of them, in any order; likewise `outputs`.
        tensors: some of them, or all with `is_complete`.
        is_complete: whether a tensor that is not named must not be there.
        parameters: how many numbers all tensors have; -1 for no word.
    """

    inputs: tuple[Port, ...] = ()
    outputs: tuple[Port, ...] = ()
    tensors: tuple[DeclaredTensor, ...] = ()
    is_complete: bool = False
    parameters: int = -1


def parsed_declared(raw: bytes, *, what: str) -> Declared:
    """Read what an owner declares.

    Raises:
        UsageError: `schema.declared`.
    """
    try:
        return from_json(Declared, raw, what=what)
    except IntegrityError as error:
        raise UsageError(
            "schema.declared",
            error.message,
            hint='{"inputs": [{"name", "dtype", "shape"}], "outputs": […], "tensors": […], '
            '"is_complete": false, "parameters": 0}; all may be left out',
        ) from error


def closer_findings(
    files: Sequence[Plain],
    kinds: Mapping[str, str],
    schema: Schema | None,
    *,
    declared: Declared | None,
    canary: Canary | None,
    trial: Trial | None,
) -> tuple[Finding, ...]:
    """Look at a model that was let in so far.

    Args:
        kinds: of its files, as the scan named them.
        trial: asks it its canary; None: it is not asked.

    Raises:
        UnavailableError: `trial.start`.
    """
    findings: list[Finding] = []
    if declared is not None:
        places = places_of({each.path: each.raw for each in files}, kinds)
        tensors = [place for each in places.values() for place in each]
        findings += declared_findings(declared, schema, tensors, subject=files[0].path)
    is_wrong = any(each.severity is Severity.HIGH for each in findings)
    if canary is not None and schema is not None and trial is not None and not is_wrong:
        if len(files) == 1 and kinds.get(files[0].path) == "onnx":
            (file,) = files
            asked = Unjudged(file.path, file.raw, file.fd)
            findings += canary_findings(canary, schema, asked, trial)
        else:
            text = "its canary is asked before it is served: only ONNX models are asked here"
            findings.append(_found("canary.unasked", files[0].path, text, Severity.NOTE))
    return tuple(findings)


def declared_findings(
    declared: Declared, schema: Schema | None, tensors: Sequence[TensorPlace], *, subject: str
) -> tuple[Finding, ...]:
    """Where a model is not of the form that its owner declares."""
    told = [
        *_ports("input", declared.inputs, schema.inputs if schema is not None else None),
        *_ports("output", declared.outputs, schema.outputs if schema is not None else None),
        *_tensors(declared, tensors),
    ]
    findings = [_found("schema", subject, text) for text in told[:_TOLD_MAX]]
    if declared.parameters >= 0:
        # What has no type of the protocol is packed: how many numbers it holds is not known here.
        if any(each.dtype == "RAW" for each in tensors):
            text = "some tensors are packed, so their numbers were not counted"
            findings.append(_found("parameters", subject, text, Severity.NOTE))
        else:
            count = sum(math.prod(each.shape) for each in tensors)
            if count != declared.parameters:
                text = f"{declared.parameters} parameters are declared, its tensors have {count}"
                findings.append(_found("parameters", subject, text))
    return tuple(findings)


def _ports(side: str, wanted: Sequence[Port], here: Sequence[Port] | None) -> list[str]:
    if not wanted:
        return []
    if here is None:
        return [f"{side}s are declared, and its format does not say what it takes"]
    found = {port.name: port for port in here}
    told = []
    for port in wanted:
        own = found.pop(port.name, None)
        if own is None:
            told.append(f"the declared {side} {port.name[:80]!r} is not there")
        elif (own.dtype, own.shape) != (port.dtype, port.shape):
            told.append(
                f"{side} {port.name[:80]!r} is {own.dtype}{list(own.shape)}, "
                f"{port.dtype}{list(port.shape)} is declared"
            )
    return told + [f"it has an {side} {name[:80]!r} that is not declared" for name in found]


def _tensors(declared: Declared, tensors: Sequence[TensorPlace]) -> list[str]:
    found = {each.name: each for each in tensors}
    told = []
    for wanted in declared.tensors:
        own = found.pop(wanted.name, None)
        if own is None:
            told.append(f"the declared tensor {wanted.name[:80]!r} is not there")
        elif own.dtype != wanted.dtype or not _is_shape(own.shape, wanted.shape):
            told.append(
                f"tensor {wanted.name[:80]!r} is {own.dtype}{list(own.shape)}, "
                f"{wanted.dtype}{list(wanted.shape)} is declared"
            )
    if declared.is_complete:
        told += [f"it has a tensor {name[:80]!r} that is not declared" for name in found]
    return told


def _is_shape(here: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    return len(here) == len(wanted) and all(
        size in (own, _FREE) for own, size in zip(here, wanted, strict=True)
    )


def _found(rule: str, subject: str, text: str, severity: Severity = Severity.HIGH) -> Finding:
    return Finding(rule=f"sanity.{rule}", severity=severity, subject=subject, evidence=text[:320])
