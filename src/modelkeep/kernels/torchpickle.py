"""Which tensors a torch pickle names, and in which storages they lie, without unpickling it.

Theory of operation. `torch.save` writes a pickle whose tensors are calls of `_rebuild_tensor_v2`
and its kin on storages, and whose storages are persistent ids `("storage", torch.FloatStorage, key,
location, items)`. A pickle is a program for a stack machine. The machine here runs that program on
*symbols*: a global is its name, a call of a name that rebuilds tensors is a `Tensor`, a call of any
other name is a `Holder` of its arguments, and nothing is imported or called. Then the object on top
of the stack is walked from the root, and the first way to a storage names it:
`{"model": {"head.weight": tensor}}` gives `model.head.weight`.

Bounds. Opcodes, memo and stack are counted, and a value is made of what its opcode takes from the
stack and never of copies of what the memo holds: memory is linear in the opcodes. The walk from the
root visits every holder once, `DEPTH_MAX` deep. What a broken pickle would do to a loader is the
scanner's business (`modelkeep.scan.pickles`); here it is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from modelkeep.core.errors import IntegrityError
from modelkeep.kernels.opcodes import Step, step_at
from modelkeep.kernels.torchvalues import (
    Array,
    Dtype,
    Holder,
    Raw,
    Storage,
    Symbol,
    Tensor,
    Value,
    called,
    may_hold,
    stored,
)

# About two microseconds and at most 160 bytes each; a tensor takes 28.
OPCODES_MAX = 1_500_000
# CPython's memo is a table; torch's pickler remembers about five values per tensor.
MEMO_MAX = 1_000_000
# Picklers fill maps and lists a thousand items at a time.
STACK_MAX = 200_000
# Modules in modules; the deepest real ones have ten.
DEPTH_MAX = 48
# A way to a tensor; a longer one counts as none.
NAME_CHARS_MAX = 256
_DIGITS_MAX = 20


Named = tuple[str, Storage | Tensor]
NamedArray = tuple[str, Storage | Tensor | Array]


@dataclass(frozen=True, slots=True)
class Walked:
    """One pickle, walked.

    Attributes:
        after: offset behind its STOP.
        storages: every storage that it names, whether or not anything sees it.
        calls: every name that it calls.
    """

    root: Value
    after: int
    storages: tuple[Storage, ...]
    calls: frozenset[Symbol]


def walked(view: memoryview, at: int = 0) -> Walked:
    """Walk the pickle at `at`.

    Raises:
        IntegrityError: `pickle.*` for bytes that are no pickle, `torch.pickle` for one that no
            torch writes, `torch.size` for one past the bounds.
    """
    return _Machine(view).run(at)


def named_tensors(view: memoryview) -> Iterator[Named]:
    """Yield what the pickle's object holds, each tensor and each bare storage, with its way there.

    Raises:
        IntegrityError: as `walked`.
    """
    for name, value in reached(walked(view).root):
        if not isinstance(value, Array):
            yield name, value


# ---- the walk from the root -------------------------------------------------------------------

# What torch keeps a module's tensors in; its own names leave these parts out.
_SILENT = frozenset({"_parameters", "_buffers", "_modules"})


def reached(root: Value) -> Iterator[NamedArray]:
    """Walk depth first, in the order of the pickle, without recursion and without turning back."""
    seen: set[int] = set()
    ways: list[Iterator[tuple[str, Value]]] = [iter([("", root)])]
    names: list[str] = [""]
    while ways:
        part, value = next(ways[-1], ("", _END))
        if value is _END:
            ways.pop()
            names.pop()
            continue
        name = names[-1]
        if part and part not in _SILENT:
            name = f"{name}.{part}" if name else part
        if isinstance(value, Tensor | Storage | Array):
            yield name if len(name) <= NAME_CHARS_MAX else "", value
        elif isinstance(value, Holder | tuple) and id(value) not in seen and len(ways) < DEPTH_MAX:
            seen.add(id(value))
            ways.append(_children(value))
            names.append(name[: NAME_CHARS_MAX + 1])


_END = Holder()


def _children(value: Holder | tuple[Value, ...]) -> Iterator[tuple[str, Value]]:
    if isinstance(value, Holder):
        return iter(value.items or ())
    return ((str(index), each) for index, each in enumerate(value))


# ---- the machine ------------------------------------------------------------------------------


class _Machine:
    """CPython's pickle machine over symbols."""

    __slots__ = ("_calls", "_marks", "_memo", "_stack", "_storages", "_view")

    def __init__(self, view: memoryview) -> None:
        self._view = view
        self._storages: list[Storage] = []
        self._calls: set[Symbol] = set()
        self._stack: list[Value] = []
        self._marks: list[int] = []
        self._memo: dict[int, Value] = {}

    def run(self, at: int) -> Walked:
        """Walk to STOP; return what lies on top there."""
        for _ in range(OPCODES_MAX):
            step = step_at(self._view, at)
            if step.name == "STOP":
                calls = frozenset(self._calls)
                return Walked(self._pop(), step.after, tuple(self._storages), calls)
            if len(self._stack) + len(self._marks) > STACK_MAX:
                raise IntegrityError("torch.size", "the stack grows too high", limit=STACK_MAX)
            effect = _EFFECTS.get(step.name)
            if effect is not None:
                effect(self, step)
            else:
                self._push_constant(step)
            at = step.after
        raise IntegrityError("torch.size", "the pickle has too many opcodes", limit=OPCODES_MAX)

    # ---- the stack ----

    def _pop(self) -> Value:
        if len(self._stack) <= (self._marks[-1] if self._marks else 0):
            raise IntegrityError("torch.pickle", "the pickle takes from an empty stack")
        return self._stack.pop()

    def _top(self) -> Value:
        value = self._pop()
        self._stack.append(value)
        return value

    def _to_mark(self) -> list[Value]:
        if not self._marks:
            raise IntegrityError("torch.pickle", "the pickle asks for a mark where there is none")
        start = self._marks.pop()
        values = self._stack[start:]
        del self._stack[start:]
        return values

    def _push_constant(self, step: Step) -> None:
        """Push what the opcode itself carries, if it could be a name or a size."""
        value: Value = step.number if step.text is None else step.text
        if step.name in _RAW and step.text is None:
            start = step.after - (step.number or 0)
            value = Raw(start, step.after, is_text=step.name in _RAW_TEXT)
        elif step.name in ("INT", "LONG") and step.text is not None:
            value = _number(step.text.rstrip("L"))
        elif step.name in _EMPTY:
            value = Holder()
        elif step.name in _TRUTH:
            value = step.name == "NEWTRUE"
        self._stack.append(value)

    def nothing(self, _step: Step) -> None:
        """PROTO, FRAME: nothing that shows."""

    def mark(self, _step: Step) -> None:
        """MARK: remember the height of the stack."""
        self._marks.append(len(self._stack))

    def pop(self, _step: Step) -> None:
        """POP: drop the top, or the mark that lies there."""
        if self._marks and len(self._stack) == self._marks[-1]:
            self._marks.pop()
        else:
            self._pop()

    def pop_mark(self, _step: Step) -> None:
        """POP_MARK: drop everything above the mark."""
        self._to_mark()

    def dup(self, _step: Step) -> None:
        """DUP: push the top again."""
        self._stack.append(self._top())

    # ---- holders ----

    def make_tuple(self, _step: Step) -> None:
        """TUPLE: of what lies above the mark."""
        self._stack.append(tuple(self._to_mark()))

    def short_tuple(self, step: Step) -> None:
        """EMPTY_TUPLE, TUPLE1 to TUPLE3: of the top values."""
        count = 0 if step.name == "EMPTY_TUPLE" else int(step.name[-1])
        self._stack.append(tuple([self._pop() for _ in range(count)][::-1]))

    def collect(self, step: Step) -> None:
        """LIST, DICT, FROZENSET: of what lies above the mark."""
        values = self._to_mark()
        pairs = _paired(values) if step.name == "DICT" else _numbered(values, 0)
        self._stack.append(Holder(pairs))

    def append(self, _step: Step) -> None:
        """APPEND: one value to what lies under it."""
        self._add_numbered([self._pop()])

    def appends(self, _step: Step) -> None:
        """APPENDS, ADDITEMS: everything above the mark to what lies under it."""
        self._add_numbered(self._to_mark())

    def _add_numbered(self, values: list[Value]) -> None:
        target = self._top()
        if isinstance(target, Holder):
            target.add(_numbered(values, len(target.items or ())))

    def set_item(self, _step: Step) -> None:
        """SETITEM: a key and a value to what lies under them."""
        value, key = self._pop(), self._pop()
        self._add_paired([key, value])

    def set_items(self, _step: Step) -> None:
        """SETITEMS: keys and values above the mark to what lies under it."""
        self._add_paired(self._to_mark())

    def _add_paired(self, values: list[Value]) -> None:
        target = self._top()
        if isinstance(target, Holder):
            target.add(_paired(values))

    def build(self, _step: Step) -> None:
        """BUILD: the state becomes part of the object under it."""
        state, target = self._pop(), self._top()
        if isinstance(target, Array | Dtype):
            target.set(state)
        elif isinstance(target, Holder) and may_hold(state):
            target.add([("", state)])

    # ---- memo ----

    def put(self, step: Step) -> None:
        """PUT: remember the top under a number."""
        self._remember(self._index(step), self._top())

    def memoize(self, _step: Step) -> None:
        """MEMOIZE: remember the top under the next number."""
        self._remember(len(self._memo), self._top())

    def _remember(self, index: int, value: Value) -> None:
        if len(self._memo) >= MEMO_MAX:
            raise IntegrityError("torch.size", "the pickle remembers too much", limit=MEMO_MAX)
        self._memo[index] = value

    def get(self, step: Step) -> None:
        """GET: push what was remembered."""
        index = self._index(step)
        if index not in self._memo:
            raise IntegrityError("torch.pickle", "the pickle asks for what it did not remember")
        self._stack.append(self._memo[index])

    @staticmethod
    def _index(step: Step) -> int:
        if step.number is not None:
            return step.number
        index = _number((step.text or "").strip())
        if index is None:
            raise IntegrityError("torch.pickle", "the pickle remembers under no number")
        return index

    # ---- names and calls ----

    def ask_global(self, step: Step) -> None:
        """GLOBAL: two lines name it."""
        self._stack.append(Symbol(step.text or "", step.more))

    def stack_global(self, _step: Step) -> None:
        """STACK_GLOBAL: two texts on the stack name it."""
        name, module = self._pop(), self._pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise IntegrityError("torch.pickle", "the pickle asks for a name that is no text")
        self._stack.append(Symbol(module, name))

    def persistent(self, _step: Step) -> None:
        """BINPERSID: the id lies on the stack."""
        found = stored(self._pop())
        if isinstance(found, Storage):
            self._storages.append(found)
        self._stack.append(found)

    def reduce(self, _step: Step) -> None:
        """REDUCE, NEWOBJ: call what lies under the arguments."""
        arguments, target = self._pop(), self._pop()
        if isinstance(target, Symbol):
            self._calls.add(target)
        self._stack.append(called(target, arguments))

    def reduce_with_keywords(self, _step: Step) -> None:
        """NEWOBJ_EX: class, arguments and keywords."""
        keywords, arguments, target = self._pop(), self._pop(), self._pop()
        self._stack.append(called(target, (arguments, keywords)))

    def inst(self, step: Step) -> None:
        """INST: two lines name the class, its arguments lie above the mark."""
        arguments = tuple(self._to_mark())
        self._stack.append(called(Symbol(step.text or "", step.more), arguments))

    def obj(self, _step: Step) -> None:
        """OBJ: class and arguments lie above the mark."""
        values = self._to_mark()
        if not values:
            raise IntegrityError("torch.pickle", "the pickle makes an object of no class")
        self._stack.append(called(values[0], tuple(values[1:])))


