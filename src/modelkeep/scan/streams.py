"""Files that are compressed as a whole: plaintext within a bound, and what follows it.

gzip, zlib, raw deflate, bzip2, xz, the older lzma, zstd and lz4. Streams that follow each other are
joined, as the readers of these formats do. Members of zip archives are packed by some of them, and
by LZMA behind a header of its own.
"""

from __future__ import annotations

import bz2
import io
import lzma
import zlib
from typing import Protocol

import zstandard

from modelkeep.core.errors import IntegrityError
from modelkeep.kernels import lz4

_INPUT_STEP_BYTES = 1 << 16
_OUTPUT_STEP_BYTES = 1 << 20
# A decompressor that breaks gives nothing of its last step.
_SMALL_STEP_BYTES = 16
# LZMA's dictionary is allocated from the file's own header: cap it. zstd's window likewise.
_LZMA_MEMORY_BYTES_MAX = 128 * 1024 * 1024
_ZSTD_WINDOW_BYTES_MAX = 128 * 1024 * 1024
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_ZSTD_SKIPPABLE = (0x184D2A50, 0x184D2A5F)
_ZSTD_RLE = 1
# Of a zip member by LZMA: the version of its packer, the length of the properties, those.
_ZIP_LZMA_HEAD_BYTES = 9
_ZIP_LZMA_PROPERTY_BYTES = 5
_LZMA_SIZE_UNKNOWN = b"\xff" * 8


def inflated(view: memoryview, kind: str, limit: int) -> tuple[bytes | None, int]:
    """Decompress up to `limit` bytes.

    Returns:
        The plaintext, or None where there is more of it than the limit; and how many bytes of the
        input were left over.

    Raises:
        IntegrityError: `inflate.broken`, `inflate.truncated` or `lz4.broken`.
    """
    if kind == "lz4":
        return lz4.decoded(view, limit)
    if kind == "zstd":
        return _zstd(view, limit)
    parts: list[bytes] = []
    room = limit + 1
    at = 0
    while True:
        engine = _engine(kind)
        pending = b""
        while not engine.eof:
            if not pending and at >= len(view):
                raise IntegrityError("inflate.truncated", "the compressed data is cut short")
            if not pending:
                pending = bytes(view[at : at + _INPUT_STEP_BYTES])
                at += len(pending)
            try:
                part = engine.decompress(pending, room)
            except (zlib.error, lzma.LZMAError, OSError, ValueError, EOFError) as error:
                raise IntegrityError("inflate.broken", f"{error!s:.100}") from None
            parts.append(part)
            room -= len(part)
            if room <= 0:
                return None, 0
            pending = getattr(engine, "unconsumed_tail", b"")
        at -= len(engine.unused_data)
        if kind in ("zlib", "deflate", "lzma") or not _goes_on(view, at, kind):
            return b"".join(parts), len(view) - at


def inflated_member(view: memoryview, kind: str, plain_bytes: int) -> tuple[bytes | None, int]:
    """Decompress one member of a zip archive, as `inflated` with the size that it states."""
    if kind == "zip-lzma":
        return _zip_lzma(view, plain_bytes)
    return inflated(view, kind, plain_bytes)


def _zip_lzma(view: memoryview, plain_bytes: int) -> tuple[bytes | None, int]:
    """LZMA as zip has it (APPNOTE 5.8.8): perhaps without a mark of its end."""
    head = bytes(view[:_ZIP_LZMA_HEAD_BYTES])
    properties = head[_ZIP_LZMA_HEAD_BYTES - _ZIP_LZMA_PROPERTY_BYTES :]
    if len(head) < _ZIP_LZMA_HEAD_BYTES or head[2:4] != b"\x05\x00":
        raise IntegrityError("inflate.broken", "the LZMA header is damaged")
    engine = lzma.LZMADecompressor(lzma.FORMAT_ALONE, memlimit=_LZMA_MEMORY_BYTES_MAX)
    parts: list[bytes] = []
    room, at = plain_bytes + 1, _ZIP_LZMA_HEAD_BYTES
    pending = properties + _LZMA_SIZE_UNKNOWN
    try:
        while room > 0 and not engine.eof and (pending or not engine.needs_input):
            part = engine.decompress(pending, room)
            parts.append(part)
            room -= len(part)
            pending = bytes(view[at : at + _INPUT_STEP_BYTES]) if engine.needs_input else b""
            at += len(pending)
    except (lzma.LZMAError, EOFError, ValueError) as error:
        raise IntegrityError("inflate.broken", f"{error!s:.100}") from None
    rest = len(view) - at + len(pending) + len(engine.unused_data)
    return (b"".join(parts), rest) if room > 0 else (None, 0)


