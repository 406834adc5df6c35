"""Tensors as safetensors has them, cut out of whatever file they lie in; what has no such form.

`modelkeep.kernels.tensors` says which pieces of a file are tensors. A piece may hold more than one
(a storage of torch that several tensors see), its numbers may stand in another way (varints of
ONNX) or in another order (Fortran's, a transposed view), and a file may have tensors that lie in no
one piece. Here each tensor is named with its own shape, and everything that would come out wrong
or be left out is refused. As there, headers are read and never a tensor's bytes: where those are,
the view may have zeros.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod

from modelkeep.core.errors import UsageError
from modelkeep.kernels.externals import external_tensors
from modelkeep.kernels.npy import npy_array
from modelkeep.kernels.onnx import onnx_layout
from modelkeep.kernels.onnxmodel import ELEMENTS as ONNX_ELEMENTS
from modelkeep.kernels.onnxmodel import OnnxTensor
from modelkeep.kernels.protobuf import varint
from modelkeep.kernels.safetensors import ELEMENTS, PREFIX_BYTES
from modelkeep.kernels.torchpickle import named_tensors
from modelkeep.kernels.torchvalues import Tensor
from modelkeep.kernels.torchzip import torch_storages
from modelkeep.kernels.zips import members_of

_ALIGNMENT = 8
_NPY_SUFFIX = ".npy"
_FORTRAN = b"'fortran_order': True"
# Open Inference Protocol name: the format's name and bytes per item.
_TYPES: Mapping[str, tuple[str, int]] = {
    dtype: (name, bits // 8) for name, (dtype, bits) in ELEMENTS.items() if dtype != "RAW"
}


@dataclass(frozen=True, slots=True)
class Cut:
    """One tensor and the piece of a file that its numbers are in.

    Attributes:
        path: of the file.
        offset: of the piece's first byte in the file.
        length: of the piece, in bytes.
        is_packed: whether the numbers are varints of protobuf; else they stand as they are.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    path: str
    offset: int
    length: int
    is_packed: bool = False

    @property
    def size_bytes(self) -> int:
        """How long its numbers are."""
        return prod(self.shape) * _TYPES[self.dtype][1]


def cuts_of(path: str, view: memoryview, kind: str, pieces: Iterable[Cut]) -> list[Cut]:
    """The tensors of one file; those of an ONNX model may lie in files beside it.

    Args:
        view: as long as the file, with everything but the bytes of `pieces`.
        kind: as `identify` names it.
        pieces: what is known to be tensors in the file, each in one piece; the answer where a
            format has nothing to add.

    Raises:
        UsageError: `tensors.form`.
        IntegrityError: when the layout does not hold.
    """
    read = _READERS.get(kind)
    found = list(pieces) if read is None else list(read(path, view))
    for cut in found:
        if cut.dtype not in _TYPES:
            raise _formless(cut.path, cut.name, f"safetensors has no name for {cut.dtype}")
        if not cut.name:
            raise _formless(cut.path, cut.name, "it has no name, or one that is too long")
        if not cut.is_packed and cut.size_bytes != cut.length:
            raise _formless(cut.path, cut.name, "its shape is not that of its bytes")
    return found


def layout_of(cuts: Sequence[Cut]) -> tuple[bytes, list[Cut]]:
    """The header of a safetensors file, and its tensors in the order of their bytes.

    Long items come first, so that every tensor is aligned; names decide among equals, as in the
    files that the format's own library writes.

    Raises:
        UsageError: `tensors.twice`.
    """
    ordered = sorted(cuts, key=lambda cut: (-_TYPES[cut.dtype][1], cut.name))
    names = [cut.name for cut in ordered]
    if len(set(names)) != len(names) or "__metadata__" in names:
        twice = next(name for name in names if names.count(name) > 1 or name == "__metadata__")
        raise UsageError(
            "tensors.twice",
            f"two tensors are called {twice[:200]!r}, or the format has another use for that name",
            hint="choose one of the files with --path",
        )
    header, at = {}, 0
    for cut in ordered:
        end = at + cut.size_bytes
        dtype = _TYPES[cut.dtype][0]
        header[cut.name] = {"dtype": dtype, "shape": cut.shape, "data_offsets": [at, end]}
        at = end
    raw = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    raw += b" " * (-len(raw) % _ALIGNMENT)
    return len(raw).to_bytes(PREFIX_BYTES, "little") + raw, ordered


