"""Tensors that an ONNX graph joins with themselves: how often the first one is in the last.

Joined sixteen times with itself and that twelve times over, one number is 16^12 of them, in a file
of a kilobyte. So of every value it is counted how often some input is in it: operators that join
add, those that only pass on keep the largest of theirs, all others (a product of matrices, a
convolution, a choice) make a size of their own and begin at one. In a loop what is carried from
round to round counts by itself: what is in it twice after one round doubles in each.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from modelkeep.kernels.onnxmodel import OnnxGraph, OnnxModel, OnnxNode
from modelkeep.scan.graph_sizes import ELEMENTS_MAX, Numbers, innermost_first, learn, written

_PASSING = frozenset(
    {"Identity", "Relu", "Sigmoid", "Tanh", "Neg", "Abs", "Cast", "Dropout", "Clip", "Exp",
     "Log", "Sqrt", "Add", "Sub", "Mul", "Div", "Min", "Max", "Sum", "Mean", "Where",
     "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Softmax", "LeakyRelu", "Elu",
     "Erf", "Gelu"}
)  # fmt: skip
_JOINING = ("Concat", "SequenceConstruct", "ConcatFromSequence")
_DEPTH_MAX = 100
# Past this a count says no more.
_ENOUGH = float(1 << 60)
# A loop's inputs begin with its rounds and whether to begin; its body gives the second one back.
_LOOP_FIRST = 2
# Rounds that no loop of a model has, whose end its body does not decide.
_ROUNDS_MAX = 1 << 32
_Counts = Mapping[str, float]
_Functions = Mapping[tuple[str, str], float]


def growths_of(view: memoryview, model: OnnxModel) -> Iterator[tuple[bool, str]]:
    """Where a graph makes more of its input than any model does."""
    functions = _functions(model)
    for (_, name), grown in functions.items():
        if grown > ELEMENTS_MAX:
            yield True, f"function {name!r:.60} holds its input {grown:.3g} times"
            return
    if model.graph is not None:
        yield from _growths(view, model.graph, functions, {}, {}, depth=0)


def _functions(model: OnnxModel) -> _Functions:
    """How often a function's input is in what it gives."""
    bodies = {(each.domain, each.name): each for each in model.functions}
    calls = {
        name: [(node.domain, node.op_type) for node in each.nodes] for name, each in bodies.items()
    }
    grown: dict[tuple[str, str], float] = {}
    for name in innermost_first(calls):
        counts: dict[str, float] = {}
        for node in bodies[name].nodes:
            counts.update(dict.fromkeys(node.outputs, _count(node, counts, grown)))
        grown[name] = max((counts.get(each, 1.0) for each in bodies[name].outputs), default=1.0)
    return grown


def _growths(
    view: memoryview,
    graph: OnnxGraph,
    functions: _Functions,
    outer: _Counts,
    outer_known: Mapping[str, Numbers],
    *,
    depth: int,
) -> Iterator[tuple[bool, str]]:
    known = {**outer_known, **written(view, graph.initializers)}
    counts: dict[str, float] = dict(outer)
    for node in graph.nodes:
        learn(view, node, known)
        grown = _count(node, counts, functions)
        if node.op_type == "Loop" and node.subgraphs:
            rounds = known.get(node.inputs[0], ()) if node.inputs else ()
            if len(rounds) == 1:
                grown = max(grown, _looped(node.subgraphs[0], rounds[0], functions))
                if rounds[0] > _ROUNDS_MAX and not _may_end(node.subgraphs[0]):
                    yield False, f"Loop {node.name!r:.60} runs {rounds[0]:.3g} times"
        if grown > ELEMENTS_MAX:
            yield True, f"{node.op_type} {node.name!r:.60} holds its input {grown:.3g} times"
            return
        counts.update(dict.fromkeys(node.outputs, grown))
        if depth < _DEPTH_MAX:
            for inner in node.subgraphs:
                yield from _growths(view, inner, functions, counts, known, depth=depth + 1)


def _count(
    node: OnnxNode, counts: _Counts, functions: _Functions, *, foreign: float = 1.0
) -> float:
    """How often some input is in what a node gives; `foreign` is what other values count."""
    given = [counts.get(name, foreign) for name in node.inputs]
    if node.op_type in _JOINING:
        return min(sum(given), _ENOUGH)
    most = max(given, default=foreign)
    own = functions.get((node.domain, node.op_type))
    if own is not None:
        return min(most * own, _ENOUGH)
    return most if node.op_type in _PASSING else foreign


def _looped(body: OnnxGraph, rounds: float, functions: _Functions) -> float:
    """How often what a loop carries is in what it gives after its rounds."""
    most = 1.0
    for place, carried in enumerate(body.inputs[_LOOP_FIRST:], start=1):
        counts = {carried.name: 1.0}
        for node in body.nodes:
            counts.update(dict.fromkeys(node.outputs, _count(node, counts, functions, foreign=0.0)))
        after = counts.get(body.outputs[place].name, 0.0) if place < len(body.outputs) else 0.0
        if after > 1.0 and rounds > 0:
            most = max(most, after ** min(rounds, 64.0))
    return most


def _may_end(body: OnnxGraph) -> bool:
    """Whether the body computes whether to go on; a constant, or what it was given, says always."""
    going = body.outputs[0].name if body.outputs else ""
    given = {each.name for each in body.inputs[1:_LOOP_FIRST]}
    given.update(each.name for each in body.initializers)
    for node in body.nodes:
        if node.op_type == "Constant" or (
            node.op_type in ("Identity", "Cast") and given.issuperset(node.inputs)
        ):
            given.update(node.outputs)
    return going not in given
