"""What kind of file some bytes are, by their content and never by a name."""

from __future__ import annotations

import lzma
import re
import zlib
from collections.abc import Callable, Mapping

from modelkeep.core.errors import IntegrityError
from modelkeep.kernels import protobuf
from modelkeep.kernels.protobuf import LENGTH, VARINT, Field
from modelkeep.kernels.protokinds import is_fingerprint, kind_of

UNKNOWN = "unknown"
EMPTY = "empty"

# At offset 0, longest first where one begins another.
_MAGICS: tuple[tuple[bytes, str], ...] = (
    (b"\x93NUMPY", "npy"),
    (b"\x89HDF\r\n\x1a\n", "hdf5"),
    (b"GGUF", "gguf"),
    (b"PK\x03\x04", "zip"),
    (b"PK\x05\x06", "zip"),
    (b"PK\x07\x08", "zip"),
    (b"7z\xbc\xaf\x27\x1c", "7z"),
    (b"Rar!\x1a\x07", "rar"),
    (b"MSCF\x00\x00\x00\x00", "cab"),
    (b"\x1f\x8b\x08", "gzip"),
    (b"\xfd7zXZ\x00", "xz"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"\x04\x22\x4d\x18", "lz4"),
    (b"\x02\x21\x4c\x18", "lz4"),
    (b"\x7fELF", "elf"),
    (b"MZ\x90\x00", "pe"),
    (b"MZqFpD", "pe"),
    (b"\xcf\xfa\xed\xfe", "macho"),
    (b"\xce\xfa\xed\xfe", "macho"),
    (b"\xfe\xed\xfa\xce", "macho"),
    (b"\xfe\xed\xfa\xcf", "macho"),
    (b"\xca\xfe\xba\xbe", "class"),
    (b"\x00asm\x01\x00\x00\x00", "wasm"),
    (b"dex\n03", "dex"),
    (b"!<arch>\n", "library"),
    (b"#!", "script"),
    (b"L\x00\x00\x00\x01\x14\x02\x00", "shortcut"),
    (b"\x1bLua", "compiled"),
    (b"\xac\xed\x00\x05", "java-object"),
    (b"\x00\x01\x00\x00\x00\xff\xff\xff\xff\x01\x00\x00\x00", "dotnet-object"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "ole"),
    (b"PAR1", "arrow"),
    (b"ARROW1", "arrow"),
    (b"FEA1", "arrow"),
    (b"MATLAB 5.0 MAT-file", "matlab"),
    (b"CBM1", "catboost"),
    (b"RDX2\n", "rdata"),
    (b"RDX3\n", "rdata"),
    (b"X\n\x00\x00\x00\x02", "rdata"),
    (b"X\n\x00\x00\x00\x03", "rdata"),
    (b"lmgg", "ggml"),
    (b"tjgg", "ggml"),
)
# At offset 4: what a flatbuffer says it is.
_FLATBUFFERS: Mapping[bytes, str] = {b"TFL3": "tflite", b"ET12": "executorch"}
_HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
# HDF5 looks for its superblock at 0, 512, 1024, 2048 and so on.
_HDF5_PLACES = tuple(512 << power for power in range(12))
# zstd and lz4 share the magic of frames to be skipped.
_SKIPPABLE = re.compile(rb"[\x50-\x5f]\x2a\x4d\x18")
_SKIPPED_FRAMES_MAX = 64
# CPython's files of compiled code: a version below 4,000 and a carriage return, a line feed.
_COMPILED = re.compile(rb"[\x00-\xff][\x0b-\x0f]\r\n[\x00-\x03]\x00\x00\x00")
# The form before xz: properties, a dictionary of 2**n or 2**n + 2**(n-1) bytes, the size or -1.
_LZMA_PROPERTIES_MAX = 225
_LZMA_BYTES_MAX = 1 << 38
_BZIP2 = re.compile(rb"BZh[1-9](?:1AY&SY|\x17rE8P\x90)")
# What is decompressed to tell whether a weak sign means what it seems to.
_TRIED_BYTES = 64
_LZMA_DICTIONARY_MIN = (1 << 12).to_bytes(4, "little")
_TAR_MAGIC_OFFSET = 257
# Protocols 2-5 begin with PROTO; what may follow it is an opcode that needs nothing on the stack.
# Older ones have no magic: the scanner probes for them (`modelkeep.scan.pickles`).
_PICKLE = re.compile(
    rb"\x80(?:[\x02-\x05][\x95c(\])}NKMJIGFTUXBCVSLP\x82-\x84\x88-\x8f\x96\x97]|[\x00\x01][c(\])}])"
)
# After the header's length, which no writer lets grow past 2**40: text has letters there.
_SAFETENSORS_BEGINNINGS = (b'{"', b"{}", b"{ ", b"{\n", b"{\t", b"{\r")
# UBJSON: a map whose first key has a length of few bytes and begins with a letter.
_UBJSON = re.compile(
    rb"\{(?:L\x00{7}[\x01-\xff]|l\x00{3}[\x01-\xff]|I\x00[\x01-\xff]|[iU][\x01-\x08\x0e-\x1f])"
    rb"[A-Za-z_]"
)
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
        The name of a kind (keys of `modelkeep.scan.rules`), empty or unknown. It says what the
        beginning claims; only a parse tells whether the rest keeps it.
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
    if head[_TAR_MAGIC_OFFSET : _TAR_MAGIC_OFFSET + 5] == b"ustar" or _has_tar_sum(head):
        return "tar"
    if _SKIPPABLE.match(head):
        return _past_skipped(view)
    kind = _FLATBUFFERS.get(head[4:8]) or next(
        (kind for is_kind, kind in _SIGNS if is_kind(head)), ""
    )
    if not kind and _is_windows_program(view, head):
        kind = "pe"
    if not kind and any(bytes(view[at : at + 8]) == _HDF5_MAGIC for at in _HDF5_PLACES):
        kind = "hdf5"
    return kind or _message_kind(view) or UNKNOWN


