"""What a small ONNX file makes of itself: tensors of a written size, functions of functions.

A runtime makes a constant of a shape when it loads the model, and puts a function's nodes in place
of each call. A few bytes can stand for more memory than any machine has, both ways. A third way is
to join a tensor with itself, again and again: `modelkeep.scan.graph_growth`.
"""

from __future__ import annotations

import operator
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from math import isfinite, prod

from modelkeep.core.errors import IntegrityError
from modelkeep.kernels import protobuf
from modelkeep.kernels.onnxmodel import OnnxGraph, OnnxModel, OnnxNode, OnnxTensor

# Sixteen times the largest tensor of the largest published models.
ELEMENTS_MAX = 1 << 36
# A tensor that nothing but written numbers makes: more is never honest, and less only where the
# model has weights of its own that compare with it.
_MADE_MAX = 1 << 32
_MADE_FREE = 1 << 28
_MADE_PER_BYTE = 1_000
# Runtimes take minutes for a tenth of it.
_INLINED_MAX = 10_000_000
_RANK_MAX = 64
# TensorProto.DataType: how a number of it lies in raw bytes.
_FORMS = {1: "<f", 6: "<i", 7: "<q", 11: "<d"}
_VARINTS = (6, 7)
_DEPTH_MAX = 100
# Operators that spread each of their two inputs over the other.
_SPREADING = ("Add", "Sub", "Mul", "Div", "Pow", "And", "Or", "Xor", "Equal", "Less", "Greater")
Numbers = Sequence[float]

_Name = tuple[str, str]


def _product(numbers: Numbers) -> float:
    return prod(max(1, each) for each in numbers)


def _padded(numbers: Numbers) -> float:
    half = len(numbers) // 2
    return prod(max(1, sum(pair)) for pair in zip(numbers[:half], numbers[half:], strict=False))


# Operator: which input says the size, and how many elements it asks for at least.
_SHAPING: Mapping[str, tuple[tuple[int, Callable[[Numbers], float]], ...]] = {
    "ConstantOfShape": ((0, _product),),
    "Expand": ((1, _product),),
    "Tile": ((1, _product),),
    "CenterCropPad": ((1, _product),),
    "Pad": ((1, _padded),),
    "OneHot": ((1, _product),),
    "Upsample": ((1, _product),),
    "Resize": ((2, _product), (3, _product)),
}


def bombs_of(view: memoryview, model: OnnxModel) -> Iterator[tuple[bool, str]]:
    """What the model would grow to, and whether that is more than any model is."""
    if model.graph is not None:
        yield from _graph_bombs(view, model.graph, {}, 0)
    for function in model.functions:
        yield from _node_bombs(view, function.nodes, {}, 0)
    yield from _inlined_bombs(model)


def written(view: memoryview, tensors: Iterable[OnnxTensor]) -> dict[str, Numbers]:
    """The numbers of small constants, which may be shapes, by their names."""
    return {each.name: numbers_of(view, each) for each in tensors if _is_small(each)}


def learn(view: memoryview, node: OnnxNode, known: dict[str, Numbers]) -> None:
    """Add what a node gives, where that follows from constants alone."""
    if len(node.outputs) != 1:
        return
    if node.op_type == "Constant":
        for each in filter(_is_small, node.tensors):
            known[node.outputs[0]] = numbers_of(view, each)
        return
    given = [known[name] for name in node.inputs if name in known]
    fold = _FOLDS.get(node.op_type)
    if fold is None or not given or len(given) != len(node.inputs):
        return
    with suppress(ArithmeticError, ValueError):
        known[node.outputs[0]] = fold(given)[:_RANK_MAX]


def _pairwise(apply: Callable[[float, float], float]) -> Callable[[list[Numbers]], Numbers]:
    def fold(given: list[Numbers]) -> Numbers:
        one, other = given
        width = max(len(one), len(other))
        spread = [list(each) * (width if len(each) == 1 else 1) for each in (one, other)]
        return [apply(*pair) for pair in zip(*spread, strict=True)]

    return fold


def _first(given: list[Numbers]) -> Numbers:
    return given[0]


_FOLDS: Mapping[str, Callable[[list[Numbers]], Numbers]] = {
    **dict.fromkeys(("Identity", "Cast", "Unsqueeze", "Squeeze", "Reshape"), _first),
    "Concat": lambda given: [value for each in given for value in each],
    "Mul": _pairwise(operator.mul),
    "Add": _pairwise(operator.add),
    "Sub": _pairwise(operator.sub),
    "Pow": _pairwise(lambda base, power: float(base) ** min(power, 1024.0)),
}


def _graph_bombs(
    view: memoryview, graph: OnnxGraph, outer: Mapping[str, Numbers], depth: int
) -> Iterator[tuple[bool, str]]:
    if depth < _DEPTH_MAX:
        known = {**outer, **written(view, graph.initializers)}
        yield from _node_bombs(view, graph.nodes, known, depth)