def unpacked(cut: Cut, packed: memoryview) -> bytes:
    """The numbers of a tensor that are varints, as little-endian items.

    Raises:
        IntegrityError: `protobuf.*`.
        UsageError: `tensors.form`.
    """
    item_bytes = _TYPES[cut.dtype][1]
    mask, at, items = (1 << 8 * item_bytes) - 1, 0, bytearray()
    while at < len(packed):
        value, at = varint(packed, at, len(packed))
        items += (value & mask).to_bytes(item_bytes, "little")
    if len(items) != cut.size_bytes:
        raise _formless(cut.path, cut.name, "its shape is not that of its numbers")
    return bytes(items)


def _of_torch(path: str, view: memoryview) -> Iterator[Cut]:
    """Every tensor that a checkpoint names: the part of its storage that it sees."""
    storages = {each.offset: each for each in torch_storages(view)}
    members = {member.name: member for member in members_of(view)}
    root = next(iter(members)).partition("/")[0]
    pickle = members[f"{root}/data.pkl"]
    for name, value in named_tensors(view[pickle.offset : pickle.offset + pickle.length]):
        if not isinstance(value, Tensor):
            continue
        storage = storages.get(members[f"{root}/data/{value.storage.key}"].offset)
        if storage is None:
            raise _formless(path, name, "it is compressed")
        if storage.dtype == "RAW" or value.storage.kind.startswith("Q"):
            raise _formless(path, name, f"safetensors has no name for {value.storage.kind}")
        count = prod(value.shape)
        if not _is_contiguous(value):
            raise _formless(path, name, "its numbers stand in another order (`contiguous()`)")
        item_bytes = _TYPES[storage.dtype][1]
        start, length = value.offset * item_bytes, count * item_bytes
        if start + length > storage.length:
            raise _formless(path, name, "it ends past its storage")
        yield Cut(name, storage.dtype, value.shape, path, storage.offset + start, length)


def _is_contiguous(tensor: Tensor) -> bool:
    """Whether the items stand one after the other, the last dimension closest."""
    step = 1
    for size, stride in zip(reversed(tensor.shape), reversed(tensor.stride), strict=True):
        if size > 1 and stride != step:
            return False
        step *= size
    return True


def _of_onnx(path: str, view: memoryview) -> Iterator[Cut]:
    """Every initializer, and what the model keeps in files beside it."""
    model = onnx_layout(view)
    for tensor in model.initializers:
        if "external" in tensor.storage:
            continue
        dtype, bits = ONNX_ELEMENTS.get(tensor.element_type, ("RAW", 0))
        is_empty = not prod(tensor.shape)
        if dtype in _TYPES and (tensor.offset >= 0 or is_empty):
            length = 0 if is_empty else tensor.length
            packed = not tensor.is_flat and not is_empty
            at = max(tensor.offset, 0)
            yield Cut(tensor.name, dtype, tensor.shape, path, at, length, is_packed=packed)
        else:
            raise _formless(path, tensor.name, _why(tensor, dtype, bits))
    for each in external_tensors(path, model):
        yield Cut(each.name, each.dtype, each.shape, each.path, each.offset, each.length)


def _why(tensor: OnnxTensor, dtype: str, bits: int) -> str:
    if tensor.offset < 0 and bits:
        return "its numbers lie in many pieces"
    return f"safetensors has no name for {dtype}"


def _of_npy(path: str, view: memoryview) -> Iterator[Cut]:
    yield _of_array(path, "array", view, (0, len(view)))


def _of_zip(path: str, view: memoryview) -> Iterator[Cut]:
    """Every array of an archive of arrays (numpy.savez); another archive has none."""
    members = members_of(view)
    if not all(member.name.endswith(_NPY_SUFFIX) for member in members):
        return
    for member in members:
        name = member.name.removesuffix(_NPY_SUFFIX)
        if not member.is_stored:
            raise _formless(path, name, "it is compressed")
        yield _of_array(path, name, view, (member.offset, member.offset + member.length))


def _of_array(path: str, name: str, view: memoryview, place: tuple[int, int]) -> Cut:
    start, stop = place
    array = npy_array(view[start:stop])
    if array is None:
        raise _formless(path, name, "its items are no numbers")
    if _FORTRAN in bytes(view[start : start + array.offset]):
        raise _formless(path, name, "its numbers stand in Fortran's order")
    return Cut(name, array.dtype, array.shape, path, start + array.offset, array.length)


_READERS: Mapping[str, Callable[[str, memoryview], Iterator[Cut]]] = {
    "torch-zip": _of_torch,
    "onnx": _of_onnx,
    "npy": _of_npy,
    "zip": _of_zip,
}


def _formless(path: str, name: str, why: str) -> UsageError:
    return UsageError(
        "tensors.form",
        f"{path[:200]}: tensor {name[:200]!r} cannot be written as safetensors: {why}",
        hint="`modelkeep restore` gives the files as they are",
    )
