"""Arrow, Feather and Parquet: a type in their schema may be a pickle (CVE-2023-47248).

pyarrow before 14.0.1 unpickles the metadata of the extension type `arrow.py_extension_type` when it
reads the schema. Parquet keeps that schema in base64, which writes a text in three ways, depending
on where it begins.
"""

from __future__ import annotations

import base64
import re

from modelkeep.core.verdict import Finding, Severity
from modelkeep.scan.cases import Case

_NAMES = (b"arrow.py_extension_type",)


def arrow_findings(case: Case) -> tuple[Finding, ...]:
    """Judge a table by the types that its schema names."""
    match = _PATTERN.search(case.view)
    if match is not None:
        text = f"a type of its schema is a pickle, named at {match.start()}"
        return (case.found("scan.arrow.pickle", Severity.HIGH, text),)
    text = "is a table of numbers and words, which nothing executes"
    return (case.found("scan.format.data", Severity.NOTE, text),)


def _forms(name: bytes) -> list[bytes]:
    """A text as it stands, and the parts of its base64 that do not depend on its neighbours."""
    forms = [name]
    for before in range(3):
        coded = base64.b64encode(bytes(before) + name)
        forms.append(coded[(0, 2, 3)[before] : len(coded) - 4])
    return forms


_PATTERN = re.compile(b"|".join(re.escape(form) for name in _NAMES for form in _forms(name)))
