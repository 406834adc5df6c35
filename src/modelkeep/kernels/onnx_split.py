"""Parts an ONNX file into a small graph and the weights, which stay where they lie.

A runtime that is given a model in one piece copies it at least twice: the file as bytes, and every
weight out of them. So the graph is written again with each large weight replaced by a reference to
external data, and the weights are handed over beside it as pieces of the file.

Theory of operation. `onnx_layout` reads the file by its own strict rules and says which initializer
lies where; then only the way down to each weight is walked again (ModelProto, GraphProto, its
TensorProto), and everything else is taken over as the bytes that it is. A weight is parted off when
nothing about it is in doubt:

- it is an initializer of the main graph, no other one of the model has its name, a node takes it,
  and the graph does not give it back (a runtime drops what no node takes, and then misses it);
- its elements are whole bytes, stand little-endian in one `raw_data`, and are as many as its shape
  says (text, complex and packed four-bit elements stay);
- it is large: small ones may be shapes and axes, whose values a runtime needs to infer others.

All else stays in the graph: typed fields (`float_data`), tensors of nodes, subgraphs and functions.
A model that keeps anything outside its file is refused: what is not in the file was never signed.
The views are for hosts that are little-endian themselves; no other host is supported.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from modelkeep.core.errors import IntegrityError
from modelkeep.kernels import protobuf
from modelkeep.kernels.externals import external_tensors
from modelkeep.kernels.onnx import onnx_layout
from modelkeep.kernels.onnxmodel import OnnxGraph, OnnxModel, OnnxTensor
from modelkeep.kernels.protobuf import LENGTH, VARINT, Field

# Shapes, axes and scales of a layer are smaller; the weights that make a model large are larger.
WEIGHT_BYTES_MIN = 64 * 1024
# TensorProto.DataType: bytes of one element, of the types that are parted off.
ELEMENT_BYTES = {
    **dict.fromkeys((2, 3, 9, 17, 18, 19, 20, 24), 1),
    **dict.fromkeys((4, 5, 10, 16), 2),
    **dict.fromkeys((1, 6, 12), 4),
    **dict.fromkeys((7, 11, 13), 8),
}
# The file that the graph says its weights lie in; a runtime that is given them never looks for it.
LOCATION = "weights"
_MODEL_GRAPH = 7
_GRAPH_INITIALIZER = 5
_TENSOR_RAW = 9
_TENSOR_EXTERNAL = 13
_TENSOR_PLACE = 14
_PLACE_EXTERNAL = 1


@dataclass(frozen=True, slots=True)
class Weight:
    """One initializer that was parted off.

    Attributes:
        element_type: ONNX's own number of the type, one of `ELEMENT_BYTES`.
        offset: of its first byte in the file; it may be odd.
        length: in bytes, exactly what type and shape make.
    """

    name: str
    element_type: int
    shape: tuple[int, ...]
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class SplitModel:
    """A model in two parts.

    Attributes:
        graph: an ONNX file. External data of the weights, and of nothing else, is said to lie in
            `LOCATION`, at its offset in the file that was split.
        weights: in the order of the file; their names are distinct.
    """

    graph: bytes
    weights: tuple[Weight, ...]


def split_onnx(view: memoryview, *, weight_bytes_min: int = WEIGHT_BYTES_MIN) -> SplitModel:
    """Part the large weights from the graph; only the graph is copied.

    Args:
        view: the whole file; a mapped one is read where it is.
        weight_bytes_min: a smaller weight stays in the graph.

    Raises:
        IntegrityError: `onnx.external`, when data lies outside the file; else as `onnx_layout`.
    """
    model = onnx_layout(view)
    if external_tensors("", model):
        raise IntegrityError(
            "onnx.external",
            "the model keeps data in other files",
            hint="save it with its weights inside (onnx.save with save_as_external_data=False)",
        )
    weights = _weights(model, weight_bytes_min)
    if not weights:
        return SplitModel(bytes(view), ())
    return SplitModel(_written(view, weights), weights)


def _weights(model: OnnxModel, weight_bytes_min: int) -> tuple[Weight, ...]:
    """What is parted off, in the order of the file."""
    if model.graph is None:
        return ()
    graphs = [model.graph, *_subgraphs(model.graph)]
    names = Counter(tensor.name for graph in graphs for tensor in graph.initializers + graph.sparse)
    taken = {name for graph in graphs for node in graph.nodes for name in node.inputs}
    given = {port.name for port in model.graph.outputs}
    return tuple(
        Weight(tensor.name, tensor.element_type, tensor.shape, tensor.offset, tensor.length)
        for tensor in model.graph.initializers
        if tensor.length >= weight_bytes_min
        and _is_plain(tensor)
        and names[tensor.name] == 1
        and tensor.name in taken
        and tensor.name not in given
    )


def _subgraphs(graph: OnnxGraph) -> Iterator[OnnxGraph]:
    """All graphs inside it, at every depth (which the parser bounds)."""
    for node in graph.nodes:
        for inner in node.subgraphs:
            yield inner
            yield from _subgraphs(inner)


def _is_plain(tensor: OnnxTensor) -> bool:
    """Whether its bytes are its elements, all of them, and nothing else."""
    length = ELEMENT_BYTES.get(tensor.element_type, 0)
    for size in tensor.shape:
        length *= size  # at most 64 factors of 63 bits
    return tensor.storage == "raw" and 0 < length == tensor.length


def _written(view: memoryview, weights: tuple[Weight, ...]) -> bytes:
    """The file again, each weight a reference."""
    at = 0
    pieces: list[bytes | memoryview] = []
    for field in protobuf.fields(view):
        end = field.offset + field.length
        if field.number == _MODEL_GRAPH:
            graph = _graph(view, field, weights)
            length = sum(map(len, graph))
            pieces += [_tag(_MODEL_GRAPH, LENGTH), _varint(length), *graph]
        else:
            pieces.append(view[at:end])
        at = end
    return b"".join(pieces)


def _graph(view: memoryview, span: Field, weights: tuple[Weight, ...]) -> list[bytes | memoryview]:
    """The graph's bytes; what lies between two weights is one piece."""
    left = iter(weights)
    weight = next(left, None)
    kept = at = span.offset
    stop = span.offset + span.length
    pieces: list[bytes | memoryview] = []
    for field in protobuf.fields(view, span.offset, stop, depth=1):
        end = field.offset + field.length
        # Weights stand in the order of the file, and in no field but an initializer.
        if weight is not None and field.offset < weight.offset < end:
            if field.number != _GRAPH_INITIALIZER:
                raise AssertionError("a weight lies in no initializer")
            pieces += [view[kept:at], _message(_GRAPH_INITIALIZER, _tensor(view, field, weight))]
            kept = end
            weight = next(left, None)
        at = end
    if weight is not None:
        raise AssertionError("a weight was not met again")
    return [*pieces, view[kept:stop]]


