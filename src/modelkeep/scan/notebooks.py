"""Notebooks: programs that a reader runs cell by cell, and no loader does.

A notebook that shows how to use a model is usual, and so is `!pip install` in it: a note says that
it is there. A cell that hands what it fetched to a shell, or decodes what it then runs, is held:
nobody reads that before running it.
"""

from __future__ import annotations

import re
from typing import Any

from modelkeep.core.verdict import Finding, Severity
from modelkeep.scan.cases import Case
from modelkeep.scan.evidence import printable
from modelkeep.scan.walks import Entry

_CELLS_MAX = 10_000
_LINE_CHARS_MAX = 2_000
_FETCH = re.compile(r"(?i)\b(?:curl|wget|iwr|invoke-webrequest|nc|ncat)\b")
_SHELL = re.compile(
    r"(?i)\|\s*(?:sudo\s+)?(?:/(?:usr/)?bin/)?(?:ba|z|da)?sh\b|\|\s*(?:sudo\s+)?(?:python|perl|iex)"
    r"|\b(?:ba|z)?sh\s+(?:-c\s+)?[\"']?(?:<\(|\$\(|`)|/dev/tcp/|\bnc\b[^|]*\s-e\b"
)
_DECODED = re.compile(
    r"\b(?:exec|eval)\s*\(\s*(?:[\w.]{1,60}\s*\(\s*){0,6}(?:[\w.]{0,60}b(?:ase)?64|[\w.]{0,60}decompress"
    r"|[\w.]{0,60}fromhex|[\w.]{0,60}urlopen|requests\.get|marshal)"
)


def notebook_findings(case: Case, entry: Entry) -> list[Finding]:
    """Judge the cells of a notebook; `entry` is the whole document."""
    cells = entry.pairs.get("cells")
    if entry.path or "nbformat" not in entry.pairs or not isinstance(cells, list):
        return []
    programs = 0
    for at, cell in enumerate(cells[:_CELLS_MAX]):
        source = _source(cell)
        programs += bool(source.strip())
        hidden = _hidden(source)
        if hidden:
            text = f"cell {at} runs what nobody has read: {printable(hidden, 100)!r}"
            return [case.found("scan.config.notebook", Severity.MEDIUM, text)]
    text = f"is a notebook with {programs} cells of code, which only a reader runs"
    return [case.found("scan.config.notebook", Severity.NOTE, text)]


def _source(cell: Any) -> str:
    if not isinstance(cell, dict) or cell.get("cell_type") != "code":
        return ""
    source = cell.get("source", "")
    parts = source if isinstance(source, list) else [source]
    return "".join(part for part in parts if isinstance(part, str))


def _hidden(source: str) -> str:
    """A line that runs what it fetched or decoded; empty where none does."""
    for line in source.splitlines():
        cut = line[:_LINE_CHARS_MAX]
        is_fetched = _FETCH.search(cut) and _SHELL.search(cut)
        if is_fetched or _DECODED.search(cut) or "/dev/tcp/" in cut:
            return cut.strip()
    return ""
