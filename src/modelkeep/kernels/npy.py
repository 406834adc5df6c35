"""Where the array of a NumPy file (npy) lies.

The file is `magic || version (2) || length of the header (u16, from version 2 u32) || header ||
data` (numpy.lib.format, "Format Version 1.0" to "3.0"). The header is a Python literal; here it is
matched against the one form that NumPy writes and never evaluated. Arrays of objects hold a pickle
and are no tensor; of arrays of records (structured types) the items are not looked into.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from modelkeep.core.errors import IntegrityError
from modelkeep.core.limits import TENSOR_RANK_MAX

# NumPy itself refuses over 10,000 bytes unless told otherwise (`max_header_size`).
HEADER_BYTES_MAX = 64 * 1024
_MAGIC = b"\x93NUMPY"
_VERSION_AT = 6
_LENGTH_AT = 8
# Keys in the order in which every writer sorts them; Python 2 wrote sizes as `3L`.
_BEGINNING = re.compile(r"\{\s*+'descr'\s*+:\s*+")
_HEADER = re.compile(
    r"'(?P<order>[<>|=]?)(?P<kind>[biufcSUVmMO])(?P<size>[0-9]{0,9})(?:\[[0-9A-Za-z/]{1,32}\])?'\s*+,"
    r"\s*+'fortran_order'\s*+:\s*+(?P<fortran>True|False)\s*+,"
    r"\s*+'shape'\s*+:\s*+\((?P<shape>(?:\s*+[0-9]{1,19}L?\s*+,?)*+)\)\s*+,?\s*+\}\s*+"
)
_SIZE = re.compile(r"[0-9]+")
_STRUCTURED = "["
_OBJECT = "O"
_BYTES_PER_CHARACTER = {"U": 4}
# Kind and bytes of an item: Open Inference Protocol name. Everything else is RAW.
_TYPES: Mapping[tuple[str, int], str] = {
    ("b", 1): "BOOL",
    **{("i", size): f"INT{8 * size}" for size in (1, 2, 4, 8)},
    **{("u", size): f"UINT{8 * size}" for size in (1, 2, 4, 8)},
    **{("f", size): f"FP{8 * size}" for size in (2, 4, 8)},
}


@dataclass(frozen=True, slots=True)
class NpyArray:
    """One array; `offset` counts from the start of the view.

    Attributes:
        dtype: RAW where the items are big-endian or have no name in the protocol.
        shape: outermost first; of a RAW array `(length,)`; flat, `(items,)`, where the items stand
            in Fortran's order, which no shape read outermost first describes.
    """

    dtype: str
    shape: tuple[int, ...]
    offset: int
    length: int


def npy_array(view: memoryview) -> NpyArray | None:
    """Read the header and hold it against the length; None where the items are not numbers.

    Raises:
        IntegrityError: `npy.version`, `.header`, `.type`, `.shape` or `.length`.
    """
    text, data_at = _header(view)
    beginning = _BEGINNING.match(text)
    if beginning is None:
        raise IntegrityError("npy.header", "the header does not begin as NumPy's do")
    if text.startswith(_STRUCTURED, beginning.end()):
        return None
    match = _HEADER.fullmatch(text, beginning.end())
    if match is None:
        raise IntegrityError("npy.header", "the header is not one that NumPy writes")
    if match["kind"] == _OBJECT:
        return None
    item_bytes = _item_bytes(match)
    shape = _shape(match["shape"])
    count = 1
    for size in shape:
        count *= size  # at most 64 factors of 63 bits
    left = len(view) - data_at
    if count * item_bytes != left:
        message = f"the file has {left} bytes of data, its shape needs {count * item_bytes}"
        raise IntegrityError("npy.length", message)
    dtype = _TYPES.get((match["kind"], item_bytes), "RAW")
    if item_bytes > 1 and match["order"] != "<":
        dtype = "RAW"
    if dtype == "RAW":
        return NpyArray(dtype, (left,), data_at, left)
    is_fortran = match["fortran"] == "True" and sum(size > 1 for size in shape) > 1
    return NpyArray(dtype, (count,) if is_fortran else shape, data_at, left)


def _header(view: memoryview) -> tuple[str, int]:
    """The header's text and where the data begins."""
    if bytes(view[:_VERSION_AT]) != _MAGIC or len(view) < _LENGTH_AT:
        raise IntegrityError("npy.header", "the file does not begin as NumPy's do")
    version = (view[_VERSION_AT], view[_VERSION_AT + 1])
    if version not in ((1, 0), (2, 0), (3, 0)):
        message = f"version {version[0]}.{version[1]} is not known"
        raise IntegrityError("npy.version", message)
    start = _LENGTH_AT + (2 if version == (1, 0) else 4)
    length = int.from_bytes(view[_LENGTH_AT:start], "little")
    if length > HEADER_BYTES_MAX or start + length > len(view):
        message = f"the header claims {length} bytes"
        raise IntegrityError("npy.header", message, limit_bytes=HEADER_BYTES_MAX)
    encoding = "utf-8" if version == (3, 0) else "latin-1"
    try:
        return str(view[start : start + length], encoding), start + length
    except UnicodeDecodeError:
        raise IntegrityError("npy.header", "the header is not UTF-8") from None


def _item_bytes(match: re.Match[str]) -> int:
    if not match["size"]:
        raise IntegrityError("npy.type", "the type of the items has no size")
    return int(match["size"]) * _BYTES_PER_CHARACTER.get(match["kind"], 1)


def _shape(text: str) -> tuple[int, ...]:
    sizes = _SIZE.findall(text)
    if len(sizes) > TENSOR_RANK_MAX or any(int(size) >> 63 for size in sizes):
        raise IntegrityError("npy.shape", "the shape has too many or too large dimensions")
    return tuple(int(size) for size in sizes)