def begun(view: memoryview, limit: int) -> bytes:
    """What a damaged stream of the older lzma gives until it breaks: loaders act on it by then."""
    engine = _engine("lzma")
    plain = b""
    try:
        for at in range(0, len(view), _SMALL_STEP_BYTES):
            if len(plain) >= limit or engine.eof:
                break
            plain += engine.decompress(bytes(view[at : at + _SMALL_STEP_BYTES]), limit)
    except (lzma.LZMAError, EOFError, ValueError):
        return plain
    return plain


class _Engine(Protocol):
    """What the decompressors of the standard library have in common."""

    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


def _engine(kind: str) -> _Engine:
    if kind == "bzip2":
        return bz2.BZ2Decompressor()
    if kind == "xz":
        return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_LZMA_MEMORY_BYTES_MAX)
    if kind == "lzma":
        return lzma.LZMADecompressor(lzma.FORMAT_ALONE, memlimit=_LZMA_MEMORY_BYTES_MAX)
    windows = {"gzip": 31, "zlib": 15, "deflate": -15}
    return zlib.decompressobj(windows[kind])


def _goes_on(view: memoryview, at: int, kind: str) -> bool:
    """Whether another stream of the same kind follows, as readers of these formats accept."""
    magic = {"gzip": b"\x1f\x8b", "bzip2": b"BZh", "xz": b"\xfd7zXZ"}[kind]
    return bytes(view[at : at + len(magic)]) == magic


def _zstd(view: memoryview, limit: int) -> tuple[bytes | None, int]:
    parts: list[bytes] = []
    room = limit + 1
    at = 0
    while at < len(view):
        magic = bytes(view[at : at + 4])
        if _ZSTD_SKIPPABLE[0] <= int.from_bytes(magic, "little") <= _ZSTD_SKIPPABLE[1]:
            at += 8 + int.from_bytes(view[at + 4 : at + 8], "little")
            continue
        if magic != _ZSTD_MAGIC:
            break
        stop = _zstd_frame_stop(view, at)
        plain = _zstd_frame(view[at:stop], room)
        parts.append(plain)
        room -= len(plain)
        if room <= 0:
            return None, 0
        at = stop
    if at > len(view) or not at:
        raise IntegrityError("inflate.truncated", "the compressed data is cut short")
    return b"".join(parts), len(view) - at


def _zstd_frame(view: memoryview, room: int) -> bytes:
    engine = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW_BYTES_MAX)
    out = io.BytesIO()
    try:
        with engine.stream_reader(view) as reader:
            while room > 0:
                part = reader.read(min(room, _OUTPUT_STEP_BYTES))
                if not part:
                    break
                out.write(part)
                room -= len(part)
    except zstandard.ZstdError as error:
        raise IntegrityError("inflate.broken", f"{error!s:.100}") from None
    return out.getvalue()


def _zstd_frame_stop(view: memoryview, at: int) -> int:
    """Where a frame ends: its header, its blocks and its checksum (RFC 8878, 3.1.1)."""
    if at + 6 > len(view):
        raise IntegrityError("inflate.truncated", "the compressed data is cut short")
    descriptor = view[at + 4]
    is_single = descriptor >> 5 & 1
    size_bytes = (is_single, 2, 4, 8)[descriptor >> 6]
    at += 5 + (0 if is_single else 1) + (0, 1, 2, 4)[descriptor & 3] + size_bytes
    while True:
        if at + 3 > len(view):
            raise IntegrityError("inflate.truncated", "the compressed data is cut short")
        block = int.from_bytes(view[at : at + 3], "little")
        at += 3 + (1 if block >> 1 & 3 == _ZSTD_RLE else block >> 3)
        if block & 1:
            break
    at += 4 if descriptor & 4 else 0
    if at > len(view):
        raise IntegrityError("inflate.truncated", "the compressed data is cut short")
    return at
