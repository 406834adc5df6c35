"""What a small ONNX file makes of itself: tensors of a written size, functions of functions.

A runtime makes a constant of a shape when it loads the model, and puts a function's nodes in place
of each call. A few bytes can stand for more memory than any machine has, both ways. A third way is
to join a tensor with itself, again and again: `modelkeep.scan.graph_growth`.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from math import isfinite, prod

from modelkeep.core.errors import IntegrityError
from modelkeep.kernels import protobuf
from modelkeep.kernels.onnxmodel import OnnxGraph, OnnxModel, OnnxNode, OnnxTensor

# Sixteen times the largest tensor of the largest published models.
ELEMENTS_MAX = 1 << 36
# Runtimes take minutes for a tenth of it.
_INLINED_MAX = 10_000_000
_RANK_MAX = 64
# TensorProto.DataType: how a number of it lies in raw bytes.
_FORMS = {1: "<f", 6: "<i", 7: "<q", 11: "<d"}
_VARINTS = (6, 7)
_DEPTH_MAX = 100
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


def bombs_of(view: memoryview, model: OnnxModel) -> Iterator[str]:
    """What the model would grow to, where that is more than a model is."""
    if model.graph is not None:
        yield from _graph_bombs(view, model.graph, {}, 0)
    for function in model.functions:
        yield from _node_bombs(view, function.nodes, {}, 0)
    yield from _inlined_bombs(model)


def _graph_bombs(
    view: memoryview, graph: OnnxGraph, outer: Mapping[str, OnnxTensor], depth: int
) -> Iterator[str]:
    known = {**outer, **{each.name: each for each in graph.initializers if _is_shape(each)}}
    if depth < _DEPTH_MAX:
        yield from _node_bombs(view, graph.nodes, known, depth)


def _node_bombs(
    view: memoryview, nodes: Iterable[OnnxNode], outer: Mapping[str, OnnxTensor], depth: int
) -> Iterator[str]:
    known = dict(outer)
    for node in nodes:
        if node.op_type == "Constant" and node.outputs:
            known.update((node.outputs[0], each) for each in node.tensors if _is_shape(each))
        elements = max(_asked(view, node, known), prod(node.shape))
        if elements > ELEMENTS_MAX:
            yield f"{node.op_type} {node.name!r:.60} makes a tensor of {elements:.0f} elements"
        for graph in node.subgraphs:
            yield from _graph_bombs(view, graph, known, depth + 1)


def _asked(view: memoryview, node: OnnxNode, known: Mapping[str, OnnxTensor]) -> float:
    """How many elements a node makes at least, as far as constants say."""
    given = [known.get(name) for name in node.inputs]
    if node.op_type == "Range" and len(given) == 3:
        written = [numbers_of(view, each) for each in given if each is not None]
        if len(written) == 3 and all(len(each) == 1 for each in written):
            (start,), (limit,), (step,) = written
            return (limit - start) / step if step else 0
    asked = [
        elements(numbers_of(view, tensor))
        for place, elements in _SHAPING.get(node.op_type, ())
        if place < len(given) and (tensor := given[place]) is not None
    ]
    return max(asked, default=0)


def _is_shape(tensor: OnnxTensor) -> bool:
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


def _inlined_bombs(model: OnnxModel) -> Iterator[str]:
    """How many nodes the graph has once every function stands where it is called."""
    calls = {
        (each.domain, each.name): [(node.domain, node.op_type) for node in _all_of(each.nodes)]
        for each in model.functions
    }
    sizes: dict[_Name, int] = {}
    for name in _innermost_first(calls):
        sizes[name] = sum(sizes.get(each, 1) for each in calls[name])
        if sizes[name] > _INLINED_MAX:
            yield f"function {name[1]!r:.60} stands for {sizes[name]} nodes"
            return


def _all_of(nodes: Iterable[OnnxNode]) -> Iterator[OnnxNode]:
    for node in nodes:
        yield node
        for graph in node.subgraphs:
            yield from _all_of(graph.nodes)


def _innermost_first(calls: Mapping[_Name, list[_Name]]) -> Iterator[_Name]:
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
