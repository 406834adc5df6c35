"""Pickles written by hand, opcode by opcode: none of what they name has to exist here.

`pickled` writes a value, in which a `Call` stands for what a callable gives; `assembled` writes
opcodes as they stand. A name is `module:name`.
"""

from __future__ import annotations

import pickle
import struct
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Name:
    """A global, as `module:name`."""

    text: str


@dataclass(frozen=True)
class Call:
    """What a callable gives for arguments; a state given to it, where there is one."""

    function: Name | Call
    arguments: tuple[object, ...] = ()
    state: object = None


def call(name: str, *arguments: object) -> Call:
    """A call of a global."""
    return Call(Name(name), arguments)


def pickled(value: object, protocol: int = 4) -> bytes:
    """A whole pickle of one value."""
    head = pickle.PROTO + bytes([protocol]) if protocol >= 2 else b""
    return head + _value(value, protocol) + pickle.STOP


def assembled(*words: str) -> bytes:
    """Opcodes by their names, each with what stands after a colon as its argument."""
    return b"".join(_word(*word.partition(":")[::2]) for word in words)


def _word(name: str, argument: str) -> bytes:
    return _WRITERS[name](argument) if name in _WRITERS else getattr(pickle, name.upper())


def _two(opcode: bytes, text: str) -> bytes:
    module, _, name = text.partition(":")
    return opcode + f"{module}\n{name}\n".encode()


def _line(opcode: bytes) -> Callable[[str], bytes]:
    return lambda text: opcode + text.encode("raw_unicode_escape") + b"\n"


def _byte(opcode: bytes) -> Callable[[str], bytes]:
    return lambda text: opcode + bytes([int(text)])


def _short(opcode: bytes) -> Callable[[str], bytes]:
    return lambda text: opcode + bytes([len(text)]) + text.encode("latin-1")


_WRITERS: dict[str, Callable[[str], bytes]] = {
    "proto": _byte(pickle.PROTO),
    "frame": lambda text: pickle.FRAME + struct.pack("<Q", int(text)),
    "global": lambda text: _two(pickle.GLOBAL, text),
    "inst": lambda text: _two(pickle.INST, text),
    "unicode": _line(pickle.UNICODE),
    "string": lambda text: pickle.STRING + repr(text).encode() + b"\n",
    "put": _line(pickle.PUT),
    "get": _line(pickle.GET),
    "binput": _byte(pickle.BINPUT),
    "binget": _byte(pickle.BINGET),
    "binint1": _byte(pickle.BININT1),
    "text": _short(pickle.SHORT_BINUNICODE),
    "bytes": _short(pickle.SHORT_BINBYTES),
}


def _value(value: object, protocol: int) -> bytes:  # noqa: PLR0911  # one for each kind
    if isinstance(value, Name):
        module, _, name = value.text.partition(":")
        if protocol < 4:
            return _two(pickle.GLOBAL, value.text)
        return _value(module, protocol) + _value(name, protocol) + pickle.STACK_GLOBAL
    if isinstance(value, Call):
        made = _value(value.function, protocol) + _value(value.arguments, protocol) + pickle.REDUCE
        return made if value.state is None else made + _value(value.state, protocol) + pickle.BUILD
    if isinstance(value, tuple | list):
        end = pickle.TUPLE if isinstance(value, tuple) else pickle.LIST
        return pickle.MARK + b"".join(_value(each, protocol) for each in value) + end
    if isinstance(value, dict):
        parts = [_value(each, protocol) for pair in value.items() for each in pair]
        return pickle.MARK + b"".join(parts) + pickle.DICT
    if isinstance(value, bytes) and protocol < 3:
        return _value(call("_codecs:encode", value.decode("latin-1"), "latin1"), protocol)
    plain = pickle.dumps(value, protocol if protocol < 4 else 3)
    return plain[2 if protocol >= 2 else 0 : -1]
