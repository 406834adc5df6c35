"""Findings as SARIF 2.1.0 (OASIS), which code hosts and editors show beside the file.

One run, one rule for each that was met, one result for each finding. A rule leads to the page of
the weakness that it names, where it names one (CWE, ATLAS, CVE).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from modelkeep import __version__
from modelkeep.cli.output import safe_text
from modelkeep.core.verdict import Finding, Severity

if TYPE_CHECKING:
    from modelkeep.sdk.scanning import ScannedPath

SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
VERSION = "2.1.0"
GUIDE = "docs/guide/admission.md"
_LEVELS = {Severity.NOTE: "note", Severity.MEDIUM: "warning", Severity.HIGH: "error"}
# GitHub orders by this number: 9 and more is critical, 4 to 7 medium.
_GRADES = {Severity.NOTE: "1.0", Severity.MEDIUM: "5.5", Severity.HIGH: "9.0"}
_PAGES = (
    (re.compile(r"CVE-\d{4}-\d{4,}"), "https://nvd.nist.gov/vuln/detail/{}"),
    (re.compile(r"CWE-(\d+)"), "https://cwe.mitre.org/data/definitions/{}.html"),
    (re.compile(r"AML\.T\d{4}(?:\.\d{3})?"), "https://atlas.mitre.org/techniques/{}"),
)
_OFFSET = re.compile(r"\bbyte (\d{1,15})\b")


def sarif_of(found: Sequence[ScannedPath]) -> dict[str, Any]:
    """The whole document."""
    rules: dict[str, dict[str, Any]] = {}
    results = []
    for each in found:
        for finding in each.verdict.findings:
            rules.setdefault(finding.rule, _rule(finding))
            index = list(rules).index(finding.rule)
            results.append(_result(each, finding, index))
    driver = {
        "name": "modelkeep",
        "version": __version__,
        "rules": list(rules.values()),
    }
    run = {"tool": {"driver": driver}, "results": results, "columnKind": "unicodeCodePoints"}
    return {"$schema": SCHEMA, "version": VERSION, "runs": [run]}


def help_uri(reference: str) -> str:
    """The page of the weakness that a reference names first; empty where it names none."""
    for pattern, page in _PAGES:
        match = pattern.search(reference)
        if match is not None:
            return page.format(match[match.lastindex or 0])
    return ""


def _rule(finding: Finding) -> dict[str, Any]:
    words = finding.rule.split(".")
    rule: dict[str, Any] = {
        "id": finding.rule,
        "name": "".join(word.title().replace("_", "") for word in words),
        "shortDescription": {"text": f"{' '.join(words[1:])} ({finding.rule})"},
        "help": {"text": f"What the rules mean: {GUIDE}. References: {finding.reference or '-'}."},
        "defaultConfiguration": {"level": _LEVELS[finding.severity]},
        "properties": {
            "security-severity": _GRADES[finding.severity],
            "tags": ["security", *(part for part in finding.reference.split(", ") if part)],
        },
    }
    page = help_uri(finding.reference)
    return {**rule, "helpUri": page} if page else rule


def _result(each: ScannedPath, finding: Finding, index: int) -> dict[str, Any]:
    place: dict[str, Any] = {"artifactLocation": {"uri": _uri(each.path)}}
    offset = _OFFSET.search(finding.evidence)
    if offset is not None and finding.subject == each.name:  # not within a member of an archive
        place["region"] = {"byteOffset": int(offset[1]), "byteLength": 1}
    where = "" if finding.subject == each.name else f"{finding.subject}: "
    return {
        "ruleId": finding.rule,
        "ruleIndex": index,
        "level": _LEVELS[finding.severity],
        "message": {"text": safe_text(f"{where}{finding.evidence}")},
        "locations": [{"physicalLocation": place}],
        "properties": {"decision": each.verdict.decision, "reference": finding.reference},
    }


def _uri(path: Path) -> str:
    """A relative path stays relative, so that it is found in another checkout."""
    raw = path.as_posix().encode("utf-8", "surrogateescape")
    return f"file://{quote(raw)}" if path.is_absolute() else quote(raw)
