"""The members of a zip file, as its directory names them and as their own headers do.

Nothing is inflated here and nothing copied but names. Whatever makes the two views of the file
disagree (the directory at its end, which most readers follow, and the headers in front of the
members, which streaming readers follow) is handed out as a disagreement, not smoothed over.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from modelkeep.core.errors import IntegrityError
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

STORED = 0

# Records of one extra field that are looked at: writers know half a dozen kinds.
_EXTRAS_MAX = 64
_EXTRA_ZIP64 = 1
_EXTRA_UNICODE_NAME = 0x7075
_FLAG_ENCRYPTED = 1
_FLAG_DESCRIPTOR = 8
_FLAG_UTF8 = 0x800
_DESCRIPTOR_BYTES_MAX = 24
_HOST_UNIX = 3
_MODE_TYPE = 0o170000
_MODE_LINK = 0o120000
_MODE_PLAIN = (0, 0o100000, 0o040000)


@dataclass(frozen=True, slots=True)
class Member:
    """One member.

    Attributes:
        raw_name: as the directory has it; `name` is what a reader makes of it.
        offset: of its (perhaps compressed) data in the file.
        packed_bytes: of its data in the file.
        plain_bytes: as claimed.
        link: whether its mode says symbolic link; `special`: whether it says device or pipe.
        disagreements: where its own header says other than the directory.
    """

    name: str
    raw_name: bytes
    method: int
    offset: int
    packed_bytes: int
    plain_bytes: int
    crc: int
    encrypted: bool
    link: bool
    special: bool
    disagreements: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Directory:
    """A zip file's members and the bytes that belong to none of them.

    Attributes:
        gaps: (offset, length) of bytes that neither the directory nor a member accounts for.
        overlaps: names of members whose bytes another member claims too.
    """

    members: tuple[Member, ...]
    gaps: tuple[tuple[int, int], ...]
    overlaps: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _End:
    """What the end of the directory says.

    Attributes:
        shift: bytes in front of the archive: readers add it to every offset.
        damage: why no two readers need agree on it; empty for none.
    """

    count: int
    start: int
    stop: int
    file_stop: int
    shift: int
    damage: str


def has_directory(view: memoryview) -> bool:
    """Whether the bytes end as a zip file does, whatever they begin with."""
    try:
        end = _end(view)
    except IntegrityError:
        return False
    return bool(end.damage) or bytes(view[end.start : end.start + 4]) == ENTRY_MAGIC


def directory_of(view: memoryview, *, members_max: int) -> Directory:
    """Read the directory and hold every entry against the member's own header.

    Raises:
        IntegrityError: `zip.end`, `zip.directory`, `zip.members` or `zip.local`.
    """
    end = _end(view)
    if end.damage:
        raise IntegrityError("zip.end", end.damage)
    if end.count > members_max:
        raise IntegrityError("zip.members", f"the archive claims {end.count} members")
    members, spans = [], []
    at = end.start
    for _ in range(end.count):
        member, start, stop, at = _entry(view, at, end)
        members.append(member)
        spans.append((start, stop, member.name))
    if at != end.stop:
        raise IntegrityError("zip.directory", "the directory has more bytes than its members take")
    gaps, overlaps = _accounted(view, spans, end)
    return Directory(tuple(members), gaps, overlaps)


def _end(view: memoryview) -> _End:
    first = max(0, len(view) - END.size - COMMENT_BYTES_MAX)
    tail = bytes(view[first:])
    found = len(tail)
    for _ in range(END_PLACES_MAX):
        found = tail.rfind(END_MAGIC, 0, found)
        if found < 0:
            break
        place = first + found
        if place + END.size > len(view):
            continue
        _, disk, start_disk, _, count, size, start, comment = END.unpack_from(view, place)
        file_stop = place + END.size + comment
        large = _end64(view, place)
        damage = "" if large is None else _disagreement(view, large, (count, size, start))
        stop = place
        if large is not None and not damage:
            stop, (count, size, start) = large, END64.unpack_from(view, large)[7:]
        shift = stop - size - start
        if file_stop <= len(view) and disk == start_disk == 0 and (shift >= 0 or damage):
            return _End(count, start + shift, stop, file_stop, shift, damage)
    raise IntegrityError("zip.end", "the archive has no end of its directory: it is cut short")


def _end64(view: memoryview, place: int) -> int | None:
    """Where the end of a large archive lies, if this one names it: torch.save always has it."""
    at = place - LOCATOR.size
    if at < 0 or LOCATOR.unpack_from(view, at)[0] != LOCATOR_MAGIC:
        return None
    return at - END64.size


def _disagreement(view: memoryview, at: int, small: tuple[int, int, int]) -> str:
    """What is wrong with the end of a large archive: some readers follow it, others the small."""
    locator = LOCATOR.unpack_from(view, at + END64.size)
    if at < locator[2]:
        return "the end of a large archive's directory is misplaced"
    found = END64.unpack_from(view, at)
    if found[0] != END64_MAGIC:
        return "the end of a large archive's directory is damaged"
    full = (FULL16, FULL32, FULL32)
    if any(one not in (other, top) for one, other, top in zip(small, found[7:], full, strict=True)):
        return "the two ends of the archive's directory disagree"
    return ""


def _entry(view: memoryview, at: int, end: _End) -> tuple[Member, int, int, int]:
    """One entry: the member, where its own header begins and its data ends, the next entry."""
    if at + ENTRY.size > end.stop:
        raise IntegrityError("zip.directory", "the directory ends inside an entry", offset=at)
    entry = ENTRY.unpack_from(view, at)
    magic, made_by, _, flags, method, _, _, crc, packed, plain = entry[:10]
    name_length, extra_length, comment_length, _, _, external, local_at = entry[10:]
    name_at = at + ENTRY.size
    extra_at = name_at + name_length
    after = extra_at + extra_length + comment_length
    if magic != ENTRY_MAGIC or after > end.stop:
        raise IntegrityError("zip.directory", "an entry of the directory is damaged", offset=at)
    raw_name = bytes(view[name_at:extra_at])
    extra = bytes(view[extra_at : extra_at + extra_length])
    plain, packed, local_at = _widened(extra, plain, packed, local_at)
    local_at += end.shift
    wanted = (flags, method, crc, packed, plain, raw_name)
    data_at, disagreements = _local(view, local_at, wanted)
    other = _unicode_name(extra)
    if other and other != raw_name and (raw_name.isascii() or b".." in other or other[:1] == b"/"):
        text = f"some readers name it {other.decode('utf-8', 'replace')!r:.80}"
        disagreements = (*disagreements, text)
    if data_at + packed > len(view):
        raise IntegrityError("zip.local", f"member {raw_name!r:.80} ends past the end of the file")
    mode = (external >> 16) & _MODE_TYPE if made_by >> 8 == _HOST_UNIX else 0
    member = Member(
        name=raw_name.decode("utf-8" if flags & _FLAG_UTF8 else "cp437", "replace"),
        raw_name=raw_name,
        method=method,
        offset=data_at,
        packed_bytes=packed,
        plain_bytes=plain,
        crc=crc,
        encrypted=bool(flags & _FLAG_ENCRYPTED),
        link=mode == _MODE_LINK,
        special=mode not in (*_MODE_PLAIN, _MODE_LINK),
        disagreements=disagreements,
    )
    data_stop = data_at + packed
    return member, local_at, _past_descriptor(view, flags, data_stop, crc), after


def _unicode_name(extra: bytes) -> bytes:
    """The name of Info-ZIP's extra field, which readers may take in place of the entry's own."""
    at = 0
    for _ in range(_EXTRAS_MAX):
        if at + 4 > len(extra):
            break
        kind, length = struct.unpack_from("<2H", extra, at)
        if kind == _EXTRA_UNICODE_NAME:
            return extra[at + 9 : at + 4 + length]
        at += 4 + length
    return b""


def _widened(extra: bytes, plain: int, packed: int, local_at: int) -> tuple[int, int, int]:
    """The sizes and the offset, taken from the zip64 field where they do not fit in 32 bits."""
    values = [plain, packed, local_at]
    at = 0
    for _ in range(_EXTRAS_MAX):
        if at + 4 > len(extra):
            break
        kind, length = struct.unpack_from("<2H", extra, at)
        if kind == _EXTRA_ZIP64:
            wide = extra[at + 4 : at + 4 + length]
            place = 0
            for index, value in enumerate(values):
                if value == FULL32 and place + 8 <= len(wide):
                    values[index] = int.from_bytes(wide[place : place + 8], "little")
                    place += 8
            break
        at += 4 + length
    return values[0], values[1], values[2]


def _local(
    view: memoryview, at: int, wanted: tuple[int, int, int, int, int, bytes]
) -> tuple[int, tuple[str, ...]]:
    """Where a member's data begins, and what its own header says differently."""
    if at + LOCAL.size > len(view):
        raise IntegrityError("zip.local", "a member begins past the end of the file", offset=at)
    local = LOCAL.unpack_from(view, at)
    magic, _, flags, method, _, _, crc, packed, plain, name_length, extra_length = local
    if magic != LOCAL_MAGIC:
        raise IntegrityError("zip.local", "the directory points at no member", offset=at)
    name_at = at + LOCAL.size
    name = bytes(view[name_at : name_at + name_length])
    extra = bytes(view[name_at + name_length : name_at + name_length + extra_length])
    plain, packed, _ = _widened(extra, plain, packed, 0)
    flags_wanted, method_wanted, crc_wanted, packed_wanted, plain_wanted, name_wanted = wanted
    differs = []
    if name != name_wanted:
        differs.append(f"its own header names it {name.decode('utf-8', 'replace')!r:.80}")
    if method != method_wanted or (flags ^ flags_wanted) & _FLAG_ENCRYPTED:
        differs.append("its own header has another method")
    sizes, sizes_wanted = (crc, packed, plain), (crc_wanted, packed_wanted, plain_wanted)
    if sizes != sizes_wanted and not (flags & _FLAG_DESCRIPTOR and not any(sizes[:1])):
        differs.append("its own header has other sizes or another CRC")
    return name_at + name_length + extra_length, tuple(differs)


