"""Tensors that an ONNX graph joins with themselves: how often the first one is in the last.

Joined sixteen times with itself and that twelve times over, one number is 16^12 of them, in a file
of a kilobyte. So of every value it is counted how often some input is in it: operators that join
add, those that only pass on keep the largest of theirs, all others (a product of matrices, a
convolution, a choice) make a size of their own and begin at one. In a loop what is carried from
round to round counts by itself: what is in it twice after one round doubles in each.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from modelkeep.kernels.onnxmodel import OnnxGraph, OnnxModel, OnnxNode, OnnxTensor
from modelkeep.scan.graph_sizes import ELEMENTS_MAX, numbers_of

_PASSING = frozenset(
    {"Identity", "Relu", "Sigmoid", "Tanh", "Neg", "Abs", "Cast", "Dropout", "Clip", "Exp",
     "Log", "Sqrt", "Add", "Sub", "Mul", "Div", "Min", "Max", "Sum", "Mean", "Where",
     "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Softmax", "LeakyRelu", "Elu",
     "Erf", "Gelu"}
)  # fmt: skip
_JOINING = ("Concat", "SequenceConstruct", "ConcatFromSequence")
_DEPTH_MAX = 100
# A loop's inputs begin with its rounds and whether to begin; its body gives the second one back.
_LOOP_FIRST = 2
_Counts = Mapping[str, float]


def growths_of(view: memoryview, model: OnnxModel) -> Iterator[str]:
    """Where a graph makes more of its input than any model does."""
    if model.graph is not None:
        yield from _growths(view, model.graph, {}, {}, 0)


def _growths(
    view: memoryview,
    graph: OnnxGraph,
    outer: _Counts,
    outer_known: Mapping[str, OnnxTensor],
    depth: int,
) -> Iterator[str]:
    known = {**outer_known, **{each.name: each for each in graph.initializers}}
    counts: dict[str, float] = dict(outer)
    for node in graph.nodes:
        if node.op_type == "Constant" and node.outputs:
            known.update((node.outputs[0], each) for each in node.tensors)
        grown = _count(node, counts)
        if node.op_type == "Loop" and node.subgraphs:
            grown = max(grown, _looped(view, node, known))
        if grown > ELEMENTS_MAX:
            yield f"{node.op_type} {node.name!r:.60} holds its input {grown:.3g} times"
            return
        counts.update(dict.fromkeys(node.outputs, grown))
        if depth < _DEPTH_MAX:
            for inner in node.subgraphs:
                yield from _growths(view, inner, counts, known, depth + 1)


def _count(node: OnnxNode, counts: _Counts) -> float:
    given = [counts.get(name, 1.0) for name in node.inputs]
    if node.op_type in _JOINING:
        return sum(given)
    return max(given, default=1.0) if node.op_type in _PASSING else 1.0


def _looped(view: memoryview, node: OnnxNode, known: Mapping[str, OnnxTensor]) -> float:
    """How often what a loop carries is in what it gives, where its rounds are written."""
    rounds = known.get(node.inputs[0]) if node.inputs else None
    numbers = [] if rounds is None or rounds.offset < 0 else _written(view, rounds)
    if len(numbers) != 1:
        return 1.0
    body = node.subgraphs[0]
    most = 1.0
    for place, carried in enumerate(body.inputs[_LOOP_FIRST:], start=1):
        counts = {carried.name: 1.0}
        for inner in body.nodes:
            given = [counts.get(name, 0.0) for name in inner.inputs]
            joined = sum(given) if inner.op_type in _JOINING else max(given, default=0.0)
            passed = joined if inner.op_type in (*_JOINING, *_PASSING) else 0.0
            counts.update(dict.fromkeys(inner.outputs, min(passed, float(ELEMENTS_MAX))))
        after = counts.get(body.outputs[place].name, 0.0) if place < len(body.outputs) else 0.0
        if after > 1.0 and numbers[0] > 0:
            most = max(most, after ** min(numbers[0], 64.0))
    return most


def _written(view: memoryview, tensor: OnnxTensor) -> list[float]:
    return numbers_of(view, tensor) if tensor.element_type in (6, 7) else []
