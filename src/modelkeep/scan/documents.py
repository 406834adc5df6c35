"""JSON and what stands in it: keys on which a loader acts, judged one by one.

A document is parsed by the standard parser within bounds of size and depth; a key that stands twice
is a finding, because readers differ in which one they take. Then every object in it is shown to the
rules below; those of Keras are in `keras`. Text that is far larger than any configuration (a
vocabulary) is parsed only if a key that matters stands in it.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from modelkeep.core.verdict import Finding, Severity
from modelkeep.scan.cases import Case
from modelkeep.scan.embedded import embedded_findings
from modelkeep.scan.evaluated import evaluated_findings
from modelkeep.scan.evidence import printable
from modelkeep.scan.expressions import expression_findings
from modelkeep.scan.hubs import hub_findings
from modelkeep.scan.keras import keras_findings
from modelkeep.scan.notebooks import notebook_findings
from modelkeep.scan.objects import object_findings
from modelkeep.scan.torchscript import export_findings
from modelkeep.scan.walks import Entry, walked

# Configurations have kilobytes, a tokenizer with its merges 10 to 30 MB.
_SMALL_BYTES = 2 << 20
_ACTING_KEY = re.compile(
    rb'"(?:class_name|auto_map|_target_|lc|chat_template|template|py/[a-z]+|trust_remote_code|'
    rb"custom_pipelines|_class_name|:serialized:|expr_str|guards_code|__[a-z_]+__|target|"
    rb"loader_module|_type|template_format|input_variables|auto_mapping|activation_function|"
    rb"structure|backbone|nbformat|"
    rb'[A-Za-z_]*\\u00[2-7][0-9A-Fa-f][^"]{0,40})"\s*:\s*["\[{t0-9]'
)
Rule = Callable[[Case, Entry], list[Finding]]
_RULES: tuple[Rule, ...] = (
    keras_findings,
    hub_findings,
    object_findings,
    export_findings,
    embedded_findings,
    expression_findings,
    evaluated_findings,
    notebook_findings,
)


class _Repeated(list[str]):
    """Keys that stand twice in one object."""


def json_findings(case: Case, *, claimed: bool) -> tuple[Finding, ...] | None:
    """Judge bytes that may be JSON.

    Args:
        claimed: whether the name says that it is JSON; then it must parse.

    Returns:
        None where it is no JSON and nothing claims that it is.
    """
    raw = bytes(case.view[: case.settings.text_bytes_max + 1])
    unread = _unread(case, raw)
    if unread is not None:
        return (unread,)
    repeated = _Repeated()
    try:
        document = json.loads(raw.decode(_encoding(raw)), object_pairs_hook=_unique(repeated))
    except RecursionError:
        text = "nests deeper than any document that a person wrote"
        return (case.found("scan.config.depth", Severity.HIGH, text),)
    except ValueError as error:
        lines = _lines(case, raw)
        if lines is not None or not claimed:
            return lines
        text = f"does not parse as JSON: {error!s:.100}"
        return (case.found("scan.config.broken", Severity.HIGH, text),)
    findings = list(document_findings(case, document))
    if repeated:
        text = f"the key {printable(repeated[0])!r} stands twice in one object: readers differ"
        acts = any(_ACTING_KEY.match(f'"{key}":"'.encode()) for key in repeated)
        severity = Severity.HIGH if acts else Severity.MEDIUM
        findings.append(case.found("scan.config.duplicate", severity, text))
    return tuple(findings)


def _unread(case: Case, raw: bytes) -> Finding | None:
    """Why a document is not parsed as a whole, if it is not."""
    if len(raw) > _SMALL_BYTES and _ACTING_KEY.search(raw) is None:
        text = "is a document larger than configuration, without a key that acts"
        return case.found("scan.config.large", Severity.NOTE, text)
    if len(raw) > case.settings.text_bytes_max:
        text = "is a document with keys that act, and larger than what is looked at"
        return case.found("scan.config.limit", Severity.MEDIUM, text)
    if sum(raw.count(mark) for mark in (b"[", b"{", b",")) > case.settings.document_nodes_max:
        text = "is a document with more values than are looked at"
        return case.found("scan.config.limit", Severity.MEDIUM, text)
    return None


def document_findings(case: Case, document: Any) -> tuple[Finding, ...]:
    """Judge a parsed document, whatever text it was."""
    findings: list[Finding] = []
    for entry in walked(document, case.settings.document_nodes_max):
        if entry.value is None and entry.path == "…":
            text = "holds more values than are looked at"
            findings.append(case.found("scan.config.limit", Severity.MEDIUM, text))
            break
        for rule in _RULES:
            findings.extend(rule(case, entry))
        if len(findings) > case.settings.findings_max:
            break
    if not findings:
        text = "is a document; nothing in it asks a loader to act"
        findings.append(case.found("scan.config.plain", Severity.NOTE, text))
    return tuple(findings)


def _lines(case: Case, raw: bytes) -> tuple[Finding, ...] | None:
    """JSON lines: one document each."""
    first, _, rest = raw.partition(b"\n")
    if not rest.strip() or not first.strip().startswith(b"{"):
        return None
    try:
        documents = [json.loads(line) for line in raw.splitlines()[:1000] if line.strip()]
    except (ValueError, RecursionError):
        return None
    return document_findings(case, documents)


def _encoding(raw: bytes) -> str:
    return json.detect_encoding(raw)


def _unique(repeated: _Repeated) -> Callable[[list[tuple[str, Any]]], Mapping[str, Any]]:
    def made(pairs: list[tuple[str, Any]]) -> Mapping[str, Any]:
        kept = dict(pairs)
        if len(kept) != len(pairs) and len(repeated) < 10:
            counts = Counter(key for key, _ in pairs)
            repeated.extend(key for key, count in counts.items() if count > 1)
        return kept

    return made
