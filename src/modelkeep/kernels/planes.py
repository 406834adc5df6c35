"""Elements as byte planes: a float's exponents in a plane of their own, each plane coded apart.

An element is rotated left by one bit (floats), so that its first byte holds eight bits of the
exponent and its last one the sign beside the end of the mantissa. A plane is then raw, one byte
(all are the same), or entropy-coded, whatever is smallest by counting its bytes.
"""

from __future__ import annotations

import ctypes
from enum import IntEnum

import numpy as np

from modelkeep.core.errors import IntegrityError
from modelkeep.kernels import entropy, native
from modelkeep.kernels.entropy import Bytes
from modelkeep.kernels.native import address

# A plane is coded where that saves at least a 64th of it: below, reading costs more than it saves.
_GAIN_SHIFT = 6


class Mode(IntEnum):
    """How one plane is written."""

    RAW = 0
    CONSTANT = 1
    RANS = 2


def split_into(
    plain: Bytes, base: Bytes | None, out: Bytes, *, element_bytes: int, rotate: bool
) -> None:
    """The planes of some elements, most significant byte first, one after the other.

    Args:
        plain: whole elements, little-endian.
        base: what to xor them with first.
        out: as long as plain.
        element_bytes: 1, 2, 4 or 8.
        rotate: whether the sign goes last.
    """
    count = plain.size // element_bytes
    if native.LIBRARY is None:
        out.reshape(element_bytes, count)[:] = _rotated(plain, base, element_bytes, rotate=rotate)
        return
    done = native.LIBRARY.mk_split(
        address(plain),
        None if base is None else address(base),
        count,
        element_bytes,
        int(rotate),
        address(out),
    )
    assert done == 0, done


def _rotated(plain: Bytes, base: Bytes | None, element_bytes: int, *, rotate: bool) -> Bytes:
    values = plain.view(f"<u{element_bytes}")
    if base is not None:
        values = values ^ base.view(values.dtype)
    if rotate:
        values = values << 1 | values >> (8 * element_bytes - 1)
    planes: Bytes = values.view(np.uint8).reshape(-1, element_bytes).T[::-1]
    return planes


def merge_into(planes: list[Bytes], base: Bytes | None, out: Bytes, *, rotate: bool) -> None:
    """The way back: planes, wherever they lie, as elements."""
    width = len(planes)
    if native.LIBRARY is None:
        values = np.stack(planes[::-1], axis=1).reshape(-1).view(f"<u{width}")
        if rotate:
            values = values >> 1 | values << (8 * width - 1)
        if base is not None:
            values = values ^ base.view(values.dtype)
        out[:] = values.view(np.uint8)
        return
    pointers = (ctypes.c_void_p * width)(*(address(plane) for plane in planes))
    done = native.LIBRARY.mk_merge(
        pointers,
        None if base is None else address(base),
        planes[0].size,
        width,
        int(rotate),
        address(out),
    )
    assert done == 0, done


# ---- one plane -------------------------------------------------------------------------------


def estimated_bytes(plane: Bytes, count: int) -> float:
    """About what `write_plane` would write of a plane of `count` bytes like this sample of it."""
    counts = entropy.counted(plane, None, 1)
    if np.count_nonzero(counts) == 1:
        return 2
    freqs = entropy.frequencies(counts)
    coded = entropy.cost_bytes(counts, freqs) * count / plane.size
    expected = coded + entropy.overhead_bytes(freqs, count)
    return count if expected > _worth(count) else expected


def _worth(size: int) -> int:
    return size - (size >> _GAIN_SHIFT)


def write_plane(plane: Bytes, out: Bytes) -> int:
    """Write a plane with its mode in front; returns the bytes written.

    Args:
        plane: at least one byte.
        out: has room for `plane_size_max`.
    """
    counts = entropy.counted(plane, None, 1)
    if np.count_nonzero(counts) == 1:
        out[0], out[1] = Mode.CONSTANT, plane[0]
        return 2
    freqs = entropy.frequencies(counts)
    expected = entropy.cost_bytes(counts, freqs) + entropy.overhead_bytes(freqs, plane.size)
    if expected > _worth(plane.size):
        out[0] = Mode.RAW
        out[1 : 1 + plane.size] = plane
        return 1 + plane.size
    table = entropy.table_bytes(freqs)
    out[0] = Mode.RANS
    out[1 : 1 + len(table)] = np.frombuffer(table, np.uint8)
    return 1 + len(table) + entropy.encode_into(plane, None, freqs, out[1 + len(table) :])


def plane_size_max(count: int) -> int:
    """The most bytes that `write_plane` touches."""
    return entropy.size_max(count) + 1024


def read_plane(payload: Bytes, out: Bytes) -> tuple[Bytes, int]:
    """A plane (in place, or in out) and how many bytes of the payload it took.

    Raises:
        IntegrityError: `codec.plane`, `codec.table`, `codec.stream`.
    """
    mode = int(payload[0]) if payload.size else -1
    body = payload[1:]
    if mode == Mode.RAW and body.size >= out.size:
        return body[: out.size], 1 + out.size
    if mode == Mode.CONSTANT and body.size:
        out[:] = body[0]
        return out, 2
    if mode == Mode.RANS:
        freqs, start = entropy.read_table(body, 1)
        return out, 1 + start + entropy.decode_into(body[start:], None, freqs, out)
    raise IntegrityError("codec.plane", "a plane of a chunk is malformed")
