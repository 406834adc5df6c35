"""Pickles: walked opcode by opcode on a machine of names, never loaded.

Theory of operation. A pickle is a program for a stack machine. The machine here runs the same
program on *symbols*: a global is the name that would be imported, a call is a note that this name
would be called, text is kept because names are made of it, and everything else is data. Memo,
marks and every way to name or call something (GLOBAL, STACK_GLOBAL, INST, OBJ, EXT, REDUCE,
NEWOBJ, BUILD) are resolved as CPython's loader does, so what it would import is known exactly.

Rules.
1. A name on the allow-list, used as listed there, is harmless. An unknown name holds, a known
   dangerous one denies, and so does what no honest writer does: a name computed by a call, an
   extension code, a call of a call's result, attributes set on a class.
2. The bytes before a break were already executed when the loader met the break. So a stream that
   does not end is denied, and says what it would have called by then.
3. A loader stops at STOP and the next call of it starts there: all pickles of a file are walked.
   What follows the last one is a finding, except in torch's old format, which keeps its numbers
   there.

A `probe` is the same walk over bytes that claim another format: old protocols have no magic, and
a file can be a valid member of two formats at once. It reports only what would act.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from modelkeep.core.errors import IntegrityError
from modelkeep.core.verdict import Finding, Severity
from modelkeep.scan.evidence import found, listed, printable
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

# The first pickle of torch's format before 1.6: protocol 2, the number 0x1950a86a20f9469cfc6c.
TORCH_LEGACY_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
_JOBLIB_ARRAY = Symbol("joblib.numpy_pickle", "NumpyArrayWrapper")
# Arguments of a call that are kept one by one; torch's longest has seven.
_ARGUMENTS_MAX = 16


@dataclass(slots=True)
class _Use:
    """How one symbol was used: where it was first asked for, and whether it was called."""

    offset: int
    called: bool = False
    odd: bool = False


@dataclass(slots=True)
class _Stream:
    """One pickle's run."""

    start: int
    end: int = 0
    finished: bool = False
    broken: str = ""
    uses: dict[Symbol, _Use] = field(default_factory=dict)
    notes: list[tuple[str, Severity, str]] = field(default_factory=list)

    def acts(self) -> bool:
        """Whether a loader would have done more than build data by its end or its break."""
        for symbol, use in self.uses.items():
            if use.called or is_dangerous(symbol) or (self.finished and not is_allowed(symbol)):
                return True
        return any(rule != "scan.pickle.memo" for rule, _, _ in self.notes)


def pickle_findings(subject: str, view: memoryview, settings: ScanSettings) -> tuple[Finding, ...]:
    """Judge a file that claims to be a pickle, with all pickles that follow the first one."""
    streams, rest_at, spent = _walked(view, settings, persistent=True)
    findings = [finding for stream in streams for finding in _stream_findings(subject, stream)]
    last = streams[-1]
    if last.broken and _JOBLIB_ARRAY in last.uses:
        text = "joblib keeps arrays between the opcodes, which this version does not look into"
        findings.append(found("scan.format.unexamined", Severity.MEDIUM, subject, text))
    elif last.broken and (len(streams) == 1 or last.acts()):
        findings.append(_broken(subject, last))
    elif rest_at < len(view) and not spent:
        severity, why = Severity.MEDIUM, "no loader of a pickle reads them"
        if bytes(view[: len(TORCH_LEGACY_MAGIC)]) == TORCH_LEGACY_MAGIC:
            severity, why = Severity.NOTE, "torch's old format keeps its tensors there"
        text = f"{len(view) - rest_at} bytes follow the last pickle: {why}"
        findings.append(found("scan.pickle.trailing", severity, subject, text))
    if spent:
        findings.append(found("scan.pickle.limit", Severity.MEDIUM, subject, spent))
    return tuple(findings)


def probe_findings(subject: str, view: memoryview, settings: ScanSettings) -> tuple[Finding, ...]:
    """Judge bytes that claim to be something else, as `pickle.load` would run them.

    Nothing is reported unless they would import something dangerous or call something.
    """
    streams, _, _ = _walked(view, settings, persistent=False)
    acting = [stream for stream in streams if stream.acts()]
    return tuple(finding for stream in acting for finding in _stream_findings(subject, stream))


def _walked(
    view: memoryview, settings: ScanSettings, *, persistent: bool
) -> tuple[list[_Stream], int, str]:
    """All pickles of the bytes; where the last finished one ends; which bound ended the walk."""
    streams: list[_Stream] = []
    opcodes_left = settings.pickle_opcodes_max
    at = 0
    while at < len(view) or not streams:
        if len(streams) >= settings.pickle_streams_max:
            return streams, at, f"more than {settings.pickle_streams_max} pickles in one file"
        machine = _Machine(view, at, settings, persistent=persistent)
        opcodes_left = machine.run(opcodes_left)
        stream = machine.stream
        if not stream.finished:
            if not streams or stream.acts() or opcodes_left <= 0:
                streams.append(stream)
            spent = f"more than {settings.pickle_opcodes_max} opcodes" if opcodes_left <= 0 else ""
            return streams, at, spent
        streams.append(stream)
        at = stream.end
    return streams, at, ""


def _stream_findings(subject: str, stream: _Stream) -> list[Finding]:
    findings = [_symbol_finding(subject, symbol, use) for symbol, use in stream.uses.items()]
    notes = [found(rule, severity, subject, text) for rule, severity, text in stream.notes]
    return [finding for finding in findings if finding is not None] + notes


