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

from dataclasses import dataclass

from modelkeep.core.verdict import Finding, Severity
from modelkeep.scan.allowance import Allowance, allowance_of
from modelkeep.scan.evidence import found, listed
from modelkeep.scan.machine import Machine, Stream, Use
from modelkeep.scan.settings import ScanSettings
from modelkeep.scan.symbols import Symbol, is_allowed, is_dangerous

# The first pickle of torch's format before 1.6: protocol 2, the number 0x1950a86a20f9469cfc6c.
TORCH_LEGACY_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
_JOBLIB_ARRAY = Symbol("joblib.numpy_pickle", "NumpyArrayWrapper")


def pickle_findings(
    subject: str, view: memoryview, settings: ScanSettings, allowance: Allowance | None = None
) -> tuple[Finding, ...]:
    """Judge a file that claims to be a pickle, with all pickles that follow the first one."""
    walk = _walked(view, settings, allowance, persistent=True)
    findings = [each for stream in walk.streams for each in _stream_findings(subject, stream)]
    last = walk.streams[-1]
    if last.broken and _JOBLIB_ARRAY in last.uses:
        text = "joblib keeps arrays between the opcodes, which this version does not look into"
        findings.append(found("scan.format.unexamined", Severity.MEDIUM, subject, text))
    elif last.broken and (len(walk.streams) == 1 or last.acts()):
        findings.append(_broken(subject, last))
    elif walk.rest_at < len(view) and not walk.spent:
        severity, why = Severity.MEDIUM, "no loader of a pickle reads them"
        if bytes(view[: len(TORCH_LEGACY_MAGIC)]) == TORCH_LEGACY_MAGIC:
            severity, why = Severity.NOTE, "torch's old format keeps its tensors there"
        text = f"{len(view) - walk.rest_at} bytes follow the last pickle: {why}"
        findings.append(found("scan.pickle.trailing", severity, subject, text))
    return tuple(findings) + _limit(subject, walk)


def probe_findings(
    subject: str, view: memoryview, settings: ScanSettings, allowance: Allowance | None = None
) -> tuple[Finding, ...]:
    """Judge bytes that claim to be something else, as `pickle.load` would run them.

    Nothing is reported unless they would import something dangerous or call something, or unless
    the walk had not come to an end at a bound.
    """
    walk = _walked(view, settings, allowance, persistent=False)
    acting = [stream for stream in walk.streams if stream.acts()]
    findings = [each for stream in acting for each in _stream_findings(subject, stream)]
    return tuple(findings) + _limit(subject, walk)


@dataclass(frozen=True, slots=True)
class _Walk:
    """All pickles of a file, where the last finished one ends, and which bound ended the walk."""

    streams: list[Stream]
    rest_at: int
    spent: str


def _walked(
    view: memoryview, settings: ScanSettings, given: Allowance | None, *, persistent: bool
) -> _Walk:
    allowance = allowance_of(settings) if given is None else given
    streams: list[Stream] = []
    at = 0
    while at < len(view) or not streams:
        if len(streams) >= settings.pickle_streams_max:
            return _Walk(streams, at, f"holds more than {settings.pickle_streams_max} pickles")
        machine = Machine(view, at, settings, persistent=persistent)
        machine.run(allowance)
        stream = machine.stream
        if not stream.finished:
            if not streams or stream.acts() or stream.spent:
                streams.append(stream)
            return _Walk(streams, at, stream.spent)
        streams.append(stream)
        at = stream.end
    return _Walk(streams, at, "")


def _limit(subject: str, walk: _Walk) -> tuple[Finding, ...]:
    if not walk.spent:
        return ()
    text = f"was not read to its end: it {walk.spent}"
    return (found("scan.pickle.limit", Severity.MEDIUM, subject, text),)


def _stream_findings(subject: str, stream: Stream) -> list[Finding]:
    findings = [_symbol_finding(subject, symbol, use) for symbol, use in stream.uses.items()]
    notes = [found(rule, severity, subject, text) for rule, severity, text in stream.notes]
    return [finding for finding in findings if finding is not None] + notes


def _symbol_finding(subject: str, symbol: Symbol, use: Use) -> Finding | None:
    what = f"{'calls' if use.called else 'imports'} {symbol}"
    where = f" (byte {use.offset})"
    if is_dangerous(symbol):
        return found("scan.pickle.dangerous", Severity.HIGH, subject, what + where)
    if not is_allowed(symbol):
        text = f"{what}, which is not on the list of harmless names{where}"
        return found("scan.pickle.global", Severity.MEDIUM, subject, text)
    if use.odd:
        text = f"{what} in a way that no writer of models does{where}"
        return found("scan.pickle.arguments", Severity.MEDIUM, subject, text)
    return None


def _broken(subject: str, stream: Stream) -> Finding:
    called = [str(symbol) for symbol, use in stream.uses.items() if use.called]
    after = f"; a loader has by then called {listed(called)}" if called else ""
    text = f"does not parse as a pickle: {stream.broken}{after}"
    return found("scan.pickle.broken", Severity.HIGH, subject, text)
