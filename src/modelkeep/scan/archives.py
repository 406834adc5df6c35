"""Archives and compressed files: what an unpacker would write, and what is inside.

Every member is judged as if it were a file, by the function that the caller hands in; the
allowance bounds what all of them together may cost. A member that cannot be looked at (encrypted,
an unknown method, too large, too deep) holds the archive: unseen is not clean.
"""

from __future__ import annotations

import bz2
import lzma
import re
import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from modelkeep.core.errors import IntegrityError
from modelkeep.core.verdict import Finding, Severity
from modelkeep.scan.allowance import Allowance
from modelkeep.scan.evidence import found, gravest, listed, printable
from modelkeep.scan.members import DEFLATED, STORED, Directory, Member, directory_of
from modelkeep.scan.settings import ScanSettings

_DRIVE = re.compile(r"[A-Za-z]:")
_INPUT_STEP_BYTES = 1 << 16
# Of bytes that no member owns: the gravest few say it all.
_GAPS_SHOWN = 5
_LOCAL_MAGIC = b"PK\x03\x04"
# LZMA's dictionary is allocated from the file's own header: cap it.
_LZMA_MEMORY_BYTES_MAX = 128 * 1024 * 1024
# torch writes each storage as `<root>/data/<number>`: raw numbers that may read as anything.
_TORCH_STORAGE = re.compile(r"[^/]+/data/[0-9]+")
_TORCH_SCRIPT = re.compile(r"[^/]+/code/.+\.py")


@dataclass(frozen=True, slots=True)
class Place:
    """Where in the nesting a member stands."""

    subject: str
    depth: int
    allowance: Allowance
    is_storage: bool = False


Judge = Callable[[memoryview, Place], tuple[Finding, ...]]


def archive_findings(
    view: memoryview, place: Place, settings: ScanSettings, judge: Judge
) -> tuple[Finding, ...]:
    """Judge a zip file: its structure, its names, and each member by `judge`."""
    try:
        directory = directory_of(view, members_max=place.allowance.members)
    except IntegrityError as error:
        text = f"does not parse as a zip archive: {error.message}"
        return (found("scan.archive.broken", Severity.HIGH, place.subject, text),)
    place.allowance.members -= len(directory.members)
    findings = list(_structure_findings(view, directory, place.subject))
    if directory.overlaps:  # a small file of overlapping members costs as much as a large one
        return tuple(findings)
    is_torch = any(member.name.endswith("/data.pkl") for member in directory.members)
    for member in directory.members:
        findings.extend(_name_findings(member, place.subject))
        findings.extend(_member_findings(view, member, place, settings, judge, is_torch=is_torch))
        if len(findings) > 2 * settings.findings_max:
            findings = gravest(findings, settings.findings_max)
    return tuple(findings)


def compressed_findings(
    view: memoryview, kind: str, place: Place, settings: ScanSettings, judge: Judge
) -> tuple[Finding, ...]:
    """Judge a file compressed as a whole (gzip, zlib, bzip2, xz): its plaintext by `judge`."""
    try:
        plain, rest = inflated(view, kind, _limit(place, settings))
    except IntegrityError as error:
        text = f"does not parse as {kind}: {error.message}"
        return (found("scan.archive.broken", Severity.HIGH, place.subject, text),)
    if plain is None:
        return (_too_large(view, place.subject, settings, plain_bytes=None),)
    place.allowance.plain_bytes -= len(plain)
    findings = list(judge(memoryview(plain), _inner(place, "(plaintext)")))
    if rest:
        text = f"{rest} bytes follow the compressed data"
        findings.append(found("scan.archive.hidden", Severity.MEDIUM, place.subject, text))
    return tuple(findings)


def inflated(view: memoryview, kind: str, limit: int) -> tuple[bytes | None, int]:
    """Decompress up to `limit` bytes.

    Returns:
        The plaintext, or None where there is more of it than the limit; and how many bytes of the
        input were left over.

    Raises:
        IntegrityError: `inflate.broken` or `inflate.truncated`.
    """
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
        if kind in ("zlib", "deflate") or not _goes_on(view, at, kind):
            return b"".join(parts), len(view) - at


class _Engine(Protocol):
    """What the four decompressors have in common."""

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
    windows = {"gzip": 31, "zlib": 15, "deflate": -15}
    return zlib.decompressobj(windows[kind])


def _goes_on(view: memoryview, at: int, kind: str) -> bool:
    """Whether another stream of the same kind follows, as readers of these formats accept."""
    magic = {"gzip": b"\x1f\x8b", "bzip2": b"BZh", "xz": b"\xfd7zXZ"}[kind]
    return bytes(view[at : at + len(magic)]) == magic


