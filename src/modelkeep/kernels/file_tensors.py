"""The tensors of a PyTorch or NumPy file, each with the place of its numbers, for safetensors.

Which tensors there are and where their numbers lie is read from the pickle on symbols
(`modelkeep.kernels.torchpickle`); nothing is unpickled. A tensor is a view: an offset and a step
per dimension over the numbers of a storage, which others may see too. What safetensors has no name
for, and what would come out as something else (sparse, quantised, complex), is refused.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod

from modelkeep.core.errors import IntegrityError, UsageError
from modelkeep.core.limits import TENSOR_RANK_MAX
from modelkeep.kernels.formats import identify
from modelkeep.kernels.torchlegacy import ITEM_BYTES, is_legacy, legacy_file
from modelkeep.kernels.torchpickle import Walked, reached, walked
from modelkeep.kernels.torchvalues import Array, Raw, Storage, Tensor
from modelkeep.kernels.zips import Member, members_of

# A stride of zero shows one number a million times: a file may not grow past this.
GROWTH_MAX = 8
_GROWTH_BYTES_MIN = 1024 * 1024
_ALIGNMENT = 8
# Of one compressed member; the scanner looks no further either.
_PLAIN_BYTES_MAX = 64 * 1024 * 1024
_TORCH = {
    "FloatStorage": "F32", "DoubleStorage": "F64", "HalfStorage": "F16", "BFloat16Storage": "BF16",
    "LongStorage": "I64", "IntStorage": "I32", "ShortStorage": "I16", "CharStorage": "I8",
    "ByteStorage": "U8", "BoolStorage": "BOOL",
}  # fmt: skip
_TORCH_TYPED = {
    "uint8": "U8", "uint16": "U16", "uint32": "U32", "uint64": "U64", "int8": "I8", "int16": "I16",
    "int32": "I32", "int64": "I64", "bool": "BOOL", "float16": "F16", "bfloat16": "BF16",
    "float32": "F32", "float64": "F64", "float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2",
}  # fmt: skip
_NUMPY = {
    "b1": "BOOL", "?": "BOOL", "i1": "I8", "i2": "I16", "i4": "I32", "i8": "I64", "u1": "U8",
    "u2": "U16", "u4": "U32", "u8": "U64", "f2": "F16", "f4": "F32", "f8": "F64",
}  # fmt: skip
_BYTES: Mapping[str, int] = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "U16": 2, "I16": 2, "F16": 2,
    "BF16": 2,
    "U32": 4, "I32": 4, "F32": 4, "U64": 8, "I64": 8, "F64": 8,
}  # fmt: skip
# Calls of torch that make tensors which are no view of one storage.
_FORMLESS = re.compile(
    r"_rebuild_(?:sparse|nested|qtensor|meta|wrapper|device_tensor_from_numpy)\w*"
)
_NPY_HEADER = re.compile(
    r"\s*\{\s*'descr'\s*:\s*'(?P<order>[<>|=]?)(?P<kind>[a-zA-Z?][0-9]*)'\s*,\s*'fortran_order'\s*:"
    r"\s*(?P<fortran>True|False)\s*,\s*'shape'\s*:\s*\((?P<shape>[0-9, L]*)\)\s*,?\s*\}\s*"
)
_NPY_MAGIC = b"\x93NUMPY"


@dataclass(frozen=True, slots=True)
class Piece:
    """One tensor: where its numbers are and how they stand.

    Attributes:
        dtype: as safetensors names it.
        view: the numbers of its storage, from the tensor's first one on.
        stride: in items.
        swapped: whether the items are big-endian.
        shares: key of a storage that other tensors may see too; empty for none.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    view: memoryview
    stride: tuple[int, ...]
    swapped: bool = False
    shares: str = ""

    @property
    def item_bytes(self) -> int:
        """Of one item."""
        return _BYTES[self.dtype]

    @property
    def size_bytes(self) -> int:
        """Of all items, once each stands by itself."""
        return prod(self.shape) * self.item_bytes


