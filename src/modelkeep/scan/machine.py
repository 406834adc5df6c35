"""CPython's pickle machine over symbols: what a pickle would import and call, step by step.

A global is the name that would be imported, a call is a note that this name would be called, text
is kept because names are made of it, and everything else is data. Where the loader would stop with
an error, the machine stops; where the machine stops at a bound of its own, it says so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from modelkeep.core.errors import IntegrityError
from modelkeep.core.verdict import Severity
from modelkeep.scan.allowance import Allowance
from modelkeep.scan.evidence import printable
from modelkeep.scan.opcodes import Step, step_at
from modelkeep.scan.settings import ScanSettings
from modelkeep.scan.symbols import (
    DATA,
    NUMBER,
    Arguments,
    Made,
    Opaque,
    Symbol,
    Value,
    is_allowed,
    is_callable,
    is_dangerous,
    rewritten,
)

# Arguments of a call that are kept one by one; torch's longest has seven.
_ARGUMENTS_MAX = 16


@dataclass(slots=True)
class Use:
    """How one symbol was used: where it was first asked for, and whether it was called."""

    offset: int
    called: bool = False
    odd: bool = False


@dataclass(slots=True)
class Stream:
    """One pickle's run."""

    start: int
    end: int = 0
    finished: bool = False
    broken: str = ""
    spent: str = ""
    uses: dict[Symbol, Use] = field(default_factory=dict)
    notes: list[tuple[str, Severity, str]] = field(default_factory=list)

    def acts(self) -> bool:
        """Whether a loader would have done more than build data by its end or its break."""
        for symbol, use in self.uses.items():
            if use.called or is_dangerous(symbol) or (self.finished and not is_allowed(symbol)):
                return True
        return any(rule != "scan.pickle.memo" for rule, _, _ in self.notes)


class _BreakError(Exception):
    """The loader would stop here with an error."""


class _SpentError(Exception):
    """A bound of ours, not of the loader's."""


