"""An append-only file of frames that survives a power cut."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol


class Journal(Protocol):
    """Frames in order, each authenticated by its own checksum, in numbered segments.

    One writer; readers may follow. A torn last frame (power cut during `append`) is dropped when
    the journal is opened for writing; damage anywhere else is IntegrityError `journal.damaged`.
    """

    def append(self, frames: Sequence[bytes]) -> int:
        """Write all frames with one fsync; durable on return.

        Returns:
            The position of the first of them; positions count frames from 0 without gaps.

        Raises:
            UnavailableError: `journal.write` or `ledger.full`; no frame counts as written.
        """
        ...

    def read(self, start: int) -> Iterator[tuple[int, bytes]]:
        """Durable frames with their positions from `start` on, as far as they go now.

        Raises:
            IntegrityError: `journal.damaged`.
            MissingError: `journal.expired`, when `start` lies in a segment that was dropped.
        """
        ...

    def next_position(self) -> int:
        """The position that the next frame will get."""
        ...

    def drop_before(self, position: int) -> None:
        """Delete whole segments, but the last, that lie before `position`; nothing else ever."""
        ...

    def close(self) -> None:
        """Release the file; idempotent."""
        ...
