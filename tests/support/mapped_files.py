"""Files in sealed memory, mapped as a loaded model is, and safetensors files of every type."""

from __future__ import annotations

import json
import mmap
import os
from collections.abc import Mapping

from modelkeep.adapters.memory_file import sealed_bytes


def mapped(raw: bytes) -> memoryview:
    """The bytes in a sealed memory file, mapped read-only, as long as somebody looks at them."""
    fd = sealed_bytes("test", raw)
    try:
        return memoryview(mmap.mmap(fd, len(raw), prot=mmap.PROT_READ))
    finally:
        os.close(fd)


def safetensors_file(tensors: Mapping[str, tuple[str, tuple[int, ...], bytes]]) -> bytes:
    """A file of tensors: type in the format's own words, shape, bytes."""
    header, at = {}, 0
    for name, (dtype, shape, raw) in tensors.items():
        end = at + len(raw)
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, end]}
        at = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    data = b"".join(raw for _, _, raw in tensors.values())
    return len(text).to_bytes(8, "little") + text + data
