"""Models as arrays by name, in formats that a mark is laid into; and what thieves do to them."""

from __future__ import annotations

import io
import json

import numpy as np

from modelkeep.kernels import weight_mark
from modelkeep.kernels.tensors import identify, places_of

Arrays = dict[str, np.ndarray]


def arrays(seed: int = 0, *, side: int = 64, classes: int = 10) -> Arrays:
    """Two matrices and a bias, as large as those of a classifier of digits."""
    random = np.random.default_rng(seed)
    return {
        "w0": (0.2 * random.standard_normal((64, side))).astype(np.float32),
        "b0": random.standard_normal(side).astype(np.float32),
        "w1": (0.3 * random.standard_normal((side, classes))).astype(np.float32),
    }


def bf16(values: np.ndarray) -> np.ndarray:
    """The upper halves of float32: numbers as BF16 stores them, as uint16."""
    return (values.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)


def safetensors(model: Arrays, *, dtype: str = "F32") -> bytearray:
    """A safetensors file; `BF16` and `F16` round."""
    header, at, parts = {}, 0, []
    for name, array in model.items():
        stored = bf16(array) if dtype == "BF16" else array
        stored = array.astype(np.float16) if dtype == "F16" else stored
        raw = np.ascontiguousarray(stored).tobytes()
        header[name] = {
            "dtype": "U8" if array.dtype == np.uint8 else "I8" if array.dtype == np.int8 else dtype,
            "shape": list(array.shape),
            "data_offsets": [at, at + len(raw)],
        }
        at += len(raw)
        parts.append(raw)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return bytearray(len(text).to_bytes(8, "little") + text + b"".join(parts))


def npz(model: Arrays) -> bytearray:
    """An archive as numpy.savez writes it."""
    target = io.BytesIO()
    np.savez(target, **model)
    return bytearray(target.getvalue())


def tensors(*raws: bytes | bytearray) -> list[weight_mark.Tensor]:
    """The tensors of files."""
    files = {str(number): memoryview(raw) for number, raw in enumerate(raws)}
    kinds = {path: identify(view) for path, view in files.items()}
    return weight_mark.tensors_of(files, places_of(files, kinds))


def marked(raw: bytes | bytearray, seed: bytes, parameters: weight_mark.WeightParameters):
    """A copy of a file with the mark, and what it changed."""
    files = {"m": memoryview(raw)}
    places = places_of(files, {"m": identify(files["m"])})
    made = weight_mark.marked(files, places, seed, parameters)
    copy = bytearray(raw)
    made.apply("m", 0, memoryview(copy))
    return copy, made


def pruned(model: Arrays, share: float = 0.5) -> Arrays:
    """Without the smallest weights of each tensor."""
    return {
        name: np.where(np.abs(each) < np.quantile(np.abs(each), share), 0, each).astype(each.dtype)
        for name, each in model.items()
    }


def in_8_bits(model: Arrays) -> Arrays:
    """As symmetric 8-bit integers."""
    return {
        name: np.round(each / np.abs(each).max() * 127).astype(np.int8)
        for name, each in model.items()
    }


def read(raw: bytes | bytearray) -> Arrays:
    """The float32 arrays in a safetensors file."""
    return {
        each.place.name: np.frombuffer(
            each.view, np.float32, each.items, each.place.offset
        ).reshape(each.place.shape)
        for each in tensors(raw)
    }
