"""Zip archives written field by field, so that two readers can see two things in them."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, replace

_BLOCK_BYTES = 8 << 20


@dataclass(frozen=True)
class Member:
    """One entry; what is None is what is true."""

    name: str
    content: bytes
    method: int = 0
    packed: bytes | None = None
    crc: int | None = None
    size: int | None = None
    flags: int = 0
    local_flags: int | None = None
    local_name: str | None = None
    local_offset: int | None = None
    extra: bytes = b""
    attributes: int = 0
    system: int = 3

    @property
    def stored(self) -> bytes:
        """What lies in the archive."""
        if self.packed is not None:
            return self.packed
        if not self.method:
            return self.content
        engine = zlib.compressobj(9, zlib.DEFLATED, -15)
        return engine.compress(self.content) + engine.flush()


def zipped(*members: Member, before: bytes = b"", comment: bytes = b"", shift: int = 0) -> bytes:
    """An archive of these members."""
    body, directory = before, b""
    for each in members:
        offset = len(body) - shift if each.local_offset is None else each.local_offset
        stored, size = each.stored, len(each.content) if each.size is None else each.size
        crc = zlib.crc32(each.content) if each.crc is None else each.crc
        flags = each.flags if each.local_flags is None else each.local_flags
        local = (each.local_name or each.name).encode()
        body += struct.pack("<4s5H3L2H", b"PK\3\4", 20, flags, each.method, 0, 0x21,
                            crc, len(stored), size, len(local), len(each.extra))  # fmt: skip
        body += local + each.extra + stored
        name = each.name.encode()
        directory += struct.pack(
            "<4s6H3L5H2L", b"PK\1\2", each.system << 8 | 20, 20, each.flags, each.method, 0, 0x21,
            crc, len(stored), size, len(name), 0, 0, 0, 0, each.attributes << 16, offset,
        )  # fmt: skip
        directory += name
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, len(members), len(members), len(directory),
                      len(body) - shift, len(comment))  # fmt: skip
    return body + directory + end + comment


def zeros(name: str, head: bytes, blocks: int) -> Member:
    """A member that inflates to `head` and so many times 8 MiB of zeros, made at once."""
    engine = zlib.compressobj(9, zlib.DEFLATED, -15)
    start = engine.compress(head) + engine.flush(zlib.Z_FULL_FLUSH)
    block = bytes(_BLOCK_BYTES)
    part = engine.compress(block) + engine.flush(zlib.Z_FULL_FLUSH)
    crc = zlib.crc32(head)
    for _ in range(blocks):
        crc = zlib.crc32(block, crc)
    packed = start + part * blocks + engine.flush()
    size = len(head) + blocks * _BLOCK_BYTES
    return Member(name, b"", method=8, packed=packed, crc=crc, size=size)


def changed(member: Member, **fields: object) -> Member:
    """The same member with other fields."""
    return replace(member, **fields)  # type: ignore[arg-type]