def _symbol_finding(subject: str, symbol: Symbol, use: _Use) -> Finding | None:
    what = f"{'calls' if use.called else 'imports'} {symbol}"
    where = f" (byte {use.offset})"
    if is_dangerous(symbol):
        return found("scan.pickle.dangerous", Severity.HIGH, subject, what + where)
    if not is_allowed(symbol):
        text = f"{what}, which is not on the list of harmless names{where}"
        return found("scan.pickle.global", Severity.MEDIUM, subject, text)
    if use.odd:
        text = f"{what} in a way that no writer of models does{where}"
        return found("scan.pickle.arguments", Severity.MEDIUM, subject, text)
    return None


def _broken(subject: str, stream: _Stream) -> Finding:
    called = [str(symbol) for symbol, use in stream.uses.items() if use.called]
    after = f"; a loader has by then called {listed(called)}" if called else ""
    text = f"does not parse as a pickle: {stream.broken}{after}"
    return found("scan.pickle.broken", Severity.HIGH, subject, text)


class _BreakError(Exception):
    """The loader would stop here with an error."""


class _Machine:
    """CPython's pickle machine over symbols, for one stream."""

    __slots__ = ("_marks", "_memo", "_persistent", "_settings", "_stack", "_view", "stream")

    def __init__(
        self, view: memoryview, start: int, settings: ScanSettings, *, persistent: bool
    ) -> None:
        self._view = view
        self._settings = settings
        self._persistent = persistent
        self._stack: list[Value] = []
        self._marks: list[int] = []
        self._memo: dict[int, Value] = {}
        self.stream = _Stream(start)

    def run(self, opcodes_left: int) -> int:
        """Walk to STOP, a break or the bound; return how many opcodes are left."""
        at = self.stream.start
        line_bytes_max = self._settings.line_bytes_max
        try:
            while opcodes_left > 0:
                step = step_at(self._view, at, line_bytes_max=line_bytes_max)
                _EFFECTS[step.opcode.effect](self, step)
                opcodes_left -= 1
                at = step.after
                if step.opcode.effect == "stop":
                    self.stream.finished, self.stream.end = True, at
                    break
        except IntegrityError as error:
            self.stream.broken = error.message
        except _BreakError as error:
            self.stream.broken = f"{error} at {at}"
        return opcodes_left

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
        self._push(DATA if step.text is None else step.text)

    def quoted(self, step: Step) -> None:
        """Push the text of STRING, which stands in quotes with Python 2's escapes."""
        line = (step.text or "").strip()
        if len(line) < 2 or line[0] != line[-1] or line[0] not in "\"'":
            raise _BreakError("STRING without quotes")
        self._push(_unescaped(line[1:-1], "unicode_escape"))

    def escaped(self, step: Step) -> None:
        """Push the text of UNICODE, which may hold escapes by code point."""
        self._push(_unescaped(step.text or "", "raw_unicode_escape"))

    def mark(self, _step: Step) -> None:
        """Remember the height of the stack."""
        self._marks.append(len(self._stack))

    def stop(self, _step: Step) -> None:
        """End: something must lie on the stack."""
        self._pop()

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
        self._memo[index] = value

    def memoize(self, _step: Step) -> None:
        """Remember the top under the next number."""
        self._memo[len(self._memo)] = self._top()

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
                raise _BreakError(f"more than {limit} different names are imported")
            self.stream.uses[symbol] = _Use(offset)
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
        use = self.stream.uses.setdefault(target, _Use(step.offset))
        use.called = True
        kept: Arguments = arguments if isinstance(arguments, tuple) else None
        if not is_callable(target, kept):
            use.odd = True
        self._push(Made(target))

    def _note(self, rule: str, severity: Severity, text: str) -> None:
        if len(self.stream.notes) < self._settings.pickle_symbols_max:
            self.stream.notes.append((rule, severity, text))


_EFFECTS: Mapping[str, Callable[[_Machine, Step], None]] = {
    "append": _Machine.append,
    "binary_persistent": _Machine.binary_persistent,
    "build": _Machine.build,
    "collect": _Machine.collect,
    "dup": _Machine.dup,
    "escaped": _Machine.escaped,
    "extend": _Machine.extend,
    "extension": _Machine.extension,
    "get": _Machine.get,
    "inst": _Machine.inst,
    "mark": _Machine.mark,
    "memoize": _Machine.memoize,
    "new_with_keywords": _Machine.new_with_keywords,
    "nothing": _Machine.nothing,
    "number": _Machine.number,
    "obj": _Machine.obj,
    "persistent": _Machine.persistent,
    "pop": _Machine.pop,
    "pop_mark": _Machine.pop_mark,
    "push": _Machine.push,
    "put": _Machine.put,
    "quoted": _Machine.quoted,
    "reduce": _Machine.reduce,
    "set_item": _Machine.set_item,
    "stack_global": _Machine.stack_global,
    "stop": _Machine.stop,
    "text": _Machine.text,
    **dict.fromkeys(("tuple0", "tuple1", "tuple2", "tuple3"), _Machine.short_tuple),
    **dict.fromkeys(("protocol", "frame"), _Machine.nothing),
    "global": _Machine.ask_global,
    "tuple": _Machine.make_tuple,
}


def _kept(values: list[Value]) -> Value:
    """A tuple as a value: its elements where they are few, else data."""
    if len(values) > _ARGUMENTS_MAX:
        return DATA
    return tuple(
        DATA if isinstance(each, tuple | Opaque) and each != NUMBER else each for each in values
    )


def _unescaped(text: str, codec: str) -> Value:
    try:
        return text.encode("latin-1", "replace").decode(codec)
    except UnicodeDecodeError:
        raise _BreakError("text with a broken escape") from None
