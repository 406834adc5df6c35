"""Room within a fixed piece of memory: taken first fit, given back, joined with its neighbours."""

from __future__ import annotations

# A cache line; every element type is aligned at it.
ALIGNMENT = 64


class Extents:
    """Which parts of `size` bytes are free; a few dozen parts at most are taken at once."""

    __slots__ = ("_free", "_taken")

    def __init__(self, size: int) -> None:
        self._free = [(0, size)] if size else []
        self._taken: dict[int, int] = {}

    @property
    def taken_count(self) -> int:
        """How many parts are in use."""
        return len(self._taken)

    def take(self, length: int) -> int:
        """The offset of room for so many bytes, aligned; -1 where there is none."""
        wanted = max(-(-length // ALIGNMENT), 1) * ALIGNMENT
        for at, (offset, size) in enumerate(self._free):
            if size >= wanted:
                self._free[at : at + 1] = [(offset + wanted, size - wanted)] * (size > wanted)
                self._taken[offset] = wanted
                return offset
        return -1

    def give(self, offset: int) -> bool:
        """Give room back; False if it was not taken."""
        size = self._taken.pop(offset, 0)
        if not size:
            return False
        before = sum(1 for start, _ in self._free if start < offset)
        self._free.insert(before, (offset, size))
        for at in (before, before - 1):
            if 0 <= at < len(self._free) - 1:
                (start, length), (following, more) = self._free[at : at + 2]
                if start + length == following:
                    self._free[at : at + 2] = [(start, length + more)]
        return True
