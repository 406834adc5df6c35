"""Findings about files of bare tensors: safetensors and NumPy's npy."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from math import prod

from modelkeep.core.errors import IntegrityError
from modelkeep.core.limits import TENSOR_RANK_MAX
from modelkeep.core.verdict import Finding, Severity
from modelkeep.kernels.tensors import safetensors_layout
from modelkeep.scan.evidence import found, printable
from modelkeep.scan.prompts import metadata_findings
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
    r"[<>|=]?(?P<kind>[biufcSUVmM?])(?P<size>[0-9]{0,9})(?:\[[0-9A-Za-z/]+\])?"
)
_OBJECT_TYPE = re.compile(r"[<>|=]?O[0-9]*|object_?")
# Fields in fields; NumPy writes them as lists of tuples.
_FIELDS_MAX = 10_000
_FIELD_DEPTH_MAX = 16
_BYTES_PER_CHARACTER = {"U": 4}


def tensor_findings(subject: str, view: memoryview) -> tuple[Finding, ...]:
    """Judge a safetensors file: the header, and that its tensors own every byte exactly once."""
    try:
        model = safetensors_layout(view)
    except IntegrityError as error:
        rule = "scan.tensors." + error.code.rpartition(".")[2]
        text = f"does not parse as safetensors: {error.message}"
        return (found(rule, Severity.HIGH, subject, text),)
    return metadata_findings(subject, dict(model.metadata))


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
        text = "has a structured type of a form that this version does not know"
        return (found("scan.array.structured", Severity.MEDIUM, subject, text),)
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
    """Bytes that the data must have; None for objects, -1 for a type of an unknown form."""
    try:
        descr = ast.literal_eval(header["descr"])
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        shown = printable(header["descr"], 60)
        raise IntegrityError("npy.type", f"its type is not known: {shown}") from None
    item = _item_bytes(descr, 0)
    if item is None or item < 0:
        return item
    sizes = [size.strip(" L") for size in header["shape"].split(",") if size.strip()]
    if len(sizes) > TENSOR_RANK_MAX or not all(
        size.isdecimal() and len(size) <= 19 for size in sizes
    ):
        raise IntegrityError("npy.shape", "its shape is not one")
    return item * prod(int(size) for size in sizes)


def _item_bytes(descr: object, depth: int) -> int | None:
    """Bytes of one item of a type; None where objects are in it, -1 where it is not known."""
    if isinstance(descr, str):
        return _simple_bytes(descr, depth)
    if isinstance(descr, tuple) and len(descr) == 2:  # a type with a shape of its own
        return _times(_item_bytes(descr[0], depth + 1), descr[1])
    if not isinstance(descr, list) or depth > _FIELD_DEPTH_MAX or len(descr) > _FIELDS_MAX:
        return -1
    sizes = [_field_bytes(each, depth) for each in descr]
    if None in sizes:
        return None
    known = [size for size in sizes if size is not None and size >= 0]
    return sum(known) if len(known) == len(sizes) else -1


def _simple_bytes(descr: str, depth: int) -> int | None:
    if _OBJECT_TYPE.fullmatch(descr):
        return None
    simple = _SIMPLE_TYPE.fullmatch(descr)
    if simple is not None:
        return int(simple["size"] or 1) * _BYTES_PER_CHARACTER.get(simple["kind"], 1)
    if depth:
        return -1
    raise IntegrityError("npy.type", f"its type is not known: {printable(descr, 60)}")


def _field_bytes(field: object, depth: int) -> int | None:
    """Bytes of one field: its name, its type and perhaps a shape."""
    if not isinstance(field, tuple) or len(field) not in (2, 3):
        return -1
    size = _item_bytes(field[1], depth + 1)
    return size if len(field) == 2 else _times(size, field[2])


def _times(size: int | None, shape: object) -> int | None:
    sizes = shape if isinstance(shape, tuple) else (shape,)
    if size is None or size < 0:
        return size
    if not all(isinstance(each, int) and each >= 0 for each in sizes):
        return -1
    return size * prod(sizes)
