"""What was recorded last, kept in memory until it is published: the journal need not be read back.

One thread adds, another one reads. Beyond its bound the oldest is forgotten: it is in the journal,
which is where the reader then turns.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

# A second of 50,000 entries of 300 bytes is 15 MB.
RECENT_BYTES_MAX = 64 * 1024 * 1024

_Group = tuple[int, Sequence[bytes], int]


class RecentRecords:
    """Consecutive records (`salt || body`), the newest at most `bytes_max` bytes of them."""

    def __init__(self, bytes_max: int = RECENT_BYTES_MAX) -> None:
        self._bytes_max = bytes_max
        self._size_bytes = 0
        self._needed_from = 0
        self._groups: deque[_Group] = deque()

    def add(self, first: int, records: Sequence[bytes]) -> None:
        """Remember what was just made durable at `first`, which follows what is here."""
        groups = self._groups
        size_bytes = sum(map(len, records))
        groups.append((first, records, size_bytes))
        self._size_bytes += size_bytes
        while groups and (
            self._size_bytes > self._bytes_max
            or groups[0][0] + len(groups[0][1]) <= self._needed_from
        ):
            self._size_bytes -= groups.popleft()[2]

    def forget_before(self, position: int) -> None:
        """What lies before a position is not asked for again; it goes with the next `add`."""
        self._needed_from = position

    def between(self, start: int, end: int) -> list[bytes] | None:
        """The records [start, end); None when some of them are not here any more."""
        try:
            groups = list(self._groups)
        except RuntimeError:  # it was added to meanwhile, on an interpreter without a global lock
            return None
        if not groups or groups[0][0] > start or groups[-1][0] + len(groups[-1][1]) < end:
            return None
        found: list[bytes] = []
        for first, records, _ in groups:
            if first < end and first + len(records) > start:
                found += records[max(start - first, 0) : end - first]
        return found
