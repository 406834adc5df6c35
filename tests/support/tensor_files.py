"""Small safetensors files and arrays, made of a seed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np


def tensors(seed: int, *, count: int = 4, items: int = 4096) -> dict[str, np.ndarray]:
    """Arrays of float32 that look like weights."""
    random = np.random.default_rng(seed)
    return {
        f"layer.{at}": (0.02 * random.standard_normal(items)).astype(np.float32)
        for at in range(count)
    }


def written(path: Path, arrays: dict[str, np.ndarray]) -> Path:
    """A safetensors file of float32 arrays."""
    header, at = {}, 0
    for name, array in arrays.items():
        header[name] = {
            "dtype": "F32",
            "shape": list(array.shape),
            "data_offsets": [at, at + array.nbytes],
        }
        at += array.nbytes
    raw = json.dumps(header).encode()
    raw += b" " * (-len(raw) % 8)
    path.write_bytes(
        len(raw).to_bytes(8, "little") + raw + b"".join(each.tobytes() for each in arrays.values())
    )
    return path


def tuned(arrays: dict[str, np.ndarray], *names: str, seed: int = 9) -> dict[str, np.ndarray]:
    """The same arrays, some of them a little further."""
    random = np.random.default_rng(seed)
    return {
        name: array + (1e-4 * random.standard_normal(array.shape)).astype(np.float32)
        if name in names
        else array
        for name, array in arrays.items()
    }
