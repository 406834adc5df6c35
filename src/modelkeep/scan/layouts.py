"""Archives that are a model by what lies in them: what each such layout must and must not have."""

from __future__ import annotations

import re
from collections.abc import Iterable

from modelkeep.core.verdict import Finding, Severity
from modelkeep.scan.cases import Case
from modelkeep.scan.evidence import listed

_PACKAGE = re.compile(r"[^/]+/\.data/extern_modules")


def layout_findings(case: Case, names: Iterable[str]) -> list[Finding]:
    """Judge an archive by the names of its members alone."""
    every = frozenset(names)
    findings = []
    extension = case.place.name.rpartition(".")[2].lower()
    if extension == "keras" and "config.json" not in every:
        text = "is named as a Keras model and holds no config.json: it is cut short or damaged"
        findings.append(case.found("scan.keras.broken", Severity.HIGH, text))
    if any(_PACKAGE.fullmatch(name) for name in every):
        text = "is a torch.package: it brings Python code that its loader runs"
        findings.append(case.found("scan.torchscript.package", Severity.MEDIUM, text))
    if extension in ("pt", "pth", "ckpt") and not _is_torch(every):
        text = f"is named as a torch file and holds none: {listed(sorted(every))}"
        findings.append(case.found("scan.format.mismatch", Severity.MEDIUM, text))
    if extension == "npz":
        odd = [name for name in sorted(every) if not name.endswith(".npy")]
        if odd:
            text = f"holds members that are no arrays: {listed(odd)}"
            findings.append(case.found("scan.archive.member", Severity.NOTE, text))
    if "MAR-INF/MANIFEST.json" in every:
        text = "is an archive of TorchServe: its handler is a program"
        findings.append(case.found("scan.config.code", Severity.NOTE, text))
    return findings


def _is_torch(names: frozenset[str]) -> bool:
    ends = ("data.pkl", "version", "archive_format", "archive_version", "constants.pkl")
    return any(name.rpartition("/")[2] in ends for name in names)
