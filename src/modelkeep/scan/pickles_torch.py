"""Files of torch that are several pickles with bare numbers between them.

Torch's format before 1.6 is five pickles and then every storage
(`modelkeep.kernels.torchlegacy`). Before that it was a tar archive whose members `storages` and
`tensors` have numbers behind every pickle (torch/serialization.py, `legacy_load`). Both are walked
to the last byte, so that what no loader reads shows.
"""

from __future__ import annotations

from collections.abc import Callable

from modelkeep.core.errors import IntegrityError
from modelkeep.kernels.torchlegacy import ITEM_BYTES, legacy_file
from modelkeep.scan.machine_calls import Stream
from modelkeep.scan.symbols_values import Symbol

LEGACY_PICKLES = 5
_COUNT_BYTES = 8
_RANK_MAX = 64
_TAR_BLOCK_BYTES = 512
_TAR_SUM = slice(148, 156)

Walk = Callable[[int], Stream]


def legacy_end(view: memoryview) -> int:
    """Where the last storage of a file in torch's old format ends.

    Raises:
        IntegrityError: as `legacy_file`.
    """
    return legacy_file(view).end


def has_tar_header(view: memoryview) -> bool:
    """Whether the bytes begin as a tar archive, which torch looks for before its old format.

    The oldest tars have no magic: their first block has a sum of its bytes and nothing else.
    """
    block = bytes(view[:_TAR_BLOCK_BYTES])
    digits = block[_TAR_SUM].strip(b" \0")
    if len(block) < _TAR_BLOCK_BYTES or not digits or digits.strip(b"01234567"):
        return False
    return int(digits, 8) == sum(block) - sum(block[_TAR_SUM]) + 8 * ord(" ")


def tar_member_end(name: str, view: memoryview, walk: Walk) -> int:
    """Where what torch reads of a tar file's member ends.

    Args:
        name: `storages` or `tensors`.
        walk: walks the pickle at an offset and keeps what it found.

    Raises:
        IntegrityError: `torch.tar`.
    """
    count, at = _result(walk(0))
    if not isinstance(count, int):
        raise IntegrityError("torch.tar", "the member does not begin with a count")
    for _ in range(count):
        parts, at = _result(walk(at))
        if not isinstance(parts, tuple) or len(parts) != 3:
            raise IntegrityError("torch.tar", "an entry of the member has not three parts")
        at = _past_storage(view, at, parts[2]) if name == "storages" else _past_shape(view, at)
        if at > len(view):
            raise IntegrityError("torch.tar", "the member is cut short")
    if name == "storages":
        _, at = _result(walk(at))
    return at


def _result(stream: Stream) -> tuple[object, int]:
    if not stream.finished:
        raise IntegrityError("torch.tar", "a pickle of the member does not end")
    return stream.result, stream.end


def _past_storage(view: memoryview, at: int, kind: object) -> int:
    """The count of items, then the items."""
    item_bytes = ITEM_BYTES.get(kind.name) if isinstance(kind, Symbol) else None
    if item_bytes is None:
        raise IntegrityError("torch.tar", "a storage has no type of torch's")
    return at + _COUNT_BYTES + item_bytes * int.from_bytes(view[at : at + _COUNT_BYTES], "little")


def _past_shape(view: memoryview, at: int) -> int:
    """The rank (and four bytes that nobody reads), sizes, strides, the offset."""
    rank = int.from_bytes(view[at : at + 4], "little")
    if rank > _RANK_MAX:
        raise IntegrityError("torch.tar", "a tensor has too many dimensions")
    return at + _COUNT_BYTES * (2 + 2 * rank)