def pieces_of(name: str, view: memoryview) -> list[Piece]:
    """Every tensor of a file.

    Args:
        name: of the file, without its extension: what a file of one nameless array calls it.

    Raises:
        UsageError: `convert.format` or `convert.form`.
        IntegrityError: when the file does not hold what it claims.
    """
    kind = identify(view)
    if kind == "npy":
        found = [_npy(name, view)]
    elif kind in ("zip", "torch-zip"):
        found = list(_zip(view))
    elif is_legacy(view):
        found = list(_legacy(view))
    elif kind == "pickle":
        found = list(_pickle(name, view))
    else:
        raise UsageError(
            "convert.format",
            f"the file is {kind}, which is no file of PyTorch or NumPy",
            hint="what has tensors already: `modelkeep admit`, then `modelkeep safetensors`",
        )
    if not found:
        raise UsageError("convert.format", "the file holds no tensors")
    total = sum(each.size_bytes for each in found)
    limit = max(GROWTH_MAX * len(view), _GROWTH_BYTES_MIN)
    if total > limit and kind != "zip":
        message = f"its tensors show the same numbers again and again: {total} bytes"
        raise UsageError("convert.form", message, limit_bytes=limit)
    return found


def head_of(pieces: Sequence[Piece]) -> tuple[bytes, list[Piece]]:
    """The header of a safetensors file, and the tensors in the order of their bytes.

    Long items come first, so that every tensor is aligned; names decide among equals.

    Raises:
        UsageError: `convert.form`, where two tensors have one name.
    """
    ordered = sorted(pieces, key=lambda each: (-each.item_bytes, each.name))
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    at = 0
    for each in ordered:
        if not each.name or each.name in header:
            raise UsageError("convert.form", f"two tensors are called {each.name[:200]!r}, or none")
        end = at + each.size_bytes
        header[each.name] = {"dtype": each.dtype, "shape": each.shape, "data_offsets": [at, end]}
        at = end
    raw = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    raw += b" " * (-len(raw) % _ALIGNMENT)
    return len(raw).to_bytes(8, "little") + raw, ordered


# ---- torch ------------------------------------------------------------------------------------


def _zip(view: memoryview) -> Iterator[Piece]:
    members = {member.name: member for member in members_of(view)}
    main = next((name for name in members if name.endswith("/data.pkl")), "")
    if not main:
        yield from _npz(view, members)
        return
    root = main.removesuffix("/data.pkl")
    order = members.get(f"{root}/byteorder")
    swapped = order is not None and bytes(_stored(view, order)) == b"big"
    spans: dict[str, memoryview] = {}
    for name, member in members.items():
        if name.startswith(f"{root}/data/"):
            spans[name.removeprefix(f"{root}/data/")] = _stored(view, member)
    yield from _tensors(walked(_stored(view, members[main])), spans, swapped=swapped)


def _legacy(view: memoryview) -> Iterator[Piece]:
    file = legacy_file(view)
    spans = {key: view[at : at + length] for key, (_, at, length) in file.spans.items()}
    yield from _tensors(file.main, spans, swapped=not file.is_little)


def _tensors(walk: Walked, spans: Mapping[str, memoryview], *, swapped: bool) -> Iterator[Piece]:
    _demand_forms(walk)
    for name, value in reached(walk.root):
        if isinstance(value, Array):
            raise UsageError("convert.form", f"{name[:200]!r} is an array of NumPy among tensors")
        if isinstance(value, Storage):
            raise UsageError("convert.form", f"{name[:200]!r} is a bare storage without a shape")
        yield _tensor(name or "tensor", value, spans, swapped=swapped)


def _tensor(name: str, value: Tensor, spans: Mapping[str, memoryview], *, swapped: bool) -> Piece:
    storage = value.storage
    is_typed = storage.kind == "UntypedStorage"
    dtype = _TORCH_TYPED.get(value.dtype) if is_typed else _TORCH.get(storage.kind)
    if dtype is None:
        shown = value.dtype or storage.kind.removesuffix("Storage")
        raise UsageError(
            "convert.form", f"{name[:200]!r} is of the type {shown[:80]!r}: {_NO_NAME}"
        )
    raw = spans.get(storage.key)
    if raw is None or len(raw) != storage.items * ITEM_BYTES[storage.kind]:
        raise IntegrityError("convert.storage", f"the numbers of {name[:200]!r} are not there")
    size = _BYTES[dtype]
    last = sum((each - 1) * step for each, step in zip(value.shape, value.stride, strict=True))
    if prod(value.shape) and (value.offset + last + 1) * size > len(raw):
        raise IntegrityError("convert.storage", f"{name[:200]!r} reaches past its storage")
    start = min(value.offset * size, len(raw))
    is_swapped = swapped and size > 1
    return Piece(
        name, dtype, value.shape, raw[start:], value.stride, is_swapped, f"storage {storage.key}"
    )


_NO_NAME = "safetensors has no tensors of it"


