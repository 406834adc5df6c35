"""One file of a journal: what it begins with, and where some of its frames lie."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field
from pathlib import Path

from modelkeep.kernels.frames import HEADER_BYTES

# Every so many frames one is remembered.
NOTED_EVERY = 256


@dataclass(slots=True)
class Segment:
    """One file: its first position, and offsets of some frames for quick seeks."""

    first: int
    path: Path
    positions: list[int] = field(default_factory=list)
    offsets: list[int] = field(default_factory=list)

    def note(self, position: int, offset: int) -> None:
        """Remember that the frame of a position starts (or will start) at an offset."""
        if not self.positions or position >= self.positions[-1] + NOTED_EVERY:
            self.positions.append(position)
            self.offsets.append(offset)

    def seek(self, position: int) -> tuple[int, int]:
        """The last remembered (position, offset) at or before a position."""
        at = bisect_right(self.positions, position) - 1
        if at < 0:
            return self.first, HEADER_BYTES
        return self.positions[at], self.offsets[at]
