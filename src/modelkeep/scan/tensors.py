"""Findings about files of bare tensors: safetensors and NumPy's npy."""

from __future__ import annotations

import re
from collections.abc import Callable

from modelkeep.core.errors import IntegrityError
from modelkeep.core.limits import TENSOR_RANK_MAX
from modelkeep.core.verdict import Finding, Severity
from modelkeep.kernels.tensors import safetensors_layout
from modelkeep.scan.evidence import found, printable
from modelkeep.scan.settings import ScanSettings

_NPY_PREFIX_BYTES = 8
# numpy.lib.format, "Format Version": a Python literal of exactly these three keys, in which
# Python 2 wrote sizes as `3L`.
_NPY_HEADER = re.compile(
    r"\{\s*'descr'\s*:\s*(?P<descr>.+?)\s*,\s*'fortran_order'\s*:\s*(?:True|False)\s*,"
    r"\s*'shape'\s*:\s*\((?P<shape>[0-9, L]*)\)\s*,?\s*\}\s*",
    re.DOTALL,
)
_SIMPLE_TYPE = re.compile(
    r"'[<>|=]?(?P<kind>[biufcSUVmM])(?P<size>[0-9]{1,9})(?:\[[0-9A-Za-z/]+\])?'"
)
_STRUCTURED_TYPE = re.compile(r"\[.*\]", re.DOTALL)
_OBJECT_IN_TYPE = re.compile(r"'[<>|=]?O[0-9]*'")
_BYTES_PER_CHARACTER = {"U": 4}


def tensor_findings(subject: str, view: memoryview) -> tuple[Finding, ...]:
    """Judge a safetensors file: the header, and that its tensors own every byte exactly once."""
    try:
        safetensors_layout(view)
    except IntegrityError as error:
        rule = "scan.tensors." + error.code.rpartition(".")[2]
        text = f"does not parse as safetensors: {error.message}"
        return (found(rule, Severity.HIGH, subject, text),)
    return ()


def array_findings(
    subject: str,
    view: memoryview,
    settings: ScanSettings,
    pickles: Callable[[memoryview], tuple[Finding, ...]],
) -> tuple[Finding, ...]:
    """Judge an npy file: its header, its length, and the pickle in it if it holds objects."""
    try:
        header, data_at = _npy_header(view, settings)
        needed = _npy_bytes(header)
    except IntegrityError as error:
        text = f"does not parse as a NumPy array: {error.message}"
        return (found("scan.array.broken", Severity.HIGH, subject, text),)
    left = len(view) - data_at
    if needed is None:
        return pickles(view[data_at:])
    if needed < 0:
        text = "has a structured type, which this version does not hold against its length"
        return (found("scan.array.structured", Severity.NOTE, subject, text),)
    if needed != left:
        text = f"has {left} bytes of data, its shape needs {needed}"
        return (found("scan.array.broken", Severity.HIGH, subject, text),)
    return ()


def _npy_header(view: memoryview, settings: ScanSettings) -> tuple[re.Match[str], int]:
    version = view[6] if len(view) > _NPY_PREFIX_BYTES else 0
    if version not in (1, 2, 3):
        raise IntegrityError("npy.version", f"its version {version} is not known")
    size = 2 if version == 1 else 4
    start = _NPY_PREFIX_BYTES + size
    length = int.from_bytes(view[_NPY_PREFIX_BYTES:start], "little")
    if length > settings.array_header_bytes_max or start + length > len(view):
        raise IntegrityError("npy.header", f"its header claims {length} bytes")
    text = str(view[start : start + length], "utf-8" if version == 3 else "latin-1", "replace")
    match = _NPY_HEADER.fullmatch(text)
    if match is None:
        message = f"its header is not one: {printable(text.strip(), 80)}"
        raise IntegrityError("npy.header", message)
    return match, start + length


def _npy_bytes(header: re.Match[str]) -> int | None:
    """Bytes that the data must have; None for objects, -1 for a structured type."""
    descr = header["descr"]
    if _OBJECT_IN_TYPE.search(descr) is not None:
        return None
    if _STRUCTURED_TYPE.fullmatch(descr) is not None:
        return -1
    simple = _SIMPLE_TYPE.fullmatch(descr)
    if simple is None:
        raise IntegrityError("npy.type", f"its type is not known: {printable(descr, 60)}")
    sizes = [size.strip(" L") for size in header["shape"].split(",") if size.strip()]
    if len(sizes) > TENSOR_RANK_MAX or not all(
        size.isdecimal() and len(size) <= 19 for size in sizes
    ):
        raise IntegrityError("npy.shape", "its shape is not one")
    total = int(simple["size"]) * _BYTES_PER_CHARACTER.get(simple["kind"], 1)
    for size in sizes:
        total *= int(size)
    return total
