"""Where the tensors of a safetensors file lie.

The file is `u64 little-endian length of the header || header (JSON) || data`. What is refused and
why: a long header (it is decoded into memory), a key that stands twice (readers differ in which
one they take), a tensor whose bytes are not exactly dims x size, and data that no tensor or two
tensors own (bytes to hide things in): the format's own reader refuses these too.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from modelkeep.core.errors import IntegrityError
from modelkeep.core.limits import TENSOR_RANK_MAX, TENSORS_MAX

PREFIX_BYTES = 8
# The format's own limit is 100 MB, but decoding takes about ten times the header in memory; 16 MiB
# name over 100,000 tensors.
HEADER_BYTES_MAX = 16 * 1024 * 1024
# Objects, lists and keys of a header, each of which costs up to 240 bytes decoded: six per tensor.
# 16 MiB of `[],` take 385 MB.
MARKS_MAX = 1_000_000
# A dimension or an offset is a u64 in the format; a file has under 2**63 bytes.
NUMBER_MAX = (1 << 63) - 1

# Name in the format: Open Inference Protocol name and bits per element.
ELEMENTS: Mapping[str, tuple[str, int]] = {
    "BOOL": ("BOOL", 8),
    "U8": ("UINT8", 8),
    "I8": ("INT8", 8),
    "U16": ("UINT16", 16),
    "I16": ("INT16", 16),
    "U32": ("UINT32", 32),
    "I32": ("INT32", 32),
    "U64": ("UINT64", 64),
    "I64": ("INT64", 64),
    "F16": ("FP16", 16),
    "BF16": ("BF16", 16),
    "F32": ("FP32", 32),
    "F64": ("FP64", 64),
    "C64": ("RAW", 64),
    "F8_E5M2": ("RAW", 8),
    "F8_E4M3": ("RAW", 8),
    "F8_E8M0": ("RAW", 8),
    "F6_E2M3": ("RAW", 6),
    "F6_E3M2": ("RAW", 6),
    "F4": ("RAW", 4),
}


@dataclass(frozen=True, slots=True)
class SafeTensor:
    """One tensor; `offset` counts from the start of the file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class SafetensorsModel:
    """A whole file: tensors in the order of their bytes, and the metadata."""

    tensors: tuple[SafeTensor, ...]
    metadata: tuple[tuple[str, str], ...]
    data_offset: int


def safetensors_layout(view: memoryview) -> SafetensorsModel:
    """Read the header and hold every tensor against the file.

    Raises:
        IntegrityError: `safetensors.header`, `.json`, `.duplicate`, `.tensor`, `.dtype`,
            `.metadata`, `.length`, `.bounds`, `.overlap` or `.hole`.
    """
    header, data_offset = _header(view)
    metadata = _metadata(header.pop("__metadata__", {}))
    if len(header) > TENSORS_MAX:
        raise IntegrityError("safetensors.header", "the header lists too many tensors")
    tensors = [_tensor(name, entry, data_offset) for name, entry in header.items()]
    tensors.sort(key=lambda tensor: (tensor.offset, tensor.length))
    at = data_offset
    for tensor in tensors:
        if tensor.offset + tensor.length > len(view):
            message = f"tensor {tensor.name!r:.80} ends past the end of the file"
            raise IntegrityError("safetensors.bounds", message, tensor=tensor.name)
        if tensor.offset < at:
            message = f"tensor {tensor.name!r:.80} overlaps the one before it"
            raise IntegrityError("safetensors.overlap", message, tensor=tensor.name)
        if tensor.offset > at:
            message = (
                f"{tensor.offset - at} bytes before tensor {tensor.name!r:.80} are no tensor's"
            )
            raise IntegrityError("safetensors.hole", message, tensor=tensor.name)
        at = tensor.offset + tensor.length
    if at != len(view):
        message = f"the last {len(view) - at} bytes of the file are no tensor's"
        raise IntegrityError("safetensors.hole", message)
    return SafetensorsModel(tuple(tensors), metadata, data_offset)


