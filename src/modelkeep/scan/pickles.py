"""Pickles: walked opcode by opcode on a machine of names, never loaded.

Theory of operation. A pickle is a program for a stack machine. The machine here runs the same
program on *symbols*: a global is the name that would be imported, a call is a note that this name
would be called, text is kept because names are made of it, and everything else is data. Memo,
marks and every way to name or call something (GLOBAL, STACK_GLOBAL, INST, OBJ, EXT, REDUCE,
NEWOBJ, BUILD) are resolved as CPython's loader does, so what it would import is known exactly.

Rules.
1. A name on the allow-list, used as listed there, is harmless. An unknown name holds, a known
   dangerous one denies, and so does what no honest writer does: a name computed by a call, an
   extension code, a call of a call's result, attributes set on a class.
2. The bytes before a break were already executed when the loader met the break. So a stream that
   does not end is denied, and says what it would have called by then.
3. A loader stops at STOP and the next call of it starts there: all pickles of a file are walked.
   What follows the last one is a finding, except in torch's old format, which keeps its numbers
   there.

A `probe` is the same walk over bytes that claim another format: old protocols have no magic, and
a file can be a valid member of two formats at once. It reports only what would act.
"""

from __future__ import annotations

import lzma
from dataclasses import dataclass, field

from modelkeep.core.errors import IntegrityError
from modelkeep.core.verdict import Finding, Severity
from modelkeep.kernels.torchlegacy import MAGIC as TORCH_LEGACY_MAGIC
from modelkeep.kernels.torchlegacy import is_legacy
from modelkeep.scan.allowance import Allowance, allowance_of
from modelkeep.scan.evidence import found, listed, printable
from modelkeep.scan.joblib_arrays import (
    LZMA_ALONE_MAGIC,
    OLD_MAGIC,
    array_end,
    old_plaintext,
    outside_file,
)
from modelkeep.scan.machine import Machine
from modelkeep.scan.machine_calls import Stream, Use
from modelkeep.scan.pickles_torch import LEGACY_PICKLES, has_tar_header, legacy_end, tar_member_end
from modelkeep.scan.settings import ScanSettings
from modelkeep.scan.symbols import is_allowed, is_dangerous, is_guarded, is_risky
from modelkeep.scan.symbols_values import Made, Span, Symbol, Value

__all__ = ["TORCH_LEGACY_MAGIC", "pickle_findings", "probe_findings"]

_TAR_MEMBERS = ("storages", "tensors")
# LZMA's dictionary is allocated from the file's own header: cap it.
_LZMA_MEMORY_BYTES_MAX = 128 * 1024 * 1024
# What a loader of joblib could not follow is unknown; everything else that breaks is a break.
_UNFOLLOWED = ("joblib.wrapper", "joblib.type")


def pickle_findings(
    subject: str,
    view: memoryview,
    settings: ScanSettings,
    allowance: Allowance | None = None,
    *,
    depth: int = 0,
) -> tuple[Finding, ...]:
    """Judge a file that claims to be a pickle, with all pickles that follow the first one.

    Args:
        depth: of this pickle in the bytes of others.
    """
    look = _Look(subject, view, settings, allowance or allowance_of(settings), depth)
    if has_tar_header(view):
        text = "is a pickle and at the same time a tar archive, which torch looks for first"
        return (found("scan.format.polyglot", Severity.HIGH, subject, text),)
    if bytes(view[:2]) == OLD_MAGIC or bytes(view[:3]) == LZMA_ALONE_MAGIC:
        return _packed_findings(look)
    if is_legacy(view):
        return _legacy_findings(look)
    if subject.rpartition("!")[2].rpartition("/")[2] in _TAR_MEMBERS:
        try:
            return _tar_findings(look)
        except IntegrityError:
            look = _Look(subject, view, settings, look.allowance, depth)  # another kind of file
    _walk(look, persistent=True, streams_max=settings.pickle_streams_max)
    findings = _all_findings(look)
    last = look.streams[-1]
    if last.broken and last.code in _UNFOLLOWED:
        text = f"keeps an array between the opcodes in a way that cannot be followed: {last.broken}"
        findings.append(found("scan.format.unexamined", Severity.MEDIUM, subject, text))
    elif last.broken and (len(look.streams) == 1 or last.acts()):
        findings.append(_broken(subject, last))
    elif look.rest_at < len(view) and not look.spent:
        findings.append(_trailing(look, look.rest_at, "no loader of a pickle reads them"))
    return tuple(findings) + _limit(look)


def probe_findings(
    subject: str, view: memoryview, settings: ScanSettings, allowance: Allowance | None = None
) -> tuple[Finding, ...]:
    """Judge bytes that claim to be something else, as `pickle.load` would run them.

    Nothing is reported unless they would import something dangerous or call something, or unless
    the walk had not come to an end at a bound.
    """
    look = _Look(subject, view, settings, allowance or allowance_of(settings), 0)
    if bytes(view[:2]) == OLD_MAGIC and _is_old_joblib(view):
        return _packed_findings(look)
    _walk(look, persistent=False, streams_max=settings.pickle_streams_max)
    acting = [stream for stream in look.streams if stream.acts()]
    findings = [each for stream in acting for each in _stream_findings(subject, stream)]
    return tuple(findings) + _limit(look)


