"""What a torch pickle's globals, persistent ids and calls stand for, where tensors are concerned.

Nothing is imported or called: a global is its name, a persistent id of the right form is a storage,
a call that rebuilds a tensor is that tensor, and any other call is a holder of its arguments. The
names are those of `torch/_utils.py`, `torch/_tensor.py` and `torch/serialization.py` (2.13.0).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from modelkeep.core.errors import IntegrityError
from modelkeep.core.limits import TENSOR_RANK_MAX

_NUMBER_MAX = (1 << 63) - 1
# `_rebuild_from_type_v2` calls another rebuilder, which never is itself one of it.
_CALLS_MAX = 4


@dataclass(frozen=True, slots=True)
class Symbol:
    """A global: what a loader would import."""

    module: str
    name: str


@dataclass(frozen=True, slots=True)
class Storage:
    """A storage: its type's name (`FloatStorage`), its key, and how many items it has."""

    kind: str
    key: str
    items: int


@dataclass(frozen=True, slots=True)
class Tensor:
    """A view of a storage.

    Attributes:
        dtype: name of the type where the call gives one (`uint16`); else the storage has it.
        offset: of its first item in the storage, in items, as are the strides.
    """

    storage: Storage
    dtype: str
    shape: tuple[int, ...]
    offset: int
    stride: tuple[int, ...]


@dataclass(slots=True, eq=False)
class Holder:
    """Anything that may hold tensors: a map, a list, an object; no list as long as it is empty."""

    items: list[tuple[str, Value]] | None = None

    def add(self, pairs: list[tuple[str, Value]]) -> None:
        """Take names and values in."""
        if self.items is None:
            self.items = pairs
        else:
            self.items.extend(pairs)


@dataclass(frozen=True, slots=True)
class Raw:
    """Bytes where they lie in the pickle; protocols before 3 write them as Latin-1 in UTF-8."""

    start: int
    stop: int
    is_text: bool = False


@dataclass(slots=True, eq=False)
class Dtype:
    """A type of NumPy: its name (`f4`), and its order of bytes once that is set."""

    name: str
    order: str = "|"

    def set(self, state: Value) -> None:
        """Take the state: `(version, order, ...)`."""
        if isinstance(state, tuple) and len(state) > 1 and isinstance(state[1], str):
            self.order = state[1]


@dataclass(slots=True, eq=False)
class Array:
    """An array of NumPy; without a type until its state is set."""

    dtype: Dtype | None = None
    shape: tuple[int, ...] = ()
    is_fortran: bool = False
    raw: Raw | bytes | None = None

    def set(self, state: Value) -> None:
        """Take the state: `(version, shape, type, Fortran's order, bytes)`."""
        if isinstance(state, tuple) and len(state) == 5:
            _, shape, dtype, is_fortran, raw = state
            self.shape = _sizes(shape)
            self.dtype = dtype if isinstance(dtype, Dtype) else None
            self.is_fortran = is_fortran is True
            self.raw = raw if isinstance(raw, Raw | bytes) else None


# Text, numbers and truth are kept as they are; None is every value that says nothing here.
Value = (
    str
    | bytes
    | int
    | Symbol
    | Storage
    | Tensor
    | Holder
    | Raw
    | Dtype
    | Array
    | tuple["Value", ...]
    | None
)

_VIEWS = frozenset(
    Symbol("torch._utils", name)
    for name in ("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_tensor_v3", "_rebuild_qtensor")
)
_TYPED_VIEW = Symbol("torch._utils", "_rebuild_tensor_v3")
_TYPED_VIEW_DTYPE_AT = 6
# Calls that return their first argument, for what is looked for here.
_WRAPPERS = frozenset(
    [
        Symbol("torch._utils", "_rebuild_parameter"),
        Symbol("torch._utils", "_rebuild_parameter_with_state"),
        Symbol("torch._utils", "_rebuild_device_tensor_from_cpu_tensor"),
        Symbol("torch", "Size"),
    ]
)
_NUMPY = frozenset(
    f"{package}{part}"
    for package in ("numpy.core", "numpy._core")
    for part in (".multiarray", ".numeric")
) | {"numpy", "_codecs"}
_FROM_TYPE = Symbol("torch._tensor", "_rebuild_from_type_v2")


