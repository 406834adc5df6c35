r"""Bytes of a journal's segments: header, frames, and marks of what is durable.

    header  "MKjrnl0\n" | first position u64 | check 16
    frame   length u32 | position u64 | check 16 | payload
    mark    0xFF "MKmark" 0xFF | next position u64 | check 16

Integers are big-endian; a check is the first 16 bytes of SHA-256 over what stands before it in
its header, frame (and the payload) or mark. A frame's position is in its check, so a frame that
was moved or repeated is not valid in its new place. A mark's first byte makes an impossible
length, so nothing is both.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass

# A frame holds one record: 64 KiB of body at most, or one call; 1 MiB bounds a hostile length.
FRAME_BYTES_MAX = 1024 * 1024

CHECK_BYTES = 16
HEADER_BYTES = 8 + 8 + CHECK_BYTES
FRAME_HEAD_BYTES = 4 + 8 + CHECK_BYTES
MARK_BYTES = 8 + 8 + CHECK_BYTES
MARK = b"\xffMKmark\xff"

_MAGIC = b"MKjrnl0\n"
_PLACED = struct.Struct(">IQ")
_FRAME_HEAD = struct.Struct(f">IQ{CHECK_BYTES}s")


@dataclass(frozen=True, slots=True)
class Piece:
    """One frame, or one mark.

    Attributes:
        position: of the frame; of the next frame for a mark.
        payload: None for a mark.
        end: offset of the byte after it.
    """

    position: int
    payload: bytes | None
    end: int

    @property
    def start(self) -> int:
        """Offset of its first byte."""
        if self.payload is None:
            return self.end - MARK_BYTES
        return self.end - FRAME_HEAD_BYTES - len(self.payload)

    @property
    def next_position(self) -> int:
        """The position that the next frame will have."""
        return self.position + (self.payload is not None)


def header_bytes(first: int) -> bytes:
    """The header of a segment whose first frame has position `first`."""
    start = _MAGIC + first.to_bytes(8, "big")
    return start + _check(start)


def framed(payloads: Sequence[bytes], *, first: int) -> list[bytes]:
    """The frames of consecutive payloads; 1 us each, so nothing is called that need not be."""
    pack, sha256 = _PLACED.pack, hashlib.sha256
    return [
        (start := pack(len(payload), position))
        + sha256(start + payload).digest()[:CHECK_BYTES]
        + payload
        for position, payload in enumerate(payloads, start=first)
    ]


def mark_bytes(position: int) -> bytes:
    """The mark that says: every frame before `position` is durable."""
    start = MARK + position.to_bytes(8, "big")
    return start + _check(start)


def parsed_piece(buffer: bytes, at: int, *, position: int, base: int) -> Piece | None:
    """The frame or mark at `at`; None when it is incomplete, bad or of another position.

    Args:
        base: offset of the buffer's first byte in its file.
    """
    if buffer.startswith(MARK, at):
        end = at + MARK_BYTES
        is_right = parsed_mark(buffer, at) == position
        return Piece(position, None, base + end) if is_right else None
    start = at + FRAME_HEAD_BYTES
    if start > len(buffer):
        return None
    length, placed, check = _FRAME_HEAD.unpack_from(buffer, at)
    end = start + length
    if length > FRAME_BYTES_MAX or end > len(buffer) or placed != position:
        return None
    payload = buffer[start:end]
    if check != _check(buffer[at : at + _PLACED.size] + payload):
        return None
    return Piece(position, payload, base + end)


def parsed_mark(buffer: bytes, at: int) -> int | None:
    """The position in the mark at `at`; None when it is not a valid one."""
    raw = buffer[at : at + MARK_BYTES]
    position = int.from_bytes(raw[len(MARK) : len(MARK) + 8], "big")
    return position if raw == mark_bytes(position) else None


def marks_after(raw: bytes, position: int) -> bool:
    """Whether a valid mark in these bytes says that the frame at `position` was durable."""
    at = raw.find(MARK)
    while at >= 0:
        marked = parsed_mark(raw, at)
        if marked is not None and marked > position:
            return True
        at = raw.find(MARK, at + 1)
    return False


def last_mark(raw: bytes, *, position_max: int) -> tuple[int, int] | None:
    """The last valid mark in a part of a segment that is at or before a position.

    Returns:
        The position that it says, and the offset in `raw` of the byte after it.
    """
    at = raw.rfind(MARK)
    while at >= 0:
        marked = parsed_mark(raw, at)
        if marked is not None and marked <= position_max:
            return marked, at + MARK_BYTES
        at = raw.rfind(MARK, 0, at + len(MARK) - 1)
    return None


def _check(raw: bytes) -> bytes:
    return hashlib.sha256(raw).digest()[:CHECK_BYTES]
