"""LZ4 frames, decoded within a bound.

Theory of operation (lz4_Frame_format.md 1.6.3, lz4_Block_format.md). A frame is a magic, a
descriptor and blocks; a block is a row of sequences, each some literal bytes and a copy of bytes
that came before, at most 64 KiB back. Blocks of a frame may copy from the one before. Checksums
are not held against the bytes: what a loader refuses is harmless.
"""

from __future__ import annotations

from modelkeep.core.errors import IntegrityError

_MAGIC = b"\x04\x22\x4d\x18"
_LEGACY = b"\x02\x21\x4c\x18"
_LEGACY_BLOCK_BYTES = 8 << 20
_SKIPPABLE = (0x184D2A50, 0x184D2A5F)
_WINDOW_BYTES = 1 << 16
_FLAG_DICTIONARY, _FLAG_SUM, _FLAG_SIZE, _FLAG_BLOCK_SUM, _FLAG_ALONE = 1, 4, 8, 16, 32
_STORED = 1 << 31
_MATCH_BYTES_MIN = 4
# The greatest lengths that fit into a sequence's first byte; more bytes follow after it.
_NIBBLE = 15


def decoded(view: memoryview, limit: int) -> tuple[bytes | None, int]:
    """Decode all frames that follow each other.

    Returns:
        The plaintext, or None where there is more of it than the limit; and how many bytes of the
        input were left over.

    Raises:
        IntegrityError: `lz4.broken`.
    """
    plain = bytearray()
    at = 0
    while at < len(view):
        magic = bytes(view[at : at + 4])
        number = int.from_bytes(magic, "little")
        if magic == _MAGIC:
            at = _frame(view, at + 4, plain, limit)
        elif magic == _LEGACY:
            at = _legacy(view, at + 4, plain, limit)
        elif len(magic) == 4 and _SKIPPABLE[0] <= number <= _SKIPPABLE[1]:
            at = at + 8 + _number(view, at + 4)
            if at > len(view):
                raise _broken(at)
        elif at:
            break
        else:
            raise _broken(at)
        if len(plain) > limit:
            return None, 0
    return bytes(plain), len(view) - at


def _frame(view: memoryview, at: int, plain: bytearray, limit: int) -> int:
    if at + 3 > len(view):
        raise _broken(at)
    flags = view[at]
    if flags >> 6 != 1 or flags & _FLAG_DICTIONARY:
        raise IntegrityError("lz4.broken", "the frame is of another version, or needs a dictionary")
    at += 3 + (8 if flags & _FLAG_SIZE else 0)
    start = len(plain)
    while True:
        size = _number(view, at)
        at += 4
        if size == 0:
            return at + (4 if flags & _FLAG_SUM else 0)
        length = size & ~_STORED
        if at + length > len(view):
            raise _broken(at)
        first = len(plain) if flags & _FLAG_ALONE else start
        if size & _STORED:
            plain += view[at : at + length]
        else:
            _block(bytes(view[at : at + length]), plain, first, limit)
        at += length + (4 if flags & _FLAG_BLOCK_SUM else 0)
        if len(plain) > limit:
            return at


def _legacy(view: memoryview, at: int, plain: bytearray, limit: int) -> int:
    """Blocks of 8 MiB of plaintext each, until the file or the frame ends."""
    while at + 4 <= len(view):
        size = _number(view, at)
        if size > _LEGACY_BLOCK_BYTES + _LEGACY_BLOCK_BYTES // 255 + 16:
            return at  # another frame's magic
        if at + 4 + size > len(view):
            raise _broken(at)
        _block(bytes(view[at + 4 : at + 4 + size]), plain, len(plain), limit)
        at += 4 + size
        if len(plain) > limit:
            break
    return at


def _block(packed: bytes, plain: bytearray, first: int, limit: int) -> None:
    """Append a block's plaintext; copies may reach back to `first`."""
    at, stop = 0, len(packed)
    try:
        while at < stop and len(plain) <= limit:
            token = packed[at]
            at += 1
            literals = token >> 4
            if literals == _NIBBLE:
                at, literals = _longer(packed, at, literals)
            if at + literals > stop:
                raise _broken(at)
            plain += packed[at : at + literals]
            at += literals
            if at == stop:
                return
            back = packed[at] | packed[at + 1] << 8
            at += 2
            length = token & _NIBBLE
            if length == _NIBBLE:
                at, length = _longer(packed, at, length)
            _copied(plain, back, min(length + _MATCH_BYTES_MIN, limit + 1), first)
    except IndexError:
        raise _broken(at) from None


def _copied(plain: bytearray, back: int, length: int, first: int) -> None:
    start = len(plain) - back
    if back == 0 or start < first:
        raise IntegrityError("lz4.broken", "the data copies from before its beginning")
    if back >= length:
        plain += plain[start : start + length]
        return
    pattern = bytes(plain[start:])
    plain += (pattern * (length // back + 1))[:length]


def _longer(packed: bytes, at: int, length: int) -> tuple[int, int]:
    while True:
        more = packed[at]
        at += 1
        length += more
        if more != 255:
            return at, length


def _number(view: memoryview, at: int) -> int:
    if at + 4 > len(view):
        raise _broken(at)
    return int.from_bytes(view[at : at + 4], "little")


def _broken(at: int) -> IntegrityError:
    return IntegrityError("lz4.broken", "the compressed data is cut short or damaged", offset=at)
