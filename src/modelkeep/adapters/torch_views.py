"""PyTorch tensors over the bytes of a loaded file, without a copy.

A tensor points into the loaded memory and keeps it alive. PyTorch knows no read-only tensors: the
memory itself is mapped read-only, so **writing to such a tensor (`add_`, training it, the `out=` of
an operation) ends the process with a segmentation fault**. Make a copy first (`tensor.clone()`,
`module.load_state_dict`, which copies; not `assign=True` for what is to be trained).

Types follow the manifest; 8-bit floats and complex numbers, for which it has no names, follow the
safetensors file. What PyTorch has no type for comes as bytes. A tensor that is not aligned to its
elements is copied, alone, since operations may use instructions that trap on it: safetensors files
written by the format's own library are aligned, zip and ONNX files need not be.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any

from modelkeep.core.artifact import TensorEntry
from modelkeep.core.errors import UnavailableError
from modelkeep.kernels.tensor_views import safetensors_dtypes, views

# Names of the manifest and of the safetensors format: names in `torch`.
_TYPES = {
    "BOOL": "bool",
    "UINT8": "uint8",
    "UINT16": "uint16",
    "UINT32": "uint32",
    "UINT64": "uint64",
    "INT8": "int8",
    "INT16": "int16",
    "INT32": "int32",
    "INT64": "int64",
    "FP16": "float16",
    "BF16": "bfloat16",
    "FP32": "float32",
    "FP64": "float64",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "F8_E8M0": "float8_e8m0fnu",
    "C64": "complex64",
}


def torch_tensors(raw: memoryview, tensors: Sequence[TensorEntry]) -> dict[str, Any]:
    """Give every tensor of a file as a `torch.Tensor` on the CPU, by name.

    Args:
        raw: the whole file, as it was loaded.
        tensors: its tensors, as they stand in the manifest.

    Raises:
        UnavailableError: `torch.missing`.
        IntegrityError: `tensor.bounds` or `tensor.size`, when an entry does not fit the file or
            itself; `safetensors.*`.
        UsageError: `tensor.ambiguous`, when two tensors have one name.
    """
    torch = _torch()
    arrays = views(raw, tensors)  # every bound is checked there
    own = safetensors_dtypes(raw) if any(entry.dtype == "RAW" for entry in tensors) else {}
    found = {}
    with warnings.catch_warnings():
        # PyTorch warns, once, that it cannot keep writes off a read-only buffer: see above.
        warnings.filterwarnings("ignore", "The given buffer is not writable", UserWarning)
        for entry in tensors:
            name = own.get(entry.name, "") if entry.dtype == "RAW" else entry.dtype
            kind = getattr(torch, _TYPES.get(name, "uint8"), torch.uint8)
            shape = arrays[entry.name].shape
            if entry.dtype == "RAW" and math.prod(entry.shape) * kind.itemsize == entry.length:
                shape = entry.shape
            elif entry.dtype == "RAW":
                kind = torch.uint8
            found[entry.name] = _tensor(torch, raw, entry, shape=shape, kind=kind)
    return found


def _tensor(
    torch: Any, raw: memoryview, entry: TensorEntry, *, shape: tuple[int, ...], kind: Any
) -> Any:
    if not entry.length:
        return torch.empty(shape, dtype=kind)
    here = torch.frombuffer(raw, dtype=torch.uint8, count=entry.length, offset=entry.offset)
    if here.data_ptr() % kind.itemsize:
        here = here.clone()
    return here.view(kind).reshape(shape)


def _torch() -> Any:
    try:
        import torch  # noqa: PLC0415 - heavy, and not everybody has it
    except ImportError as error:
        raise UnavailableError(
            "torch.missing",
            "PyTorch is not installed",
            hint="pip install torch, or take the tensors as NumPy views",
        ) from error
    return torch
