"""Functions of TensorFlow into ONNX, by tf2onnx."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tf2onnx

from modelkeep.adapters.conversion_tensorflow import Answer, compiled
from modelkeep.core.artifact import Port

OPSET = 18


def converted_function(
    said: Callable[..., Any], inputs: Sequence[Any], names: Sequence[str]
) -> tuple[bytes, tuple[Port, ...], Answer]:
    """A function as ONNX, what it takes, and how it answers itself.

    Args:
        names: of what it gives.

    Raises:
        UsageError: `conversion.inputs`.
        Exception: whatever the library raises of a graph that it does not know.
    """
    traced, forms, ports, answer = compiled(said, inputs)
    made, _ = tf2onnx.convert.from_function(traced, input_signature=forms, opset=OPSET)
    _name_outputs(made.graph, names)
    return made.SerializeToString(), ports, answer


def _name_outputs(graph: Any, names: Sequence[str]) -> None:
    """Give outputs the model's own names, where nothing in the graph has them."""
    taken = {name for node in graph.node for name in (*node.input, *node.output)}
    if len(names) != len(graph.output) or len({*names}) != len(names) or taken & {*names}:
        return
    for output, name in zip(graph.output, names, strict=True):
        graph.node.add(op_type="Identity", input=[output.name], output=[name])
        output.name = name
