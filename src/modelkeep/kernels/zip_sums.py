"""Where the checksums of a zip archive's members stand, for who changes bytes of stored members.

A member's CRC-32 stands in the directory, and in its own header or in the descriptor behind its
data (APPNOTE.TXT, 4.3.7 to 4.3.12). `kernels.zips` has proven by then that all of these agree.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from modelkeep.core.errors import UsageError
from modelkeep.kernels.ziprecords import ENTRY, ENTRY_MAGIC, FULL32, LOCAL, LOCAL_MAGIC
from modelkeep.kernels.zips import Member, members_of

_DESCRIPTOR_MAGIC = b"PK\x07\x08"
_FLAG_DESCRIPTOR = 0x0008
_LOCAL_CRC_AT = 14
_ENTRY_CRC_AT = 16
_BLOCK_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class MemberSum:
    """The checksum of one member.

    Attributes:
        places: offsets in the file of the four bytes that state it.
        offset: of the data that it is of.
        length: of that data.
    """

    places: tuple[int, ...]
    offset: int
    length: int

    def value(self, view: memoryview, change: Callable[[int, memoryview], None]) -> int:
        """The sum of the data as it is after `change`, which gets an offset and a copy there."""
        total = 0
        for start in range(self.offset, self.offset + self.length, _BLOCK_BYTES):
            stop = min(start + _BLOCK_BYTES, self.offset + self.length)
            block = memoryview(bytearray(view[start:stop]))
            change(start, block)
            total = zlib.crc32(block, total)
        return total


def sum_places(view: memoryview, touched: Iterable[int]) -> tuple[MemberSum, ...]:
    """The checksums of those stored members in whose data one of these offsets lies.

    Raises:
        IntegrityError: `zip.*`.
        UsageError: `mark.archive`, for an archive of over 4 GiB.
    """
    members = members_of(view)
    offsets = sorted(touched)
    wanted = {
        each.offset: each
        for each in members
        if any(each.offset <= at < each.offset + each.length for at in offsets)
    }
    stop = max(each.offset + each.length for each in members)
    found = []
    for local_at, place in _directory(view, stop):
        if local_at == FULL32:
            raise UsageError(
                "mark.archive",
                "an archive of over 4 GiB cannot be marked",
                hint="save the model as safetensors, or its tensors in several files",
            )
        local = LOCAL.unpack_from(view, local_at)
        member = wanted.get(local_at + LOCAL.size + local[9] + local[10])
        if member is not None:
            places = [place]
            if local[2] & _FLAG_DESCRIPTOR:
                places.append(_behind(view, member))
            if local[6] or not local[2] & _FLAG_DESCRIPTOR:
                places.append(local_at + _LOCAL_CRC_AT)
            found.append(MemberSum(tuple(places), member.offset, member.length))
    return tuple(found)


def _directory(view: memoryview, stop: int) -> Iterator[tuple[int, int]]:
    """Where each member begins, and where the directory states its sum."""
    at = stop
    while bytes(view[at : at + 4]) != ENTRY_MAGIC:  # past the last descriptor
        at += 1
    while bytes(view[at : at + 4]) == ENTRY_MAGIC:
        found = ENTRY.unpack_from(view, at)
        assert bytes(view[found[16] : found[16] + 4]) == LOCAL_MAGIC or found[16] == FULL32
        yield found[16], at + _ENTRY_CRC_AT
        at += ENTRY.size + found[10] + found[11] + found[12]


def _behind(view: memoryview, member: Member) -> int:
    """Where the descriptor behind the data states the sum."""
    at = member.offset + member.length
    return at + 4 if bytes(view[at : at + 4]) == _DESCRIPTOR_MAGIC else at