@dataclass(slots=True)
class _Look:
    """One file on its way through the walk: its pickles, where the last finished one ends."""

    subject: str
    view: memoryview
    settings: ScanSettings
    allowance: Allowance
    depth: int
    streams: list[Stream] = field(default_factory=list)
    inner: list[Stream] = field(default_factory=list)
    outside: list[str] = field(default_factory=list)
    rest_at: int = 0
    spent: str = ""


# ---- the walk ---------------------------------------------------------------------------------


def _walk(look: _Look, *, persistent: bool, streams_max: int, all_streams: bool = True) -> None:
    at = 0
    while at < len(look.view) or not look.streams:
        if len(look.streams) >= streams_max:
            if all_streams:
                look.spent = f"holds more than {streams_max} pickles"
            look.rest_at = at
            return
        stream = _stream(look, at, persistent=persistent)
        look.rest_at = at
        if not stream.finished:
            if not look.streams or stream.acts() or stream.spent:
                look.streams.append(stream)
            look.spent = stream.spent
            return
        look.streams.append(stream)
        at = look.rest_at = stream.end


def _stream(look: _Look, at: int, *, persistent: bool) -> Stream:
    """Walk the pickle at an offset, with the arrays that joblib keeps in it."""

    def nested(start: int) -> int:
        machine = Machine(look.view, start, look.settings, persistent=False)
        machine.run(look.allowance)
        look.inner.append(machine.stream)
        if not machine.stream.finished:
            why = machine.stream.broken or machine.stream.spent
            raise IntegrityError("joblib.nested", f"the pickle of an array of objects: {why}")
        return machine.stream.end

    def arrays(start: int, wrapper: Made) -> tuple[int, bool] | None:
        name = outside_file(wrapper)
        if name is not None:
            look.outside.append(name)
        before = len(look.inner)
        end = array_end(look.view, start, wrapper, nested)
        return None if end is None else (end, len(look.inner) > before)

    machine = Machine(look.view, at, look.settings, persistent=persistent, arrays=arrays)
    machine.run(look.allowance)
    return machine.stream


# ---- files of a kind of their own -------------------------------------------------------------


def _is_old_joblib(view: memoryview) -> bool:
    return bytes(view[2:4]).lower() == b"0x"


def _packed_findings(look: _Look) -> tuple[Finding, ...]:
    """A pickle that joblib compressed in a way that has no archive's magic."""
    limit = max(0, min(look.settings.member_bytes_max, look.allowance.plain_bytes))
    plain: bytes | None
    try:
        if bytes(look.view[:2]) == OLD_MAGIC:
            plain = old_plaintext(look.view, limit)
        else:
            engine = lzma.LZMADecompressor(lzma.FORMAT_ALONE, memlimit=_LZMA_MEMORY_BYTES_MAX)
            plain = engine.decompress(bytes(look.view), limit + 1)
            if not engine.eof and len(plain) <= limit:
                raise IntegrityError("inflate.truncated", "the compressed data is cut short")
            plain = plain if len(plain) <= limit else None
    except (IntegrityError, lzma.LZMAError) as error:
        text = f"does not parse as what joblib compresses: {error!s:.100}"
        return (found("scan.archive.broken", Severity.HIGH, look.subject, text),)
    if plain is None or look.depth >= look.settings.depth_max:
        text = f"expands to more than {limit} bytes, or lies too deep: it was not looked at"
        return (found("scan.archive.limit", Severity.MEDIUM, look.subject, text),)
    look.allowance.plain_bytes -= len(plain)
    inner = f"{look.subject}!(plaintext)"
    return pickle_findings(
        inner, memoryview(plain), look.settings, look.allowance, depth=look.depth + 1
    )


def _legacy_findings(look: _Look) -> tuple[Finding, ...]:
    """Torch's old format: five pickles, then the storages that the fourth one names."""
    _walk(look, persistent=True, streams_max=LEGACY_PICKLES, all_streams=False)
    findings = _all_findings(look)
    last = look.streams[-1]
    if last.broken:
        return (*findings, _broken(look.subject, last))
    if not look.spent:
        try:
            end = legacy_end(look.view)
        except IntegrityError as error:
            text = f"does not parse as torch's old format: {error.message}"
            too_large = error.code == "torch.size"
            severity = Severity.MEDIUM if too_large else Severity.HIGH
            return (*findings, found("scan.pickle.broken", severity, look.subject, text))
        if end < len(look.view):
            findings.append(_trailing(look, end, "torch reads none of them"))
    return tuple(findings) + _limit(look)


