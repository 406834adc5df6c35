"""OpenVINO's intermediate representation: constants that lie where their shape says.

The graph is XML, its constants are places in a file beside it: readers before 2024 added offset and
size without a look at either. A constant's size follows from its type and shape.
"""

from __future__ import annotations

import re
from math import prod

from modelkeep.core.verdict import Finding, Severity
from modelkeep.scan.cases import Case
from modelkeep.scan.evidence import printable

_NET = re.compile(rb"\s*(?:<\?xml[^>]*>\s*)?(?:<!--.*?-->\s*)*<net\b", re.DOTALL)
_CONSTANT = re.compile(rb"<data\b([^<>]{0,4096})>")
_ATTRIBUTE = re.compile(rb"([a-z_]{1,32})\s*=\s*\"([^\"]{0,512})\"")
_NUMBERS = re.compile(rb"\s*(?:[0-9]{1,19}\s*(?:,\s*[0-9]{1,19}\s*)*)?")
_WHOLE = re.compile(rb"[0-9]{1,20}")
_BITS = {
    b"f64": 64, b"f32": 32, b"f16": 16, b"bf16": 16, b"i64": 64, b"u64": 64, b"i32": 32,
    b"u32": 32, b"i16": 16, b"u16": 16, b"i8": 8, b"u8": 8, b"boolean": 8, b"f8e4m3": 8,
    b"f8e5m2": 8, b"i4": 4, b"u4": 4, b"nf4": 4, b"u1": 1,
}  # fmt: skip
# No file of constants is larger.
_PLACE_MAX = 1 << 44
_LOOKED_AT = 256


def is_openvino(case: Case) -> bool:
    """Whether the bytes begin as such a graph does."""
    return _NET.match(case.view[: _LOOKED_AT * 16]) is not None


def openvino_findings(case: Case) -> tuple[Finding, ...]:
    """Judge where the constants of a graph lie."""
    for match in _CONSTANT.finditer(case.view):
        attributes = dict(_ATTRIBUTE.findall(match[1]))
        if b"offset" not in attributes or b"size" not in attributes:
            continue
        why = _wrong(attributes)
        if why:
            text = f"a constant at {match.start()} {why}"
            return (case.found("scan.openvino.constant", Severity.HIGH, text),)
    return ()


def _wrong(attributes: dict[bytes, bytes]) -> str:
    offset, size = attributes[b"offset"], attributes[b"size"]
    if not _WHOLE.fullmatch(offset) or not _WHOLE.fullmatch(size):
        return f"has no whole number as its place: {printable(str(offset + b' ' + size)[2:-1], 60)}"
    if int(offset) + int(size) > _PLACE_MAX:
        return f"lies at {int(offset)} and takes {int(size)} bytes"
    bits = _BITS.get(attributes.get(b"element_type", b""), 0)
    shape = attributes.get(b"shape")
    if not bits or shape is None or not _NUMBERS.fullmatch(shape):
        return ""
    sizes = [int(each) for each in shape.split(b",") if each.strip()]
    wanted = -(-prod(sizes) * bits // 8)
    return f"takes {int(size)} bytes, its shape {wanted}" if int(size) < wanted else ""
