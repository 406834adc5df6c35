"""The members of a zip archive that every reader sees alike.

Theory of operation. A zip file is described twice: by the directory at its end and by a header in
front of every member. Readers follow one or the other, so whatever makes the two differ makes two
archives out of one file. This reader takes no side, it refuses:

1. the directory must end the file (a comment may follow) and lie where its end record says,
   counted from the start of the file, on one disk; a zip64 record must agree with the small one;
2. no name may stand twice, no member may be encrypted;
3. in the order of their bytes, each member's own header must say what the directory says, or leave
   it to a data descriptor, which then must stand behind the data and say it; and no member may
   begin before the one before it ended.

Nothing is inflated and nothing copied but names. Members are read in the order of their bytes and
overlap is refused on the way, so the work is linear in the file's length whatever it claims. Times,
modes and comments are not looked at; `modelkeep.scan.archives` judges those.

The layout is APPNOTE.TXT's (PKWARE, 6.3.10), sections 4.3.7 to 4.3.16 and 4.5.3.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import NamedTuple

from modelkeep.core.errors import IntegrityError
from modelkeep.core.limits import ARCHIVE_MEMBERS_MAX
from modelkeep.kernels.ziprecords import (
    COMMENT_BYTES_MAX,
    END,
    END64,
    END64_MAGIC,
    END_MAGIC,
    END_PLACES_MAX,
    ENTRY,
    ENTRY_MAGIC,
    FULL16,
    FULL32,
    LOCAL,
    LOCAL_MAGIC,
    LOCATOR,
    LOCATOR_MAGIC,
)

_DESCRIPTOR_MAGIC = b"PK\x07\x08"
_EXTRA_ZIP64 = 1
# Records of one extra field: writers know half a dozen kinds.
_EXTRAS_MAX = 64
_FLAG_DESCRIPTOR = 0x0008
_FLAG_UTF8 = 0x0800
# Encrypted, patched, strongly encrypted, directory encrypted.
_FLAGS_REFUSED = 0x0001 | 0x0020 | 0x0040 | 0x2000
_STORED = 0


@dataclass(frozen=True, slots=True)
class Member:
    """One member.

    Attributes:
        is_stored: whether its bytes in the file are its content; else they are compressed.
        offset: of its data in the file.
        length: of its data in the file.
    """

    name: str
    is_stored: bool
    offset: int
    length: int


class _Entry(NamedTuple):
    """What the directory says of one member."""

    start: int
    raw_name: bytes
    flags: int
    method: int
    crc: int
    packed: int
    plain: int


def members_of(view: memoryview) -> tuple[Member, ...]:
    """List the members in the order of their bytes.

    Raises:
        IntegrityError: `zip.end`, `.directory`, `.members`, `.name`, `.encrypted`, `.local`,
            `.descriptor` or `.overlap`.
    """
    count, start, stop = _directory(view)
    entries: list[_Entry] = []
    at = start
    for _ in range(count):
        entry, at = _entry(view, at, stop)
        entries.append(entry)
    if at != stop:
        raise IntegrityError("zip.directory", "the directory has more bytes than its members take")
    entries.sort()
    members: list[Member] = []
    names: set[str] = set()
    free = 0
    for entry in entries:
        member, free = _member(view, entry, free, start)
        if member.name in names:
            raise IntegrityError("zip.name", f"two members are named {member.name!r:.80}")
        names.add(member.name)
        members.append(member)
    return tuple(members)


def _directory(view: memoryview) -> tuple[int, int, int]:
    """How many entries the directory has, where it begins and where it ends."""
    first = max(0, len(view) - END.size - COMMENT_BYTES_MAX)
    tail = bytes(view[first:])
    found = len(tail)
    for _ in range(END_PLACES_MAX):
        found = tail.rfind(END_MAGIC, 0, found)
        if found < 0:
            break
        if len(tail) - found < END.size:
            continue
        _, disk, start_disk, here, count, size, start, comment = END.unpack_from(tail, found)
        if found + END.size + comment != len(tail):
            continue
        if disk or start_disk or here != count:
            raise IntegrityError("zip.end", "the archive is spread over several disks")
        place = first + found
        count, size, start, stop = _widened_end(view, place, (count, size, start))
        if count > ARCHIVE_MEMBERS_MAX:
            message = f"the archive claims {count} members"
            raise IntegrityError("zip.members", message, limit=ARCHIVE_MEMBERS_MAX)
        if start + size != stop:
            raise IntegrityError("zip.end", "the directory does not lie where its end says")
        return count, start, stop
    raise IntegrityError("zip.end", "the archive has no end of its directory: it is cut short")


def _widened_end(
    view: memoryview, place: int, small: tuple[int, int, int]
) -> tuple[int, int, int, int]:
    """Count, size and start of the directory, and where it ends: by the zip64 record, if any."""
    at = place - LOCATOR.size
    if at < 0 or bytes(view[at : at + 4]) != LOCATOR_MAGIC:
        return *small, place
    _, disk, place64, disks = LOCATOR.unpack_from(view, at)
    if disk or disks > 1 or place64 + END64.size != at:
        raise IntegrityError("zip.end", "the end of a large archive's directory is misplaced")
    magic, size64, _, _, disk, start_disk, here, count, size, start = END64.unpack_from(
        view, place64
    )
    if magic != END64_MAGIC or size64 != END64.size - 12 or disk or start_disk or here != count:
        raise IntegrityError("zip.end", "the end of a large archive's directory is damaged")
    fulls = (FULL16, FULL32, FULL32)
    wide = (count, size, start)
    for narrow, full, value in zip(small, fulls, wide, strict=True):
        if narrow not in (full, value):
            raise IntegrityError("zip.end", "the two ends of the directory differ")
    return count, size, start, place64


def _entry(view: memoryview, at: int, stop: int) -> tuple[_Entry, int]:
    """One entry of the directory, and where the next one lies."""
    if at + ENTRY.size > stop:
        raise IntegrityError("zip.directory", "the directory ends inside an entry", offset=at)
    found = ENTRY.unpack_from(view, at)
    magic, _, _, flags, method, _, _, crc, packed, plain, names, extras, comment = found[:13]
    disk, _, _, local_at = found[13:]
    name_at = at + ENTRY.size
    after = name_at + names + extras + comment
    if magic != ENTRY_MAGIC or after > stop or disk not in (0, FULL16):
        raise IntegrityError("zip.directory", "an entry of the directory is damaged", offset=at)
    raw_name = bytes(view[name_at : name_at + names])
    extra = view[name_at + names : name_at + names + extras]
    plain, packed, local_at = _widened(extra, [plain, packed, local_at])
    return _Entry(local_at, raw_name, flags, method, crc, packed, plain), after


def _widened(extra: memoryview, values: list[int]) -> list[int]:
    """The values, each that does not fit in 32 bits taken from the zip64 record."""
    at = 0
    for _ in range(_EXTRAS_MAX):
        if at + 4 > len(extra):
            break
        kind, length = struct.unpack_from("<2H", extra, at)
        wide = extra[at + 4 : at + 4 + length]
        at += 4 + length
        if kind != _EXTRA_ZIP64:
            continue
        place = 0
        for index, value in enumerate(values):
            if value == FULL32 and place + 8 <= len(wide):
                values[index] = int.from_bytes(wide[place : place + 8], "little")
                place += 8
        break
    return values


def _member(view: memoryview, entry: _Entry, free: int, limit: int) -> tuple[Member, int]:
    """A member by its own header, and where its bytes end; the directory begins at `limit`."""
    name = _name(entry)
    if entry.flags & _FLAGS_REFUSED:
        raise IntegrityError("zip.encrypted", f"member {name!r:.80} is encrypted or patched")
    if entry.start < free:
        raise IntegrityError("zip.overlap", f"member {name!r:.80} overlaps the one before it")
    at = entry.start
    if at + LOCAL.size > limit:
        raise IntegrityError("zip.local", f"member {name!r:.80} begins past the members' end")
    magic, _, flags, method, _, _, crc, packed, plain, names, extras = LOCAL.unpack_from(view, at)
    name_at = at + LOCAL.size
    data_at = name_at + names + extras
    stop = data_at + entry.packed
    if magic != LOCAL_MAGIC or stop > limit:
        raise IntegrityError("zip.local", f"member {name!r:.80} does not lie where it should")
    plain, packed = _widened(view[name_at + names : data_at], [plain, packed])
    says = (bytes(view[name_at : name_at + names]), flags, method)
    wanted = (entry.crc, entry.packed, entry.plain)
    later = flags & _FLAG_DESCRIPTOR and not any((crc, packed, plain))
    if says != (entry.raw_name, entry.flags, entry.method) or not (
        later or (crc, packed, plain) == wanted
    ):
        message = f"the header of member {name!r:.80} says other than the directory"
        raise IntegrityError("zip.local", message)
    if method == _STORED and entry.packed != entry.plain:
        raise IntegrityError("zip.local", f"member {name!r:.80} is stored in two sizes")
    if flags & _FLAG_DESCRIPTOR:
        stop = _past_descriptor(view, stop, limit, entry, name)
    return Member(name, method == _STORED, data_at, entry.packed), stop


def _name(entry: _Entry) -> str:
    encoding = "utf-8" if entry.flags & _FLAG_UTF8 else "cp437"
    try:
        name = entry.raw_name.decode(encoding)
    except UnicodeDecodeError:
        raise IntegrityError("zip.name", "the name of a member is not UTF-8") from None
    if not name or "\0" in name:
        raise IntegrityError("zip.name", "the name of a member is empty or has a NUL in it")
    return name


def _past_descriptor(view: memoryview, at: int, limit: int, entry: _Entry, name: str) -> int:
    """Where the descriptor ends that must follow the data (4.3.9: with and without signature)."""
    wide = struct.pack("<LQQ", entry.crc, entry.packed, entry.plain)
    bodies = [wide]
    if max(entry.packed, entry.plain) <= FULL32:
        bodies.insert(0, struct.pack("<3L", entry.crc, entry.packed, entry.plain))
    tail = bytes(view[at : min(limit, at + 4 + len(wide))])
    for body in bodies:
        for written in (_DESCRIPTOR_MAGIC + body, body):
            if tail.startswith(written):
                return at + len(written)
    if not (entry.packed or entry.plain):  # torch's writer leaves it out where there is no data
        return at
    raise IntegrityError("zip.descriptor", f"no descriptor follows the data of {name!r:.80}")
