"""Archives and compressed files: what an unpacker would write, and what is inside.

Every member is judged as if it were a file, by the function that the caller hands in; the
allowance bounds what all of them together may cost. A member that cannot be looked at (encrypted,
an unknown method, too large, too deep) holds the archive: unseen is not clean.
"""

from __future__ import annotations

import re
import zlib
from collections import Counter
from collections.abc import Callable

from modelkeep.core.errors import IntegrityError
from modelkeep.core.verdict import Finding, Severity
from modelkeep.scan.cases import Case, Place
from modelkeep.scan.evidence import found, gravest, listed, printable
from modelkeep.scan.layouts import layout_findings
from modelkeep.scan.members import STORED, Directory, Member, directory_of
from modelkeep.scan.names import leaves_folder
from modelkeep.scan.settings import ScanSettings
from modelkeep.scan.streams import begun, inflated, inflated_member
from modelkeep.scan.torchscript import script_findings

_GAP_BYTES_MAX = 1 << 16
# The older lzma has no magic: what is named so, or gives a pickle, was meant.
_LZMA_NAMES = ("lzma", "pkl", "pickle", "joblib", "z", "dill")
_BEGUN_BYTES_MAX = 1 << 16
# Of bytes that no member owns: the gravest few say it all.
_GAPS_SHOWN = 5
_LOCAL_MAGIC = b"PK\x03\x04"
# Methods of zip members (APPNOTE 4.4.5) that are looked into; Python reads all but the last.
_METHODS = {8: "deflate", 12: "bzip2", 14: "zip-lzma", 93: "zstd", 95: "xz"}
# torch writes each storage as `<root>/data/<number>`: raw numbers that may read as anything.
_TORCH_STORAGE = re.compile(r"[^/]+/data/[0-9]+")
_TORCH_SCRIPT = re.compile(r"[^/]+/code/.+\.py")
# Names in its pickles: types of that code, which no Python can import, and makers of lists.
_SCRIPT_NAMES = re.compile(
    r"\w+(?: \w+)* (?:__torch__\.|torch\.jit\._pickle\.(?:build_\w+|restore_type_tag)[ ,(])"
)
MemberJudge = Callable[[Member, memoryview, Place], tuple[Finding, ...]]


def archive_findings(case: Case) -> tuple[Finding, ...]:
    """Judge a zip file: its structure, its names, and each member as a file of its own."""
    view, place, settings = case.view, case.place, case.settings
    try:
        directory = directory_of(view, members_max=place.allowance.members)
    except IntegrityError as error:
        text = f"does not parse as a zip archive: {error.message}"
        return (case.found("scan.archive.broken", Severity.HIGH, text),)
    place.allowance.members -= len(directory.members)
    findings = list(_structure_findings(view, directory, place.subject))
    if directory.overlaps:  # a small file of overlapping members costs as much as a large one
        return tuple(findings)
    names = frozenset(member.name for member in directory.members)
    findings.extend(layout_findings(case, names))
    judge = _judge_of(case, names)
    for member in directory.members:
        findings.extend(_name_findings(member, place.subject))
        findings.extend(_member_findings(case, member, judge))
        if len(findings) > 2 * settings.findings_max:
            findings = gravest(findings, settings.findings_max)
    return tuple(findings)


def _judge_of(case: Case, names: frozenset[str]) -> MemberJudge:
    """Judges a member by what it is in this archive: torch's storages and code are special."""
    is_torch = any(name.endswith("/data.pkl") for name in names)
    is_script = is_torch and any(_TORCH_SCRIPT.fullmatch(name) for name in names)

    def judge(member: Member, content: memoryview, inner: Place) -> tuple[Finding, ...]:
        if is_torch and _TORCH_SCRIPT.fullmatch(member.name):
            return script_findings(Case(content, inner, case.settings, case.judge))
        is_storage = is_torch and _TORCH_STORAGE.fullmatch(member.name) is not None
        at = Place(inner.subject, inner.depth, inner.allowance, is_storage)
        findings = case.judge(content, at)
        if is_script:
            findings = tuple(each for each in findings if not _SCRIPT_NAMES.match(each.evidence))
        # torch can be told to write storages with a faster checksum in place of the CRC.
        if not is_storage and zlib.crc32(content) != member.crc:
            text = "does not have the CRC that the archive states"
            findings += (found("scan.archive.crc", Severity.HIGH, inner.subject, text),)
        return findings

    return judge


