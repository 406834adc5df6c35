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

A full disk (`ledger.full`) is met in two ways. The journal of control entries has a reserve
(`adapters.reserve`), given up when an append finds no room, and tries once more. A journal of calls
is told the other's `full` file: while it is there nothing is appended, so that calls do not eat
what was kept for control entries.

There is one writer at a time; who that is, is decided above (a lock on the keep). A file that
grew by another hand is noticed before the next append and refused.
"""

from __future__ import annotations

import contextlib
import errno
import re
import threading
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

from modelkeep.adapters.disk import Disk, OpenDisk
from modelkeep.adapters.journal_errors import NO_ROOM, damaged, expired, full
from modelkeep.adapters.journal_segment import NOTED_EVERY, Segment, has_header, pieces_of
from modelkeep.adapters.reserve import Reserve
from modelkeep.core.errors import IntegrityError, UnavailableError, UsageError
from modelkeep.kernels.frames import (
    FRAME_BYTES_MAX,
    HEADER_BYTES,
    MARK_BYTES,
    Piece,
    framed,
    header_bytes,
    last_mark,
    mark_bytes,
)

# 64 MiB scan in half a second when a writer opens its last segment.
SEGMENT_BYTES_MAX = 64 * 1024 * 1024
SEGMENT_FRAMES_MAX = 65_536

_NAME = re.compile(r"(?P<first>[0-9]{20})\.journal")
# How far from its end a reader looks for a mark at or before what it wants.
_TAIL_BYTES = 256 * 1024


class JournalFile:
    """A `Journal` over a `Disk`; see the module for its promises.

    Args:
        folder: holds the segments and nothing else.
        segment_bytes_max: a segment that has reached it gets no further append.
        segment_frames_max: nor one that holds so many frames.
        reserve_bytes: room that is kept for when the disk is full.
        refused_by: while this file is there, nothing is appended.
        writable: whether this is the one writer; a reader creates and repairs nothing.
    """

    def __init__(
        self,
        disk: Disk,
        folder: Path,
        *,
        segment_bytes_max: int = SEGMENT_BYTES_MAX,
        segment_frames_max: int = SEGMENT_FRAMES_MAX,
        reserve_bytes: int = 0,
        refused_by: Path | None = None,
        writable: bool,
    ) -> None:
        self._disk = disk
        self._folder = folder
        self._segment_bytes_max = segment_bytes_max
        self._segment_frames_max = segment_frames_max
        self._reserve = Reserve(disk, folder, size_bytes=reserve_bytes) if reserve_bytes else None
        self._refused_by = refused_by
        self._writable = writable
        self._lock = threading.Lock()  # one thread appends while another reads and drops
        self._segments: list[Segment] = []
        self._size_bytes = 0
        self._next = 0
        self._suspect = False
        self._begun: tuple[int, int] | None = None
        self._closed = False
        if writable:
            try:
                self._open_for_writing()
            except OSError as error:
                raise self._unavailable("journal.write", error) from error

    def append(self, frames: Sequence[bytes]) -> int:
        """Write all frames with one sync; see the port.

        Raises:
            UnavailableError: `journal.write`, or `ledger.full` when the disk has no room.
            UsageError: `journal.frame_size`, when a frame is beyond FRAME_BYTES_MAX.
        """
        self._demand_writable(frames)
        with self._lock:
            first = self._next
            if not frames:
                return first
            try:
                self._demand_room()
                try:
                    self._append(frames)
                except OSError as error:
                    if error.errno not in NO_ROOM or not self._give_up_reserve():
                        raise
                    self._append(frames)
            except OSError as error:
                raise self._unavailable("journal.write", error) from error
            return first

    def begin(self, frames: Sequence[bytes]) -> int:
        """Write frames that somebody else makes durable: the first half of an append.

        Returns:
            The descriptor to sync; `finish` must follow, before anything else is appended.

        Raises:
            UnavailableError, UsageError: as `append`.
        """
        assert isinstance(self._disk, OpenDisk)
        assert frames
        assert self._begun is None
        self._demand_writable(frames)
        with self._lock:
            try:
                self._demand_room()
                self._make_ready()
                self._begun = self._written(frames)
            except OSError as error:
                raise self._unavailable("journal.write", error) from error
            return self._disk.descriptor(self._segments[-1].path)

    def finish(self, error: OSError | None) -> int:
        """End what `begin` began, now that it is durable; the position of its first frame.

        Args:
            error: why it is not: what was written is cut off again.

        Raises:
            UnavailableError: `journal.write`.
        """
        with self._lock:
            begun, self._begun = self._begun, None
            assert begun is not None
            if error is not None:
                self._repair_quietly()
                raise self._unavailable("journal.write", error) from error
            first = self._next
            self._settle(*begun)
            return first

    def read(self, start: int) -> Iterator[tuple[int, bytes]]:
        """Durable frames with their positions; see the port.

        Raises:
            IntegrityError: `journal.damaged`.
            MissingError: `journal.expired`.
            UnavailableError: `journal.read`.
        """
        try:
            yield from self._read(start)
        except FileNotFoundError:
            raise expired(self._folder, start) from None
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
            position, offset = self._seek(last, 2**64)
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

    def segments(self) -> list[Segment]:
        """The files that are here now, oldest first."""
        try:
            return list(self._listed())
        except OSError as error:
            raise self._unavailable("journal.read", error) from error

    def drop_before(self, position: int) -> None:
        """Delete whole segments before a position, oldest first; see the port.

        The last segment always stays, so one other process may keep a journal's retention while
        its writer appends.
        """
        with self._lock:
            try:
                segments = list(self._listed())
            except OSError as error:
                raise self._unavailable("journal.write", error) from error
        for segment, following in pairwise(segments):
            if following.first > position:
                return
            try:  # without the lock: to remove a file may take as long as many appends
                self._disk.unlink(segment.path)
                self._disk.sync_folder(self._folder)
            except OSError as error:
                raise self._unavailable("journal.write", error) from error
            with self._lock:
                self._segments = [each for each in self._segments if each is not segment]

    def is_out_of_room(self) -> bool:
        """Whether the reserve was given up; `restore_room` ends that."""
        return self._reserve is not None and self._reserve.is_given_up()

    def restore_room(self) -> bool:
        """Take the reserve again if it is not held; whether it is held now."""
        return self._reserve is None or self._reserve.restore()

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

    def _demand_writable(self, frames: Sequence[bytes]) -> None:
        if not self._writable or self._closed:
            raise AssertionError("only an open writer appends")
        for frame in frames:
            if len(frame) > FRAME_BYTES_MAX:
                raise UsageError(
                    "journal.frame_size", f"a journal frame of {len(frame)} bytes is too long"
                )

    def _demand_room(self) -> None:
        if self._refused_by is not None and self._disk.size(self._refused_by) is not None:
            raise OSError(errno.ENOSPC, "what is left is kept for control entries")

    def _append(self, frames: Sequence[bytes]) -> None:
        self._make_ready()
        begun = self._written(frames)
        try:
            self._disk.sync(self._segments[-1].path)
        except OSError:
            self._repair_quietly()
            raise
        self._settle(*begun)

    def _make_ready(self) -> None:
        """Cut off what an interrupted append left; begin a new segment if the last one is full."""
        self._repair()
        is_long = self._next - self._segments[-1].first >= self._segment_frames_max
        if is_long or self._size_bytes >= self._segment_bytes_max:
            self._add_segment(self._next)

    def _give_up_reserve(self) -> bool:
        return self._reserve is not None and self._reserve.give_up()

    def _written(self, frames: Sequence[bytes]) -> tuple[int, int]:
        """Write frames, not durable yet; the position and the offset behind them."""
        last = self._segments[-1]
        raws = framed(frames, first=self._next)
        offset = self._size_bytes
        for at in range(0, len(raws), NOTED_EVERY):
            last.note(self._next + at, offset)
            offset += sum(map(len, raws[at : at + NOTED_EVERY]))
        self._suspect = True  # until the bytes are durable: whatever interrupts us, cut them off
        try:
            self._disk.append(last.path, b"".join(raws))
        except OSError:
            self._repair_quietly()
            raise
        return self._next + len(raws), offset

    def _settle(self, position: int, offset: int) -> None:
        """Believe in frames that are durable now, and mark them."""
        self._next, self._size_bytes = position, offset
        try:
            self._disk.append(self._segments[-1].path, mark_bytes(position))
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
        self._segments = [*self._segments, Segment(first, path)]
        self._size_bytes = HEADER_BYTES

    def _open_for_writing(self) -> None:
        self._disk.make_folder(self._folder)
        if self._reserve is not None and not self._reserve.restore():
            with contextlib.suppress(OSError):
                self._reserve.give_up()  # there is no room for it: the disk counts as full
        self._segments = self._listed()
        if not self._segments:
            self._add_segment(0)
            return
        last = self._segments[-1]
        size_bytes = self._disk.size(last.path) or 0
        if size_bytes <= HEADER_BYTES and not has_header(self._disk, last):
            self._segments.pop()
            self._next = last.first
            self._add_segment(last.first)
            return
        position, end, is_marked = last.first, HEADER_BYTES, True
        for piece in pieces_of(self._disk, last, last.first, HEADER_BYTES, size_bytes):
            is_marked, end = piece.payload is None, piece.end
            if piece.payload is not None:
                last.note(piece.position, piece.start)
                position = piece.next_position
        if end < size_bytes:
            self._disk.truncate(last.path, end)
        self._disk.sync(last.path)
        self._next, self._size_bytes = position, end
        if is_marked:
            return
        try:
            self._disk.append(last.path, mark_bytes(position))
        except OSError:
            self._suspect = True  # a full disk; readers see the frames after the next mark
            return
        self._size_bytes = end + MARK_BYTES

    # -- reading ------------------------------------------------------------------------------

    def _read(self, start: int) -> Iterator[tuple[int, bytes]]:
        segments = self._listed()
        if segments and start < segments[0].first:
            raise expired(self._folder, start)
        firsts = [segment.first for segment in segments]
        for at in range(max(bisect_right(firsts, start) - 1, 0), len(segments)):
            segment = segments[at]
            with self._lock:
                position, offset = self._seek(segment, start)
            is_last = at == len(segments) - 1
            pieces = (
                self._marked(segment, position, offset)
                if is_last
                else self._whole(segment, position, offset, until=firsts[at + 1])
            )
            for piece in pieces:
                if piece.position >= start and piece.payload is not None:
                    yield piece.position, piece.payload

    def _seek(self, segment: Segment, start: int) -> tuple[int, int]:
        """Where to begin to parse for a position: what is remembered, or a mark near the end."""
        position, offset = segment.seek(start)
        if self._writable or start - position < NOTED_EVERY:
            return position, offset
        size_bytes = self._disk.size(segment.path) or 0
        begin = max(size_bytes - _TAIL_BYTES, offset)
        tail = self._disk.read(segment.path, begin, size_bytes - begin)
        found = last_mark(tail, position_max=start)
        if found is None or found[0] < position:
            return position, offset
        return found[0], begin + found[1]

    def _listed(self) -> list[Segment]:
        """The segments as they are now; a reader keeps what it knows of those still there."""
        if self._writable and self._segments:
            return self._segments
        known = {segment.first: segment for segment in self._segments}
        found = []
        for path, _ in self._disk.walk(self._folder):
            match = _NAME.fullmatch(path.name)
            if match is not None and path.parent == self._folder:
                first = int(match["first"])
                found.append(known.get(first) or Segment(first, path))
        self._segments = found
        return found

    def _whole(
        self, segment: Segment, position: int, offset: int, *, until: int
    ) -> Iterator[Piece]:
        """The frames of a segment that has a successor: all of it was durable."""
        size_bytes = self._disk.size(segment.path)
        if size_bytes is None:
            raise FileNotFoundError(segment.path)
        for piece in pieces_of(self._disk, segment, position, offset, size_bytes):
            position = piece.next_position
            offset = piece.end
            yield from self._noted(segment, (piece,))
        if position != until or offset != size_bytes:
            raise damaged(segment.path, position, "a segment does not end where the next starts")

    def _marked(self, segment: Segment, position: int, offset: int) -> Iterator[Piece]:
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
                for piece in pieces_of(self._disk, segment, position, offset, size_bytes):
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

    def _noted(self, segment: Segment, pieces: Sequence[Piece]) -> Iterator[Piece]:
        """Pass pieces on; a reader remembers where they lie (a writer did when it wrote them)."""
        for piece in pieces:
            if piece.payload is not None and not self._writable:
                segment.note(piece.position, piece.start)
            yield piece

    def _unavailable(self, code: str, error: OSError) -> UnavailableError:
        if error.errno in NO_ROOM:
            return full(self._folder, error)
        return UnavailableError(
            code,
            f"journal {self._folder.name}: {error.strerror or error}",
            hint="check that the disk has room and is writable",
            journal=self._folder.name,
        )
