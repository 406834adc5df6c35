"""Where the storages of a PyTorch file from before 1.6 lie (`torch.save`'s format without a zip).

Five pickles stand one after the other: a magic number, the protocol (1001), a description of the
machine that wrote it, the object, and the keys of its storages. Behind them, for each key in that
order, stand the number of items (u64) and the items (torch/serialization.py, `_legacy_save`). Plain
`pickle.dumps` of a module holds such a file for every storage (`torch.storage._load_from_bytes`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from modelkeep.core.errors import IntegrityError
from modelkeep.kernels.torchpickle import Walked, walked
from modelkeep.kernels.torchvalues import Holder, Storage, Value

# The first pickle: protocol 2, the number 0x1950a86a20f9469cfc6c.
MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
_COUNT_BYTES = 8
_PROTOCOL = 1001
# Names of storages: bytes per item.
ITEM_BYTES: Mapping[str, int] = {
    "FloatStorage": 4,
    "DoubleStorage": 8,
    "HalfStorage": 2,
    "BFloat16Storage": 2,
    "LongStorage": 8,
    "IntStorage": 4,
    "ShortStorage": 2,
    "CharStorage": 1,
    "ByteStorage": 1,
    "BoolStorage": 1,
    "QInt8Storage": 1,
    "QUInt8Storage": 1,
    "QInt32Storage": 4,
    "ComplexFloatStorage": 8,
    "ComplexDoubleStorage": 16,
    "QUInt4x2Storage": 1,
    "QUInt2x4Storage": 1,
    "UntypedStorage": 1,
}


@dataclass(frozen=True, slots=True)
class LegacyFile:
    """One file, laid out.

    Attributes:
        main: the pickle of the object.
        spans: of each storage's bytes, by key: offset and length.
        end: of the last one; what follows is read by nobody.
        is_little: whether numbers stand as on this machine.
    """

    main: Walked
    spans: Mapping[str, tuple[Storage, int, int]]
    end: int
    is_little: bool


def is_legacy(view: memoryview) -> bool:
    """Whether the bytes begin as such a file."""
    return bytes(view[: len(MAGIC)]) == MAGIC


def legacy_file(view: memoryview) -> LegacyFile:
    """Lay the file out and hold its storages against the object's pickle.

    Raises:
        IntegrityError: `pickle.*`, `torch.pickle`, `torch.size` or `torch.storage`.
    """
    if not is_legacy(view):
        raise IntegrityError("torch.pickle", "the file does not begin as torch's old ones do")
    protocol = walked(view, len(MAGIC))
    machine = walked(view, protocol.after)
    if protocol.root != _PROTOCOL:
        raise IntegrityError("torch.pickle", "the file has another protocol than torch's old ones")
    main = walked(view, machine.after)
    listed = walked(view, main.after)
    named: dict[str, Storage] = {}
    for storage in main.storages:
        if named.setdefault(storage.key, storage) != storage:
            message = f"storage {storage.key!r:.80} has two types or two sizes"
            raise IntegrityError("torch.storage", message)
    at = listed.after
    spans: dict[str, tuple[Storage, int, int]] = {}
    for key in _keys(listed.root):
        found = named.get(key)
        if found is None or key in spans:
            message = f"storage {key!r:.80} is listed twice, or the object does not name it"
            raise IntegrityError("torch.storage", message)
        start = at + _COUNT_BYTES
        at = start + _length(view, at, found)
        if at > len(view):
            raise IntegrityError("torch.storage", f"storage {key!r:.80} is cut short")
        spans[key] = (found, start, at - start)
    if spans.keys() != named.keys():
        raise IntegrityError("torch.storage", "the file lacks storages that the object names")
    return LegacyFile(main, spans, at, _is_little(machine.root))


def _length(view: memoryview, at: int, storage: Storage) -> int:
    """Bytes of a storage, whose count of items must be the one that the object names."""
    count = int.from_bytes(view[at : at + _COUNT_BYTES], "little")
    item_bytes = ITEM_BYTES.get(storage.kind)
    if item_bytes is None:
        raise IntegrityError("torch.storage", f"no storage has the type {storage.kind!r:.80}")
    if count != storage.items:
        message = f"storage {storage.key!r:.80} has {count} items, not what it claims"
        raise IntegrityError("torch.storage", message)
    return count * item_bytes


def _keys(root: Value) -> list[str]:
    items = (root.items or []) if isinstance(root, Holder) else None
    if items is None or not all(isinstance(key, str) for _, key in items):
        raise IntegrityError("torch.pickle", "the file does not list its storages")
    return [key for _, key in items if isinstance(key, str)]


def _is_little(machine: Value) -> bool:
    """What the machine that wrote it says of its numbers."""
    items = dict((machine.items or ()) if isinstance(machine, Holder) else ())
    return items.get("little_endian") is not False
