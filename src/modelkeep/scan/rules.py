"""What a file is, which parsers judge it, and what its name claims against its content.

Rules.
1. The content decides which parser judges, never the name.
2. A file that claims a known format by its first bytes and does not parse is denied; if its bytes
   match nothing known, its extension is taken as the claim.
3. A known format that this version has no parser for is held: unseen is not clean.
4. Bytes that match nothing known, and that no loader executes, are allowed with a note.
5. Whatever a file is, it is also read as a pickle, and as a zip archive by its end: one file can be
   a valid member of two formats, and loaders choose by their own rules.
"""

from __future__ import annotations

from collections.abc import Mapping

from modelkeep.core.verdict import Finding, Severity
from modelkeep.kernels.formats import EMPTY, UNKNOWN, identify
from modelkeep.scan.allowance import allowance_of
from modelkeep.scan.archives import Judge, Place, archive_findings, compressed_findings
from modelkeep.scan.evidence import found, gravest
from modelkeep.scan.graphs import graph_findings
from modelkeep.scan.members import has_directory
from modelkeep.scan.pickles import pickle_findings, probe_findings
from modelkeep.scan.settings import ScanSettings
from modelkeep.scan.tensors import array_findings, tensor_findings

_ZIPS = ("zip", "torch-zip")
_COMPRESSED = ("gzip", "zlib", "bzip2", "xz")
_EXECUTABLE = ("elf", "pe", "macho", "script")
_UNEXAMINED = ("hdf5", "gguf", "tar", "7z", "zstd", "lz4")
_JOBLIB = ("pickle", "zstd", "lz4", *_COMPRESSED)
_TORCH = ("pickle", "tar", *_ZIPS)

# Extension: the kinds that its content may honestly be.
_CLAIMS: Mapping[str, tuple[str, ...]] = {
    "onnx": ("onnx",),
    "safetensors": ("safetensors",),
    "npy": ("npy",),
    "npz": _ZIPS,
    "zip": _ZIPS,
    "keras": _ZIPS,
    "nemo": ("tar", "gzip"),
    "h5": ("hdf5",),
    "hdf5": ("hdf5",),
    "gguf": ("gguf",),
    "gz": ("gzip",),
    "bz2": ("bzip2",),
    "xz": ("xz",),
    "tar": ("tar",),
    **dict.fromkeys(("pkl", "pickle", "joblib", "dill"), _JOBLIB),
    **dict.fromkeys(("pt", "pth", "ckpt"), _TORCH),
}


def findings_of(name: str, view: memoryview | bytes, settings: ScanSettings) -> tuple[Finding, ...]:
    """Judge one file by its bytes; the name only says what it claims to be.

    Nothing is executed, imported or written. Time grows with the bytes that have a structure, not
    with those of tensors; memory is bounded by the settings. At most `findings_max` findings, the
    gravest kept.

    Args:
        name: of the file, as it would stand in a manifest.
        view: the whole file; a mapped file is not copied.
    """
    flat = memoryview(view).cast("B")
    place = Place(name, 0, allowance_of(settings))
    findings = _findings(flat, place, settings)
    if len(findings) <= settings.findings_max:
        return findings
    return tuple(gravest(findings, settings.findings_max))


def _findings(view: memoryview, place: Place, settings: ScanSettings) -> tuple[Finding, ...]:
    kind = identify(view)
    probe = (
        () if kind == "pickle" else probe_findings(place.subject, view, settings, place.allowance)
    )
    if place.is_storage:
        return probe
    findings = list(_named_findings(kind, view, place, settings, acts=bool(probe)))
    if kind not in (UNKNOWN, EMPTY) and probe:
        text = f"is {kind} and at the same time a pickle that acts"
        findings.append(found("scan.format.polyglot", Severity.HIGH, place.subject, text))
        findings.extend(probe)
    if kind not in _ZIPS and has_directory(view):
        text = "is also a zip archive to readers that look at its end"
        findings.append(found("scan.format.polyglot", Severity.MEDIUM, place.subject, text))
        findings.extend(_packed("zip", view, place, settings))
    return tuple(findings)


def _named_findings(
    kind: str, view: memoryview, place: Place, settings: ScanSettings, *, acts: bool
) -> tuple[Finding, ...]:
    """The findings of the kind's parser, and what the extension says to that."""
    extension = place.subject.rpartition("/")[2].rpartition(".")[2].lower()
    claimed = _CLAIMS.get(extension, ())
    if kind in (UNKNOWN, EMPTY):
        if acts or "pickle" in claimed:
            return pickle_findings(place.subject, view, settings, place.allowance)
        if claimed:
            what = "is empty" if kind == EMPTY else "does not begin as one"
            text = f"is named as {claimed[0]} and {what}: it is cut short or damaged"
            return (found("scan.format.broken", Severity.HIGH, place.subject, text),)
        text = "is empty" if kind == EMPTY else "is in no known format: nothing here executes it"
        return (found("scan.format.unknown", Severity.NOTE, place.subject, text),)
    findings = _kind_findings(kind, view, place, settings)
    if claimed and kind not in claimed:
        text = f"is named as {claimed[0]}, its content is {kind}"
        findings += (found("scan.format.mismatch", Severity.MEDIUM, place.subject, text),)
    return findings


def _kind_findings(
    kind: str, view: memoryview, place: Place, settings: ScanSettings
) -> tuple[Finding, ...]:
    subject = place.subject
    if kind in _ZIPS or kind in _COMPRESSED:
        return _packed(kind, view, place, settings)
    if kind == "safetensors":
        return tensor_findings(subject, view)
    if kind == "npy":
        return array_findings(
            subject,
            view,
            settings,
            lambda part: pickle_findings(subject, part, settings, place.allowance),
        )
    if kind == "pickle":
        return pickle_findings(subject, view, settings, place.allowance)
    if kind == "onnx":
        return graph_findings(subject, view, settings)
    return _unseen_findings(kind, subject)


def _unseen_findings(kind: str, subject: str) -> tuple[Finding, ...]:
    """Kinds that are recognised and not looked into."""
    if kind in _EXECUTABLE:
        text = f"is a program ({kind}), which no model needs to bring along"
        return (found("scan.format.executable", Severity.MEDIUM, subject, text),)
    if kind not in _UNEXAMINED:
        raise AssertionError("every kind that identify names is judged or held")
    text = f"is {kind}, which this version does not look into"
    return (found("scan.format.unexamined", Severity.MEDIUM, subject, text),)


def _packed(
    kind: str, view: memoryview, place: Place, settings: ScanSettings
) -> tuple[Finding, ...]:
    """Archives and compressed files: their members are judged as files of their own."""
    if kind in _COMPRESSED:
        return compressed_findings(view, kind, place, settings, _judge(settings))
    return archive_findings(view, place, settings, _judge(settings))


def _judge(settings: ScanSettings) -> Judge:
    """The function that judges a member as a file of its own."""
    return lambda view, place: _findings(view, place, settings)
