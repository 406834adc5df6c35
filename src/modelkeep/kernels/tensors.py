"""Tensors of model files: found by the layout of the format, where they lie.

One function per format reads headers and never a tensor's bytes, so a file of 100 GB costs what its
headers cost; nothing is executed, imported or unpickled. `docs/design/layouts.md` says which format
is seen how. A layout that does not hold against its own file is refused with an IntegrityError: the
file may still be kept, as bytes in which nothing is seen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from modelkeep.core.artifact import TensorEntry
from modelkeep.core.errors import IntegrityError
from modelkeep.kernels.digest import digest_of
from modelkeep.kernels.externals import ExternalTensor, external_tensors
from modelkeep.kernels.formats import identify
from modelkeep.kernels.ggufs import gguf_tensors
from modelkeep.kernels.npy import npy_array
from modelkeep.kernels.onnx import onnx_layout
from modelkeep.kernels.onnxmodel import ELEMENTS, OnnxModel, OnnxTensor
from modelkeep.kernels.safetensors import SafetensorsModel, safetensors_layout
from modelkeep.kernels.torchzip import torch_storages
from modelkeep.kernels.zips import Member, members_of

__all__ = [
    "OnnxModel",
    "SafetensorsModel",
    "TensorPlace",
    "identify",
    "onnx_layout",
    "places_of",
    "safetensors_layout",
    "tensor_entries",
    "tensor_places",
]

# A file of these kinds is a model by its layout, so one that does not hold is an error. Of every
# other kind a file may be kept as plain bytes.
_STRICT = ("onnx", "safetensors")
_NPY_SUFFIX = ".npy"
_NPY_NAME = "array"


@dataclass(frozen=True, slots=True)
class TensorPlace:
    """One tensor and where its bytes lie.

    Attributes:
        dtype: Open Inference Protocol name (`FP32`, `BF16`, ...), its items little-endian; RAW
            where it has none, where items are packed or big-endian.
        shape: dimensions, outermost first; flat where the bytes stand in no such order.
        offset: of its first byte in the file.
        length: in bytes.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    length: int


def tensor_places(path_name: str, view: memoryview, kind: str) -> tuple[TensorPlace, ...]:
    """List the tensors that lie in one piece in a file, in the order of their bytes.

    No two overlap. Of an ONNX file these are the graph's initializers with raw data, and those with
    packed typed data: as they are where the packing is flat (floats), as RAW bytes where it is
    varints. Data that is scattered over many fields, compressed, or an object has no place.

    Args:
        path_name: of the file in its artifact; it stands in the errors.
        view: the whole file; a mapped file is not copied.
        kind: as `identify` names it; one whose tensors are not looked for has no places.

    Raises:
        IntegrityError: the layout does not hold: `onnx.*`, `protobuf.*`, `safetensors.*`, `zip.*`,
            `torch.*`, `pickle.*`, `gguf.*` or `npy.*`. A caller that keeps files, and does not
            judge models, takes such a file for general bytes.
    """
    try:
        return _found(view, kind)
    except IntegrityError as error:
        error.context["file"] = path_name
        raise


def places_of(
    files: Mapping[str, memoryview], kinds: Mapping[str, str]
) -> dict[str, tuple[TensorPlace, ...]]:
    """List the tensors of a folder's files, external data of its ONNX models with them.

    Args:
        files: by path in the folder, parts joined by `/`.
        kinds: by the same paths, as `identify` names them.

    Returns:
        Places by path, as from `tensor_places`. A file whose layout is refused is missing: take it
        for general bytes (`tensor_places` says why). A model's external tensors stand at the file
        that holds them, unless that one has places of its own or two models disagree about it.
    """
    places: dict[str, tuple[TensorPlace, ...]] = {}
    outside: dict[str, list[ExternalTensor]] = {}
    for path, view in files.items():
        try:
            if kinds[path] == "onnx":
                model = onnx_layout(view)
                places[path] = _of_onnx(model)
                for each in external_tensors(path, model):
                    outside.setdefault(each.path, []).append(each)
            else:
                places[path] = _found(view, kinds[path])
        except IntegrityError:
            places.pop(path, None)
    for path, tensors in outside.items():
        if path in files and not places.get(path):
            places[path] = _of_outside(tensors, len(files[path]))
    return places