def compressed_findings(case: Case, kind: str) -> tuple[Finding, ...]:
    """Judge a file compressed as a whole (gzip, zstd and others): its plaintext as a file."""
    view, place, settings = case.view, case.place, case.settings
    if place.depth >= settings.depth_max:
        text = f"lies deeper than {settings.depth_max} archives and was not looked at"
        return (case.found("scan.archive.depth", Severity.MEDIUM, text),)
    try:
        plain, rest = inflated(view, kind, _limit(place, settings))
    except IntegrityError as error:
        if kind == "lzma" and not _acts(case):
            text = "begins as the older lzma does, and is nothing compressed"
            return (case.found("scan.format.unknown", Severity.NOTE, text),)
        text = f"does not parse as {kind}: {error.message}"
        return (case.found("scan.archive.broken", Severity.HIGH, text),)
    if plain is None:
        return (_too_large(view, place.subject, settings, plain_bytes=None),)
    place.allowance.plain_bytes -= len(plain)
    findings = list(case.inner("(plaintext)", plain))
    if rest:
        start = len(view) - rest
        text = f"{rest} bytes at {start} follow the compressed data"
        findings.append(case.found("scan.archive.hidden", Severity.MEDIUM, text))
        findings.extend(case.inner("(rest)", view[start:]))
    return tuple(findings)


def _acts(case: Case) -> bool:
    """Whether a damaged stream is meant as one: by its name, or by what comes out of it."""
    if case.place.name.rpartition(".")[2].lower() in _LZMA_NAMES:
        return True
    plain = begun(case.view, _BEGUN_BYTES_MAX)
    inner = case.inner("(plaintext)", plain) if plain else ()
    return any(each.severity is not Severity.NOTE for each in inner)


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
        hides = _LOCAL_MAGIC in bytes(view[start : start + min(length, _GAP_BYTES_MAX)])
        what = "hold a member that the directory does not list" if hides else "belong to no member"
        severity = Severity.HIGH if hides else Severity.MEDIUM
        text = f"the {length} bytes at {start} {what}"
        gaps.append(found("scan.archive.hidden", severity, subject, text))
    findings.extend(gravest(gaps, _GAPS_SHOWN))
    return findings


def _name_findings(member: Member, subject: str) -> list[Finding]:
    findings = []
    name = member.name
    if leaves_folder(name):
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
    return findings


def _member_findings(case: Case, member: Member, judge: MemberJudge) -> tuple[Finding, ...]:
    view, settings = case.view, case.settings
    inner = case.place.inside(member.name)
    if member.name.endswith("/") and member.plain_bytes == 0:
        return ()
    if member.encrypted or member.method not in (STORED, *_METHODS):
        what = "encrypted" if member.encrypted else f"compressed by method {member.method}"
        text = f"is {what} and cannot be looked at"
        return (found("scan.archive.sealed", Severity.MEDIUM, inner.subject, text),)
    if inner.depth > settings.depth_max:
        text = f"lies deeper than {settings.depth_max} archives and was not looked at"
        return (found("scan.archive.depth", Severity.MEDIUM, inner.subject, text),)
    packed = view[member.offset : member.offset + member.packed_bytes]
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
    return judge(member, content, inner)


def _plain(
    packed: memoryview, member: Member, place: Place, settings: ScanSettings
) -> bytes | Finding:
    """A packed member's plaintext, or why there is none."""
    limit = min(_limit(place, settings), member.plain_bytes)
    if member.plain_bytes > limit:
        return _too_large(packed, place.subject, settings, plain_bytes=member.plain_bytes)
    try:
        plain, rest = inflated_member(packed, _METHODS[member.method], limit)
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