def _number(digits: str) -> int | None:
    fits = digits.isascii() and digits.isdecimal() and len(digits) <= _DIGITS_MAX
    return int(digits) if fits else None


def _numbered(values: list[Value], start: int) -> list[tuple[str, Value]]:
    return [(str(start + index), each) for index, each in enumerate(values)]


def _paired(values: list[Value]) -> list[tuple[str, Value]]:
    """Keys and values in turn; a key that is neither text nor a number shows as its place."""
    if len(values) % 2:
        raise IntegrityError("torch.pickle", "the pickle sets a key without a value")
    return [
        (str(key) if isinstance(key, str | int) else str(place), value)
        for place, (key, value) in enumerate(zip(values[::2], values[1::2], strict=True))
    ]


_EMPTY = frozenset({"EMPTY_DICT", "EMPTY_LIST", "EMPTY_SET"})
_RAW_TEXT = frozenset({"BINUNICODE", "BINUNICODE8"})
_RAW = _RAW_TEXT | {"BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"}
_TRUTH = frozenset({"NEWTRUE", "NEWFALSE"})
_EFFECTS: Mapping[str, Callable[[_Machine, Step], None]] = {
    "ADDITEMS": _Machine.appends,
    "APPEND": _Machine.append,
    "APPENDS": _Machine.appends,
    "BINPERSID": _Machine.persistent,
    "BUILD": _Machine.build,
    "DUP": _Machine.dup,
    "GLOBAL": _Machine.ask_global,
    "INST": _Machine.inst,
    "MARK": _Machine.mark,
    "MEMOIZE": _Machine.memoize,
    "NEWOBJ_EX": _Machine.reduce_with_keywords,
    "OBJ": _Machine.obj,
    "POP": _Machine.pop,
    "POP_MARK": _Machine.pop_mark,
    "SETITEM": _Machine.set_item,
    "SETITEMS": _Machine.set_items,
    "STACK_GLOBAL": _Machine.stack_global,
    "TUPLE": _Machine.make_tuple,
    **dict.fromkeys(("PROTO", "FRAME", "READONLY_BUFFER"), _Machine.nothing),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), _Machine.put),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), _Machine.get),
    **dict.fromkeys(("REDUCE", "NEWOBJ"), _Machine.reduce),
    **dict.fromkeys(("LIST", "DICT", "FROZENSET"), _Machine.collect),
    **dict.fromkeys(("EMPTY_TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"), _Machine.short_tuple),
}
