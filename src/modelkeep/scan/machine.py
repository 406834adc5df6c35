"""CPython's pickle machine over symbols: what a pickle would import and call, step by step.

A global is the name that would be imported, a call is a note that this name would be called, text
and numbers are kept because names and sizes are made of them, and everything else is data. Where
every loader would stop with an error, the machine stops; where only some would (the C loader looks
past the end of a frame, the Python one does not), it goes on and says so. Where it stops at a bound
of its own, it says that too.

Loaders differ in what follows an array wrapper of joblib: joblib itself reads the array that lies
there, `pickle.load` takes its bytes for opcodes. Both ways are walked (`Machine.branch`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from modelkeep.core.errors import IntegrityError
from modelkeep.core.verdict import Severity
from modelkeep.scan.allowance import Allowance
from modelkeep.scan.evidence import printable
from modelkeep.scan.machine_calls import Calls, Stream
from modelkeep.scan.machine_stack import BreakError, SpentError, Stack
from modelkeep.scan.machine_text import (
    escaped_text,
    index_number,
    line_number,
    quoted_text,
    utf8_text,
)
from modelkeep.scan.opcodes import OPCODES, TEXT_BYTES_MAX, Step, step_at
from modelkeep.scan.settings import ScanSettings
from modelkeep.scan.symbols_values import DATA, Made, Map, Span, Symbol, Value, is_literal

# Elements of a tuple that are kept one by one; torch's longest call has nine.
_ELEMENTS_MAX = 16
_PROTOCOL_MAX = 5
# Numbers of the memo that cost a loader little, whatever the size of its pickle.
_MEMO_FREE = 1 << 16
# Values that are copied for a branch at the cost of one opcode.
_COPIES_PER_OPCODE = 16

# An array of joblib: where its bytes begin and what its wrapper says; where they end and whether
# they are a pickle of their own, or None where the object is no wrapper.
Arrays = Callable[[int, Made], tuple[int, bool] | None]


@dataclass(slots=True)
class _Frame:
    """The frame that the loader is in: where it ends, and where the file goes on behind it."""

    stop: int = 0
    file_at: int = 0
    noted: bool = False


class Machine:
    """CPython's pickle machine over symbols, for one stream."""

    __slots__ = (
        "_arrays", "_calls", "_frame", "_settings", "_stack", "_text_bytes", "_view", "stream",
    )  # fmt: skip

    def __init__(
        self,
        view: memoryview,
        start: int,
        settings: ScanSettings,
        *,
        persistent: bool,
        arrays: Arrays | None = None,
    ) -> None:
        self._view = view
        self._settings = settings
        self._arrays = arrays
        self._stack = Stack(settings.pickle_memo_max)
        self._text_bytes = 0
        self._frame = _Frame()
        self.stream = Stream(start)
        self._calls = Calls(self.stream, settings, persistent=persistent)

    def run(self, allowance: Allowance) -> None:
        """Walk to STOP, a break or a bound."""
        at = self.stream.start
        line_bytes_max = self._settings.line_bytes_max
        left = allowance.opcodes
        frame = self._frame
        try:
            while not self.stream.finished:
                if left <= 0:
                    raise SpentError(f"takes more than {self._settings.pickle_opcodes_max} opcodes")
                step = step_at(self._view, at, line_bytes_max=line_bytes_max)
                left -= 1
                if at < frame.stop:
                    self._within_frame(step)
                _EFFECTS[step.opcode.effect](self, step)
                at = step.after
                if self._arrays is not None and step.opcode.effect == "build":
                    allowance.opcodes = left
                    at = self._past_array(at, allowance)
                    left = allowance.opcodes
                if at == frame.stop and frame.file_at:
                    at, frame.stop, frame.file_at = frame.file_at, 0, 0
        except IntegrityError as error:
            self.stream.broken, self.stream.code = error.message, error.code
        except BreakError as error:
            self.stream.broken = f"{error} at {at}"
        except SpentError as error:
            self.stream.spent = str(error)
        allowance.opcodes = left

    # ---- joblib ----

    def _past_array(self, at: int, allowance: Allowance) -> int:
        """Where the opcodes go on: behind the array if BUILD has just finished its wrapper."""
        wrapper = self._stack.values[-1] if self._stack.values else None
        if not isinstance(wrapper, Made) or self._arrays is None:
            return at
        frame = self._frame
        in_frame = at < frame.stop
        array_at = (frame.file_at or frame.stop) if in_frame else at
        found = self._arrays(array_at, wrapper)
        if found is None:
            return at
        after, is_pickle = found
        self._branch(at, allowance, is_pickle=is_pickle)
        self._stack.values[-1] = Made(wrapper.by)
        if in_frame:
            frame.file_at = after
            return at
        return after

    def _branch(self, at: int, allowance: Allowance, *, is_pickle: bool) -> None:
        """Walk on as a loader that knows of no arrays: their bytes are opcodes to it.

        The pickle of an array of objects remembers by numbers of its own, which name something
        else here: of that, only what is dangerous counts.
        """
        if at >= len(self._view) or self._view[at] not in OPCODES:
            return  # the padding of newer versions: the walk would break at once
        allowance.opcodes -= (len(self._stack.memo) + len(self._stack.values)) // _COPIES_PER_OPCODE
        if allowance.opcodes <= 0:
            raise SpentError(f"takes more than {self._settings.pickle_opcodes_max} opcodes")
        other = Machine(self._view, at, self._settings, persistent=False)
        other._stack = self._stack.copied()
        other.run(allowance)
        if other.stream.reaches(unknown=not is_pickle):
            self.stream.branches.append(other.stream)

    # ---- frames ----

    def _within_frame(self, step: Step) -> None:
        """Note where loaders differ: an opcode across the end of a frame, a frame in a frame."""
        frame = self._frame
        if frame.noted or (step.after <= frame.stop and step.opcode.effect != "frame"):
            return
        frame.noted = True
        # python/cpython#154848: the C loader, reading a file, goes on at another byte than it would
        # without the frame, and so runs opcodes that lie in what everybody else takes for data.
        text = f"{step.opcode.name} at {step.offset} crosses the end of its frame: loaders differ"
        self._calls.note("scan.pickle.frame", Severity.HIGH, text)

    def frame(self, step: Step) -> None:
        """FRAME: the Python loader reads ahead; the C loader refuses one past the end."""
        stop = step.after + step.number
        if stop > len(self._view):
            text = f"claims a frame of {step.number} bytes at {step.offset}: loaders differ"
            self._calls.note("scan.pickle.frame", Severity.HIGH, text)
        self._frame.stop, self._frame.file_at = stop, 0

    def protocol(self, step: Step) -> None:
        """PROTO: no loader reads a newer one."""
        if step.number > _PROTOCOL_MAX:
            text = f"claims protocol {step.number}, which no loader reads"
            self._calls.note("scan.pickle.protocol", Severity.MEDIUM, text)

    def _to_mark(self) -> list[Value]:
        """Everything above the mark; what becomes part of something is looked at."""
        values = self._stack.to_mark()
        for value in values:
            if value.__class__ is Symbol:
                self._calls.see(value)
        return values

    # ---- effects: data ----

    def nothing(self, _step: Step) -> None:
        """Do nothing."""

    def push(self, _step: Step) -> None:
        """Push data."""
        self._stack.push(DATA)

    def none(self, _step: Step) -> None:
        """Push None."""
        self._stack.push(None)

    def true(self, _step: Step) -> None:
        """Push True."""
        self._stack.push(value=True)

    def false(self, _step: Step) -> None:
        """Push False."""
        self._stack.push(value=False)

    def number(self, step: Step) -> None:
        """Push a number."""
        self._stack.push(step.number)

    def digits(self, step: Step) -> None:
        """Push the number of INT or LONG; any base will do."""
        found = line_number(step.text or "")
        self._stack.push(DATA if found is None else found)

    def raw(self, step: Step) -> None:
        """Push bytes that stay where they are."""
        self._stack.push(Span(step.start, step.after))

    def buffer(self, _step: Step) -> None:
        """NEXT_BUFFER: bytes that are not in the file."""
        text = "takes buffers from outside the file, which no plain loader has"
        self._calls.note("scan.pickle.buffer", Severity.MEDIUM, text)
        self._stack.push(DATA)

    def text(self, step: Step) -> None:
        """Push text; long text names nothing and stays where it is."""
        is_long = step.text is None
        self._stack.push(
            Span(step.start, step.after, is_text=True) if is_long else self._text(step.text)
        )

    def quoted(self, step: Step) -> None:
        """Push the text of STRING, which stands in quotes with Python 2's escapes."""
        self._line_text("" if step.text is None else quoted_text(step.text), step)

    def escaped(self, step: Step) -> None:
        """Push the text of UNICODE, which may hold escapes by code point."""
        self._line_text("" if step.text is None else escaped_text(step.text), step)

    def _line_text(self, text: str | None, step: Step) -> None:
        if text is None:
            raise BreakError("text without quotes or with a broken escape")
        if step.text is None or len(text) > TEXT_BYTES_MAX:
            is_escaped = step.opcode.effect == "escaped"
            self._stack.push(Span(step.start, step.after - 1, is_text=True, is_escaped=is_escaped))
        else:
            self._stack.push(self._text(text))

    def _text(self, text: str | None) -> str:
        text = text or ""
        self._text_bytes += len(text)
        if self._text_bytes > self._settings.pickle_text_bytes_max:
            raise SpentError(
                f"holds more than {self._settings.pickle_text_bytes_max} bytes of names"
            )
        return text

    def mark(self, _step: Step) -> None:
        """Remember the height of the stack."""
        self._stack.mark()

    def stop(self, step: Step) -> None:
        """End: something must lie on the stack."""
        self.stream.result = self._stack.pop()
        self.stream.finished, self.stream.end = True, step.after
        if self._frame.file_at:  # the array of a joblib file was read from behind the frame
            self.stream.end = max(step.after, self._frame.file_at)

    def pop(self, _step: Step) -> None:
        """Drop the top, or the mark that lies there."""
        self._stack.drop()

    def pop_mark(self, _step: Step) -> None:
        """Drop everything above the mark."""
        self._to_mark()

    def dup(self, _step: Step) -> None:
        """Push the top again."""
        self._stack.push(self._stack.top())

    def collect(self, _step: Step) -> None:
        """Make a list or frozen set of what lies above the mark."""
        self._to_mark()
        self._stack.push(DATA)

    def empty_map(self, _step: Step) -> None:
        """Push an empty dictionary."""
        self._stack.push(Map())

    def collect_map(self, _step: Step) -> None:
        """Make a dictionary of what lies above the mark."""
        made = Map()
        self._fill(made, self._to_mark())
        self._stack.push(made)

    def make_tuple(self, _step: Step) -> None:
        """Make a tuple of what lies above the mark."""
        values = self._to_mark()
        self._stack.push(tuple(values) if len(values) <= _ELEMENTS_MAX else DATA)

    def short_tuple(self, step: Step) -> None:
        """Make a tuple of the top zero to three values."""
        count = int(step.opcode.effect[-1])
        values = tuple([self._stack.pop() for _ in range(count)][::-1])
        for value in values:
            if value.__class__ is Symbol:
                self._calls.see(value)
        self._stack.push(values)

    def append(self, step: Step) -> None:
        """Add one value to what lies under it."""
        self._calls.see(self._stack.pop())
        self._calls.add(self._stack.top(), step)

    def set_item(self, step: Step) -> None:
        """Add a key and a value to what lies under them."""
        value, key = self._stack.pop(), self._stack.pop()
        self._calls.see(value)
        self._fill(self._stack.top(), [key, value])
        self._calls.add(self._stack.top(), step)

    def extend(self, step: Step) -> None:
        """Add everything above the mark to what lies under it."""
        self._to_mark()
        self._calls.add(self._stack.top(), step)

    def set_items(self, step: Step) -> None:
        """Add keys and values above the mark to what lies under it."""
        values = self._to_mark()
        self._fill(self._stack.top(), values)
        self._calls.add(self._stack.top(), step)

    def _fill(self, target: Value, values: list[Value]) -> None:
        """Set the entries of a dictionary; what is none only shows its hooks."""
        for key, value in zip(values[::2], values[1::2], strict=False):
            if isinstance(key, str):
                self._calls.entry(key, value)
            elif target.__class__ is not Map and not is_literal(key):
                self._calls.made_entry(key, value)
            if target.__class__ is Map:
                target.put(key, value)

    # ---- effects: memo ----

    def put(self, step: Step) -> None:
        """Remember the top under a number; CPython allocates a table up to that number."""
        index = self._index(step)
        if index > max(len(self._view), _MEMO_FREE):
            text = f"remembers a value under number {index}: a loader allocates {16 * index} bytes"
            self._calls.note("scan.pickle.memo", Severity.HIGH, text)
        self._stack.remember(index)

    def memoize(self, _step: Step) -> None:
        """Remember the top under the next number."""
        self._stack.remember(len(self._stack.memo))

    def get(self, step: Step) -> None:
        """Push what was remembered."""
        self._stack.recall(self._index(step))

    @staticmethod
    def _index(step: Step) -> int:
        """The number of a memo."""
        index = step.number if step.text is None else index_number(step.text)
        if index is None:
            raise BreakError(f"{printable(step.text or '', 40)} is no number of the memo")
        return index

    # ---- effects: names ----

    def ask_global(self, step: Step) -> None:
        """GLOBAL: two lines name it."""
        self._stack.push(self._named(utf8_text(step.text or ""), utf8_text(step.more), step))

    def stack_global(self, step: Step) -> None:
        """STACK_GLOBAL: two texts on the stack name it."""
        name, module = self._stack.pop(), self._stack.pop()
        if isinstance(name, str) and isinstance(module, str):
            self._stack.push(self._named(module, name, step))
            return
        if isinstance(name, Made | Span) or isinstance(module, Made | Span):
            text = f"computes the name of what it imports (byte {step.offset})"
            self._calls.note("scan.pickle.computed", Severity.HIGH, text)
            self._stack.push(DATA)
            return
        raise BreakError("STACK_GLOBAL without two texts")

    def _named(self, module: str, name: str, step: Step) -> Symbol:
        symbol = self._calls.symbol(module, name, step.offset)
        if symbol is None:
            limit = self._settings.pickle_symbols_max
            raise SpentError(f"asks for more than {limit} different names")
        return symbol

    def extension(self, step: Step) -> None:
        """EXT: a number names whatever the loading process registered under it."""
        text = f"uses extension code {step.number}, whose meaning only the loading process knows"
        self._calls.note("scan.pickle.extension", Severity.HIGH, text)
        self._stack.push(Symbol("copyreg", f"extension {step.number}"))

    def persistent(self, step: Step) -> None:
        """PERSID: the loader's own table; plain loaders have none."""
        self._stack.push(self._persisted(step.text or "", step))

    def binary_persistent(self, step: Step) -> None:
        """BINPERSID: as PERSID, the id lies on the stack."""
        self._stack.push(self._persisted(self._stack.pop(), step))

    def _persisted(self, identity: Value, step: Step) -> Value:
        found = self._calls.persisted(identity, step)
        if found is None:
            raise BreakError("a persistent id where the loader has none")
        return found

    # ---- effects: calls ----

    def reduce(self, step: Step) -> None:
        """REDUCE: call what lies under the arguments."""
        arguments = self._stack.pop()
        self._call(self._stack.pop(), arguments, step)

    def new(self, step: Step) -> None:
        """NEWOBJ: make an instance of what lies under the arguments."""
        arguments = self._stack.pop()
        self._call(self._stack.pop(), arguments, step)

    def new_with_keywords(self, step: Step) -> None:
        """NEWOBJ_EX: class, arguments and keywords."""
        keywords, arguments = self._stack.pop(), self._stack.pop()
        if not isinstance(keywords, Map) or keywords.entries or keywords.is_open:
            arguments = (arguments, keywords)
        self._call(self._stack.pop(), arguments, step)

    def inst(self, step: Step) -> None:
        """INST: two lines name the class, its arguments lie above the mark."""
        values = self._to_mark()
        symbol = self._named(utf8_text(step.text or ""), utf8_text(step.more), step)
        self._call(symbol, tuple(values) if len(values) <= _ELEMENTS_MAX else DATA, step)

    def obj(self, step: Step) -> None:
        """OBJ: class and arguments lie above the mark."""
        values = self._to_mark()
        if not values:
            raise BreakError("OBJ without a class")
        arguments = tuple(values[1:]) if len(values) <= _ELEMENTS_MAX else DATA
        self._call(values[0], arguments, step)

    def build(self, step: Step) -> None:
        """BUILD: set the state of the object under it."""
        state = self._stack.pop()
        self._calls.see(state)
        self._calls.build(self._stack.top(), state, step)

    def _call(self, target: Value, arguments: Value, step: Step) -> None:
        if not isinstance(target, Symbol | Made):
            raise BreakError(f"{step.opcode.name} of something that cannot be called")
        self._stack.push(self._calls.call(target, arguments, step))


# Effects whose method has another name; that of every other one is the effect's.
_NAMED = {
    "global": "ask_global",
    "tuple": "make_tuple",
    **{f"tuple{count}": "short_tuple" for count in range(4)},
}
_EFFECTS: Mapping[str, Callable[[Machine, Step], None]] = {
    opcode.effect: getattr(Machine, _NAMED.get(opcode.effect, opcode.effect))
    for opcode in OPCODES.values()
}