def _past_descriptor(view: memoryview, flags: int, at: int, crc: int) -> int:
    """Where a member ends: past its data descriptor if it has one."""
    if not flags & _FLAG_DESCRIPTOR:
        return at
    tail = bytes(view[at : at + _DESCRIPTOR_BYTES_MAX])
    signed = 4 if tail.startswith(b"PK\x07\x08") else 0
    if tail[signed : signed + 4] != crc.to_bytes(4, "little"):
        return at
    for size in (12, 20):  # sizes of 4 bytes each, or of 8
        following = bytes(view[at + signed + size : at + signed + size + 4])
        if following[:2] == b"PK":
            return at + signed + size
    return at


def _accounted(
    view: memoryview, spans: list[tuple[int, int, str]], end: _End
) -> tuple[tuple[tuple[int, int], ...], tuple[str, ...]]:
    gaps, overlaps = [], []
    at = 0
    for start, stop, name in sorted(spans):
        if start < at:
            overlaps.append(name)
        elif start > at:
            gaps.append((at, start - at))
        at = max(at, stop)
    if end.start > at:
        gaps.append((at, end.start - at))
    elif end.start < at:
        overlaps.append("the directory")
    if end.file_stop < len(view):
        gaps.append((end.file_stop, len(view) - end.file_stop))
    return tuple(gaps), tuple(overlaps)
