"""Long JSON arrays of numbers straight into a tensor's bytes, by simdjson where it is installed.

Making a Python object of each of 150,000 numbers is what an image in JSON costs most. What is not
a flat array of numbers that fit is left to the careful way (None), which knows what is wrong with
it; so the two agree on every array that is taken here, which a test holds them to.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from modelkeep.kernels.arrays import NUMPY_BY_DTYPE

# Below this the careful way is as fast.
LONG_BYTES = 4096
# A parser keeps room for the longest text it has seen, up to eight times as much.
_KEPT_BYTES_MAX = 4 * 1024 * 1024


def long_numbers(dtype: str, raw: bytes) -> bytes | None:
    """The elements of a long array; None where the careful way is to look at it."""
    parser = _parser() if len(raw) < _KEPT_BYTES_MAX else _new_parser()
    kind = NUMPY_BY_DTYPE[dtype]
    if parser is None or kind.kind not in "fiu" or raw.find(b"[", 1) >= 0:
        return None
    try:
        buffer = parser.parse(raw).as_buffer(of_type="d" if kind.kind == "f" else "i")
    except (ValueError, TypeError, RuntimeError):
        return None
    wide = np.frombuffer(buffer, "<f8" if kind.kind == "f" else "<i8")
    with np.errstate(over="ignore"):
        values = wide.astype(kind)
    if kind.kind == "f":
        is_within = bool(np.isfinite(values).all())
    else:
        is_within = bool((values == wide).all()) and not (kind.kind == "u" and (wide < 0).any())
    return values.tobytes() if is_within else None


@cache
def _parser() -> Any:
    return _new_parser()


def _new_parser() -> Any:
    try:
        import simdjson  # noqa: PLC0415  # only gateways have it, and need it for long arrays
    except ImportError:
        return None
    return simdjson.Parser()
