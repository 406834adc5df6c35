"""Tensors of model files: found by the layout of the format, digested where they lie."""

from __future__ import annotations

from modelkeep.core.artifact import TensorEntry
from modelkeep.core.errors import IntegrityError
from modelkeep.kernels.digest import digest_of
from modelkeep.kernels.formats import identify
from modelkeep.kernels.onnx import onnx_layout
from modelkeep.kernels.onnxmodel import OnnxModel, OnnxTensor
from modelkeep.kernels.safetensors import SafetensorsModel, safetensors_layout

__all__ = [
    "OnnxModel",
    "SafetensorsModel",
    "identify",
    "onnx_layout",
    "safetensors_layout",
    "tensor_entries",
]


def tensor_entries(path_name: str, view: memoryview, kind: str) -> tuple[TensorEntry, ...]:
    """List the tensors that lie in one piece in a file, in the order of their bytes.

    Of an ONNX file these are the graph's initializers with raw data, and those with packed typed
    data: as they are where the packing is flat (floats), as RAW bytes where it is varints. Data
    that is scattered over many fields has no entry. Cost: one pass over the tensors' bytes.

    Args:
        path_name: of the file in its artifact; it stands in the errors.
        kind: as `identify` names it; other kinds than onnx and safetensors have no entries.

    Raises:
        IntegrityError: as `onnx_layout` and `safetensors_layout`.
    """
    try:
        found = _found(view, kind)
    except IntegrityError as error:
        error.context["file"] = path_name
        raise
    return tuple(
        TensorEntry(
            name=name,
            dtype=dtype,
            shape=shape,
            offset=offset,
            length=length,
            digest=digest_of(view[offset : offset + length]),
        )
        for name, dtype, shape, offset, length in found
    )


_Piece = tuple[str, str, tuple[int, ...], int, int]


def _found(view: memoryview, kind: str) -> list[_Piece]:
    if kind == "safetensors":
        return [
            (each.name, each.dtype, each.shape, each.offset, each.length)
            for each in safetensors_layout(view).tensors
        ]
    if kind != "onnx":
        return []
    pieces = [_piece(each) for each in onnx_layout(view).initializers if each.offset >= 0]
    return sorted(pieces, key=lambda piece: piece[3])


def _piece(tensor: OnnxTensor) -> _Piece:
    if tensor.is_flat:
        return tensor.name, tensor.dtype, tensor.shape, tensor.offset, tensor.length
    return tensor.name, "RAW", (tensor.length,), tensor.offset, tensor.length
