"""How much of an answer leaves the gateway: what a model's policy makes of its outputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from modelkeep.core.artifact import Port, Schema
from modelkeep.core.policy import Output, Policy
from modelkeep.kernels.outputs import labelled, rounded
from modelkeep.kernels.wire import Tensor

# Takes the outputs of a schema, in its order.
Limit = Callable[[Sequence[Tensor]], tuple[Tensor, ...]]


def limit_of(policy: Policy, schema: Schema) -> Limit | None:
    """What outputs go through; None where all of an answer leaves."""
    if policy.output is Output.FULL:
        return None
    ports = schema.outputs
    return lambda outputs: tuple(
        limited(each, port, policy) for each, port in zip(outputs, ports, strict=True)
    )


def limited(output: Tensor, port: Port, policy: Policy) -> Tensor:
    """What may leave of one output."""
    match policy.output:
        case Output.FULL:
            return output
        case Output.ROUNDED:
            return rounded(output, policy.decimals)
        case Output.LABELS:
            # Where the only axis counts rows, each has one number: none of them is the largest.
            return labelled(output, is_row_each=port.shape == (-1,))
