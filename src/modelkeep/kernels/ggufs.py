"""Where the tensors of a GGUF file lie.

The file is `GGUF || version u32 || tensors u64 || pairs u64 || pairs || tensor infos || padding
|| data`, little-endian unless the caller says otherwise (ggml, docs/gguf.md, versions 2 and 3; the
version shows the order). Pairs are walked for one thing, `general.alignment`; their values,
vocabularies of many thousand texts among them, are stepped over. What is refused: what ggml's own
reader refuses (gguf.cpp: a name or a key that stands twice, an alignment that is no power of two,
rows that are no whole number of blocks, an offset out of line) and tensors that overlap or leave
the file.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from modelkeep.core.errors import IntegrityError

# Keys have under a hundred bytes, names of tensors at most 64 (GGML_MAX_NAME).
NAME_BYTES_MAX = 1024
# The largest models have some two thousand tensors and a hundred pairs.
TENSORS_MAX = 100_000
PAIRS_MAX = 10_000
# Texts and nested arrays of all pairs, at half a microsecond each: vocabularies have 300,000 texts,
# their merges as many.
STEPS_MAX = 4_000_000
# Arrays in arrays: the format allows them, no writer does it.
ARRAY_DEPTH_MAX = 4
# GGML_MAX_DIMS.
RANK_MAX = 4
ALIGNMENT_USUAL = 32
# ggml takes any power of two; pages are what anybody aligns to.
ALIGNMENT_MAX = 1 << 20

ByteOrder = Literal["little", "big"]

_HEADERS = {"little": struct.Struct("<4sL2Q"), "big": struct.Struct(">4sL2Q")}
_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_ALIGNMENT_KEY = b"general.alignment"
_UINT32, _TEXT, _ARRAY = 4, 8, 9
# enum gguf_type: bytes of a value.
_VALUE_BYTES: Mapping[int, int] = {
    0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8,
}  # fmt: skip
# enum ggml_type: name, items of a block, bytes of a block (ggml-common.h; GGML_QUANT_SIZES of the
# package gguf 0.19.0, except Q8_1, which that has as 40: a block is two halves and 32 items).
# The first are bare numbers and have an Open Inference Protocol name.
PLAIN: Mapping[int, tuple[str, int]] = {
    0: ("FP32", 4),
    1: ("FP16", 2),
    24: ("INT8", 1),
    25: ("INT16", 2),
    26: ("INT32", 4),
    27: ("INT64", 8),
    28: ("FP64", 8),
    30: ("BF16", 2),
}
BLOCKS: Mapping[int, tuple[str, int, int]] = {
    2: ("Q4_0", 32, 18),
    3: ("Q4_1", 32, 20),
    6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24),
    8: ("Q8_0", 32, 34),
    9: ("Q8_1", 32, 36),
    10: ("Q2_K", 256, 84),
    11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144),
    13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210),
    15: ("Q8_K", 256, 292),
    16: ("IQ2_XXS", 256, 66),
    17: ("IQ2_XS", 256, 74),
    18: ("IQ3_XXS", 256, 98),
    19: ("IQ1_S", 256, 50),
    20: ("IQ4_NL", 32, 18),
    21: ("IQ3_S", 256, 110),
    22: ("IQ2_S", 256, 82),
    23: ("IQ4_XS", 256, 136),
    29: ("IQ1_M", 256, 56),
    34: ("TQ1_0", 256, 54),
    35: ("TQ2_0", 256, 66),
    39: ("MXFP4", 32, 17),
    40: ("NVFP4", 64, 36),
    41: ("Q1_0", 128, 18),
}


@dataclass(frozen=True, slots=True)
class GgufTensor:
    """One tensor; `offset` counts from the start of the file.

    Attributes:
        dtype: RAW where the type packs items into blocks.
        shape: outermost first (the file has them the other way round); of a RAW tensor the last
            one counts bytes instead of items.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    length: int


def byte_order(view: memoryview) -> ByteOrder:
    """In which order a file's numbers stand, by its version."""
    is_big = int.from_bytes(view[4:8], "big") in _VERSIONS
    return "big" if is_big else "little"


def gguf_tensors(view: memoryview, order: ByteOrder = "little") -> tuple[GgufTensor, ...]:
    """Read the header and hold every tensor against the file; in the order of their bytes.

    Args:
        view: the whole file.
        order: of the file's numbers.

    Raises:
        IntegrityError: `gguf.header`, `.version`, `.truncated`, `.text`, `.type`, `.alignment`,
            `.duplicate`, `.shape`, `.offset`, `.bounds` or `.overlap`.
    """
    tensors = sorted(_Reader(view, order).tensors(), key=lambda each: (each.offset, each.length))
    free = 0
    for tensor in tensors:
        if tensor.offset < free:
            message = f"tensor {tensor.name!r:.80} overlaps the one before it"
            raise IntegrityError("gguf.overlap", message, tensor=tensor.name)
        free = tensor.offset + tensor.length
        if free > len(view):
            message = f"tensor {tensor.name!r:.80} ends past the end of the file"
            raise IntegrityError("gguf.bounds", message, tensor=tensor.name)
    return tuple(tensors)