def _tar_findings(look: _Look) -> tuple[Finding, ...]:
    """A member of the tar archives that the first versions of torch wrote."""

    def walk(at: int) -> Stream:
        stream = _stream(look, at, persistent=True)
        look.streams.append(stream)
        return stream

    name = look.subject.rpartition("!")[2].rpartition("/")[2]
    end = tar_member_end(name, look.view, walk)
    findings = _all_findings(look)
    if end < len(look.view):
        findings.append(_trailing(look, end, "torch reads none of them"))
    return tuple(findings) + _limit(look)


# ---- findings ---------------------------------------------------------------------------------


def _all_findings(look: _Look) -> list[Finding]:
    findings: list[Finding] = []
    for stream in (*look.streams, *look.inner):
        findings.extend(_stream_findings(look.subject, stream))
        for branch in stream.branches:
            text = f"is a pickle of joblib and, to `pickle.load`, another one at {branch.start}"
            findings.append(found("scan.format.polyglot", Severity.HIGH, look.subject, text))
            findings.extend(_stream_findings(look.subject, branch))
        for offset, value in stream.packed:
            findings.extend(_storage_findings(look, offset, value))
    for name in look.outside:
        is_beside = "/" not in name and "\\" not in name and name not in ("..", "?")
        what = "beside it" if is_beside else "outside its folder"
        text = f"reads an array from the file {printable(name, 80)!r} {what}"
        severity = Severity.NOTE if is_beside else Severity.HIGH
        findings.append(found("scan.pickle.outside", severity, look.subject, text))
    return findings


def _storage_findings(look: _Look, offset: int, value: Value) -> tuple[Finding, ...]:
    """Judge the file that plain pickles of torch hold for every storage."""
    content = _content(look, value)
    if content is None or not is_legacy(content) or look.depth >= look.settings.depth_max:
        text = (
            f"hands bytes to torch's loader that are no storage in its old format (byte {offset})"
        )
        return (found("scan.pickle.arguments", Severity.HIGH, look.subject, text),)
    inner = f"{look.subject}!(storage at {offset})"
    return pickle_findings(inner, content, look.settings, look.allowance, depth=look.depth + 1)


def _content(look: _Look, value: Value) -> memoryview | None:
    """The bytes that a value stands for; protocols 0 to 2 write them as Latin-1 text."""
    if isinstance(value, Made) and value.by == Symbol("_codecs", "encode") and value.arguments:
        value = value.arguments[0]
    if isinstance(value, str):
        return memoryview(value.encode("latin-1", "replace"))
    if not isinstance(value, Span):
        return None
    if not value.is_text:
        return look.view[value.start : value.stop]
    length = value.stop - value.start
    if length > min(look.settings.member_bytes_max, look.allowance.plain_bytes):
        return None
    look.allowance.plain_bytes -= length
    codec = "raw_unicode_escape" if value.is_escaped else "utf-8"
    text = str(look.view[value.start : value.stop], codec, "replace")
    return memoryview(text.encode("latin-1", "replace"))


def _trailing(look: _Look, at: int, why: str) -> Finding:
    text = f"{len(look.view) - at} bytes follow the last pickle: {why}"
    return found("scan.pickle.trailing", Severity.MEDIUM, look.subject, text)


def _limit(look: _Look) -> tuple[Finding, ...]:
    if not look.spent:
        return ()
    text = f"was not read to its end: it {look.spent}"
    return (found("scan.pickle.limit", Severity.MEDIUM, look.subject, text),)


def _stream_findings(subject: str, stream: Stream) -> list[Finding]:
    findings = [_symbol_finding(subject, symbol, use) for symbol, use in stream.uses.items()]
    notes = [found(rule, severity, subject, text) for rule, severity, text in stream.notes]
    return [finding for finding in findings if finding is not None] + notes


def _symbol_finding(subject: str, symbol: Symbol, use: Use) -> Finding | None:
    what = f"{'calls' if use.called else 'imports'} {symbol}"
    where = f" (byte {use.offset})"
    if is_dangerous(symbol) and not is_guarded(symbol):
        return found("scan.pickle.dangerous", Severity.HIGH, subject, what + where)
    if not is_allowed(symbol) and not is_guarded(symbol):
        text = f"{what}, which is not on the list of harmless names{where}"
        return found("scan.pickle.global", Severity.MEDIUM, subject, text)
    if use.odd or use.loose or (is_risky(symbol) and not use.called):
        severity = Severity.HIGH if is_risky(symbol) else Severity.MEDIUM
        text = f"{what} in a way that no writer of models does{where}"
        return found("scan.pickle.arguments", severity, subject, text)
    return None


def _broken(subject: str, stream: Stream) -> Finding:
    called = [str(symbol) for symbol, use in stream.uses.items() if use.called]
    after = f"; a loader has by then called {listed(called)}" if called else ""
    text = f"does not parse as a pickle: {stream.broken}{after}"
    return found("scan.pickle.broken", Severity.HIGH, subject, text)
