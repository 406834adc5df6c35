"""One file of a journal: what it begins with, where some of its frames lie, what is in it."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from modelkeep.adapters.disk import Disk
from modelkeep.adapters.journal_errors import damaged
from modelkeep.kernels.frames import (
    FRAME_BYTES_MAX,
    FRAME_HEAD_BYTES,
    HEADER_BYTES,
    Piece,
    header_bytes,
    marks_after,
    parsed_piece,
)

# Every so many frames one is remembered.
NOTED_EVERY = 256
_BLOCK_BYTES = 1024 * 1024


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


def pieces_of(
    disk: Disk, segment: Segment, position: int, offset: int, size_bytes: int
) -> Iterator[Piece]:
    """Parse frames and marks from an offset; stop at the first torn one.

    Raises:
        IntegrityError: `journal.damaged`, when a mark proves that the bad bytes were durable.
    """
    if offset == HEADER_BYTES and not has_header(disk, segment):
        if size_bytes > HEADER_BYTES:
            raise damaged(segment.path, segment.first, "its header is not valid")
        return
    buffer, base, at = b"", offset, 0
    while base + at < size_bytes:
        piece = parsed_piece(buffer, at, position=position, base=base)
        if piece is None and base + len(buffer) < size_bytes:
            base, buffer = base + at, buffer[at:]
            at = 0
            wanted = min(max(_BLOCK_BYTES, len(buffer)), size_bytes - base - len(buffer))
            block = disk.read(segment.path, base + len(buffer), wanted)
            if not block:
                return  # shortened meanwhile by its writer
            buffer += block
            # A bad frame is known for bad only when all that it may span has been read.
            if len(buffer) < min(FRAME_BYTES_MAX + FRAME_HEAD_BYTES, size_bytes - base):
                continue
            piece = parsed_piece(buffer, at, position=position, base=base)
        if piece is None:
            _demand_torn(disk, segment, base + at, position, size_bytes)
            return
        yield piece
        at = piece.end - base
        position = piece.next_position


def _demand_torn(disk: Disk, segment: Segment, offset: int, position: int, size_bytes: int) -> None:
    """Bad bytes are a torn tail unless a later mark says that they were durable."""
    if marks_after(disk.read(segment.path, offset, size_bytes - offset), position):
        raise damaged(segment.path, position, "bytes that were durable are not valid")


def has_header(disk: Disk, segment: Segment) -> bool:
    """Whether a segment begins as it must."""
    return disk.read(segment.path, 0, HEADER_BYTES) == header_bytes(segment.first)
