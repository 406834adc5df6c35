"""What a pickle does beyond data: the names it asks for, what it calls, what it sets on what.

Every name is judged once, by itself, wherever it stands: as what is called, as an argument, in a
list. Calls add to that whether the name is called in a shape that some writer of models has. Four
ways to call something are closed here that need no call opcode: an attribute that the next opcode
calls (`__setstate__`, `append`), an object that is no container taking items, state set on a name
itself, and a name that is harmless in one shape only being handed to somebody else to call.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from modelkeep.core.verdict import Severity
from modelkeep.scan.opcodes import Step
from modelkeep.scan.settings import ScanSettings
from modelkeep.scan.symbols import (
    DICTS,
    GETATTR,
    LOADS_STORAGE,
    MAKERS,
    asked_for,
    is_allowed,
    is_callable,
    is_dangerous,
    is_guarded,
    is_state,
    passed_on,
    reads_archive,
    rewritten,
    runs_state,
    takes_items,
)
from modelkeep.scan.symbols_values import DATA, Arguments, Made, Map, Opaque, Symbol, Value

# What the loader itself calls on an object if it is there.
_HOOKS = frozenset({
    "__setstate__", "__reduce__", "__reduce_ex__", "__getattr__", "__getattribute__", "__setattr__",
    "__call__", "__new__", "__init__", "__class__", "__dict__", "__setitem__", "__del__",
    "__iter__",
    "__prepare__", "__array_prepare__", "__getnewargs__", "__getnewargs_ex__", "__getinitargs__",
    "append", "extend", "add",
})  # fmt: skip
# Of classes like transformers' configurations: what they call whenever an attribute is set.
_VALIDATORS = "__validators__"
# Of torch: a storage (from 0.4 on five parts, six before), and the class of a module.
_STORAGE_PARTS = (5, 6)


@dataclass(slots=True)
class Use:
    """How one symbol was used.

    Attributes:
        offset: where it was first asked for.
        loose: whether it was handed on, so that somebody else may call it.
        odd: whether a call of it has no shape that a writer of models has.
        way: the opcode's effect that called it; REDUCE before all others.
        holds_items: whether items were added to what it returned.
    """

    offset: int
    called: bool = False
    odd: bool = False
    loose: bool = False
    way: str = ""
    holds_items: bool = False


@dataclass(slots=True)
class Stream:
    """One pickle's run.

    Attributes:
        result: what lay on the stack at STOP.
        code: of the error that broke it.
        packed: what a call hands to torch's loader as the bytes of a storage, and where.
        branches: runs of a loader that takes the bytes of arrays for opcodes.
    """

    start: int
    end: int = 0
    finished: bool = False
    broken: str = ""
    code: str = ""
    spent: str = ""
    result: Value = None
    uses: dict[Symbol, Use] = field(default_factory=dict)
    notes: list[tuple[str, Severity, str]] = field(default_factory=list)
    packed: list[tuple[int, Value]] = field(default_factory=list)
    branches: list[Stream] = field(default_factory=list)

    def acts(self) -> bool:
        """Whether a loader would have done more than build data by its end or its break."""
        for symbol, use in self.uses.items():
            if use.called or is_dangerous(symbol) or (self.finished and not is_allowed(symbol)):
                return True
        quiet = ("scan.pickle.memo", "scan.pickle.frame", "scan.pickle.protocol")
        return any(rule not in (*quiet, "scan.pickle.buffer") for rule, _, _ in self.notes)

    def reaches(self, *, unknown: bool) -> bool:
        """Whether it asks for what is dangerous or, if that counts, calls what is unknown.

        Numbers that are taken for opcodes do neither, whatever else they do.
        """
        return any(
            is_dangerous(symbol) or (unknown and use.called and not is_allowed(symbol))
            for symbol, use in self.uses.items()
            if not is_guarded(symbol)
        )


class Calls:
    """Names, calls and states of one stream, noted as they come."""

    __slots__ = ("_persistent", "_settings", "_stream")

    def __init__(self, stream: Stream, settings: ScanSettings, *, persistent: bool) -> None:
        self._stream = stream
        self._settings = settings
        self._persistent = persistent

    def note(self, rule: str, severity: Severity, text: str) -> None:
        """Keep a finding; so many and no more."""
        if len(self._stream.notes) < self._settings.pickle_symbols_max:
            self._stream.notes.append((rule, severity, text))

    def symbol(self, module: str, name: str, offset: int) -> Symbol | None:
        """The name under which it is judged; None where there are too many."""
        symbol = rewritten(module, name)
        if symbol not in self._stream.uses:
            if len(self._stream.uses) >= self._settings.pickle_symbols_max:
                return None
            self._stream.uses[symbol] = Use(offset)
        return symbol

    def see(self, value: Value) -> None:
        """Look at what becomes part of something: a name that others may now call."""
        if value.__class__ is Symbol and is_guarded(value):
            self._stream.uses[value].loose = True

    def entry(self, key: str, value: Value) -> None:
        """Look at an entry of a map, which may become the attribute of an object."""
        is_code = value.__class__ is Symbol or (value.__class__ is Made and passed_on(value.by))
        if key == _VALIDATORS and value is not None:
            text = f"sets {key}, which configurations of transformers call"
            self.note("scan.pickle.hook", Severity.MEDIUM, text)
        if is_code and key in _HOOKS:
            what = value.by if isinstance(value, Made) else value
            text = f"sets {key}, which a loader calls, to {what}"
            self.note("scan.pickle.hook", Severity.HIGH, text)

    def made_entry(self, key: Value, value: Value) -> None:
        """Look at an entry under a key that was made, of what may become an object's state."""
        if isinstance(value, Symbol) or (isinstance(value, Made) and passed_on(value.by)):
            what = key.by if isinstance(key, Made) else key
            text = f"keeps what can be called under a key that {what} makes"
            self.note("scan.pickle.computed", Severity.MEDIUM, text)

    def add(self, target: Value, step: Step) -> None:
        """Items are added to what lies on top."""
        if target.__class__ is Opaque or target.__class__ is Map:
            return
        if isinstance(target, Symbol):
            text = f"changes {target} itself (byte {step.offset})"
            self.note("scan.pickle.build", Severity.HIGH, text)
        elif isinstance(target, Made) and not takes_items(target.by):
            use = self._stream.uses.get(target.by)
            if use is not None:
                use.holds_items = True
            if not is_allowed(target.by) and not is_guarded(target.by):
                return
            text = f"adds items to what {target.by} returned, which takes none (byte {step.offset})"
            self.note("scan.pickle.arguments", Severity.MEDIUM, text)

    def persisted(self, identity: Value, step: Step) -> Value:
        """What a persistent id stands for; None where the loader has no table."""
        if not self._persistent:
            return None
        if isinstance(identity, tuple) and identity[:1] == ("storage",):
            if len(identity) in _STORAGE_PARTS and isinstance(identity[1], Symbol):
                return Made(Symbol("torch.storage", "TypedStorage"), identity)
        elif isinstance(identity, tuple) and identity[:1] == ("module",) and len(identity) == 4:
            return identity[1]
        elif isinstance(identity, str | int):  # torch's tar files; torch's own reducers
            return DATA
        text = f"has a persistent id that is none of torch's (byte {step.offset})"
        self.note("scan.pickle.persistent", Severity.MEDIUM, text)
        return DATA

    def call(self, target: Symbol | Made, arguments: Value, step: Step) -> Value:
        """Note a call and give what it returns."""
        asked = asked_for(target) if isinstance(target, Made) else None
        if asked is not None and is_allowed(asked):
            target = asked
        if isinstance(target, Made):
            text = f"calls what {target.by} returned (byte {step.offset})"
            # The archive is judged too: it is the end of the pickle, as a zip file's end shows.
            is_archive = target.by == GETATTR and reads_archive(target.arguments)
            severity = Severity.MEDIUM if is_archive else Severity.HIGH
            self.note("scan.pickle.computed", severity, text)
            return target
        use = self._stream.uses.setdefault(target, Use(step.offset))
        use.called = True
        use.way = step.opcode.effect if use.way != "reduce" else use.way
        kept: Arguments = arguments if isinstance(arguments, tuple) else None
        if not is_callable(target, kept, step.opcode.effect):
            use.odd = True
        if target == LOADS_STORAGE and kept:
            self._stream.packed.append((step.offset, kept[0]))
        if target in MAKERS and kept and isinstance(kept[0], Symbol):
            self._stream.uses.setdefault(kept[0], Use(step.offset)).way = "new"
            return Made(kept[0], kept[1:])  # an instance of that class, however it was made
        return Made(target, kept)

    def build(self, target: Value, state: Value, step: Step) -> None:
        """State is set on what lies on top."""
        if isinstance(target, Symbol):
            text = f"sets attributes on {target} itself (byte {step.offset})"
            self.note("scan.pickle.build", Severity.HIGH, text)
        elif isinstance(target, Made):
            self._slots(state, step)
            if any(isinstance(each, Map) and each.hides_code for each in _halves(state)):
                text = f"sets an attribute under a name that was made (byte {step.offset})"
                self.note("scan.pickle.hook", Severity.HIGH, text)
            if not is_state(target.by, state):
                if runs_state(target.by):
                    text = f"gives {target.by} a text that it executes (byte {step.offset})"
                    self.note("scan.pickle.hook", Severity.HIGH, text)
                self._stream.uses.setdefault(target.by, Use(step.offset)).odd = True
            # States add up: of two, nobody can tell here what counts.
            target.state = DATA if target.state is not None else state

    def _slots(self, state: Value, step: Step) -> None:
        """The second half of a pair of states is set attribute by attribute, `__class__` too."""
        slots = state[1] if isinstance(state, tuple) and len(state) == 2 else None
        if slots is None or (isinstance(slots, Map) and not (slots.has_dunder or slots.is_open)):
            return
        if isinstance(slots, Map) or (isinstance(slots, Made) and slots.by in DICTS):
            text = f"sets one of Python's own attributes through slots (byte {step.offset})"
            self.note("scan.pickle.hook", Severity.HIGH, text)


def _halves(state: Value) -> tuple[Value, ...]:
    """A state, or the two of a pair of states."""
    return state if isinstance(state, tuple) and len(state) == 2 else (state,)
