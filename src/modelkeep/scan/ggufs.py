"""GGUF files: whole, in bounds, and with templates that reach nothing.

The walk of `kernels.ggufs` holds every count, length, type and offset against the file. What this
adds: the texts that a loader acts on (chat templates), and bytes that belong to no tensor.
"""

from __future__ import annotations

from collections.abc import Iterator

from modelkeep.core.errors import IntegrityError
from modelkeep.core.verdict import Finding, Severity
from modelkeep.kernels.ggufs import ALIGNMENT_MAX, ByteOrder, byte_order, gguf_tensors
from modelkeep.scan.cases import Case
from modelkeep.scan.evidence import printable
from modelkeep.scan.names import reaches_out
from modelkeep.scan.templates import TEMPLATE_CHARS_MAX, template_findings

_PAIRS_AT = 24
_TEXT, _ARRAY = 8, 9
_VALUE_BYTES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
_TEMPLATE_KEYS = ("chat_template", "chat_templates", ".template")


def gguf_findings(case: Case) -> tuple[Finding, ...]:
    """Judge a GGUF file."""
    order = byte_order(case.view)
    try:
        tensors = gguf_tensors(case.view, order)
    except IntegrityError as error:
        rule = "scan.gguf." + error.code.rpartition(".")[2]
        text = f"does not parse as GGUF: {error.message}"
        return (case.found(rule, Severity.HIGH, text),)
    findings: list[Finding] = []
    for key, text in _Texts(case.view, order).pairs():
        findings.extend(_text_findings(case, key, text))
    stop = max((each.offset + each.length for each in tensors), default=len(case.view))
    rest = len(case.view) - stop
    if rest > ALIGNMENT_MAX or (rest > 0 and any(bytes(case.view[stop:]))):
        text = f"{rest} bytes at {stop} follow the last tensor"
        findings.append(case.found("scan.gguf.trailing", Severity.MEDIUM, text))
        findings.extend(case.inner("(rest)", case.view[stop:]))
    return tuple(findings)


def _text_findings(case: Case, key: str, text: str) -> tuple[Finding, ...]:
    if any(part in key for part in _TEMPLATE_KEYS) and text:
        return template_findings(f"{case.place.subject}!{printable(key, 60)}", text)
    if key == "split.path" and reaches_out(text):
        where = f"{printable(key)} names a file elsewhere: {printable(text)}"
        return (case.found("scan.gguf.path", Severity.HIGH, where),)
    return ()


class _Texts:
    """Every key with a text, and those with lists of texts that are templates.

    The walk before this one has held all lengths against the file.
    """

    __slots__ = ("_order", "_view")

    def __init__(self, view: memoryview, order: ByteOrder) -> None:
        self._view = view
        self._order: ByteOrder = order

    def pairs(self) -> Iterator[tuple[str, str]]:
        at = _PAIRS_AT
        for _ in range(self._number(16, 8)):
            length = self._number(at, 8)
            key = str(self._view[at + 8 : at + 8 + length], "utf-8", "replace")
            at += 8 + length
            kind = self._number(at, 4)
            at += 4
            for text, after in self._values(at, kind, wanted="template" in key):
                if text is not None:
                    yield key, text
                at = after

    def _values(self, at: int, kind: int, *, wanted: bool) -> Iterator[tuple[str | None, int]]:
        """The texts of one value, each with where the next byte lies."""
        if kind == _TEXT:
            length = self._number(at, 8)
            kept = min(length, TEMPLATE_CHARS_MAX * 4)
            text = str(self._view[at + 8 : at + 8 + kept], "utf-8", "replace")
            yield text, at + 8 + length
        elif kind == _ARRAY:
            inner, count = self._number(at, 4), self._number(at + 4, 8)
            at += 12
            if inner in _VALUE_BYTES:
                yield None, at + count * _VALUE_BYTES[inner]
                return
            for _ in range(count):
                if inner == _TEXT and not wanted:  # vocabularies: hundreds of thousands
                    at += 8 + self._number(at, 8)
                    continue
                for part, after in self._values(at, inner, wanted=wanted):
                    if part is not None and wanted:
                        yield part, after
                    at = after
            yield None, at
        else:
            yield None, at + _VALUE_BYTES[kind]

    def _number(self, at: int, size: int) -> int:
        return int.from_bytes(self._view[at : at + size], self._order)
