"""Tar files: what an unpacker would write, and what is inside.

Read as GNU tar, bsdtar and Python do together: the old form, ustar, GNU's long names and sparse
files, PAX records. A record that changes another member's name or size is applied as Python does;
where readers differ (a size in a PAX record and another one in the header, two members of a name)
that is a finding.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from modelkeep.core.errors import IntegrityError
from modelkeep.core.verdict import Finding, Severity
from modelkeep.scan.cases import Case
from modelkeep.scan.evidence import gravest, listed, printable
from modelkeep.scan.names import is_through, leaves_folder, link_leaves

_BLOCK = 512
_NUL_BLOCK = bytes(_BLOCK)
# Names of 32 KiB are more than any file system takes; PAX records hold a few of them.
_RECORD_BYTES_MAX = 1 << 20
_PLAIN_TYPES = (b"0", b"\0", b"7")
_FOLDER = b"5"
_LINK_TYPES = {b"1": "a hard link", b"2": "a symbolic link"}
_DEVICE_TYPES = {b"3": "a device", b"4": "a device", b"6": "a pipe"}
_LONG_NAME, _LONG_LINK = b"L", b"K"
_PAX, _PAX_GLOBAL, _PAX_SUN = b"x", b"g", b"X"
_SPARSE = b"S"


@dataclass(slots=True)
class _Next:
    """What records in front of a member say about it."""

    name: str | None = None
    link: str | None = None
    size: int | None = None
    sparse: bool = False


@dataclass(slots=True)
class _Walk:
    """What one pass has met."""

    findings: list[Finding] = field(default_factory=list)
    names: Counter[str] = field(default_factory=Counter)
    links: set[str] = field(default_factory=set)


def tar_findings(case: Case) -> tuple[Finding, ...]:
    """Judge a tar file: its names, its kinds of members, and each file in it."""
    walk = _Walk()
    try:
        stop = _walked(case, walk)
    except IntegrityError as error:
        text = f"does not parse as a tar archive: {error.message}"
        walk.findings.append(case.found("scan.archive.broken", Severity.HIGH, text))
        return tuple(walk.findings)
    twice = [name for name, count in walk.names.items() if count > 1]
    if twice:
        text = f"holds more than one member named {listed(twice)}: the last one written stays"
        walk.findings.append(case.found("scan.archive.duplicate", Severity.HIGH, text))
    rest = case.view[stop:]
    if any(bytes(rest[: 1 << 16])) or _has_more(rest):
        text = f"the {len(rest)} bytes at {stop} follow the end of the archive"
        walk.findings.append(case.found("scan.archive.hidden", Severity.MEDIUM, text))
    return tuple(walk.findings)


def _has_more(rest: memoryview) -> bool:
    step = 1 << 16
    return any(any(bytes(rest[at : at + step])) for at in range(step, len(rest), step))


def _walked(case: Case, walk: _Walk) -> int:
    """Judge every member; return where the archive ends."""
    view, at = case.view, 0
    coming, common = _Next(), _Next()
    while at < len(view):
        header = bytes(view[at : at + _BLOCK])
        if header == _NUL_BLOCK:
            return at + _BLOCK
        if len(header) < _BLOCK or not _is_summed(header):
            if at:
                raise IntegrityError("tar.header", f"there is no header at {at}", offset=at)
            raise IntegrityError("tar.header", "the first header is damaged", offset=at)
        case.place.allowance.members -= 1
        if case.place.allowance.members < 0:
            text = "holds more members than are looked at"
            walk.findings.append(case.found("scan.archive.limit", Severity.MEDIUM, text))
            return len(view)
        kind = header[156:157]
        size = _number(header[124:136])
        if kind in (_LONG_NAME, _LONG_LINK, _PAX, _PAX_GLOBAL, _PAX_SUN):
            raw = _record(view, at + _BLOCK, size)
            _apply(kind, raw, common if kind == _PAX_GLOBAL else coming)
        else:
            size = _member(case, walk, at, header, (coming, common))
            coming = _Next()
        at += _BLOCK + -(-size // _BLOCK) * _BLOCK
        if len(walk.findings) > 2 * case.settings.findings_max:
            walk.findings = gravest(walk.findings, case.settings.findings_max)
    return at


def _member(case: Case, walk: _Walk, at: int, header: bytes, records: tuple[_Next, _Next]) -> int:
    """Judge one member; return how many bytes of data follow its header."""
    coming, common = records
    stated = _number(header[124:136])
    size = coming.size if coming.size is not None else common.size
    size = stated if size is None else size
    name = coming.name or common.name or _name(header)
    kind = header[156:157]
    if kind != _FOLDER:
        walk.names[name.removeprefix("./")] += 1
    if size != stated and stated:
        text = f"member {printable(name)!r} has the size {stated} in its header, {size} in a record"
        walk.findings.append(case.found("scan.archive.disagreement", Severity.HIGH, text))
    if walk.links and is_through(name, walk.links):
        text = f"member {printable(name)!r} at {at} would be written through a link"
        walk.findings.append(case.found("scan.archive.link", Severity.HIGH, text))
    if leaves_folder(name):
        text = f"member {printable(name)!r} at {at} would be unpacked outside its folder"
        walk.findings.append(case.found("scan.archive.traversal", Severity.HIGH, text))
    if kind in _LINK_TYPES or kind in _DEVICE_TYPES:
        target = coming.link or common.link or _text(header[157:257])
        _link(case, walk, (at, kind, name), target)
        return 0 if kind != b"1" else size
    if kind == _FOLDER:
        return size
    if kind == _SPARSE or coming.sparse:
        text = f"member {printable(name)!r} is a sparse file, which is not put together here"
        walk.findings.append(case.found("scan.archive.sealed", Severity.MEDIUM, text))
        return size + _sparse_blocks(case.view, at, header)
    start = at + _BLOCK
    if start + size > len(case.view):
        raise IntegrityError("tar.bounds", f"member {name!r:.80} ends past the end of the file")
    if kind not in _PLAIN_TYPES:
        text = f"member {printable(name)!r} is of the unknown kind {kind!r}"
        walk.findings.append(case.found("scan.archive.sealed", Severity.MEDIUM, text))
    walk.findings.extend(case.inner(name, case.view[start : start + size]))
    return size


def _link(case: Case, walk: _Walk, member: tuple[int, bytes, str], target: str) -> None:
    """A link that stays inside is named; one that leads out, or a device, is denied."""
    at, kind, name = member
    what = _LINK_TYPES.get(kind) or _DEVICE_TYPES[kind]
    severity = Severity.NOTE
    if kind == b"1":
        inside = target.removeprefix("./") in walk.names
    else:
        inside = kind == b"2" and not link_leaves(name, target, walk.links)
        walk.links.add(name.removeprefix("./").rstrip("/"))
    if not inside:
        severity = Severity.HIGH
    text = f"member {printable(name)!r} at {at} is {what} to {printable(target)!r}"
    walk.findings.append(case.found("scan.archive.link", severity, text))


def _sparse_blocks(view: memoryview, at: int, header: bytes) -> int:
    """Bytes of the further headers of a GNU sparse file."""
    if header[156:157] != _SPARSE or not header[482]:
        return 0
    count, more = 0, True
    while more and count < 64:
        start = at + _BLOCK * (1 + count)
        count += 1
        more = start + 505 <= len(view) and bool(view[start + 504])
    return count * _BLOCK


def _apply(kind: bytes, raw: bytes, to: _Next) -> None:
    if kind == _LONG_NAME:
        to.name = _text(raw)
    elif kind == _LONG_LINK:
        to.link = _text(raw)
    else:
        for key, value in _pax(raw):
            if key in ("path", "GNU.sparse.name"):
                to.name = value
            elif key == "linkpath":
                to.link = value
            elif key == "size":
                to.size = _decimal(value)
            to.sparse = to.sparse or key.startswith("GNU.sparse.")


def _pax(raw: bytes) -> list[tuple[str, str]]:
    """The records, each `length key=value` on a line."""
    records, at = [], 0
    while at < len(raw) and raw[at]:
        space = raw.find(b" ", at, at + 12)
        length = _decimal(raw[at:space].decode("latin-1")) if space > 0 else 0
        if length < 5 or at + length > len(raw) or raw[at + length - 1] != 0x0A:
            raise IntegrityError("tar.record", "a PAX record is damaged")
        key, _, value = raw[space + 1 : at + length - 1].partition(b"=")
        records.append((key.decode("utf-8", "replace"), value.decode("utf-8", "replace")))
        at += length
    return records


def _record(view: memoryview, at: int, size: int) -> bytes:
    if size > _RECORD_BYTES_MAX or at + size > len(view):
        raise IntegrityError("tar.record", f"a record claims {size} bytes", offset=at)
    return bytes(view[at : at + size])


def _decimal(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise IntegrityError("tar.record", f"{text!r:.40} is no size")
    return int(text)


def _is_summed(header: bytes) -> bool:
    stated = header[148:156].strip(b" \0")
    try:
        wanted = int(stated or b"0", 8)
    except ValueError:
        return False
    rest = header[:148] + b" " * 8 + header[156:]
    signed = sum(byte - 256 if byte > 127 else byte for byte in rest)
    return wanted in (sum(rest), signed)


def _number(raw: bytes) -> int:
    """Octal digits, or GNU's binary form for what they cannot hold."""
    if raw[0] & 0x80:
        if raw[0] != 0x80:
            raise IntegrityError("tar.header", "a member has a negative size")
        value = int.from_bytes(raw[1:], "big")
    else:
        digits = raw.partition(b"\0")[0].strip()
        try:
            value = int(digits or b"0", 8)
        except ValueError:
            raise IntegrityError("tar.header", f"{digits!r} is no size") from None
    if not 0 <= value < 1 << 60:
        raise IntegrityError("tar.header", "a member claims an impossible size")
    return value


def _name(header: bytes) -> str:
    name = _text(header[:100])
    prefix = _text(header[345:500])
    is_posix = header[257:263] == b"ustar\0"
    return f"{prefix}/{name}" if prefix and is_posix else name


def _text(raw: bytes) -> str:
    return raw.partition(b"\0")[0].decode("utf-8", "replace")
