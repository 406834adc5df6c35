"""BYTES tensors: elements of any length, each behind its length (u32, little-endian).

So V2 lays them out in binary, and so they travel to a replica. What comes from outside is walked
once, element by element; a count that the bytes do not hold is seen before anything is allocated.
"""

from __future__ import annotations

from collections.abc import Iterable

from modelkeep.core.errors import IntegrityError

LENGTH_BYTES = 4


def joined_elements(elements: Iterable[bytes]) -> bytes:
    """Lay elements out one after the other."""
    parts = []
    for each in elements:
        parts.append(len(each).to_bytes(LENGTH_BYTES, "little"))
        parts.append(each)
    return b"".join(parts)


def divided_elements(raw: bytes | memoryview, count: int) -> list[bytes]:
    """The elements of a tensor.

    Raises:
        IntegrityError: `wire.bytes`, when the bytes are not exactly so many elements.
    """
    size = len(raw)
    if count * LENGTH_BYTES > size:
        raise _unlike(count)
    found = []
    start = 0
    for _ in range(count):
        begins = start + LENGTH_BYTES
        start = begins + int.from_bytes(raw[start:begins], "little")
        if begins > size or start > size:
            raise _unlike(count)
        found.append(bytes(raw[begins:start]))
    if start != size:
        raise _unlike(count)
    return found


def texts_of(raw: bytes | memoryview, count: int) -> list[str]:
    """The elements of a tensor as text.

    Raises:
        IntegrityError: `wire.bytes`; `wire.text`, when an element is not UTF-8.
    """
    try:
        return [str(each, "utf-8") for each in divided_elements(raw, count)]
    except UnicodeDecodeError as error:
        raise IntegrityError("wire.text", "an element is not text in UTF-8") from error


def _unlike(count: int) -> IntegrityError:
    return IntegrityError("wire.bytes", f"the bytes are not {count} elements with their lengths")
