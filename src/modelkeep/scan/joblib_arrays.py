"""Arrays that joblib keeps between the opcodes of its pickles: where each ends.

joblib pickles a wrapper in place of an array and writes the array's bytes right behind the opcode
that finishes it (joblib/numpy_pickle.py, `NumpyArrayWrapper`). An array of objects is a whole
pickle of its own instead. Since 1.2 a byte says how many bytes of padding stand before the
numbers. Before 0.10 a wrapper named another file (`numpy_pickle_compat.py`, `NDArrayWrapper`).

What a wrapper says is taken from its state as the loader would: class, shape, type, padding. A
wrapper that cannot be followed exactly is refused: what stands behind it is then unknown.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable
from math import prod

from modelkeep.core.errors import IntegrityError
from modelkeep.core.limits import TENSOR_RANK_MAX
from modelkeep.scan.symbols_values import Made, Map, Symbol, Value

WRAPPER = Symbol("joblib.numpy_pickle", "NumpyArrayWrapper")
OLD_WRAPPERS = frozenset(
    Symbol(module, name)
    for module in ("joblib.numpy_pickle", "joblib.numpy_pickle_compat")
    for name in ("NDArrayWrapper", "ZNDArrayWrapper")
)
_DTYPE = Symbol("numpy", "dtype")
_CLASSES = frozenset(
    Symbol(module, name)
    for module, name in (
        ("numpy", "ndarray"),
        ("numpy", "memmap"),
        ("numpy._core.memmap", "memmap"),
        ("numpy", "matrix"),
        ("numpy.matrixlib.defmatrix", "matrix"),
    )
)
_TYPE = re.compile(r"[<>|=]?(?P<kind>[?bBhHiIlLqQefdgFDGcuSUVmMOa])(?P<size>[0-9]{0,9})")
# Of types named by one letter: bytes of an item on 64-bit systems.
_LETTERS = {
    "?": 1, "b": 1, "B": 1, "h": 2, "H": 2, "i": 4, "I": 4, "l": 8, "L": 8, "q": 8, "Q": 8,
    "e": 2, "f": 4, "d": 8, "g": 16, "F": 8, "D": 16, "G": 32, "c": 1, "m": 8, "M": 8, "O": 8,
}  # fmt: skip
# Places in the state of a type: names of fields, the fields, and flags with "holds objects".
_STATE_BASE, _STATE_NAMES, _STATE_FIELDS, _STATE_SIZE, _STATE_FLAGS = 2, 3, 4, 5, 7
# Types whose size is their state's, whatever their name says.
_FLEXIBLE = "SUV"
_HAS_OBJECT = 1
_NESTING_MAX = 8
# "ZF", then the length as 19 characters of hexadecimal, then zlib (joblib before 0.10).
OLD_MAGIC = b"ZF"
_OLD_HEADER_BYTES = 21
LZMA_ALONE_MAGIC = b"]\x00\x00"


def array_end(view: memoryview, at: int, wrapper: Made, nested: Callable[[int], int]) -> int | None:
    """Where the array that lies at `at` ends.

    Args:
        nested: walks the pickle of an array of objects; gives where it ends.

    Returns:
        The offset behind it; None where the object is no wrapper of an array in this file.

    Raises:
        IntegrityError: `joblib.wrapper`, `joblib.type` or `joblib.truncated`.
    """
    if wrapper.by != WRAPPER:
        return None
    state = wrapper.state
    if not isinstance(state, Map) or state.is_open or state.entries is None:
        raise IntegrityError("joblib.wrapper", "a wrapper of an array has no state of its own")
    entries = state.entries
    if entries.get("subclass") not in _CLASSES:
        raise IntegrityError("joblib.wrapper", "a wrapper stands for no class of arrays")
    item_bytes, has_object = _element(entries.get("dtype"), 0)
    if has_object:
        return nested(at)
    if entries.get("numpy_array_alignment_bytes") is not None:
        if at >= len(view):
            raise IntegrityError("joblib.truncated", "the file ends before an array")
        at += 1 + view[at]
    stop = at + item_bytes * prod(_shape(entries.get("shape")))
    if stop > len(view):
        message = f"an array needs {stop - len(view)} more bytes than there are"
        raise IntegrityError("joblib.truncated", message)
    return stop


def _shape(value: Value) -> tuple[int, ...]:
    if not isinstance(value, tuple) or len(value) > TENSOR_RANK_MAX:
        raise IntegrityError("joblib.wrapper", "the shape of an array is not one")
    sizes = tuple(each for each in value if isinstance(each, int) and 0 <= each < 1 << 63)
    if len(sizes) != len(value):
        raise IntegrityError("joblib.wrapper", "the shape of an array is not one")
    return sizes


def _element(value: Value, depth: int) -> tuple[int, bool]:
    """Bytes of an item, and whether items are or hold objects."""
    if not isinstance(value, Made) or value.by != _DTYPE or depth > _NESTING_MAX:
        raise IntegrityError("joblib.type", "the type of an array is not NumPy's")
    name = value.arguments[0] if value.arguments else None
    match = _TYPE.fullmatch(name) if isinstance(name, str) else None
    if match is None:
        raise IntegrityError("joblib.type", "the type of an array is not known")
    kind, size = match["kind"], match["size"]
    if kind == "O":
        return 8, True
    if not size and kind not in _LETTERS:
        raise IntegrityError("joblib.type", "the type of an array has no size")
    item_bytes = int(size) * (4 if kind == "U" else 1) if size else _LETTERS[kind]
    _demand_same(kind, item_bytes, value.state)
    return item_bytes, kind == "V" and _holds_objects(value.state, depth)


def _demand_same(kind: str, item_bytes: int, state: Value) -> None:
    """A type's state may change what its name says; no writer does that.

    Raises:
        IntegrityError: `joblib.type`.
    """
    if state is None:
        return
    if not isinstance(state, tuple) or len(state) <= _STATE_FLAGS:
        raise IntegrityError("joblib.type", "the state of a type is none")
    told, flags = state[_STATE_SIZE], state[_STATE_FLAGS]
    is_sized = told == item_bytes or (told == -1 and kind not in _FLEXIBLE)
    is_plain = kind == "V" or (
        all(state[place] is None for place in (_STATE_BASE, _STATE_NAMES, _STATE_FIELDS))
        and isinstance(flags, int)
        and not flags & _HAS_OBJECT
    )
    if not (is_sized and is_plain):
        raise IntegrityError("joblib.type", "the state of a type says other than its name")


def _holds_objects(state: Value, depth: int) -> bool:
    """Whether a structured type holds objects; its flags and its fields must say the same."""
    if not isinstance(state, tuple) or len(state) <= _STATE_FLAGS:
        return False
    flags, fields, base = state[_STATE_FLAGS], state[_STATE_FIELDS], state[_STATE_BASE]
    flagged = isinstance(flags, int) and bool(flags & _HAS_OBJECT)
    inner: list[Value] = []
    if isinstance(fields, Map):
        if fields.is_open:
            raise IntegrityError("joblib.type", "a type has fields that are not known")
        inner = [
            each[0] if isinstance(each, tuple) and each else each
            for each in (fields.entries or {}).values()
        ]
    if isinstance(base, tuple) and base:
        inner.append(base[0])
    found = any(_element(each, depth + 1)[1] for each in inner)
    if found != flagged:
        raise IntegrityError("joblib.type", "a type hides that it holds objects")
    return found


def outside_file(wrapper: Made) -> str | None:
    """The file that a wrapper of old versions names; None where the object is none of them."""
    if wrapper.by not in OLD_WRAPPERS or wrapper.state is None:
        return None
    if not isinstance(wrapper.state, Map) or wrapper.state.is_open:
        return "?"
    name = (wrapper.state.entries or {}).get("filename")
    return name if isinstance(name, str) else "?"


def old_plaintext(view: memoryview, limit: int) -> bytes | None:
    """The pickle in a file that joblib before 0.10 compressed; None where there is more of it.

    Raises:
        IntegrityError: `inflate.broken`.
    """
    start = _OLD_HEADER_BYTES + (bytes(view[_OLD_HEADER_BYTES : _OLD_HEADER_BYTES + 1]) == b" ")
    engine = zlib.decompressobj()
    try:
        plain = engine.decompress(view[start:], limit + 1)
    except zlib.error as error:
        raise IntegrityError("inflate.broken", f"{error!s:.100}") from None
    if len(plain) > limit:
        return None
    if not engine.eof:
        raise IntegrityError("inflate.broken", "the compressed data is cut short")
    return plain
