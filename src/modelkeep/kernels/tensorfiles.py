"""Files of one tensor: what stands before its bytes in NumPy's format and in safetensors."""

from __future__ import annotations

import json

from modelkeep.core.errors import UsageError
from modelkeep.kernels import safetensors

_NPY_MAGIC = b"\x93NUMPY\x01\x00"
# numpy.lib.format aligns what follows the header; so do the writers of safetensors, to 8.
_NPY_ALIGNMENT = 64
_SAFETENSORS_ALIGNMENT = 8
_NPY_TYPES = {
    "BOOL": "|b1",
    "INT8": "|i1",
    "UINT8": "|u1",
    **{f"INT{8 * size}": f"<i{size}" for size in (2, 4, 8)},
    **{f"UINT{8 * size}": f"<u{size}" for size in (2, 4, 8)},
    **{f"FP{8 * size}": f"<f{size}" for size in (2, 4, 8)},
}
_SAFETENSORS_TYPES = {
    dtype: name for name, (dtype, _) in safetensors.ELEMENTS.items() if dtype != "RAW"
}


def npy_header(dtype: str, shape: tuple[int, ...]) -> bytes:
    """What stands before an array's bytes in a file of NumPy (version 1.0).

    Raises:
        UsageError: `tensor.dtype`, for a type that NumPy does not have.
    """
    descr = _NPY_TYPES.get(dtype)
    if descr is None:
        raise _no_name(dtype, "NumPy", "write it to a .safetensors file, or without a suffix")
    sizes = "".join(f"{size}, " for size in shape) if len(shape) != 1 else f"{shape[0]},"
    text = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': ({sizes.rstrip(' ')}), }}"
    used = len(_NPY_MAGIC) + 2 + len(text) + 1
    text += " " * (-used % _NPY_ALIGNMENT) + "\n"
    return _NPY_MAGIC + len(text).to_bytes(2, "little") + text.encode()


def safetensors_header(name: str, dtype: str, shape: tuple[int, ...], length: int) -> bytes:
    """What stands before the bytes of one tensor in a safetensors file.

    Raises:
        UsageError: `tensor.dtype`, for a type that the format does not have.
    """
    known = _SAFETENSORS_TYPES.get(dtype)
    if known is None:
        raise _no_name(dtype, "safetensors", "write it to a file without a suffix: its raw bytes")
    text = json.dumps({name: {"dtype": known, "shape": shape, "data_offsets": [0, length]}})
    raw = text.encode()
    raw += b" " * (-len(raw) % _SAFETENSORS_ALIGNMENT)
    return len(raw).to_bytes(safetensors.PREFIX_BYTES, "little") + raw


def _no_name(dtype: str, form: str, hint: str) -> UsageError:
    return UsageError("tensor.dtype", f"{form} has no name for a tensor of {dtype}", hint=hint)
