"""A Journal in a folder: numbered segments of checksummed frames, with marks of what is durable.

A segment is the file `<first position, 20 digits>.journal`: a header, then frames and marks
(`kernels.frames` has the bytes).

Write order of `append`: all frames in one write -> one sync -> a mark, not synced. A mark says
"everything before me is durable", which is what a reader in another process may believe: it
sees frames only up to the last mark, so it never acts on a frame that a power cut takes back.
A failed append is cut off again; if even that fails, the next append tries it first.

What a crash leaves. Frames after the last mark: the writer never returned, so they are not
acknowledged. On opening for writing the whole ones stay (and are synced and marked), the first
bad one and what follows it is cut off. A bad frame *before* a mark was durable once: that is
damage, never repaired here. A segment whose header is torn holds nothing yet and is made again;
frames are written to a segment only after its header and its name are durable.

There is one writer at a time; who that is, is decided above (a lock on the keep). A file that
grew by another hand is noticed before the next append and refused.
"""

from __future__ import annotations

import re
import threading
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from modelkeep.adapters.disk import Disk
from modelkeep.core.errors import IntegrityError, MissingError, UnavailableError, UsageError
from modelkeep.kernels.frames import (
    FRAME_BYTES_MAX,
    FRAME_HEAD_BYTES,
    HEADER_BYTES,
    MARK_BYTES,
    Piece,
    frame_head,
    header_bytes,
    mark_bytes,
    marks_after,
    parsed_piece,
)

# 64 MiB scan in half a second when a writer opens its last segment.
SEGMENT_BYTES_MAX = 64 * 1024 * 1024

_NAME = re.compile(r"(?P<first>[0-9]{20})\.journal")
_BLOCK_BYTES = 1024 * 1024
# Every so many frames a segment's index remembers where one starts.
_INDEX_EVERY = 256


@dataclass(slots=True)
class _Segment:
    """One file: its first position, and offsets of some frames for quick seeks."""

    first: int
    path: Path
    positions: list[int] = field(default_factory=list)
    offsets: list[int] = field(default_factory=list)

    def note(self, position: int, offset: int) -> None:
        """Remember that the frame of a position starts (or will start) at an offset."""
        if not self.positions or position >= self.positions[-1] + _INDEX_EVERY:
            self.positions.append(position)
            self.offsets.append(offset)

    def seek(self, position: int) -> tuple[int, int]:
        """The last remembered (position, offset) at or before a position."""
        at = bisect_right(self.positions, position) - 1
        if at < 0:
            return self.first, HEADER_BYTES
        return self.positions[at], self.offsets[at]


