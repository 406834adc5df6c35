"""What a file is, which parsers judge it, and what its name claims against its content.

Rules.
1. The content decides which parser judges, never the name.
2. A file that claims a known format by its first bytes and does not parse is denied; if its bytes
   match nothing known, its extension is taken as the claim.
3. A known format that this version has no parser for is held: unseen is not clean.
4. Bytes that match nothing known, and that no loader executes, are allowed with a note.
5. A data format that nothing executes is looked through for pickles that act: programs take them
   out of it.
6. Whatever a file is, it is also read as a pickle, and as a zip archive by its end: one file can be
   a valid member of two formats, and loaders choose by their own rules.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from modelkeep.core.verdict import Finding, Severity
from modelkeep.kernels.formats import EMPTY, UNKNOWN, identify
from modelkeep.scan.allowance import allowance_of
from modelkeep.scan.archives import archive_findings, compressed_findings
from modelkeep.scan.arrows import arrow_findings
from modelkeep.scan.cases import Case, Parser, Place
from modelkeep.scan.evidence import gravest
from modelkeep.scan.ggufs import gguf_findings
from modelkeep.scan.graphs import graph_findings
from modelkeep.scan.hdf5 import hdf5_findings
from modelkeep.scan.matlab import matlab_findings
from modelkeep.scan.members import has_directory
from modelkeep.scan.openvino import is_openvino, openvino_findings
from modelkeep.scan.packs import (
    MSGPACK_NAMES,
    UBJSON_NAMES,
    msgpack_findings,
    ubjson_findings,
    unnamed_findings,
)
from modelkeep.scan.pickles import pickle_findings, probe_findings
from modelkeep.scan.planted import UNKNOWN_BYTES_MAX, planted_findings
from modelkeep.scan.programs import coreml_findings, paddle_findings
from modelkeep.scan.settings import ScanSettings
from modelkeep.scan.shards import shard_findings, slices_findings
from modelkeep.scan.tars import tar_findings
from modelkeep.scan.tensorflow import graph_file_findings, metadata_findings
from modelkeep.scan.tensors import array_findings, tensor_findings
from modelkeep.scan.texts import text_findings
from modelkeep.scan.tflite import tflite_findings

_ZIPS = ("zip", "torch-zip")
_COMPRESSED = ("gzip", "zlib", "bzip2", "xz", "lzma", "zstd", "lz4")
_EXECUTABLE = (
    "elf", "pe", "macho", "script", "class", "wasm", "dex", "library", "compiled", "shortcut",
)  # fmt: skip
# Known, and not looked into: unseen is not clean.
_UNEXAMINED = (
    "7z", "rar", "cab", "rdata", "executorch", "ggml", "java-object", "dotnet-object", "ole",
)  # fmt: skip
# Known formats of numbers that nothing executes.
_DATA = ("catboost", "sentencepiece", "fingerprint")
_JOBLIB = ("pickle", *_COMPRESSED)
_TORCH = ("pickle", "tar", *_ZIPS)
_GRAPHS = ("savedmodel", "metagraph", "graphdef")
_MESSAGES = (*_GRAPHS, "onnx", "keras-metadata", "paddle", "coreml", "sentencepiece")

# Extension: the kinds that its content may honestly be.
_CLAIMS: Mapping[str, tuple[str, ...]] = {
    "onnx": ("onnx",),
    "safetensors": ("safetensors",),
    "npy": ("npy",),
    "npz": _ZIPS,
    "zip": _ZIPS,
    "keras": (*_ZIPS, "hdf5"),
    "nemo": ("tar", "gzip"),
    "h5": ("hdf5",),
    "hdf5": ("hdf5",),
    "gguf": ("gguf",),
    "gz": ("gzip",),
    "tgz": ("gzip",),
    "bz2": ("bzip2",),
    "xz": ("xz",),
    "zst": ("zstd",),
    "lz4": ("lz4",),
    "7z": ("7z",),
    "tar": ("tar",),
    "tflite": ("tflite",),
    "lite": ("tflite",),
    "mlmodel": _MESSAGES,
    "pdmodel": _MESSAGES,
    "skops": _ZIPS,
    "mar": _ZIPS,
    **dict.fromkeys(UBJSON_NAMES, ("ubjson",)),
    "pt2": _ZIPS,
    **dict.fromkeys(("pkl", "pickle", "joblib", "dill"), _JOBLIB),
    **dict.fromkeys(("pt", "pth", "ckpt"), _TORCH),
}


# Kinds that MessagePack may be taken for: it has no sign of its own.
_UNSURE = (UNKNOWN, *_MESSAGES)
# What an archive without members is: blocks of nothing.
_TAR_BYTES_MAX = 1 << 20

# Whole names that loaders look for.
_CLAIMED_NAMES: Mapping[str, tuple[str, ...]] = {
    "saved_model.pb": _GRAPHS,
    "keras_metadata.pb": ("keras-metadata",),
    "model.weights.h5": ("hdf5",),
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
    case = Case(view, place, settings, lambda part, at: _findings(part, at, settings))
    kind = identify(view)
    probe = () if kind == "pickle" else _probe(case)
    if place.is_storage:
        return probe
    findings = [*_named_findings(kind, case, acts=bool(probe)), *slices_findings(case)]
    if kind not in (UNKNOWN, EMPTY) and probe:
        text = f"is {kind} and at the same time a pickle that acts"
        findings.append(case.found("scan.format.polyglot", Severity.HIGH, text))
        findings.extend(probe)
    if kind == "tflite" and has_directory(view):  # its metadata: labels in a zip at the end
        packed = archive_findings(case)
        findings.extend(each for each in packed if each.rule != "scan.archive.hidden")
    elif kind not in (*_ZIPS, "tar") and has_directory(view):
        text = "is also a zip archive to readers that look at its end"
        findings.append(case.found("scan.format.polyglot", Severity.MEDIUM, text))
        findings.extend(archive_findings(case))
    return tuple(findings)


def _probe(case: Case) -> tuple[Finding, ...]:
    """What the bytes would do as a pickle, which their beginning does not claim to be.

    Three bytes in 256 ask for an extension code: of numbers that says nothing.
    """
    place = case.place
    probe = probe_findings(place.subject, case.view, case.settings, place.allowance)
    return tuple(each for each in probe if each.rule != "scan.pickle.extension")


def _named_findings(kind: str, case: Case, *, acts: bool) -> tuple[Finding, ...]:
    """The findings of the kind's parser, and what the extension says to that."""
    place = case.place
    extension = place.name.rpartition(".")[2].lower() if "." in place.name else ""
    claimed = _CLAIMED_NAMES.get(place.name.lower(), _CLAIMS.get(extension, ()))
    if extension in MSGPACK_NAMES and kind in _UNSURE and not acts:
        return msgpack_findings(case)
    if kind in (UNKNOWN, EMPTY):
        if acts or "pickle" in claimed:
            return pickle_findings(place.subject, case.view, case.settings, place.allowance)
        return _without_format(kind, case, extension, claimed)
    findings = _PARSERS[kind](case)
    if claimed and kind not in claimed:
        text = f"is named as {claimed[0]}, its content is {kind}"
        findings += (case.found("scan.format.mismatch", Severity.MEDIUM, text),)
    return findings