def _message_kind(view: memoryview) -> str:
    """Which protobuf schema: they have no magic, so the most particular is asked first."""
    if is_fingerprint(view):
        return "fingerprint"
    return "onnx" if _is_onnx(view) else kind_of(view)


def _is_pickle(head: bytes) -> bool:
    return _PICKLE.match(head) is not None


def _is_safetensors(head: bytes) -> bool:
    return head[8:10] in _SAFETENSORS_BEGINNINGS and head[5:8] == bytes(3)


def _is_zlib(head: bytes) -> bool:
    if _ZLIB.match(head) is None or int.from_bytes(head[:2], "big") % 31:
        return False
    try:  # two bytes are little: text begins with `x^` too
        zlib.decompressobj().decompress(head, _TRIED_BYTES)
    except zlib.error:
        return head[1:2] != b"^"
    return True


def _is_bzip2(head: bytes) -> bool:
    return _BZIP2.match(head) is not None


def _is_ubjson(head: bytes) -> bool:
    return _UBJSON.match(head) is not None


def _is_compiled(head: bytes) -> bool:
    return _COMPILED.match(head) is not None


def _has_tar_sum(head: bytes) -> bool:
    """Whether the bytes are a tar header of the time before it had a magic."""
    stated = head[148:156].strip(b" \0")
    if len(head) < 512 or not stated or not stated.isdigit() or not head[0]:
        return False
    try:
        return sum(head[:148]) + 8 * 32 + sum(head[156:]) == int(stated, 8)
    except ValueError:
        return False


def _past_skipped(view: memoryview) -> str:
    """Which of zstd and lz4 follows the frames that both skip."""
    at = 0
    for _ in range(_SKIPPED_FRAMES_MAX):
        if not _SKIPPABLE.match(bytes(view[at : at + 4])):
            break
        at += 8 + int.from_bytes(view[at + 4 : at + 8], "little")
    return "lz4" if bytes(view[at : at + 4]) == b"\x04\x22\x4d\x18" else "zstd"


def _is_windows_program(view: memoryview, head: bytes) -> bool:
    if not head.startswith(b"MZ") or len(head) < 64:
        return False
    at = int.from_bytes(head[60:64], "little")
    return bytes(view[at : at + 4]) in (b"PE\0\0", b"NE\0\0", b"LE\0\0")


def _is_lzma(head: bytes) -> bool:
    if len(head) < 14 or head[0] >= _LZMA_PROPERTIES_MAX or head[13]:
        return False  # the first byte of its range coder is zero
    dictionary, size = int.from_bytes(head[1:5], "little"), int.from_bytes(head[5:13], "little")
    top = dictionary.bit_length() - 1
    whole = dictionary >= 1 << 12 and dictionary in (1 << top, (1 << top) + (1 << (top - 1)))
    if not whole or not (size == (1 << 64) - 1 or 0 < size < _LZMA_BYTES_MAX):
        return False
    # Its header has no magic, and numbers look like one. The first bytes need no large dictionary.
    tried = head[:1] + _LZMA_DICTIONARY_MIN + head[5:]
    try:
        lzma.LZMADecompressor(lzma.FORMAT_ALONE).decompress(tried, _TRIED_BYTES)
    except lzma.LZMAError:
        return False
    return True


# What the first bytes say, surest first.
_SIGNS: tuple[tuple[Callable[[bytes], bool], str], ...] = (
    (_is_pickle, "pickle"),
    (_is_safetensors, "safetensors"),
    (_is_zlib, "zlib"),
    (_is_bzip2, "bzip2"),
    (_is_compiled, "compiled"),
    (_is_ubjson, "ubjson"),
    (_is_lzma, "lzma"),
)


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
