"""What lies on the machine's stack: globals, results of calls, text, numbers, data."""

from __future__ import annotations

from dataclasses import dataclass

# What is kept of one map: the states of wrappers have six entries, those of layers thirty.
MAP_ENTRIES_MAX = 48


@dataclass(frozen=True, slots=True)
class Symbol:
    """A global that a pickle asks its loader to import."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(slots=True, eq=False)
class Made:
    """What a call returned.

    Attributes:
        arguments: of the call; None where there were too many to keep.
        state: what BUILD gave it last.
    """

    by: Symbol
    arguments: Arguments = None
    state: Value = None


@dataclass(frozen=True, slots=True)
class Opaque:
    """Data that is not looked into: a float, a list, a set, a long tuple."""


@dataclass(frozen=True, slots=True)
class Span:
    """Bytes or long text that stay where they are in the file; a line of it may have escapes."""

    start: int
    stop: int
    is_text: bool = False
    is_escaped: bool = False


@dataclass(slots=True, eq=False)
class Map:
    """A dictionary: its entries under text, as long as they are few.

    Attributes:
        is_open: whether it may hold other entries under text: there were more, or a key was made by
            a call. Nothing that is harmless for what it holds is harmless then.
        hides_code: whether what is under a key that was made may be called.
        has_dunder: whether any key is one of Python's own names.
    """

    entries: dict[str, Value] | None = None
    is_open: bool = False
    hides_code: bool = False
    has_dunder: bool = False

    def put(self, key: Value, value: Value) -> None:
        """Set one entry; entries under anything but text are not kept."""
        if not isinstance(key, str):
            if not is_literal(key):
                self.is_open = True
                self.hides_code = self.hides_code or isinstance(value, Symbol | Made)
            return
        if key.startswith("__") and key.endswith("__"):
            self.has_dunder = True
        if self.entries is None:
            self.entries = {}
        if len(self.entries) >= MAP_ENTRIES_MAX and key not in self.entries:
            self.is_open = True
            return
        self.entries[key] = value


def is_literal(value: Value) -> bool:
    """Whether a value stands in the pickle as it is, so that it is no text if it does not look it.

    What a call returned, or a name stands for, may be equal to any text.
    """
    pending = [value]
    while pending:
        each = pending.pop()
        if isinstance(each, Symbol | Made):
            return False
        if isinstance(each, tuple):
            pending.extend(each)
    return True


DATA = Opaque()
# None is Python's None; truth is a number, as in Python.
Value = Symbol | Made | Opaque | Span | Map | str | int | tuple["Value", ...] | None
Arguments = tuple[Value, ...] | None  # None: too many to keep, or not a tuple