def _without_format(
    kind: str, case: Case, extension: str, claimed: tuple[str, ...]
) -> tuple[Finding, ...]:
    """The findings of bytes whose beginning says nothing."""
    texts = text_findings(case) if kind == UNKNOWN else None
    if texts is not None and is_openvino(case):
        texts += openvino_findings(case)
    if texts is not None and (not claimed or extension == "mlmodel"):
        return texts
    if extension in UBJSON_NAMES and kind == UNKNOWN:
        return ubjson_findings(case) if texts is None else texts
    if claimed and not (claimed[0] == "tar" and _is_empty_tar(case.view)):
        what = "is empty" if kind == EMPTY else "does not begin as one"
        text = f"is named as {claimed[0]} and {what}: it is cut short or damaged"
        return (case.found("scan.format.broken", Severity.HIGH, text),)
    packed = unnamed_findings(case) if kind == UNKNOWN else None
    if packed is not None:
        return packed
    text = "is empty" if kind == EMPTY else "is in no known format: nothing here executes it"
    found = (case.found("scan.format.unknown", Severity.NOTE, text),)
    return found + (planted_findings(case) if len(case.view) <= UNKNOWN_BYTES_MAX else ())


def _is_empty_tar(view: memoryview) -> bool:
    is_small = 2 * 512 <= len(view) <= _TAR_BYTES_MAX and not len(view) % 512
    return is_small and not any(bytes(view))


def _pickle(case: Case) -> tuple[Finding, ...]:
    place = case.place
    return pickle_findings(place.subject, case.view, case.settings, place.allowance)


def _array(case: Case) -> tuple[Finding, ...]:
    subject, settings, allowance = case.place.subject, case.settings, case.place.allowance
    return array_findings(
        subject,
        case.view,
        settings,
        lambda part: pickle_findings(subject, part, settings, allowance),
    )


def _compressed(kind: str, case: Case) -> tuple[Finding, ...]:
    return compressed_findings(case, kind)


def _executable(kind: str, case: Case) -> tuple[Finding, ...]:
    text = f"is a program ({kind}), which no model needs to bring along"
    return (case.found("scan.format.executable", Severity.MEDIUM, text),)


def _unexamined(kind: str, case: Case) -> tuple[Finding, ...]:
    text = f"is {kind}, which this version does not look into"
    return (case.found("scan.format.unexamined", Severity.MEDIUM, text),)


def _data(kind: str, case: Case) -> tuple[Finding, ...]:
    text = f"is {kind}: numbers and words, which nothing executes"
    return (case.found("scan.format.data", Severity.NOTE, text),)


# Kind: who judges it. A new format is one module and one line here.
_PARSERS: Mapping[str, Parser] = {
    **{kind: partial(_executable, kind) for kind in _EXECUTABLE},
    **{kind: partial(_unexamined, kind) for kind in _UNEXAMINED},
    **{kind: partial(_data, kind) for kind in _DATA},
    **{kind: partial(_compressed, kind) for kind in _COMPRESSED},
    **{kind: partial(graph_file_findings, kind) for kind in _GRAPHS},
    **dict.fromkeys(_ZIPS, shard_findings),
    "tar": tar_findings,
    "pickle": _pickle,
    "npy": _array,
    "safetensors": lambda case: tensor_findings(case.place.subject, case.view),
    "onnx": lambda case: graph_findings(case.place.subject, case.view, case.settings),
    "gguf": gguf_findings,
    "arrow": lambda case: arrow_findings(case) + planted_findings(case),
    "ubjson": ubjson_findings,
    "matlab": matlab_findings,
    "hdf5": hdf5_findings,
    "keras-metadata": metadata_findings,
    "paddle": paddle_findings,
    "coreml": coreml_findings,
    "tflite": tflite_findings,
}
