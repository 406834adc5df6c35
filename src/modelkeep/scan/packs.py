"""MessagePack and UBJSON: whole, in bounds, and with nothing inside that a loader unpickles.

Both are data by themselves. Hooks make more of MessagePack: msgpack-numpy loads arrays of objects
as pickles, and what stands in its bytes or in base64 is handed to loaders as a file.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from modelkeep.core.errors import IntegrityError
from modelkeep.core.verdict import Finding, Severity
from modelkeep.kernels.msgpack_walk import Span, is_container, msgpack_spans
from modelkeep.kernels.ubjson import ubjson_end
from modelkeep.scan.cases import Case
from modelkeep.scan.embedded import base64_findings
from modelkeep.scan.planted import acting

MSGPACK_NAMES = ("msgpack", "mpk")
UBJSON_NAMES = ("ubj", "ubjson")
# How files begin that loaders take out of bytes, and how their base64 begins.
_FILES = re.compile(
    rb"PK\x03\x04|\x93NUMPY|\x89HDF\r\n|\x1f\x8b\x08|x[\x01\x5e\x9c\xda]|BZh|\xfd7zXZ"
)
_WHOLE_FILES = (b"PK\x03\x04", b"\x93NUMPY", b"\x89HDF\r\n")
_BASE64 = re.compile(rb"gA[I-V]|UEs[DFH]|k05V|iUhE|H4sI|eJ|eN|eA|Qlpo|/Td6")
_BEGINNINGS = frozenset(b"P\x93\x89\x1fxB\xfdgUkiHeQ/")
# What a pickle begins with: PROTO, or an opcode that the first protocol has.
_OPCODES = re.compile(rb"\x80[\x00-\x05]|[(\[\]{})cdiIJKLMFGNSTUVXlt\x8c]")
_BYTES_MIN = 8
# Of one file: those that may be pickles, and those that may be files or base64 of one.
_SPANS_MAX = 10_000


def ubjson_findings(case: Case) -> tuple[Finding, ...]:
    """Judge a UBJSON file, which is how XGBoost keeps a model."""
    settings = case.settings
    try:
        stop = ubjson_end(
            case.view, depth_max=settings.packed_depth_max, values_max=settings.packed_values_max
        )
    except IntegrityError as error:
        return (_refused(case, "UBJSON", error),)
    if stop < len(case.view):
        text = f"{len(case.view) - stop} bytes at {stop} follow its end"
        finding = case.found("scan.packed.trailing", Severity.MEDIUM, text)
        return (finding, *case.inner("(rest)", case.view[stop:]))
    return (_plain(case, "UBJSON"),)


def msgpack_findings(case: Case) -> tuple[Finding, ...]:
    """Judge a file that is named as MessagePack: one value, or several in a row."""
    try:
        spans = _suspects(case, is_stream=True)
    except IntegrityError as error:
        return (_refused(case, "MessagePack", error),)
    return _judged(case, spans) or (_plain(case, "MessagePack"),)


def unnamed_findings(case: Case) -> tuple[Finding, ...] | None:
    """Judge a file that no name calls MessagePack; None if it is not, from its begin to its end."""
    if not is_container(case.view[0]):
        return None
    try:
        spans = _suspects(case, is_stream=False)
    except IntegrityError as error:
        return (_refused(case, "MessagePack", error),) if error.code == "msgpack.limit" else None
    return _judged(case, spans) or (_plain(case, "MessagePack"),)


def _suspects(case: Case, *, is_stream: bool) -> list[Span]:
    """Spans that may be more than data; the walk goes to the end first.

    Raises:
        IntegrityError: as `msgpack_spans`.
    """
    settings = case.settings
    spans = msgpack_spans(
        case.view,
        depth_max=settings.packed_depth_max,
        values_max=settings.packed_values_max,
        is_stream=is_stream,
    )
    kept: list[Span] = []
    for span in spans:
        if span.is_pickle or _is_suspect(case.view, span):
            kept.append(span)
        if len(kept) > _SPANS_MAX:
            message = "more of its bytes may be pickles than are looked at"
            raise IntegrityError("msgpack.limit", message)
    return kept


def _is_suspect(view: memoryview, span: Span) -> bool:
    if span.is_text and view[span.offset] not in _BEGINNINGS:
        return False
    head = bytes(view[span.offset : span.offset + min(span.length, _BYTES_MIN)])
    if _FILES.match(head) or _BASE64.match(head):
        return True
    return not span.is_text and _OPCODES.match(head) is not None


def _judged(case: Case, spans: Iterable[Span]) -> tuple[Finding, ...]:
    findings: list[Finding] = []
    for span in spans:
        if len(findings) > case.settings.findings_max:
            break
        findings.extend(each for each in _span(case, span) if each.severity is not Severity.NOTE)
    return tuple(findings)


def _span(case: Case, span: Span) -> Iterator[Finding]:
    name = f"(byte {span.offset})"
    view = case.view[span.offset : span.offset + span.length]
    head = bytes(view[:_BYTES_MIN])
    if span.is_pickle:
        yield from case.inner(f"{name}.pkl", view)
    elif _FILES.match(head):
        found = case.inner(name, view)
        whole = head.startswith(_WHOLE_FILES)  # numbers begin as compressed data does, too
        yield from (each for each in found if whole or each.rule.startswith("scan.pickle."))
    else:
        yield from acting(case, name, view)
        if _BASE64.match(head):
            yield from base64_findings(case, name, str(view, "latin-1"))


def _refused(case: Case, what: str, error: IntegrityError) -> Finding:
    if error.code.endswith(".limit"):
        text = f"was not read to its end: {error.message}"
        return case.found("scan.packed.limit", Severity.MEDIUM, text)
    rule = "scan.packed." + error.code.rpartition(".")[2]
    return case.found(rule, Severity.HIGH, f"does not parse as {what}: {error.message}")


def _plain(case: Case, what: str) -> Finding:
    text = f"is {what}: numbers and words, which nothing executes"
    return case.found("scan.format.data", Severity.NOTE, text)