def _demand_forms(walk: Walked) -> None:
    for call in walk.calls:
        if call.module == "torch._utils" and _FORMLESS.fullmatch(call.name):
            message = f"the file holds tensors made by {call.name}, which are no plain tensors"
            raise UsageError("convert.form", message)


# ---- NumPy ------------------------------------------------------------------------------------


def _pickle(name: str, view: memoryview) -> Iterator[Piece]:
    """A plain pickle of arrays."""
    walk = walked(view)
    _demand_forms(walk)
    for way, value in reached(walk.root):
        if not isinstance(value, Array):
            raise UsageError(
                "convert.form", f"{way[:200]!r} is a tensor whose storage is elsewhere"
            )
        shown = way or name
        if value.dtype is None or value.raw is None:
            raise UsageError("convert.form", f"{shown[:200]!r} holds objects, or has no plain type")
        raw = _numbers(view, value.raw)
        text = f"{value.dtype.order}{value.dtype.name.lstrip('<>|=')}"
        yield _array(shown, raw, text, value.shape, is_fortran=value.is_fortran)


def _numbers(view: memoryview, raw: Raw | bytes) -> memoryview:
    """Bytes of an array; before protocol 3 they are Latin-1 text."""
    if isinstance(raw, bytes):
        return memoryview(raw)
    found = view[raw.start : raw.stop]
    if raw.is_text:
        return memoryview(str(found, "utf-8", "replace").encode("latin-1", "replace"))
    return found


def _npz(view: memoryview, members: Mapping[str, Member]) -> Iterator[Piece]:
    arrays = {name: member for name, member in members.items() if name.endswith(".npy")}
    if len(arrays) != len(members) or not arrays:
        raise UsageError("convert.format", "the archive is neither of PyTorch nor of NumPy")
    for name, member in arrays.items():
        yield _npy(name.removesuffix(".npy"), _plain(view, member))


def _npy(name: str, view: memoryview) -> Piece:
    """One array with its header."""
    version = view[6] if len(view) > 10 and bytes(view[:6]) == _NPY_MAGIC else 0
    start = 10 if version == 1 else 12
    length = int.from_bytes(view[8:start], "little") if version in (1, 2, 3) else len(view)
    header = str(view[start : start + length], "latin-1") if length <= 65536 else ""
    match = _NPY_HEADER.fullmatch(header)
    if match is None:
        message = f"{name[:200]!r} is no plain array: it holds records or objects, or is damaged"
        raise UsageError("convert.form", message)
    shape = tuple(int(each.strip(" L")) for each in match["shape"].split(",") if each.strip())
    return _array(
        name, view[start + length :], f"{match['order']}{match['kind']}", shape,
        is_fortran=match["fortran"] == "True",
    )  # fmt: skip


def _array(
    name: str, raw: memoryview, kind: str, shape: tuple[int, ...], *, is_fortran: bool
) -> Piece:
    dtype = _NUMPY.get(kind.lstrip("<>|="))
    if dtype is None or len(shape) > TENSOR_RANK_MAX:
        raise UsageError("convert.form", f"{name[:200]!r} is of the type {kind[:40]!r}: {_NO_NAME}")
    if prod(shape) * _BYTES[dtype] != len(raw):
        raise IntegrityError("convert.storage", f"{name[:200]!r} has other bytes than its shape")
    steps, step = [], 1
    for size in shape if is_fortran else reversed(shape):
        steps.append(step)
        step *= size
    stride = tuple(steps if is_fortran else reversed(steps))
    return Piece(name, dtype, shape, raw, stride, kind[:1] == ">" and _BYTES[dtype] > 1)


# ---- members ----------------------------------------------------------------------------------


def _stored(view: memoryview, member: Member) -> memoryview:
    if not member.is_stored:
        raise UsageError(
            "convert.form", f"member {member.name[:200]!r} is compressed: torch's never are"
        )
    return view[member.offset : member.offset + member.length]


def _plain(view: memoryview, member: Member) -> memoryview:
    packed = view[member.offset : member.offset + member.length]
    if member.is_stored:
        return packed
    engine = zlib.decompressobj(-15)
    try:
        plain = engine.decompress(packed, _PLAIN_BYTES_MAX + 1)
    except zlib.error as error:
        raise IntegrityError("convert.storage", f"{member.name[:200]!r}: {error!s:.80}") from None
    if len(plain) > _PLAIN_BYTES_MAX or not engine.eof:
        message = f"member {member.name[:200]!r} expands to more than is looked at, or is cut short"
        raise UsageError("convert.form", message, limit_bytes=_PLAIN_BYTES_MAX)
    return memoryview(plain)
