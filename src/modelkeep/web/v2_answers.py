"""How V2 over HTTP reads an infer request and writes its answer: JSON, with or without binary.

A body has one of two forms: JSON, or JSON followed by binary tensors with
`Inference-Header-Content-Length` saying where they begin; both ways alike.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any

from modelkeep.core.errors import IntegrityError, UnavailableError, UsageError
from modelkeep.core.record import Record, to_json
from modelkeep.flows.call import Rendered, Served
from modelkeep.gate.schema import CheckedCall, SchemaCheck
from modelkeep.kernels.classes import classified
from modelkeep.kernels.wire import FLOAT_DTYPES, Tensor, values_of


class AnswerTensor(Record, frozen=True, omit_defaults=True):
    """One output in the JSON part of an answer."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    parameters: dict[str, int] | None = None
    data: tuple[Any, ...] | None = None


class AnswerBody(Record, frozen=True, omit_defaults=True):
    """The JSON part of an answer."""

    model_name: str
    model_version: str
    outputs: tuple[AnswerTensor, ...]
    id: str = ""


class JsonWork:
    """One infer request over HTTP.

    Args:
        body: as received.
        head_bytes: value of `Inference-Header-Content-Length`; None where it is not given.
    """

    __slots__ = ("_began_ns", "_head_bytes", "body")

    def __init__(self, body: bytes | bytearray, head_bytes: bytes | None) -> None:
        self.body = body
        self._head_bytes = head_bytes
        self._began_ns = time.monotonic_ns()

    def read(self, check: SchemaCheck) -> CheckedCall:
        """Check the call."""
        given = self._head_bytes
        if given is None:
            return check.checked(self.body)
        if not (given.isdigit() and len(given) <= 10):
            raise UsageError("schema.binary", "Inference-Header-Content-Length is not a length")
        return check.checked(self.body, head_bytes=int(given))

    def render(self, served: Served, checked: CheckedCall, outputs: Sequence[Tensor]) -> Rendered:
        """Write the answer."""
        demand_in_time(checked, self._began_ns)
        return rendered(served, checked, outputs)


def demand_in_time(checked: CheckedCall, began_ns: int) -> None:
    """Refuse an answer that is later than its caller wants.

    Raises:
        UnavailableError: `gate.deadline`.
    """
    if checked.timeout_us and time.monotonic_ns() - began_ns > checked.timeout_us * 1000:
        raise UnavailableError(
            "gate.deadline",
            "the answer took longer than the call's timeout",
            hint="give the call more time, or none",
        )


def rendered(served: Served, checked: CheckedCall, outputs: Sequence[Tensor]) -> Rendered:
    """Write an answer as V2 wants it.

    Raises:
        IntegrityError: `answer.finite`, when JSON cannot hold the model's output.
    """
    tensors = []
    binary: list[Any] = []
    for wanted in checked.outputs:
        output = outputs[wanted.index]
        if wanted.classes:
            output = classified(output, wanted.classes)
        if wanted.is_binary:
            size = {"binary_data_size": len(output.raw)}
            tensors.append(
                AnswerTensor(
                    name=output.name, datatype=output.dtype, shape=output.shape, parameters=size
                )
            )
            binary.append(output.raw)
        else:
            tensors.append(
                AnswerTensor(
                    name=output.name,
                    datatype=output.dtype,
                    shape=output.shape,
                    data=_json_values(output),
                )
            )
    head = to_json(
        AnswerBody(
            model_name=served.name,
            model_version=str(served.version),
            outputs=tuple(tensors),
            id=checked.identifier,
        )
    )
    if not binary:
        return Rendered(head)
    return Rendered(b"".join((head, *binary)), len(head))


def _json_values(output: Tensor) -> tuple[Any, ...]:
    values = values_of(output)
    if output.dtype in FLOAT_DTYPES and not (
        math.isfinite(sum(values)) or all(map(math.isfinite, values))
    ):
        raise IntegrityError(
            "answer.finite",
            f"output {output.name!r} holds a value that JSON cannot hold",
            hint="ask for this output as binary tensor to see it",
        )
    return values