def tensor_entries(path_name: str, view: memoryview, kind: str) -> tuple[TensorEntry, ...]:
    """List the tensors as `tensor_places` does, each with its digest.

    Cost: one pass over the tensors' bytes. A file of another kind than onnx and safetensors whose
    layout is refused has no entries: the digest of the file stands for it.

    Raises:
        IntegrityError: as `onnx_layout` and `safetensors_layout`.
    """
    try:
        places = tensor_places(path_name, view, kind)
    except IntegrityError:
        if kind in _STRICT:
            raise
        return ()
    return tuple(
        TensorEntry(
            name=place.name,
            dtype=place.dtype,
            shape=place.shape,
            offset=place.offset,
            length=place.length,
            digest=digest_of(view[place.offset : place.offset + place.length]),
        )
        for place in places
    )


class _Placed(Protocol):
    """What each format's own record of a tensor has."""

    @property
    def name(self) -> str: ...
    @property
    def dtype(self) -> str: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def offset(self) -> int: ...
    @property
    def length(self) -> int: ...


def _found(view: memoryview, kind: str) -> tuple[TensorPlace, ...]:
    layout = _LAYOUTS.get(kind)
    return () if layout is None else layout(view)


def _places(tensors: Iterable[_Placed]) -> tuple[TensorPlace, ...]:
    return tuple(
        TensorPlace(each.name, each.dtype, each.shape, each.offset, each.length) for each in tensors
    )


def _of_onnx(model: OnnxModel) -> tuple[TensorPlace, ...]:
    pieces = [_piece(each) for each in model.initializers if each.offset >= 0]
    return tuple(sorted(pieces, key=lambda piece: piece.offset))


def _piece(tensor: OnnxTensor) -> TensorPlace:
    """As its type says where the bytes are the items, as many as the shape needs; else RAW."""
    bits = ELEMENTS.get(tensor.element_type, ("RAW", 0))[1]
    for size in tensor.shape:
        bits *= size  # at most 64 factors of 63 bits
    if tensor.is_flat and bits == 8 * tensor.length:
        return TensorPlace(tensor.name, tensor.dtype, tensor.shape, tensor.offset, tensor.length)
    return TensorPlace(tensor.name, "RAW", (tensor.length,), tensor.offset, tensor.length)


def _of_array(name: str, view: memoryview, start: int, stop: int) -> tuple[TensorPlace, ...]:
    array = npy_array(view[start:stop])
    if array is None:
        return ()
    return (TensorPlace(name, array.dtype, array.shape, start + array.offset, array.length),)


def _of_npz(view: memoryview) -> tuple[TensorPlace, ...]:
    """Of an archive whose members are all arrays (numpy.savez): those that are not compressed."""
    members = members_of(view)
    if not all(member.name.endswith(_NPY_SUFFIX) for member in members):
        return ()
    return tuple(place for member in members for place in _of_member(view, member))


def _of_member(view: memoryview, member: Member) -> tuple[TensorPlace, ...]:
    if not member.is_stored:
        return ()
    name = member.name.removesuffix(_NPY_SUFFIX)
    return _of_array(name, view, member.offset, member.offset + member.length)


def _of_outside(tensors: list[ExternalTensor], size_bytes: int) -> tuple[TensorPlace, ...]:
    """Of a file of external data; nothing where the models' pieces leave it or overlap."""
    pieces: dict[tuple[int, int], TensorPlace] = {}
    for each in tensors:  # a weight that two graphs share is one piece
        place = TensorPlace(each.name, each.dtype, each.shape, each.offset, each.length)
        pieces.setdefault((each.offset, each.length), place)
    free = 0
    for offset, length in sorted(pieces):
        if offset < free or offset + length > size_bytes:
            return ()
        free = offset + length
    return tuple(pieces[key] for key in sorted(pieces))


_LAYOUTS: Mapping[str, Callable[[memoryview], tuple[TensorPlace, ...]]] = {
    "safetensors": lambda view: _places(safetensors_layout(view).tensors),
    "onnx": lambda view: _of_onnx(onnx_layout(view)),
    "torch-zip": lambda view: _places(torch_storages(view)),
    "gguf": lambda view: _places(gguf_tensors(view)),
    "npy": lambda view: _of_array(_NPY_NAME, view, 0, len(view)),
    "zip": _of_npz,
}
