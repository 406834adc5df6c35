"""Pickles that lie in data: in a value of a table, in a text's tail, in bytes of a message.

No reader of such a format loads them by itself, so only what acts says something. What is looked
at begins as a pickle of protocol 2 to 5 does, with what such a pickle begins with next: a few bytes
in a gigabyte of numbers do.
"""

from __future__ import annotations

import re

from modelkeep.core.verdict import Finding, Severity
from modelkeep.scan.cases import Case
from modelkeep.scan.pickles import probe_findings

_BEGINNING = re.compile(
    rb"\x80(?:[\x04\x05]\x95...\x00{5}|[\x02-\x05](?:c[a-z_]|\x8c[\x01-\x40][a-z_]))", re.DOTALL
)
# Of one file: a table with more of them keeps pickles, and the first ones say which.
_PLACES_MAX = 200
# Of a file of no known format: text has its tail within it, and numbers are not passed over.
UNKNOWN_BYTES_MAX = 16 << 20


def planted_findings(case: Case) -> tuple[Finding, ...]:
    """Judge the first pickles that lie anywhere in a file, where they would act."""
    findings: list[Finding] = []
    for count, match in enumerate(_BEGINNING.finditer(case.view)):
        if count >= _PLACES_MAX or len(findings) > case.settings.findings_max:
            break
        findings.extend(acting(case, f"(byte {match.start()})", case.view[match.start() :]))
    return tuple(each for each in findings if each.severity is Severity.HIGH)


def acting(case: Case, name: str, view: memoryview) -> tuple[Finding, ...]:
    """What bytes inside a file would do as a pickle."""
    subject = case.place.inside(name).subject
    found = probe_findings(subject, view, case.settings, case.place.allowance)
    return tuple(each for each in found if each.rule != "scan.pickle.extension")