def _tensor(view: memoryview, span: Field, weight: Weight) -> bytes:
    """One initializer: all that it says but its data, and where that lies."""
    at = span.offset
    pieces: list[bytes | memoryview] = []
    for field in protobuf.fields(view, span.offset, span.offset + span.length, depth=2):
        end = field.offset + field.length
        if field.number not in (_TENSOR_RAW, _TENSOR_PLACE):
            pieces.append(view[at:end])
        at = end
    entries = {"location": LOCATION, "offset": str(weight.offset), "length": str(weight.length)}
    for key, value in entries.items():
        pair = _message(1, key.encode()) + _message(2, value.encode())
        pieces.append(_message(_TENSOR_EXTERNAL, pair))
    pieces.append(_tag(_TENSOR_PLACE, VARINT) + _varint(_PLACE_EXTERNAL))
    return b"".join(pieces)


def _message(number: int, content: bytes) -> bytes:
    return _tag(number, LENGTH) + _varint(len(content)) + content


def _tag(number: int, wire: int) -> bytes:
    return _varint(number << 3 | wire)


def _varint(value: int) -> bytes:
    raw = bytearray()
    while value >= 0x80:
        raw.append(value & 0x7F | 0x80)
        value >>= 7
    raw.append(value)
    return bytes(raw)
