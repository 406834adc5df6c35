"""HDF5 files: their configuration is judged, and no data of theirs lies in other files.

Keras keeps a model's tree in attributes; PyTables keeps pickles there. So every text of an
attribute is judged as a file of its own.
"""

from __future__ import annotations

from modelkeep.core.errors import IntegrityError
from modelkeep.core.verdict import Finding, Severity
from modelkeep.kernels.hdf5 import Hdf5, hdf5_layout
from modelkeep.scan.cases import Case
from modelkeep.scan.evidence import listed, printable

# Filters of the library itself, and lzf, which h5py brings; others are loaded as plug-ins.
_BUILT_IN_FILTERS = frozenset({0, 1, 2, 3, 4, 5, 6, 32000})
_JUDGED_BYTES_MIN = 8
# So many times what passes is no data set that somebody has not filled yet.
_GRAVE = 128


def hdf5_findings(case: Case) -> tuple[Finding, ...]:
    """Judge an HDF5 file."""
    try:
        layout = hdf5_layout(case.view)
    except IntegrityError as error:
        text = f"does not parse as HDF5: {error.message}"
        return (case.found("scan.hdf5.broken", Severity.HIGH, text),)
    findings: list[Finding] = []
    for path, how, file in layout.externals[: case.settings.findings_max]:
        text = f"{printable(path, 80)} is in another file by a {how}: {printable(file, 80)!r}"
        findings.append(case.found("scan.hdf5.external", Severity.HIGH, text))
    foreign = sorted(layout.filters - _BUILT_IN_FILTERS)
    if foreign:
        text = f"reading needs filters from elsewhere: {listed(map(str, foreign))}"
        findings.append(case.found("scan.hdf5.filter", Severity.MEDIUM, text))
    if layout.unwalked:
        text = f"holds what this version does not look into: {listed(sorted(set(layout.unwalked)))}"
        findings.append(case.found("scan.hdf5.unwalked", Severity.MEDIUM, text))
    findings.extend(_growth(case, layout))
    if any(name == "PSEUDOATOM" and raw[:6] == b"object" for _, name, raw in layout.attributes):
        text = "keeps pickles in an array (PyTables), which are not looked into"
        findings.append(case.found("scan.hdf5.pickles", Severity.MEDIUM, text))
    for path, name, raw in layout.attributes:
        findings.extend(_attribute(case, f"{path}@{name}", raw))
        if len(findings) > 2 * case.settings.findings_max:
            break
    if layout.stop < len(case.view) and any(bytes(case.view[layout.stop :][: 1 << 20])):
        text = f"{len(case.view) - layout.stop} bytes at {layout.stop} follow its end"
        findings.append(case.found("scan.hdf5.trailing", Severity.MEDIUM, text))
        findings.extend(case.inner("(rest)", case.view[layout.stop :]))
    return tuple(findings)


def _growth(case: Case, layout: Hdf5) -> list[Finding]:
    """Data sets that take far more than the file stores: chunks nobody wrote are filled in."""
    settings = case.settings
    if layout.whole_bytes > len(case.view):
        text = f"its data sets share bytes: they take {layout.whole_bytes} once read"
        return [case.found("scan.hdf5.bomb", Severity.HIGH, text)]
    made = layout.array_bytes - layout.whole_bytes
    stored = max(1, len(case.view) - layout.whole_bytes)
    if made <= max(settings.filled_bytes_max, settings.filled_ratio_max * stored):
        return []
    is_grave = made > _GRAVE * settings.filled_bytes_max
    text = f"its data sets take {made} bytes once read, of which {stored} are stored at most"
    return [case.found("scan.hdf5.bomb", Severity.HIGH if is_grave else Severity.MEDIUM, text)]


def _attribute(case: Case, name: str, raw: bytes) -> list[Finding]:
    text = raw.rstrip(b"\0 ")
    if len(text) < _JUDGED_BYTES_MIN:
        return []
    is_document = text.lstrip()[:1] in (b"{", b"[")
    inner = case.inner(name + (".json" if is_document and b'"' in text else ""), text)
    return [each for each in inner if each.severity is not Severity.NOTE]