class _Reader:
    """One pass over the header; counts what it has met so that a hostile file stays bounded."""

    __slots__ = ("_at", "_order", "_steps", "_view")

    def __init__(self, view: memoryview, order: ByteOrder) -> None:
        self._view = view
        self._order: ByteOrder = order
        self._at = 0
        self._steps = 0

    def tensors(self) -> list[GgufTensor]:
        header = _HEADERS[self._order]
        if len(self._view) < header.size:
            raise IntegrityError("gguf.header", "the file ends inside its header")
        magic, version, count, pairs = header.unpack_from(self._view)
        if magic != _MAGIC:
            raise IntegrityError("gguf.header", "the file does not begin with GGUF")
        if version not in _VERSIONS:
            raise IntegrityError("gguf.version", f"version {version} is not known")
        if count > TENSORS_MAX or pairs > PAIRS_MAX:
            message = f"the header claims {count} tensors and {pairs} pairs"
            raise IntegrityError("gguf.header", message, limit=TENSORS_MAX)
        self._at = header.size
        alignment = self._pairs(pairs)
        infos = [self._info() for _ in range(count)]
        if len({name for name, *_ in infos}) != count:
            raise IntegrityError("gguf.duplicate", "two tensors have the same name")
        data_at = self._at + -self._at % alignment
        return [_tensor(*info, data_at=data_at, alignment=alignment) for info in infos]

    # ---- pairs ----

    def _pairs(self, count: int) -> int:
        """Step over all pairs; return the alignment that they give."""
        alignment = ALIGNMENT_USUAL
        keys: set[bytes] = set()
        for _ in range(count):
            key = self._name()
            if key in keys:
                raise IntegrityError("gguf.duplicate", f"the key {key!r:.80} stands twice")
            keys.add(key)
            kind = self._number(4)
            if key == _ALIGNMENT_KEY:
                alignment = self._number(4) if kind == _UINT32 else 0
                if not 0 < alignment <= ALIGNMENT_MAX or alignment & (alignment - 1):
                    raise IntegrityError("gguf.alignment", "the alignment is no power of two")
            else:
                self._pass(kind, depth=0)
        return alignment

    def _pass(self, kind: int, *, depth: int) -> None:
        """Step over one value."""
        size = _VALUE_BYTES.get(kind)
        if size is not None:
            self._skip(size)
        elif kind == _TEXT:
            self._skip(self._number(8))
        elif kind == _ARRAY and depth < ARRAY_DEPTH_MAX:
            self._pass_array(depth=depth)
        else:
            raise IntegrityError("gguf.type", f"no value has type {kind} here", offset=self._at)

    def _pass_array(self, *, depth: int) -> None:
        inner, count = self._number(4), self._number(8)
        size = _VALUE_BYTES.get(inner)
        if size is not None:
            self._skip(size * count)
            return
        self._steps += count
        if self._steps > STEPS_MAX:
            message = "the pairs hold too many texts"
            raise IntegrityError("gguf.header", message, limit=STEPS_MAX)
        for _ in range(count):
            self._pass(inner, depth=depth + 1)

    # ---- tensor infos ----

    def _info(self) -> tuple[str, tuple[int, ...], int, int]:
        """Name, dimensions as they stand, type and offset of one tensor."""
        raw = self._name()
        try:
            name = raw.decode()
        except UnicodeDecodeError:
            raise IntegrityError("gguf.text", "the name of a tensor is not UTF-8") from None
        rank = self._number(4)
        if rank > RANK_MAX:
            raise IntegrityError("gguf.shape", f"tensor {name!r:.80} has {rank} dimensions")
        sizes = tuple(self._number(8) for _ in range(rank))
        if any(size >> 63 for size in sizes):  # ggml has them as int64
            raise IntegrityError("gguf.shape", f"tensor {name!r:.80} has a negative dimension")
        return name, sizes, self._number(4), self._number(8)

    # ---- bytes ----

    def _number(self, size: int) -> int:
        at = self._at
        self._skip(size)
        return int.from_bytes(self._view[at : self._at], self._order)

    def _name(self) -> bytes:
        length = self._number(8)
        if length > NAME_BYTES_MAX:
            message = f"a name claims {length} bytes"
            raise IntegrityError("gguf.text", message, limit_bytes=NAME_BYTES_MAX)
        self._skip(length)
        return bytes(self._view[self._at - length : self._at])

    def _skip(self, length: int) -> None:
        if length > len(self._view) - self._at:
            raise IntegrityError("gguf.truncated", "the file ends inside its header")
        self._at += length


def _tensor(
    name: str, sizes: tuple[int, ...], kind: int, offset: int, *, data_at: int, alignment: int
) -> GgufTensor:
    shape = sizes[::-1]
    if kind in PLAIN:
        dtype, block_bytes = PLAIN[kind]
        length = block_bytes
    elif kind in BLOCKS:
        dtype = "RAW"
        _, items, length = BLOCKS[kind]
        if not shape or shape[-1] % items:
            message = f"the rows of tensor {name!r:.80} are no whole number of blocks"
            raise IntegrityError("gguf.shape", message, tensor=name)
        shape = (*shape[:-1], shape[-1] // items * length)
        length = 1
    else:
        message = f"tensor {name!r:.80} has the unknown type {kind}"
        raise IntegrityError("gguf.type", message, tensor=name)
    for size in shape:
        length *= size  # at most 4 factors of 63 bits
    if offset % alignment:
        message = f"tensor {name!r:.80} is not aligned"
        raise IntegrityError("gguf.offset", message, tensor=name)
    return GgufTensor(name, dtype, shape, data_at + offset, length)
