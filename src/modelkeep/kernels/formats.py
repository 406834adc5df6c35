"""What kind of file some bytes are, by their content and never by a name."""

from __future__ import annotations

import re

from modelkeep.core.errors import IntegrityError
from modelkeep.kernels import protobuf
from modelkeep.kernels.protobuf import LENGTH, VARINT, Field

UNKNOWN = "unknown"
EMPTY = "empty"

# At offset 0, longest first where one begins another.
_MAGICS: tuple[tuple[bytes, str], ...] = (
    (b"\x93NUMPY", "npy"),
    (b"\x89HDF\r\n\x1a\n", "hdf5"),
    (b"GGUF", "gguf"),
    (b"PK\x03\x04", "zip"),
    (b"PK\x05\x06", "zip"),
    (b"7z\xbc\xaf\x27\x1c", "7z"),
    (b"\x1f\x8b\x08", "gzip"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ\x00", "xz"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"\x04\x22\x4d\x18", "lz4"),
    (b"\x7fELF", "elf"),
    (b"MZ\x90\x00", "pe"),
    (b"\xcf\xfa\xed\xfe", "macho"),
    (b"#!", "script"),
)
_TAR_MAGIC_OFFSET = 257
# Protocols 2-5 begin with PROTO; what may follow it is an opcode that needs nothing on the stack.
# Older ones have no magic: the scanner probes for them (`modelkeep.scan.pickles`).
_PICKLE = re.compile(
    rb"\x80(?:[\x02-\x05][\x95c(\])}NKMJIGFTUXBCVSLP\x82-\x84\x88-\x8f\x96\x97]|[\x00\x01][c(\])}])"
)
# After the header's length, which no writer lets grow past 2**40: text has letters there.
_SAFETENSORS_BEGINNINGS = (b'{"', b"{}", b"{ ", b"{\n", b"{\t", b"{\r")
# RFC 1950: deflate with a 32 kB window; the two bytes are divisible by 31.
_ZLIB = re.compile(rb"\x78[\x01\x5e\x9c\xda]")
# Of ModelProto and GraphProto (`onnx.proto`).
_ONNX_IR_VERSION = 1
_ONNX_GRAPH = 7
_ONNX_OUTPUT = 12
# Real models have a few thousand top-level fields; to hide a graph behind more takes intent.
_ONNX_FIELDS_MAX = 1_000_000
# Of a zip's first member: long enough for every name that torch writes.
_ZIP_NAME_BYTES_MAX = 512
# What torch writes first: TorchScript begins with its storages.
_TORCH_FIRST = re.compile(
    r"(?s:.*)/(?:data\.pkl|version|byteorder|\.format_version)|[^/]+/data/[0-9]+"
)


def identify(view: memoryview) -> str:
    """Name the format by content.

    Returns:
        One of onnx, safetensors, pickle (protocol 2 and newer), torch-zip, zip, npy, hdf5, gguf,
        gzip, zlib, bzip2, xz, zstd, lz4, 7z, tar, elf, pe, macho, script, empty or unknown. It says
        what the beginning claims; only a parse tells whether the rest keeps it.
    """
    if not len(view):
        return EMPTY
    head = bytes(view[:512])
    kind = next((kind for magic, kind in _MAGICS if head.startswith(magic)), "")
    if kind == "zip" and _is_torch(view):
        kind = "torch-zip"
    return kind or _without_magic(view, head)


def _without_magic(view: memoryview, head: bytes) -> str:
    """What bytes without a magic at offset 0 are: surest signs first."""
    if head[_TAR_MAGIC_OFFSET : _TAR_MAGIC_OFFSET + 5] == b"ustar":
        return "tar"
    if _PICKLE.match(head):
        return "pickle"
    if head[8:10] in _SAFETENSORS_BEGINNINGS and head[5:8] == bytes(3):
        return "safetensors"
    if _ZLIB.match(head) and int.from_bytes(head[:2], "big") % 31 == 0:
        return "zlib"
    return "onnx" if _is_onnx(view) else UNKNOWN


def _is_torch(view: memoryview) -> bool:
    length = int.from_bytes(view[26:28], "little")
    name = bytes(view[30 : 30 + min(length, _ZIP_NAME_BYTES_MAX)])
    return _TORCH_FIRST.fullmatch(name.decode("utf-8", "replace")) is not None


def _is_onnx(view: memoryview) -> bool:
    """Whether the bytes hold a graph where a ModelProto has it, whole or cut.

    As loaders do, it passes over fields of unknown number, of another wire type, and groups: what
    they could load must not count as unknown here. Without a graph nothing loads a file.
    """
    has_version = False
    walk = protobuf.fields(view, groups_pass=True)
    try:
        for _, field in zip(range(_ONNX_FIELDS_MAX), walk, strict=False):
            if field.number == _ONNX_IR_VERSION and field.wire == VARINT:
                has_version = True
            is_graph = field.number == _ONNX_GRAPH and field.wire == LENGTH
            if is_graph and (has_version or _is_graph(view, field)):
                return True
        return next(walk, None) is not None
    except IntegrityError as error:
        cut = error.code == "protobuf.truncated" and error.context.get("number") == _ONNX_GRAPH
        return has_version and cut


def _is_graph(view: memoryview, field: Field) -> bool:
    """Whether a field's bytes walk as a message that has a graph's outputs."""
    stop = field.offset + field.length
    try:
        inner = protobuf.fields(view, field.offset, stop, groups_pass=True)
        found = {(each.number, each.wire) for each in inner}  # to the end: all of it must walk
    except IntegrityError:
        return False
    return (_ONNX_OUTPUT, LENGTH) in found
