"""Files of PyTorch, built without it: `torch.save`'s zip format and the one before."""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass

from attack_pickles import STORAGE, text

ITEM_BYTES = {
    "FloatStorage": 4, "LongStorage": 8, "BFloat16Storage": 2, "BoolStorage": 1, "HalfStorage": 2,
    "ComplexFloatStorage": 8, "UntypedStorage": 1,
}  # fmt: skip


@dataclass(frozen=True)
class View:
    """One tensor: `storage` is a key, offset and stride count items."""

    name: str
    storage: str
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int = 0
    dtype: str = ""


@dataclass(frozen=True)
class Kept:
    """One storage and its bytes."""

    key: str
    kind: str
    raw: bytes

    @property
    def items(self) -> int:
        """How many."""
        return len(self.raw) // ITEM_BYTES[self.kind]


def number(value: int) -> bytes:
    """BININT."""
    return b"J" + struct.pack("<i", value)


def main_pickle(views: Sequence[View], storages: Sequence[Kept], nested: str = "") -> bytes:
    """A map of names to tensors, in another one under `nested`."""
    by_key = {each.key: each for each in storages}
    items = b"".join(text(view.name) + _rebuilt(view, by_key[view.storage]) for view in views)
    inner = b"}(" + items + b"u"
    whole = b"}" + text(nested) + inner + b"s" + text("epoch") + b"K\x03s" if nested else inner
    return b"\x80\x02" + whole + b"."


def _rebuilt(view: View, storage: Kept) -> bytes:
    """The call that makes a tensor."""
    identity = (
        b"(" + text("storage") + f"ctorch\n{storage.kind}\n".encode() + text(storage.key)
        + text("cpu") + number(storage.items) + b"tQ"
    )  # fmt: skip
    sizes = b"".join(
        b"(" + b"".join(map(number, each)) + b"t" for each in (view.shape, view.stride)
    )
    hooks = b"\x89ccollections\nOrderedDict\n)R"
    name = "_rebuild_tensor_v3" if view.dtype else "_rebuild_tensor_v2"
    typed = f"ctorch\n{view.dtype}\n".encode() if view.dtype else b""
    return (
        f"ctorch._utils\n{name}\n(".encode() + identity + number(view.offset) + sizes + hooks
        + typed + b"tR"
    )  # fmt: skip


def zip_file(
    views: Sequence[View], storages: Sequence[Kept], nested: str = "", order: str = "little"
) -> bytes:
    """As torch writes it since 1.6."""
    into = io.BytesIO()
    with zipfile.ZipFile(into, "w") as archive:
        archive.writestr("archive/data.pkl", main_pickle(views, storages, nested))
        archive.writestr("archive/byteorder", order)
        for each in storages:
            archive.writestr(f"archive/data/{each.key}", each.raw)
        archive.writestr("archive/version", "3\n")
    return into.getvalue()


def legacy_file(views: Sequence[View], storages: Sequence[Kept]) -> bytes:
    """As torch wrote it before."""
    magic = STORAGE[:15]
    head = magic + pickle.dumps(1001, 2) + pickle.dumps({"little_endian": True}, 2)
    raw = head + main_pickle(views, storages) + pickle.dumps([each.key for each in storages], 2)
    return raw + b"".join(struct.pack("<Q", each.items) + each.raw for each in storages)
