"""Where the storages of a PyTorch checkpoint (`torch.save`'s zip format) lie.

The archive is `<root>/data.pkl`, one stored member `<root>/data/<key>` per storage, and small
members about the format (torch/serialization.py, `_save`; caffe2/serialize/inline_container.cc).
The pickle says which storage has which type and which tensors see it; it is walked, never run
(`modelkeep.kernels.torchpickle`). A storage is one place, however many tensors share it. A pickle
that does not agree with the members is refused; a compressed storage, and a member that the pickle
does not speak of, are no place.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from modelkeep.core.errors import IntegrityError
from modelkeep.kernels.torchpickle import named_tensors
from modelkeep.kernels.torchvalues import Storage, Tensor
from modelkeep.kernels.zips import Member, members_of

# Walking costs hundreds of bytes per opcode; the pickle of 100,000 tensors has 20 MB.
PICKLE_BYTES_MAX = 64 * 1024 * 1024
# Names of torch's storages and types: Open Inference Protocol name and bytes per item. Quantised
# types keep their bare numbers; two or four to a byte are RAW.
_TYPES: Mapping[str, tuple[str, int]] = {
    "FloatStorage": ("FP32", 4),
    "DoubleStorage": ("FP64", 8),
    "HalfStorage": ("FP16", 2),
    "BFloat16Storage": ("BF16", 2),
    "LongStorage": ("INT64", 8),
    "IntStorage": ("INT32", 4),
    "ShortStorage": ("INT16", 2),
    "CharStorage": ("INT8", 1),
    "ByteStorage": ("UINT8", 1),
    "BoolStorage": ("BOOL", 1),
    "QInt8Storage": ("INT8", 1),
    "QUInt8Storage": ("UINT8", 1),
    "QInt32Storage": ("INT32", 4),
    "ComplexFloatStorage": ("RAW", 8),
    "ComplexDoubleStorage": ("RAW", 16),
    "QUInt4x2Storage": ("RAW", 1),
    "QUInt2x4Storage": ("RAW", 1),
    "UntypedStorage": ("RAW", 1),
}
# Of a tensor in an untyped storage, whose items are bytes.
_TYPED: Mapping[str, tuple[str, int]] = {
    "uint16": ("UINT16", 2),
    "uint32": ("UINT32", 4),
    "uint64": ("UINT64", 8),
    "uint8": ("UINT8", 1),
    "int8": ("INT8", 1),
    "int16": ("INT16", 2),
    "int32": ("INT32", 4),
    "int64": ("INT64", 8),
    "bool": ("BOOL", 1),
    "float16": ("FP16", 2),
    "bfloat16": ("BF16", 2),
    "float32": ("FP32", 4),
    "float64": ("FP64", 8),
}
_BYTES = ("RAW", 1)


@dataclass(frozen=True, slots=True)
class TorchStorage:
    """One storage; `offset` counts from the start of the file.

    Attributes:
        name: the way to the first tensor that sees it (`model.head.weight`), else its key.
        dtype: RAW where items have no name in the protocol or are big-endian.
        shape: of that tensor, where it is the whole storage in the order of its bytes; else flat.
            A RAW storage counts bytes.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class _Seen:
    """What the pickle says of one storage, from the first tensor on."""

    storage: Storage
    name: str
    element: tuple[str, int]
    shape: tuple[int, ...] | None


def torch_storages(view: memoryview) -> tuple[TorchStorage, ...]:
    """Hold the pickle against the members; in the order of their bytes.

    Raises:
        IntegrityError: `zip.*`, `pickle.*`, `torch.pickle`, `torch.size` or `torch.storage`.
    """
    members = {member.name: member for member in members_of(view)}
    root = next(iter(members), "").partition("/")[0]
    pickle = members.get(f"{root}/data.pkl")
    if pickle is None or not pickle.is_stored or pickle.length > PICKLE_BYTES_MAX:
        raise IntegrityError("torch.pickle", "the archive has no data.pkl that could be read")
    order = members.get(f"{root}/byteorder")
    is_little = order is None or bytes(_content(view, order)[:8]) == b"little"
    keys: dict[str, _Seen] = {}
    for name, value in named_tensors(_content(view, pickle)):
        storage = value.storage if isinstance(value, Tensor) else value
        if f"{root}/data/{storage.key}" not in members:
            message = f"the archive lacks storage {storage.key!r:.80}"
            raise IntegrityError("torch.storage", message)
        _see(keys, storage, name, value)
    taken: set[str] = set(keys)
    found: list[TorchStorage] = []
    for key, seen in keys.items():
        member = members[f"{root}/data/{key}"]
        if not member.is_stored:
            continue
        name = seen.name if seen.name and seen.name not in taken else key
        taken.add(name)
        found.append(_placed(seen, member, name=name, is_little=is_little))
    return tuple(sorted(found, key=lambda each: (each.offset, each.length)))


def _content(view: memoryview, member: Member) -> memoryview:
    return view[member.offset : member.offset + member.length]


def _see(keys: dict[str, _Seen], storage: Storage, name: str, value: Storage | Tensor) -> None:
    element = _element(storage, value)
    shape = _shape(value, element[1])
    before = keys.get(storage.key)
    if before is None:
        keys[storage.key] = _Seen(storage, name, element, shape)
    elif before.storage != storage:
        message = f"storage {storage.key!r:.80} has two types or two sizes"
        raise IntegrityError("torch.storage", message)
    elif before.element != element:
        keys[storage.key] = replace(before, element=_BYTES, shape=None)


def _element(storage: Storage, value: Storage | Tensor) -> tuple[str, int]:
    """The type of the items: the storage's, or of an untyped storage the tensor's."""
    element = _TYPES.get(storage.kind)
    if element is None:
        raise IntegrityError("torch.storage", f"no storage has the type {storage.kind!r:.80}")
    if isinstance(value, Tensor) and storage.kind == "UntypedStorage":
        return _TYPED.get(value.dtype, _BYTES)
    return element


def _shape(value: Storage | Tensor, item_bytes: int) -> tuple[int, ...] | None:
    """The tensor's shape if it is the whole storage in order."""
    if not isinstance(value, Tensor) or value.offset:
        return None
    count = 1
    for size, stride in zip(reversed(value.shape), reversed(value.stride), strict=True):
        if size != 1 and stride != count:
            return None
        count *= size  # at most 64 factors of 63 bits
    storage_bytes = value.storage.items * _TYPES[value.storage.kind][1]
    return value.shape if count * item_bytes == storage_bytes else None


def _placed(seen: _Seen, member: Member, *, name: str, is_little: bool) -> TorchStorage:
    if seen.storage.items * _TYPES[seen.storage.kind][1] != member.length:
        message = f"storage {seen.storage.key!r:.80} has {member.length} bytes, not what it claims"
        raise IntegrityError("torch.storage", message)
    dtype, item_bytes = seen.element
    if dtype == "RAW" or member.length % item_bytes or (item_bytes > 1 and not is_little):
        return TorchStorage(name, "RAW", (member.length,), member.offset, member.length)
    shape = (member.length // item_bytes,) if seen.shape is None else seen.shape
    return TorchStorage(name, dtype, shape, member.offset, member.length)