def called(target: Value, arguments: Value) -> Value:
    """What a call would give."""
    for _ in range(_CALLS_MAX):
        if target != _FROM_TYPE or not isinstance(arguments, tuple) or len(arguments) < 3:
            break
        target, arguments = arguments[0], arguments[2]
    if isinstance(target, Symbol) and isinstance(arguments, tuple):
        if target in _VIEWS:
            return _view(arguments, is_typed=target == _TYPED_VIEW)
        if target in _WRAPPERS and arguments:
            return arguments[0]
        if target.module in _NUMPY:
            return _of_numpy(target, arguments)
    return Holder([("", arguments)] if may_hold(arguments) else None)


def _of_numpy(target: Symbol, arguments: tuple[Value, ...]) -> Value:
    """A type, an array whose state follows, or one whose numbers are given (protocol 5)."""
    first = arguments[0] if arguments else None
    if target.name == "dtype" and isinstance(first, str):
        return Dtype(first)
    if target.name == "_reconstruct":
        return Array()
    if target.name == "encode" and isinstance(first, Raw | str):
        return first if isinstance(first, Raw) else first.encode("latin-1", "replace")
    if target.name == "_frombuffer" and len(arguments) >= 4:
        raw, dtype, shape, order = arguments[:4]
        return Array(
            dtype if isinstance(dtype, Dtype) else None,
            _sizes(shape),
            order == "F",
            raw if isinstance(raw, Raw | bytes) else None,
        )
    return Holder([("", arguments)] if may_hold(arguments) else None)


def _view(arguments: tuple[Value, ...], *, is_typed: bool) -> Value:
    """A tensor from `(storage, offset, size, stride, ...)`."""
    storage, offset, size, stride = (*arguments, None, None, None, None)[:4]
    if not isinstance(storage, Storage) or not isinstance(offset, int):
        return None
    shape, steps = _sizes(size), _sizes(stride)
    if len(shape) != len(steps):
        raise IntegrityError("torch.pickle", "a tensor's shape or stride is not one")
    dtype = ""
    if is_typed and len(arguments) > _TYPED_VIEW_DTYPE_AT:
        given = arguments[_TYPED_VIEW_DTYPE_AT]
        dtype = given.name if isinstance(given, Symbol) and given.module == "torch" else "?"
    return Tensor(storage, dtype, shape, offset, steps)


def _sizes(value: Value) -> tuple[int, ...]:
    """The value itself, not a copy: the memo may hand it out a million times."""
    if (
        not isinstance(value, tuple)
        or len(value) > TENSOR_RANK_MAX
        or not all(type(each) is int and 0 <= each <= _NUMBER_MAX for each in value)
    ):
        raise IntegrityError("torch.pickle", "a tensor's shape or stride is not one")
    return cast("tuple[int, ...]", value)  # just looked at, item by item


def stored(identity: Value) -> Value:
    """A storage from its persistent id; another id stands for something else.

    Before 0.4 an id had a sixth part, the view of another storage that it is; None if it is none.
    """
    if not isinstance(identity, tuple) or len(identity) not in (5, 6) or identity[0] != "storage":
        return None
    _, kind, key, _, items = identity[:5]
    if len(identity) == 6 and identity[5] is not None:
        raise IntegrityError("torch.pickle", "a storage is a view of another one")
    if (
        not isinstance(kind, Symbol)
        or not isinstance(key, str)
        or type(items) is not int
        or not 0 <= items <= _NUMBER_MAX
    ):
        raise IntegrityError("torch.pickle", "a storage's id is not one that torch writes")
    return Storage(kind.name, key, items)


def may_hold(value: Value) -> bool:
    """Whether a tensor may be in it; the empty tuple of a call without arguments is none."""
    return isinstance(value, Holder | Tensor | Storage | Array) or (
        isinstance(value, tuple) and value != ()
    )
