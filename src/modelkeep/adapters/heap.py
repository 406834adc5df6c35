"""How the C library's heap gives memory back: after a model was loaded, not after every call.

glibc cuts the heap's end off once 128 KiB there are free, and maps large blocks one by one; a
process that takes and drops bodies of a megabyte then faults the same pages in for each.
"""

from __future__ import annotations

import ctypes
from contextlib import suppress
from typing import cast

# mallopt(3): what may stay free at the heap's end, how much is taken at once, what is mapped alone.
_OPTIONS = ((-1, 64 * 1024 * 1024), (-2, 4 * 1024 * 1024), (-3, 32 * 1024 * 1024))


def keep_heap() -> None:
    """Keep freed memory for the next call; another C library stays as it is."""
    with suppress(OSError, AttributeError):
        library = ctypes.CDLL(None)
        for option, value in _OPTIONS:
            library.mallopt(option, value)


_spare = ctypes.pythonapi.PyByteArray_FromStringAndSize
_spare.argtypes, _spare.restype = (ctypes.c_char_p, ctypes.c_ssize_t), ctypes.py_object


def spare(size_bytes: int) -> bytearray:
    """Room in which anything may stand: `bytearray(n)` writes zeros, 16 MiB of them in 2 ms."""
    return cast("bytearray", _spare(None, size_bytes))


def trimmed() -> None:
    """Have what was freed go back to the machine now.

    glibc keeps freed blocks of up to 32 MiB for later: a model of many layers left a whole copy of
    its weights behind. To map each block by itself instead (M_MMAP_THRESHOLD) made a matrix product
    a tenth slower.
    """
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
