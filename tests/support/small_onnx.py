"""A model that is made in a millisecond: it adds some numbers to its input."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from modelkeep.core.artifact import Canary, CanaryTensor


def small_onnx(path: Path, *, added: float = 1.0) -> Path:
    """Write it: `x` of shape (-1, 4) in, `y` of the same shape out."""
    weights = numpy_helper.from_array(np.full(4, added, np.float32), "w")
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, 4]) for name in "xy"]
    node = helper.make_node("Add", ["x", "w"], ["y"])
    graph = helper.make_graph([node], "small", ports[:1], ports[1:], [weights])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(made.SerializeToString())
    return path


def small_canary(*, added: float = 1.0) -> Canary:
    """A call of it whose answer is known."""
    sides = (("x", (0.0,) * 4), ("y", (added,) * 4))
    asked, known = (
        CanaryTensor(name=name, dtype="FP32", shape=(1, 4), values=values) for name, values in sides
    )
    return Canary(inputs=(asked,), outputs=(known,))