def _structure_findings(view: memoryview, directory: Directory, subject: str) -> list[Finding]:
    findings = []
    counts = Counter(member.name for member in directory.members)
    twice = [name for name, count in counts.items() if count > 1]
    if twice:
        text = (
            f"holds more than one member named {listed(twice)}: readers differ in which they take"
        )
        findings.append(found("scan.archive.duplicate", Severity.HIGH, subject, text))
    if directory.overlaps:
        text = f"members share their bytes with others: {listed(directory.overlaps)}"
        findings.append(found("scan.archive.bomb", Severity.HIGH, subject, text))
    gaps = []
    for start, length in directory.gaps:
        hides = _LOCAL_MAGIC in bytes(view[start : start + min(length, _INPUT_STEP_BYTES)])
        what = "hold a member that the directory does not list" if hides else "belong to no member"
        severity = Severity.HIGH if hides else Severity.MEDIUM
        text = f"the {length} bytes at {start} {what}"
        gaps.append(found("scan.archive.hidden", severity, subject, text))
    findings.extend(gravest(gaps, _GAPS_SHOWN))
    return findings


def _name_findings(member: Member, subject: str) -> list[Finding]:
    findings = []
    name = member.name
    parts = name.replace("\\", "/").split("/")
    if ".." in parts or name.startswith(("/", "\\")) or _DRIVE.match(name) or "\0" in name:
        text = f"member {printable(name)!r} would be unpacked outside its folder"
        findings.append(found("scan.archive.traversal", Severity.HIGH, subject, text))
    if member.link or member.special:
        what = "a symbolic link" if member.link else "a device or pipe"
        text = f"member {printable(name)!r} is {what}"
        findings.append(found("scan.archive.link", Severity.HIGH, subject, text))
    findings.extend(
        found(
            "scan.archive.disagreement",
            Severity.HIGH,
            subject,
            f"member {printable(name)!r}: {each}",
        )
        for each in member.disagreements
    )
    if _TORCH_SCRIPT.fullmatch(name):
        text = f"member {printable(name)!r} is TorchScript code, which this version does not judge"
        findings.append(found("scan.format.unexamined", Severity.MEDIUM, subject, text))
    return findings


def _member_findings(
    view: memoryview,
    member: Member,
    place: Place,
    settings: ScanSettings,
    judge: Judge,
    *,
    is_torch: bool,
) -> tuple[Finding, ...]:
    inner = _inner(place, member.name)
    if member.name.endswith("/") and member.plain_bytes == 0:
        return ()
    if member.encrypted or member.method not in (STORED, DEFLATED):
        what = "encrypted" if member.encrypted else f"compressed by method {member.method}"
        text = f"is {what} and cannot be looked at"
        return (found("scan.archive.sealed", Severity.MEDIUM, inner.subject, text),)
    if inner.depth > settings.depth_max:
        text = f"lies deeper than {settings.depth_max} archives and was not looked at"
        return (found("scan.archive.depth", Severity.MEDIUM, inner.subject, text),)
    packed = view[member.offset : member.offset + member.packed_bytes]
    is_storage = is_torch and _TORCH_STORAGE.fullmatch(member.name) is not None
    if member.method == STORED:
        if member.packed_bytes != member.plain_bytes:
            text = "is stored as it is, but with two different sizes"
            return (found("scan.archive.disagreement", Severity.HIGH, inner.subject, text),)
        content = packed
    else:
        plain = _plain(packed, member, inner, settings)
        if isinstance(plain, Finding):
            return (plain,)
        content = memoryview(plain)
    findings = judge(content, Place(inner.subject, inner.depth, inner.allowance, is_storage))
    # torch can be told to write storages with a faster checksum in place of the CRC.
    if not is_storage and zlib.crc32(content) != member.crc:
        text = "does not have the CRC that the archive states"
        findings += (found("scan.archive.crc", Severity.HIGH, inner.subject, text),)
    return findings


def _plain(
    packed: memoryview, member: Member, place: Place, settings: ScanSettings
) -> bytes | Finding:
    """A deflated member's plaintext, or why there is none."""
    limit = min(_limit(place, settings), member.plain_bytes)
    if member.plain_bytes > limit:
        return _too_large(packed, place.subject, settings, plain_bytes=member.plain_bytes)
    try:
        plain, rest = inflated(packed, "deflate", limit)
    except IntegrityError as error:
        text = f"does not inflate: {error.message}"
        return found("scan.archive.broken", Severity.HIGH, place.subject, text)
    if plain is None or len(plain) != member.plain_bytes or rest:
        text = f"inflates to other than the {member.plain_bytes} bytes that the archive states"
        return found("scan.archive.bomb", Severity.HIGH, place.subject, text)
    place.allowance.plain_bytes -= len(plain)
    return plain


def _too_large(
    packed: memoryview, subject: str, settings: ScanSettings, *, plain_bytes: int | None
) -> Finding:
    claimed = settings.member_bytes_max if plain_bytes is None else plain_bytes
    if claimed > settings.bomb_ratio_max * len(packed):
        text = f"expands {len(packed)} bytes to {claimed} or more: a decompression bomb"
        return found("scan.archive.bomb", Severity.HIGH, subject, text)
    text = f"expands to {claimed} bytes or more, which is more than is looked at"
    return found("scan.archive.limit", Severity.MEDIUM, subject, text)


def _limit(place: Place, settings: ScanSettings) -> int:
    return max(0, min(settings.member_bytes_max, place.allowance.plain_bytes))


def _inner(place: Place, name: str) -> Place:
    return Place(f"{place.subject}!{printable(name)}", place.depth + 1, place.allowance)
