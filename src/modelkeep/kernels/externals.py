"""Where the tensors lie that an ONNX model keeps in files beside it.

A TensorProto whose data is external names a file by `location`, relative to the model's own folder,
and a piece of it by `offset` and `length` (onnx, docs/ExternalData.md). A location that leaves the
folder could make a reader open any file: it is refused, as the scanner and onnx's own checker do.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

from modelkeep.core.errors import IntegrityError
from modelkeep.kernels.onnxmodel import ELEMENTS, OnnxGraph, OnnxModel, OnnxNode, OnnxTensor

# int64 in decimal.
_DIGITS_MAX = 19
_LOCATION_CHARS_MAX = 4096


@dataclass(frozen=True, slots=True)
class ExternalTensor:
    """One tensor and the piece of a file that it names; `path` counts from the artifact's root."""

    path: str
    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    length: int


def external_tensors(model_path: str, model: OnnxModel) -> tuple[ExternalTensor, ...]:
    """List what the model keeps in other files, in the order of the model.

    Raises:
        IntegrityError: `onnx.external` for a location outside the folder, a piece whose numbers are
            none or do not fit the tensor's shape, and for texts, which have no fixed size: the
            format keeps them in the model itself.
    """
    found = (_external(model_path, tensor) for tensor in _tensors(model))
    return tuple(each for each in found if each is not None)


def _tensors(model: OnnxModel) -> Iterator[OnnxTensor]:
    """Every tensor of the model, those in nodes and subgraphs too; depth is the parser's."""
    if model.graph is not None:
        yield from _of_graph(model.graph)
    for function in model.functions:
        yield from function.tensors
        for graph in function.subgraphs:
            yield from _of_graph(graph)
        for node in function.nodes:
            yield from _of_node(node)


def _of_graph(graph: OnnxGraph) -> Iterator[OnnxTensor]:
    yield from graph.initializers
    yield from graph.sparse
    for node in graph.nodes:
        yield from _of_node(node)


def _of_node(node: OnnxNode) -> Iterator[OnnxTensor]:
    yield from node.tensors
    for graph in node.subgraphs:
        yield from _of_graph(graph)


def _external(model_path: str, tensor: OnnxTensor) -> ExternalTensor | None:
    if "external" not in tensor.storage:
        return None
    pairs = dict(tensor.external)
    if len(pairs) != len(tensor.external) or tensor.storage != "external":
        raise _refused(tensor, "has its data in two places")
    path = _path(model_path, tensor, pairs.get("location", ""))
    bits = ELEMENTS.get(tensor.element_type, ("RAW", 0))[1]
    if not bits:
        raise _refused(tensor, "is text, which a file of bytes cannot hold")
    for size in tensor.shape:
        bits *= size  # at most 64 factors of 63 bits
    length = -(-bits // 8)
    if _number(tensor, pairs.get("length", str(length))) != length:
        raise _refused(tensor, "has a length that does not fit its shape")
    offset = _number(tensor, pairs.get("offset", "0"))
    shape = (length,) if tensor.dtype == "RAW" else tensor.shape
    return ExternalTensor(path, tensor.name, tensor.dtype, shape, offset, length)


def _path(model_path: str, tensor: OnnxTensor, location: str) -> str:
    parts = PurePosixPath(location).parts
    if (
        not parts
        or len(location) > _LOCATION_CHARS_MAX
        or ".." in parts
        or any(letter in location for letter in "\\:\0")
        or location.startswith("/")
    ):
        raise _refused(tensor, "names a file outside the model's folder")
    return str(PurePosixPath(model_path).parent.joinpath(*parts))


def _number(tensor: OnnxTensor, text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= _DIGITS_MAX):
        raise _refused(tensor, "has an offset or a length that is no number")
    return int(text)


def _refused(tensor: OnnxTensor, why: str) -> IntegrityError:
    return IntegrityError(
        "onnx.external", f"external tensor {tensor.name!r:.80} {why}", tensor=tensor.name
    )
