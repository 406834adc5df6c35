"""The kernels in C: the library that was built from the sources beside this file, if it was.

`scripts/build_native.py` compiles the C files into a library whose name holds a digest of all of
them, so a library of other sources is never loaded. Calls go through ctypes, which releases the
GIL. Without a library everything runs on the Python beside each call, byte for byte the same.
"""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path
from typing import Any

import numpy as np

from modelkeep.kernels.native.naming import library_path

_POINTER = ctypes.c_void_p
_SIZE = ctypes.c_size_t
_INT = ctypes.c_int
_U32 = ctypes.c_uint32
_U64 = ctypes.c_uint64

_ARGUMENTS: dict[str, list[Any]] = {
    "mk_count": [_POINTER, _POINTER, _SIZE, _U32, _POINTER],
    "mk_rans_encode": [_POINTER, _POINTER, _SIZE, _U32, _POINTER, _POINTER, _POINTER, _SIZE],
    "mk_rans_decode": [_POINTER, _SIZE, _POINTER, _SIZE, _U32, _POINTER, _POINTER, _POINTER],
    "mk_split": [_POINTER, _POINTER, _SIZE, _INT, _INT, _POINTER],
    "mk_merge": [_POINTER, _POINTER, _SIZE, _INT, _INT, _POINTER],
    "mk_tokens": [_POINTER, _POINTER, _SIZE, _INT, _INT, _POINTER, _POINTER, _SIZE],
    "mk_contexts": [_POINTER, _SIZE, _INT, _INT, _INT, _INT, _POINTER],
    "mk_untoken": [_POINTER, _POINTER, _SIZE, _INT, _INT, _POINTER, _SIZE, _POINTER],
    "mk_sync_serve": [_INT, _INT, _POINTER],
    "mk_chunk_length": [_POINTER, _SIZE, _SIZE, _POINTER, _U64, _U64, _U64],
}


def loaded(path: Path) -> ctypes.CDLL | None:
    """The library at a path, its functions declared; None if it cannot be used here."""
    if sys.byteorder != "little" or not path.is_file():
        return None
    try:
        library = ctypes.CDLL(str(path))
        for name, arguments in _ARGUMENTS.items():
            function = getattr(library, name)
            function.argtypes = arguments
            function.restype = ctypes.c_int64
    except (OSError, AttributeError):  # for another C library, or cut
        return None
    return library


LIBRARY: ctypes.CDLL | None = loaded(library_path())


def address(array: Any) -> int:
    """Where an array's bytes begin; it must be contiguous and outlive the call."""
    assert array.flags.c_contiguous
    pointer: int = array.ctypes.data
    return pointer


class Pool:
    """Buffers that are used again: fresh memory costs a page fault each 4 KiB.

    Their sizes are powers of two, and each size has a list of its own, whose `pop` and `append` are
    atomic: any number of threads may share a pool. It keeps at most about `kept_bytes`.
    """

    def __init__(self, kept_bytes: int) -> None:
        self._kept_bytes = kept_bytes
        self._free: dict[int, list[Any]] = {}

    def taken(self, size: int) -> Any:
        """An array of at least so many bytes, with whatever was in it."""
        rounded = 1 << max(size - 1, 1).bit_length()
        try:
            return self._free.setdefault(rounded, []).pop()
        except IndexError:
            return np.empty(rounded, np.uint8)

    def give_back(self, buffer: Any) -> None:
        """Let the next call use it."""
        held = sum(size * len(buffers) for size, buffers in [*self._free.items()])
        if held + buffer.size <= self._kept_bytes:
            self._free[buffer.size].append(buffer)
