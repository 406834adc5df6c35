"""UBJSON, in which XGBoost keeps its models: walked value by value, and nothing is built.

Theory of operation (Universal Binary JSON, draft 12). Readers recurse into lists and set room aside
for the counts that a file claims; both have ended in crashes. So the walk has a stack of its own
with a bound, and no count may be larger than what is left of the file. Typed lists of numbers are
stepped over.
"""

from __future__ import annotations

from dataclasses import dataclass

from modelkeep.core.errors import IntegrityError

_NUMBERS = {
    ord("i"): 1, ord("U"): 1, ord("I"): 2, ord("l"): 4, ord("L"): 8, ord("d"): 4, ord("D"): 8,
    ord("C"): 1, ord("Z"): 0, ord("T"): 0, ord("F"): 0, ord("N"): 0,
}  # fmt: skip
_WHOLE = b"iUIlL"
_TEXTS = b"SH"
_LIST, _MAP, _LIST_STOP, _MAP_STOP = b"[{]}"
_TYPE, _COUNT, _NOTHING = b"$#N"
# Of a list or map that ends with a bracket and not by its count.
_OPEN_END = -1


@dataclass(slots=True)
class _Open:
    """A list or map whose values are not all read; `kind` is that of all of them, 0 for any."""

    is_map: bool
    kind: int = 0
    left: int = _OPEN_END


def ubjson_end(view: memoryview, *, depth_max: int, values_max: int) -> int:
    """Walk the value that a file begins with; return where it ends.

    Raises:
        IntegrityError: `ubjson.broken`, `ubjson.depth`, or `ubjson.limit` where it has more values
            than are looked at.
    """
    return _Walk(view, depth_max).walked(values_max)


class _Walk:
    __slots__ = ("_at", "_depth_max", "_opened", "_view")

    def __init__(self, view: memoryview, depth_max: int) -> None:
        self._view = view
        self._depth_max = depth_max
        self._at = 0
        self._opened: list[_Open] = []

    def walked(self, values_max: int) -> int:
        self._value(self._byte())
        steps = 0
        while self._opened:
            steps += 1
            if steps > values_max:
                raise IntegrityError("ubjson.limit", "it has more values than are looked at")
            top = self._opened[-1]
            if self._is_over(top):
                self._opened.pop()
                continue
            top.left -= 1 if top.left > 0 else 0
            if top.is_map:
                self._skip(self._whole())
            self._value(top.kind or self._byte())
        return self._at

    def _is_over(self, top: _Open) -> bool:
        if top.left != _OPEN_END:
            return top.left == 0
        while self._peek() == _NOTHING and not top.is_map:
            self._at += 1
        if self._peek() != (_MAP_STOP if top.is_map else _LIST_STOP):
            return False
        self._at += 1
        return True

    def _value(self, kind: int) -> None:
        """Step over a value of one piece, or open one that holds others."""
        if kind in _NUMBERS:
            self._skip(_NUMBERS[kind])
        elif kind in _TEXTS:
            self._skip(self._whole())
        elif kind in (_LIST, _MAP):
            self._open(is_map=kind == _MAP)
        else:
            raise _broken("has a value of no known kind", self._at)

    def _open(self, *, is_map: bool) -> None:
        top = _Open(is_map)
        if self._peek() == _TYPE:
            self._at += 1
            top.kind = self._byte()
        if self._peek() == _COUNT:
            self._at += 1
            top.left = self._whole()
        elif top.kind:
            raise _broken("has a typed list without a count", self._at)
        if top.left > len(self._view) - self._at:
            raise _broken(f"claims {top.left} values", self._at)
        if top.kind in _NUMBERS and not is_map:
            self._skip(_NUMBERS[top.kind] * top.left)
            return
        self._opened.append(top)
        if len(self._opened) > self._depth_max:
            message = f"its lists lie more than {self._depth_max} deep"
            raise IntegrityError("ubjson.depth", message, offset=self._at)

    def _whole(self) -> int:
        """A length or count: a whole number with its kind in front."""
        kind = self._byte()
        if kind not in _WHOLE:
            raise _broken("has a length that is no whole number", self._at)
        at, size = self._at, _NUMBERS[kind]
        self._skip(size)
        raw = self._view[at : at + size]
        value = int.from_bytes(raw, "big", signed=kind != ord("U"))
        if value < 0:
            raise _broken("has a negative length", at)
        return value

    def _peek(self) -> int:
        if self._at >= len(self._view):
            raise _broken("is cut short", self._at)
        return self._view[self._at]

    def _byte(self) -> int:
        byte = self._peek()
        self._at += 1
        return byte

    def _skip(self, length: int) -> None:
        if length > len(self._view) - self._at:
            raise _broken("is cut short", self._at)
        self._at += length


def _broken(message: str, at: int) -> IntegrityError:
    return IntegrityError("ubjson.broken", f"it {message} (at {at})", offset=at)
