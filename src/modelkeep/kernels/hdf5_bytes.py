"""Numbers and places in an HDF5 file, and what its data sets say of their size.

A data set of a terabyte takes some hundred bytes of file: chunks that nobody wrote are filled in
while they are read. So what is said is held against what is there.
"""

from __future__ import annotations

from dataclasses import dataclass

from modelkeep.core.errors import IntegrityError

UNDEFINED = (1 << 64) - 1
RANK_MAX = 32
# Sizes beyond this are all alike: no machine holds them.
ELEMENTS_MAX = 1 << 60
_COMPACT, _CONTIGUOUS = 0, 1
_NULL_SPACE = 2


@dataclass(slots=True)
class Array:
    """What the messages of one object say of its data.

    Attributes:
        is_whole: whether the file keeps it in one piece, with no chunks and no filters.
    """

    elements: int = 0
    item_bytes: int = 0
    is_array: bool = False
    is_whole: bool = False


def broken(message: str, at: int) -> IntegrityError:
    """The one error that reading such a file raises."""
    return IntegrityError("hdf5.broken", f"it {message} (at {at})", offset=at)


def number(view: memoryview, at: int, size: int) -> int:
    """A number of so many bytes.

    Raises:
        IntegrityError: `hdf5.broken`: it is not in the file.
    """
    if at < 0 or at + size > len(view):
        raise broken("points past its end", at)
    return int.from_bytes(view[at : at + size], "little")


def elements(view: memoryview, at: int) -> int:
    """How many elements a data space has.

    Raises:
        IntegrityError: `hdf5.broken`.
    """
    version, rank = number(view, at, 1), number(view, at + 1, 1)
    if version not in (1, 2) or rank > RANK_MAX:
        raise broken("has a shape of an unknown version", at)
    if version == 2 and number(view, at + 3, 1) == _NULL_SPACE:
        return 0
    dims = at + (8 if version == 1 else 4)
    count = 1
    for n in range(rank):
        count = min(count * number(view, dims + 8 * n, 8), ELEMENTS_MAX)
    return count


def is_stored_whole(view: memoryview, at: int) -> bool:
    """Whether a layout keeps all of its data in one piece of the file, or in itself.

    Raises:
        IntegrityError: `hdf5.broken`.
    """
    version = number(view, at, 1)
    kind = number(view, at + (2 if version < 3 else 1), 1)
    if kind == _COMPACT:
        return True
    address = number(view, at + (8 if version < 3 else 2), 8)
    return kind == _CONTIGUOUS and address != UNDEFINED


def filters(view: memoryview, at: int, stop: int) -> set[int]:
    """Numbers of the filters that a message asks for.

    Raises:
        IntegrityError: `hdf5.broken`.
    """
    found: set[int] = set()
    version, count = number(view, at, 1), number(view, at + 1, 1)
    at += 8 if version == 1 else 2
    for _ in range(count):
        if at + 6 > stop:
            raise broken("has filters that leave their message", at)
        kind = number(view, at, 2)
        found.add(kind)
        named = version == 1 or kind >= 256
        name_bytes = number(view, at + 2, 2) if named else 0
        at += 4 if named else 2
        values = number(view, at + 2, 2)
        name_bytes = -(-name_bytes // 8) * 8 if version == 1 else name_bytes
        at += 4 + name_bytes + 4 * (values + (values & 1 if version == 1 else 0))
    return found