def _node_bombs(
    view: memoryview, nodes: Iterable[OnnxNode], outer: Mapping[str, Numbers], depth: int
) -> Iterator[tuple[bool, str]]:
    known = dict(outer)
    made: dict[str, Numbers] = {}  # shapes of what written numbers alone make
    for node in nodes:
        learn(view, node, known)
        shape = _made_shape(node, known, made)
        elements = max(_asked(node, known), _product(shape))
        if elements > max(_MADE_FREE, min(_MADE_MAX, _MADE_PER_BYTE * len(view))):
            text = f"{node.op_type} {node.name!r:.60} makes a tensor of {elements:.3g} elements"
            yield elements > _MADE_MAX, text
        elif shape and len(node.outputs) == 1:
            made[node.outputs[0]] = shape
        for graph in node.subgraphs:
            yield from _graph_bombs(view, graph, known, depth + 1)


def _made_shape(
    node: OnnxNode, known: Mapping[str, Numbers], made: Mapping[str, Numbers]
) -> Numbers:
    """The least shape of what a node gives, where written numbers say it; else none."""
    given = [made.get(name, ()) for name in node.inputs]
    if node.op_type in ("ConstantOfShape", "Expand"):
        place = 0 if node.op_type == "ConstantOfShape" else 1
        return known.get(node.inputs[place], ()) if place < len(node.inputs) else ()
    if node.op_type == "Reshape" and len(given) == 2 and given[0]:
        wanted = known.get(node.inputs[1], ())
        rest = _product(given[0]) / _product([each for each in wanted if each > 0])
        return tuple(each if each > 0 else rest for each in wanted)
    if node.op_type == "MatMul" and len(given) == 2 and all(len(each) > 1 for each in given):
        one, other = given
        return (*_wider(one[:-2], other[:-2]), one[-2], other[-1])
    if node.op_type in _SPREADING and len(given) == 2:
        return _wider(*given)
    return node.shape


def _wider(one: Numbers, other: Numbers) -> Numbers:
    """The shape that two shapes have together, once each is spread over the other."""
    rank = max(len(one), len(other))
    padded = [(1,) * (rank - len(each)) + tuple(each) for each in (one, other)]
    return tuple(max(pair) for pair in zip(*padded, strict=True))


def _asked(node: OnnxNode, known: Mapping[str, Numbers]) -> float:
    """How many elements a node makes at least, as far as constants say."""
    given = [known.get(name, ()) for name in node.inputs]
    if node.op_type == "Range" and len(given) == 3 and all(len(each) == 1 for each in given):
        (start,), (limit,), (step,) = given
        return (limit - start) / step if step else 0
    asked = (
        elements(given[place])
        for place, elements in _SHAPING.get(node.op_type, ())
        if place < len(given)
    )
    return max(asked, default=0)


def _is_small(tensor: OnnxTensor) -> bool:
    return tensor.element_type in _FORMS and len(tensor.shape) <= 1 and tensor.offset >= 0


def numbers_of(view: memoryview, tensor: OnnxTensor) -> list[float]:
    """The numbers of a small tensor; none of a larger one."""
    if tensor.shape and tensor.shape[0] > _RANK_MAX:
        return []
    stop = tensor.offset + tensor.length
    if tensor.storage == "raw" or tensor.element_type not in _VARINTS:
        form = _FORMS[tensor.element_type]
        whole = tensor.length - tensor.length % struct.calcsize(form)
        found = struct.iter_unpack(form, view[tensor.offset : tensor.offset + whole])
        return [value for (value,) in found if isfinite(value)]
    values: list[float] = []
    at = tensor.offset
    try:
        while at < stop:
            value, at = protobuf.varint(view, at, stop)
            values.append(protobuf.signed(value))
    except IntegrityError:
        return []
    return values


def _inlined_bombs(model: OnnxModel) -> Iterator[tuple[bool, str]]:
    """How many nodes the graph has once every function stands where it is called."""
    calls = {
        (each.domain, each.name): [(node.domain, node.op_type) for node in _all_of(each.nodes)]
        for each in model.functions
    }
    sizes: dict[_Name, int] = {}
    for name in innermost_first(calls):
        sizes[name] = sum(sizes.get(each, 1) for each in calls[name])
        if sizes[name] > _INLINED_MAX:
            yield True, f"function {name[1]!r:.60} stands for {sizes[name]} nodes"
            return


def _all_of(nodes: Iterable[OnnxNode]) -> Iterator[OnnxNode]:
    for node in nodes:
        yield node
        for graph in node.subgraphs:
            yield from _all_of(graph.nodes)


def innermost_first(calls: Mapping[_Name, list[_Name]]) -> Iterator[_Name]:
    """Functions after those they call; those that call themselves are left out."""
    state: dict[_Name, bool] = {}
    for start in calls:
        pending = [(start, False)]
        while pending:
            name, is_done = pending.pop()
            if is_done:
                state[name] = True
                yield name
            elif name not in state:
                state[name] = False
                pending.append((name, True))
                pending.extend(
                    (each, False)
                    for each in set(calls[name])
                    if each in calls and each not in state
                )