def _header(view: memoryview) -> tuple[dict[str, Any], int]:
    if len(view) < PREFIX_BYTES:
        raise IntegrityError("safetensors.header", "the file ends inside the header's length")
    length = int.from_bytes(view[:PREFIX_BYTES], "little")
    if length > HEADER_BYTES_MAX:
        message = f"the header claims {length} bytes"
        raise IntegrityError("safetensors.header", message, limit_bytes=HEADER_BYTES_MAX)
    if length > len(view) - PREFIX_BYTES:
        raise IntegrityError("safetensors.header", "the file ends inside its header")
    raw = bytes(view[PREFIX_BYTES : PREFIX_BYTES + length])
    if raw.count(b"{") + raw.count(b"[") + raw.count(b":") > MARKS_MAX:
        raise IntegrityError("safetensors.header", "the header has too many parts", limit=MARKS_MAX)
    if not raw.startswith(b"{"):
        raise IntegrityError("safetensors.header", "the header does not begin with '{'")
    try:
        header = json.loads(
            raw.decode(), object_pairs_hook=_without_duplicates, parse_constant=_refused_constant
        )
        if b"\\u" in raw:  # an escape may make a lone surrogate, which cannot be a name
            json.dumps(header, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        message = f"the header is not JSON: {error!s:.120}"
        raise IntegrityError("safetensors.json", message) from None
    if not isinstance(header, dict):
        raise IntegrityError("safetensors.json", "the header is not a JSON object")
    return header, PREFIX_BYTES + length


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in made if names.count(name) > 1)
        message = f"the header has the key {twice!r:.80} twice"
        raise IntegrityError("safetensors.duplicate", message)
    return made


def _refused_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not JSON")


def _metadata(entry: object) -> tuple[tuple[str, str], ...]:
    if not isinstance(entry, dict) or not all(isinstance(each, str) for each in entry.values()):
        raise IntegrityError("safetensors.metadata", "the metadata is not a map of text to text")
    return tuple(entry.items())


def _tensor(name: str, entry: object, data_offset: int) -> SafeTensor:
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        message = f"tensor {name!r:.80} has not exactly dtype, shape and data_offsets"
        raise IntegrityError("safetensors.tensor", message, tensor=name)
    element = ELEMENTS.get(entry["dtype"]) if isinstance(entry["dtype"], str) else None
    if element is None:
        message = f"tensor {name!r:.80} has the unknown type {entry['dtype']!r:.40}"
        raise IntegrityError("safetensors.dtype", message, tensor=name)
    shape = _numbers(entry["shape"], name)
    offsets = _numbers(entry["data_offsets"], name)
    if len(offsets) != 2 or offsets[0] > offsets[1]:
        message = f"the offsets of tensor {name!r:.80} are not a begin and an end"
        raise IntegrityError("safetensors.tensor", message, tensor=name)
    bits = element[1]
    for size in shape:
        bits *= size  # at most 64 factors of 63 bits
    if bits != 8 * (offsets[1] - offsets[0]):
        message = (
            f"tensor {name!r:.80} has {offsets[1] - offsets[0]} bytes, its shape needs {bits / 8:g}"
        )
        raise IntegrityError("safetensors.length", message, tensor=name)
    return SafeTensor(name, element[0], shape, data_offset + offsets[0], offsets[1] - offsets[0])


def _numbers(entry: object, name: str) -> tuple[int, ...]:
    fits = (
        isinstance(entry, list)
        and len(entry) <= TENSOR_RANK_MAX
        and all(type(each) is int and 0 <= each <= NUMBER_MAX for each in entry)
    )
    if not fits or not isinstance(entry, list):
        message = f"tensor {name!r:.80} has a shape or offsets that are not sizes"
        raise IntegrityError("safetensors.tensor", message, tensor=name)
    return tuple(entry)