class Machine:
    """CPython's pickle machine over symbols, for one stream."""

    __slots__ = (
        "_marks",
        "_memo",
        "_persistent",
        "_settings",
        "_stack",
        "_text_bytes",
        "_view",
        "stream",
    )

    def __init__(
        self, view: memoryview, start: int, settings: ScanSettings, *, persistent: bool
    ) -> None:
        self._view = view
        self._settings = settings
        self._persistent = persistent
        self._stack: list[Value] = []
        self._text_bytes = 0
        self._marks: list[int] = []
        self._memo: dict[int, Value] = {}
        self.stream = Stream(start)

    def run(self, allowance: Allowance) -> None:
        """Walk to STOP, a break or a bound."""
        at = self.stream.start
        line_bytes_max = self._settings.line_bytes_max
        left = allowance.opcodes
        try:
            while not self.stream.finished:
                if left <= 0:
                    raise _SpentError(
                        f"takes more than {self._settings.pickle_opcodes_max} opcodes"
                    )
                step = step_at(self._view, at, line_bytes_max=line_bytes_max)
                left -= 1
                _EFFECTS[step.opcode.effect](self, step)
                at = step.after
        except IntegrityError as error:
            self.stream.broken = error.message
        except _BreakError as error:
            self.stream.broken = f"{error} at {at}"
        except _SpentError as error:
            self.stream.spent = str(error)
        allowance.opcodes = left

    # ---- the stack ----

    def _push(self, value: Value) -> None:
        self._stack.append(value)

    def _pop(self) -> Value:
        if len(self._stack) <= (self._marks[-1] if self._marks else 0):
            raise _BreakError("the stack is empty")
        return self._stack.pop()

    def _top(self) -> Value:
        value = self._pop()
        self._stack.append(value)
        return value

    def _to_mark(self) -> list[Value]:
        if not self._marks:
            raise _BreakError("there is no mark")
        start = self._marks.pop()
        values = self._stack[start:]
        del self._stack[start:]
        return values

    # ---- effects: data ----

    def nothing(self, _step: Step) -> None:
        """Do nothing."""

    def push(self, _step: Step) -> None:
        """Push data."""
        self._push(DATA)

    def number(self, _step: Step) -> None:
        """Push a number."""
        self._push(NUMBER)

    def text(self, step: Step) -> None:
        """Push text; long text names nothing."""
        self._push(DATA if step.text is None else self._text(step.text))

    def quoted(self, step: Step) -> None:
        """Push the text of STRING, which stands in quotes with Python 2's escapes."""
        line = (step.text or "").strip()
        if len(line) < 2 or line[0] != line[-1] or line[0] not in "\"'":
            raise _BreakError("STRING without quotes")
        self._push(self._text(_unescaped(line[1:-1], "unicode_escape")))

    def escaped(self, step: Step) -> None:
        """Push the text of UNICODE, which may hold escapes by code point."""
        self._push(self._text(_unescaped(step.text or "", "raw_unicode_escape")))

    def _text(self, text: str) -> str:
        self._text_bytes += len(text)
        if self._text_bytes > self._settings.pickle_text_bytes_max:
            raise _SpentError(
                f"holds more than {self._settings.pickle_text_bytes_max} bytes of names"
            )
        return text

    def mark(self, _step: Step) -> None:
        """Remember the height of the stack."""
        self._marks.append(len(self._stack))

    def stop(self, step: Step) -> None:
        """End: something must lie on the stack."""
        self._pop()
        self.stream.finished, self.stream.end = True, step.after

    def pop(self, _step: Step) -> None:
        """Drop the top, or the mark that lies there."""
        if self._marks and len(self._stack) == self._marks[-1]:
            self._marks.pop()
        else:
            self._pop()

    def pop_mark(self, _step: Step) -> None:
        """Drop everything above the mark."""
        self._to_mark()

    def dup(self, _step: Step) -> None:
        """Push the top again."""
        self._push(self._top())

    def collect(self, _step: Step) -> None:
        """Make a list, dict or frozen set of what lies above the mark."""
        self._to_mark()
        self._push(DATA)

    def make_tuple(self, _step: Step) -> None:
        """Make a tuple of what lies above the mark."""
        self._push(_kept(self._to_mark()))

    def short_tuple(self, step: Step) -> None:
        """Make a tuple of the top zero to three values."""
        count = int(step.opcode.effect[-1])
        self._push(_kept([self._pop() for _ in range(count)][::-1]))

    def append(self, _step: Step) -> None:
        """Add one value to what lies under it."""
        self._pop()
        self._top()

    def set_item(self, _step: Step) -> None:
        """Add a key and a value to what lies under them."""
        self._pop()
        self._pop()
        self._top()

    def extend(self, _step: Step) -> None:
        """Add everything above the mark to what lies under it."""
        self._to_mark()
        self._top()

    # ---- effects: memo ----

    def put(self, step: Step) -> None:
        """Remember the top under a number; CPython allocates a table up to that number."""
        index, value = self._index(step), self._top()
        if index > len(self._view):
            text = f"remembers a value under number {index}: a loader allocates {16 * index} bytes"
            self._note("scan.pickle.memo", Severity.HIGH, text)
        self._remember(index, value)

    def memoize(self, _step: Step) -> None:
        """Remember the top under the next number."""
        self._remember(len(self._memo), self._top())

    def _remember(self, index: int, value: Value) -> None:
        if len(self._memo) >= self._settings.pickle_memo_max:
            raise _SpentError(f"remembers more than {self._settings.pickle_memo_max} values")
        self._memo[index] = value

    def get(self, step: Step) -> None:
        """Push what was remembered."""
        index = self._index(step)
        if index not in self._memo:
            raise _BreakError(f"nothing was remembered under {index}")
        self._push(self._memo[index])

    @staticmethod
    def _index(step: Step) -> int:
        if step.text is None:
            return step.number
        digits = step.text.strip()
        if not digits.isascii() or not digits.isdecimal() or len(digits) > 20:
            raise _BreakError(f"{printable(digits, 40)} is no number of the memo")
        return int(digits)

    # ---- effects: names ----

    def ask_global(self, step: Step) -> None:
        """GLOBAL: two lines name it."""
        self._push(self._symbol(step.text or "", step.more, step.offset))

    def stack_global(self, step: Step) -> None:
        """STACK_GLOBAL: two texts on the stack name it."""
        name, module = self._pop(), self._pop()
        if isinstance(name, str) and isinstance(module, str):
            self._push(self._symbol(module, name, step.offset))
            return
        if isinstance(name, Made) or isinstance(module, Made):
            text = f"computes the name of what it imports (byte {step.offset})"
            self._note("scan.pickle.computed", Severity.HIGH, text)
            self._push(DATA)
            return
        raise _BreakError("STACK_GLOBAL without two texts")

    def extension(self, step: Step) -> None:
        """EXT: a number names whatever the loading process registered under it."""
        text = f"uses extension code {step.number}, whose meaning only the loading process knows"
        self._note("scan.pickle.extension", Severity.HIGH, text)
        self._push(Symbol("copyreg", f"extension {step.number}"))

    def persistent(self, _step: Step) -> None:
        """PERSID: the loader's own table; plain loaders have none."""
        if not self._persistent:
            raise _BreakError("a persistent id where the loader has none")
        self._push(DATA)

    def binary_persistent(self, step: Step) -> None:
        """BINPERSID: as PERSID, the id lies on the stack."""
        self._pop()
        self.persistent(step)

    def _symbol(self, module: str, name: str, offset: int) -> Symbol:
        symbol = rewritten(module, name)
        if symbol not in self.stream.uses:
            if len(self.stream.uses) >= self._settings.pickle_symbols_max:
                limit = self._settings.pickle_symbols_max
                raise _SpentError(f"asks for more than {limit} different names")
            self.stream.uses[symbol] = Use(offset)
        return symbol

    # ---- effects: calls ----

    def reduce(self, step: Step) -> None:
        """REDUCE and NEWOBJ: call what lies under the arguments."""
        arguments = self._pop()
        self._call(self._pop(), arguments, step)

    def new_with_keywords(self, step: Step) -> None:
        """NEWOBJ_EX: class, arguments and keywords."""
        self._pop()
        arguments = self._pop()
        self._call(self._pop(), arguments, step)

    def inst(self, step: Step) -> None:
        """INST: two lines name the class, its arguments lie above the mark."""
        arguments = _kept(self._to_mark())
        symbol = self._symbol(step.text or "", step.more, step.offset)
        self._call(symbol, arguments, step)

    def obj(self, step: Step) -> None:
        """OBJ: class and arguments lie above the mark."""
        values = self._to_mark()
        if not values:
            raise _BreakError("OBJ without a class")
        self._call(values[0], _kept(values[1:]), step)

    def build(self, step: Step) -> None:
        """BUILD: set the state of the object under it."""
        self._pop()
        target = self._top()
        if isinstance(target, Symbol):
            text = f"sets attributes on {target} itself (byte {step.offset})"
            self._note("scan.pickle.build", Severity.HIGH, text)

    def _call(self, target: Value, arguments: Value, step: Step) -> None:
        if isinstance(target, Made):
            text = f"calls what {target.by} returned (byte {step.offset})"
            self._note("scan.pickle.computed", Severity.HIGH, text)
            self._push(target)
            return
        if not isinstance(target, Symbol):
            raise _BreakError(f"{step.opcode.name} of something that cannot be called")
        use = self.stream.uses.setdefault(target, Use(step.offset))
        use.called = True
        kept: Arguments = arguments if isinstance(arguments, tuple) else None
        if not is_callable(target, kept):
            use.odd = True
        self._push(Made(target))

    def _note(self, rule: str, severity: Severity, text: str) -> None:
        if len(self.stream.notes) < self._settings.pickle_symbols_max:
            self.stream.notes.append((rule, severity, text))


