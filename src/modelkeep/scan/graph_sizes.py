"""What a small ONNX file makes of itself: tensors of a written size, functions of functions.

A runtime makes a constant of a shape when it loads the model, and puts a function's nodes in place
of each call. A few bytes can stand for more memory than any machine has, both ways.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from math import prod

from modelkeep.core.errors import IntegrityError
from modelkeep.kernels import protobuf
from modelkeep.kernels.onnxmodel import OnnxGraph, OnnxModel, OnnxNode, OnnxTensor

# Sixteen times the largest tensor of the largest published models.
_ELEMENTS_MAX = 1 << 36
# Runtimes take minutes for a tenth of it.
_INLINED_MAX = 10_000_000
_RANK_MAX = 64
_INT64 = 7
_SHAPING = {"ConstantOfShape": 0, "Expand": 1, "Tile": 1, "Reshape": -1, "CenterCropPad": 1}
_DEPTH_MAX = 100

_Name = tuple[str, str]


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
        place = _SHAPING.get(node.op_type, -1)
        shape = known.get(node.inputs[place]) if 0 <= place < len(node.inputs) else None
        if shape is not None:
            elements = prod(max(1, value) for value in _values(view, shape))
            if elements > _ELEMENTS_MAX:
                yield f"{node.op_type} {node.name!r:.60} makes a tensor of {elements} elements"
        for graph in node.subgraphs:
            yield from _graph_bombs(view, graph, known, depth + 1)


def _is_shape(tensor: OnnxTensor) -> bool:
    return tensor.element_type == _INT64 and len(tensor.shape) <= 1 and tensor.offset >= 0


def _values(view: memoryview, tensor: OnnxTensor) -> list[int]:
    """The numbers of a small tensor of int64."""
    if tensor.shape and tensor.shape[0] > _RANK_MAX:
        return []
    stop = tensor.offset + tensor.length
    if tensor.storage == "raw":
        return [
            int.from_bytes(view[at : at + 8], "little", signed=True)
            for at in range(tensor.offset, stop - 7, 8)
        ]
    values, at = [], tensor.offset
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
