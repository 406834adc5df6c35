"""Ollama's Modelfile: the model and the adapters that it is built from.

`ollama create` reads the files that FROM and ADAPTER name (parser/parser.go, `ParseFile`), so a
path that leaves the folder takes what is not the model's. What stands in three quotes is a value.
"""

from __future__ import annotations

import re

from modelkeep.core.verdict import Finding, Severity
from modelkeep.scan.cases import Case
from modelkeep.scan.evidence import printable
from modelkeep.scan.names import leaves_folder

_NAMED = re.compile(r"modelfile(?:[.-][\w.-]{1,60})?|[\w.-]{1,100}\.modelfile")
_BASE = re.compile(r"(?im)^[ \t]*FROM\s")
_INSTRUCTION = re.compile(r"(?i)[ \t]*(FROM|ADAPTER)[ \t]+([^\n]*)")
# Where Ollama itself keeps models, as `ollama show --modelfile` prints it.
_BLOB = re.compile(r"(?:[A-Za-z]:)?[\w .@/\\-]*[/\\]models[/\\]blobs[/\\]sha256[-:][0-9a-f]{64}")
_QUOTES = '"""'


def is_modelfile(case: Case, text: str) -> bool:
    """Whether a text is named as one and says what it is built from."""
    name = case.place.name.lower()
    return _NAMED.fullmatch(name) is not None and _BASE.search(text) is not None


def modelfile_findings(case: Case, text: str) -> tuple[Finding, ...]:
    """Judge the files that a Modelfile names."""
    findings: list[Finding] = []
    is_quoted = False
    for line in text.splitlines():
        was_quoted = is_quoted
        is_quoted ^= line.count(_QUOTES) % 2 == 1
        match = None if was_quoted else _INSTRUCTION.fullmatch(line)
        if match is None:
            continue
        source = match[2].strip().strip("\"'")
        if leaves_folder(source) and not (_BLOB.fullmatch(source) and ".." not in source):
            what = f"{match[1].upper()} takes a file outside the folder: {printable(source, 80)!r}"
            findings.append(case.found("scan.config.path", Severity.MEDIUM, what))
        if len(findings) >= case.settings.findings_max:
            break
    if not findings:
        what = "is a Modelfile; the files that it names lie beside it"
        findings.append(case.found("scan.config.plain", Severity.NOTE, what))
    return tuple(findings)