_EFFECTS: Mapping[str, Callable[[Machine, Step], None]] = {
    "append": Machine.append,
    "binary_persistent": Machine.binary_persistent,
    "build": Machine.build,
    "collect": Machine.collect,
    "dup": Machine.dup,
    "escaped": Machine.escaped,
    "extend": Machine.extend,
    "extension": Machine.extension,
    "get": Machine.get,
    "inst": Machine.inst,
    "mark": Machine.mark,
    "memoize": Machine.memoize,
    "new_with_keywords": Machine.new_with_keywords,
    "nothing": Machine.nothing,
    "number": Machine.number,
    "obj": Machine.obj,
    "persistent": Machine.persistent,
    "pop": Machine.pop,
    "pop_mark": Machine.pop_mark,
    "push": Machine.push,
    "put": Machine.put,
    "quoted": Machine.quoted,
    "reduce": Machine.reduce,
    "set_item": Machine.set_item,
    "stack_global": Machine.stack_global,
    "stop": Machine.stop,
    "text": Machine.text,
    **dict.fromkeys(("tuple0", "tuple1", "tuple2", "tuple3"), Machine.short_tuple),
    **dict.fromkeys(("protocol", "frame"), Machine.nothing),
    "global": Machine.ask_global,
    "tuple": Machine.make_tuple,
}


def _kept(values: list[Value]) -> Value:
    """A tuple as a value: its elements where they are few, else data."""
    if len(values) > _ARGUMENTS_MAX:
        return DATA
    return tuple(
        DATA if isinstance(each, tuple | Opaque) and each != NUMBER else each for each in values
    )


def _unescaped(text: str, codec: str) -> str:
    try:
        return text.encode("latin-1", "replace").decode(codec)
    except UnicodeDecodeError:
        raise _BreakError("text with a broken escape") from None