class JournalFile:
    """A `Journal` over a `Disk`; see the module for its promises.

    Args:
        folder: holds the segments and nothing else.
        segment_bytes_max: a segment that has reached it gets no further append.
        writable: whether this is the one writer; a reader creates and repairs nothing.
    """

    def __init__(
        self,
        disk: Disk,
        folder: Path,
        *,
        segment_bytes_max: int = SEGMENT_BYTES_MAX,
        writable: bool,
    ) -> None:
        self._disk = disk
        self._folder = folder
        self._segment_bytes_max = segment_bytes_max
        self._writable = writable
        self._lock = threading.Lock()  # one thread appends while another reads and drops
        self._segments: list[_Segment] = []
        self._size_bytes = 0
        self._next = 0
        self._suspect = False
        self._closed = False
        if writable:
            try:
                self._open_for_writing()
            except OSError as error:
                raise self._unavailable("journal.write", error) from error

    def append(self, frames: Sequence[bytes]) -> int:
        """Write all frames with one sync; see the port.

        Raises:
            UnavailableError: `journal.write`.
            UsageError: `journal.frame_size`, when a frame is beyond FRAME_BYTES_MAX.
        """
        if not self._writable or self._closed:
            raise AssertionError("only an open writer appends")
        for frame in frames:
            if len(frame) > FRAME_BYTES_MAX:
                raise UsageError(
                    "journal.frame_size", f"a journal frame of {len(frame)} bytes is too long"
                )
        with self._lock:
            first = self._next
            if not frames:
                return first
            try:
                self._repair()
                if self._size_bytes >= self._segment_bytes_max:
                    self._add_segment(first)
                self._write(frames)
            except OSError as error:
                raise self._unavailable("journal.write", error) from error
            return first

    def read(self, start: int) -> Iterator[tuple[int, bytes]]:
        """Durable frames with their positions; see the port.

        Raises:
            IntegrityError: `journal.damaged`.
            MissingError: `journal.pruned`.
            UnavailableError: `journal.read`.
        """
        try:
            yield from self._read(start)
        except FileNotFoundError:
            raise self._pruned(start) from None
        except OSError as error:
            raise self._unavailable("journal.read", error) from error

    def next_position(self) -> int:
        """The position that the next frame will get, as far as is durable and marked now."""
        if self._writable:
            return self._next
        try:
            segments = self._listed()
            if not segments:
                return 0
            last = segments[-1]
            position, offset = last.seek(2**64)
            for piece in self._marked(last, position, offset):
                position = piece.next_position
        except OSError as error:
            raise self._unavailable("journal.read", error) from error
        return position

    def first_position(self) -> int:
        """The position of the oldest frame that is still here (or of the next one to come)."""
        try:
            segments = self._listed()
        except OSError as error:
            raise self._unavailable("journal.read", error) from error
        return segments[0].first if segments else 0

    def drop_before(self, position: int) -> None:
        """Delete whole segments before a position, oldest first; see the port."""
        if not self._writable:
            raise AssertionError("only the writer drops")
        with self._lock:
            try:
                while len(self._segments) > 1 and self._segments[1].first <= position:
                    self._disk.unlink(self._segments[0].path)
                    self._segments = self._segments[1:]
                    self._disk.sync_folder(self._folder)
            except OSError as error:
                raise self._unavailable("journal.write", error) from error

    def close(self) -> None:
        """Make the last mark durable and stop; idempotent."""
        if self._closed:
            return
        self._closed = True
        if self._writable and self._segments:
            try:
                self._disk.sync(self._segments[-1].path)
            except OSError as error:
                raise self._unavailable("journal.write", error) from error
            finally:
                self._disk.release(self._segments[-1].path)

    # -- writing: the lock is held ------------------------------------------------------------

    def _write(self, frames: Sequence[bytes]) -> None:
        last = self._segments[-1]
        parts: list[bytes] = []
        position, offset = self._next, self._size_bytes
        for frame in frames:
            last.note(position, offset)
            parts.append(frame_head(position, frame))
            parts.append(frame)
            position += 1
            offset += FRAME_HEAD_BYTES + len(frame)
        self._suspect = True  # until the bytes are durable: whatever interrupts us, cut them off
        try:
            self._disk.append(last.path, b"".join(parts))
            self._disk.sync(last.path)
        except OSError:
            self._repair_quietly()
            raise
        self._next, self._size_bytes = position, offset
        try:
            self._disk.append(last.path, mark_bytes(position))
        except OSError:
            self._repair_quietly()  # the frames are durable; readers see them after the next mark
            return
        self._size_bytes += MARK_BYTES
        self._suspect = False

    def _repair(self) -> None:
        """Cut off what an interrupted append left; refuse a file that somebody else wrote to."""
        last = self._segments[-1]
        size_bytes = self._disk.size(last.path)
        if size_bytes == self._size_bytes and not self._suspect:
            return
        if not self._suspect or size_bytes is None or size_bytes < self._size_bytes:
            raise IntegrityError(
                "journal.foreign",
                f"{last.path.name} changed under its writer",
                hint="two processes write to one journal: stop one of them",
                expected=self._size_bytes,
                got=size_bytes,
            )
        self._disk.truncate(last.path, self._size_bytes)
        self._disk.sync(last.path)
        at = bisect_right(last.positions, self._next - 1)
        del last.positions[at:], last.offsets[at:]
        self._suspect = False

    def _repair_quietly(self) -> None:
        try:
            self._repair()
        except OSError:
            self._suspect = True  # the next append tries again before it writes

    def _add_segment(self, first: int) -> None:
        path = self._folder / f"{first:020d}.journal"
        # An earlier attempt that failed half-way may have left its file; it holds no frame yet.
        self._disk.unlink(path)
        self._disk.create(path, header_bytes(first))
        self._disk.sync(path)
        self._disk.sync_folder(self._folder)
        if self._segments:
            self._disk.release(self._segments[-1].path)
        self._segments = [*self._segments, _Segment(first, path)]
        self._size_bytes = HEADER_BYTES

    def _open_for_writing(self) -> None:
        self._disk.make_folder(self._folder)
        self._segments = self._listed()
        if not self._segments:
            self._add_segment(0)
            return
        last = self._segments[-1]
        size_bytes = self._disk.size(last.path) or 0
        if size_bytes <= HEADER_BYTES and not self._has_header(last):
            self._segments.pop()
            self._next = last.first
            self._add_segment(last.first)
            return
        position, end, is_marked = last.first, HEADER_BYTES, True
        for piece in self._pieces(last, last.first, HEADER_BYTES, size_bytes):
            is_marked, end = piece.payload is None, piece.end
            if piece.payload is not None:
                last.note(piece.position, piece.start)
                position = piece.next_position
        if end < size_bytes:
            self._disk.truncate(last.path, end)
        self._disk.sync(last.path)
        self._next, self._size_bytes = position, end
        if not is_marked:
            self._disk.append(last.path, mark_bytes(position))
            self._size_bytes = end + MARK_BYTES

    # -- reading ------------------------------------------------------------------------------

    def _read(self, start: int) -> Iterator[tuple[int, bytes]]:
        segments = self._listed()
        if segments and start < segments[0].first:
            raise self._pruned(start)
        firsts = [segment.first for segment in segments]
        for at in range(max(bisect_right(firsts, start) - 1, 0), len(segments)):
            segment = segments[at]
            with self._lock:
                position, offset = segment.seek(start)
            is_last = at == len(segments) - 1
            pieces = (
                self._marked(segment, position, offset)
                if is_last
                else self._whole(segment, position, offset, until=firsts[at + 1])
            )
            for piece in pieces:
                if piece.position >= start and piece.payload is not None:
                    yield piece.position, piece.payload

    def _listed(self) -> list[_Segment]:
        """The segments as they are now; a reader keeps what it knows of those still there."""
        if self._writable and self._segments:
            return self._segments
        known = {segment.first: segment for segment in self._segments}
        found = []
        for path, _ in self._disk.walk(self._folder):
            match = _NAME.fullmatch(path.name)
            if match is not None and path.parent == self._folder:
                first = int(match["first"])
                found.append(known.get(first) or _Segment(first, path))
        self._segments = found
        return found

    def _whole(
        self, segment: _Segment, position: int, offset: int, *, until: int
    ) -> Iterator[Piece]:
        """The frames of a segment that has a successor: all of it was durable."""
        size_bytes = self._disk.size(segment.path)
        if size_bytes is None:
            raise FileNotFoundError(segment.path)
        for piece in self._pieces(segment, position, offset, size_bytes):
            position = piece.next_position
            offset = piece.end
            yield from self._noted(segment, (piece,))
        if position != until or offset != size_bytes:
            raise self._damaged(segment, position, "a segment does not end where the next starts")

    def _marked(self, segment: _Segment, position: int, offset: int) -> Iterator[Piece]:
        """The frames of the last segment up to its last mark (the writer: up to what it synced).

        A read that meets damage is repeated once from there, because the writer may have cut off
        a failed append and written anew between two of our reads.
        """
        for attempt in (1, 2):
            held: list[Piece] = []
            size_bytes = self._disk.size(segment.path)
            if size_bytes is None:
                raise FileNotFoundError(segment.path)
            try:
                for piece in self._pieces(segment, position, offset, size_bytes):
                    if piece.payload is not None:
                        held.append(piece)
                    if piece.payload is None or (self._writable and piece.position < self._next):
                        yield from self._noted(segment, held)
                        held.clear()
                        offset = piece.end
                        position = piece.next_position
            except IntegrityError:
                if attempt == 2:
                    raise
                continue
            return

    def _noted(self, segment: _Segment, pieces: Sequence[Piece]) -> Iterator[Piece]:
        """Pass pieces on; a reader remembers where they lie (a writer did when it wrote them)."""
        for piece in pieces:
            if piece.payload is not None and not self._writable:
                segment.note(piece.position, piece.start)
            yield piece

    def _pieces(
        self, segment: _Segment, position: int, offset: int, size_bytes: int
    ) -> Iterator[Piece]:
        """Parse frames and marks from an offset; stop at the first torn one.

        Raises:
            IntegrityError: `journal.damaged`, when a mark proves that the bad bytes were durable.
        """
        if offset == HEADER_BYTES and not self._has_header(segment):
            if size_bytes > HEADER_BYTES:
                raise self._damaged(segment, segment.first, "its header is not valid")
            return
        buffer, base, at = b"", offset, 0
        while base + at < size_bytes:
            piece = parsed_piece(buffer, at, position=position, base=base)
            if piece is None and base + len(buffer) < size_bytes:
                base, buffer = base + at, buffer[at:]
                at = 0
                wanted = min(max(_BLOCK_BYTES, len(buffer)), size_bytes - base - len(buffer))
                block = self._disk.read(segment.path, base + len(buffer), wanted)
                if not block:
                    return  # shortened meanwhile by its writer
                buffer += block
                # A bad frame is known for bad only when all that it may span has been read.
                if len(buffer) < min(FRAME_BYTES_MAX + FRAME_HEAD_BYTES, size_bytes - base):
                    continue
                piece = parsed_piece(buffer, at, position=position, base=base)
            if piece is None:
                self._demand_torn(segment, base + at, position, size_bytes)
                return
            yield piece
            at = piece.end - base
            position = piece.next_position

    def _demand_torn(self, segment: _Segment, offset: int, position: int, size_bytes: int) -> None:
        """Bad bytes are a torn tail unless a later mark says that they were durable."""
        if marks_after(self._disk.read(segment.path, offset, size_bytes - offset), position):
            raise self._damaged(segment, position, "bytes that were durable are not valid")

    def _has_header(self, segment: _Segment) -> bool:
        return self._disk.read(segment.path, 0, HEADER_BYTES) == header_bytes(segment.first)

    # -- errors -------------------------------------------------------------------------------

    def _damaged(self, segment: _Segment, position: int, why: str) -> IntegrityError:
        return IntegrityError(
            "journal.damaged",
            f"journal {self._folder.name}, {segment.path.name}, frame {position}: {why}",
            hint="keep the file as evidence; what the ledger committed of it is in its batches",
            journal=self._folder.name,
            segment=segment.path.name,
            position=position,
        )

    def _pruned(self, start: int) -> MissingError:
        return MissingError(
            "journal.pruned",
            f"frame {start} of journal {self._folder.name} is no longer kept",
            journal=self._folder.name,
            position=start,
        )

    def _unavailable(self, code: str, error: OSError) -> UnavailableError:
        return UnavailableError(
            code,
            f"journal {self._folder.name}: {error.strerror or error}",
            hint="check that the disk has room and is writable",
            journal=self._folder.name,
        )
