"""The opcodes of a pickle: decoded one by one from a view, nothing copied but short text.

The table holds all protocols up to 5. An opcode has a *form* (how its argument lies in the bytes)
and an *effect* (what it does to `modelkeep.scan.machine`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from modelkeep.core.errors import IntegrityError

# Text longer than this names nothing that could be imported: 255 is the longest file name.
TEXT_BYTES_MAX = 1024
_NEWLINE = re.compile(rb"\n")


class Opcode(NamedTuple):
    """One opcode of the table.

    Attributes:
        form: "" none · "u1", "u2", "u4", "u8", "i4" number · "n1", "n4", "n8" counted bytes or
            text · "z1", "z4" counted number · "line" or "lines" one or two lines · "f8" a float.
        effect: what the machine does.
    """

    name: str
    form: str
    effect: str


class Step(NamedTuple):
    """One opcode met.

    Attributes:
        offset: where it lies.
        number: its number, or the length of what is counted; 0 for a counted number too long.
        text: its line, with a character for every byte; or its counted text, if that is short.
        more: the second line.
        start: where its counted bytes or text begin.
        after: where the next one lies.
    """

    opcode: Opcode
    offset: int
    number: int
    text: str | None
    more: str
    start: int
    after: int


_PUSH = "push"
_NUMBER = "number"
OPCODES: Mapping[int, Opcode] = {
    ord(code): Opcode(*rest)
    for code, *rest in (
        ("(", "MARK", "", "mark"),
        (".", "STOP", "", "stop"),
        ("0", "POP", "", "pop"),
        ("1", "POP_MARK", "", "pop_mark"),
        ("2", "DUP", "", "dup"),
        ("F", "FLOAT", "line", _PUSH),
        ("I", "INT", "line", "digits"),
        ("J", "BININT", "i4", _NUMBER),
        ("K", "BININT1", "u1", _NUMBER),
        ("L", "LONG", "line", "digits"),
        ("M", "BININT2", "u2", _NUMBER),
        ("N", "NONE", "", "none"),
        ("P", "PERSID", "line", "persistent"),
        ("Q", "BINPERSID", "", "binary_persistent"),
        ("R", "REDUCE", "", "reduce"),
        ("S", "STRING", "line", "quoted"),
        ("T", "BINSTRING", "n4", "text"),
        ("U", "SHORT_BINSTRING", "n1", "text"),
        ("V", "UNICODE", "line", "escaped"),
        ("X", "BINUNICODE", "n4", "text"),
        ("a", "APPEND", "", "append"),
        ("b", "BUILD", "", "build"),
        ("c", "GLOBAL", "lines", "global"),
        ("d", "DICT", "", "collect_map"),
        ("}", "EMPTY_DICT", "", "empty_map"),
        ("e", "APPENDS", "", "extend"),
        ("g", "GET", "line", "get"),
        ("h", "BINGET", "u1", "get"),
        ("i", "INST", "lines", "inst"),
        ("j", "LONG_BINGET", "u4", "get"),
        ("l", "LIST", "", "collect"),
        ("]", "EMPTY_LIST", "", _PUSH),
        ("o", "OBJ", "", "obj"),
        ("p", "PUT", "line", "put"),
        ("q", "BINPUT", "u1", "put"),
        ("r", "LONG_BINPUT", "u4", "put"),
        ("s", "SETITEM", "", "set_item"),
        ("t", "TUPLE", "", "tuple"),
        (")", "EMPTY_TUPLE", "", "tuple0"),
        ("u", "SETITEMS", "", "set_items"),
        ("G", "BINFLOAT", "f8", _PUSH),
        ("B", "BINBYTES", "n4", "raw"),
        ("C", "SHORT_BINBYTES", "n1", "raw"),
        ("\x80", "PROTO", "u1", "protocol"),
        ("\x81", "NEWOBJ", "", "new"),
        ("\x82", "EXT1", "u1", "extension"),
        ("\x83", "EXT2", "u2", "extension"),
        ("\x84", "EXT4", "u4", "extension"),
        ("\x85", "TUPLE1", "", "tuple1"),
        ("\x86", "TUPLE2", "", "tuple2"),
        ("\x87", "TUPLE3", "", "tuple3"),
        ("\x88", "NEWTRUE", "", "true"),
        ("\x89", "NEWFALSE", "", "false"),
        ("\x8a", "LONG1", "z1", _NUMBER),
        ("\x8b", "LONG4", "z4", _NUMBER),
        ("\x8c", "SHORT_BINUNICODE", "n1", "text"),
        ("\x8d", "BINUNICODE8", "n8", "text"),
        ("\x8e", "BINBYTES8", "n8", "raw"),
        ("\x8f", "EMPTY_SET", "", _PUSH),
        ("\x90", "ADDITEMS", "", "extend"),
        ("\x91", "FROZENSET", "", "collect"),
        ("\x92", "NEWOBJ_EX", "", "new_with_keywords"),
        ("\x93", "STACK_GLOBAL", "", "stack_global"),
        ("\x94", "MEMOIZE", "", "memoize"),
        ("\x95", "FRAME", "u8", "frame"),
        ("\x96", "BYTEARRAY8", "n8", "raw"),
        ("\x97", "NEXT_BUFFER", "", "buffer"),
        ("\x98", "READONLY_BUFFER", "", "nothing"),
    )
}
# A counted number of more bytes is no size, offset or length.
_NUMBER_BYTES_MAX = 9
# Protocol 0 writes the numbers of an array as one line of text.
_LONG_LINES = ("quoted", "escaped")


def step_at(view: memoryview, at: int, *, line_bytes_max: int) -> Step:
    """Decode the opcode at `at`.

    Raises:
        IntegrityError: `pickle.opcode`, `pickle.truncated` or `pickle.line`.
    """
    if at >= len(view):
        raise IntegrityError("pickle.truncated", "the stream ends before its STOP", offset=at)
    opcode = OPCODES.get(view[at])
    if opcode is None:
        message = f"byte {view[at]:#04x} at {at} is no opcode"
        raise IntegrityError("pickle.opcode", message, offset=at)
    form = opcode.form
    if not form:
        return Step(opcode, at, 0, None, "", at + 1, at + 1)
    if form in ("line", "lines"):
        text, after = _line(view, at + 1, line_bytes_max)
        more: str | None = ""
        if form == "lines":
            more, after = _line(view, after, line_bytes_max)
        if more is None or (text is None and opcode.effect not in _LONG_LINES):
            raise IntegrityError("pickle.line", f"the line at {at + 1} is too long", offset=at)
        return Step(opcode, at, 0, text, more, at + 1, after)
    start = at + 1 + int(form[1])
    number = int.from_bytes(view[at + 1 : start], "little", signed=form[0] == "i")
    if form[0] not in "nz" or start > len(view):
        return Step(opcode, at, number, None, "", start, _within(view, opcode, at, start))
    after = _within(view, opcode, at, start + number)
    name: str | None = None
    if form[0] == "z":
        fits = number <= _NUMBER_BYTES_MAX
        number = int.from_bytes(view[start:after], "little", signed=True) if fits else 0
    elif opcode.effect == "text" and number <= TEXT_BYTES_MAX:
        name = str(view[start:after], "utf-8", "replace")
    return Step(opcode, at, number, name, "", start, after)


def _within(view: memoryview, opcode: Opcode, at: int, after: int) -> int:
    if after > len(view):
        message = f"{opcode.name} at {at} needs {after - len(view)} more bytes than there are"
        raise IntegrityError("pickle.truncated", message, offset=at)
    return after


def _line(view: memoryview, at: int, limit: int) -> tuple[str | None, int]:
    """A line, or None for one that is too long, and where the next one begins."""
    match = _NEWLINE.search(view, at)
    if match is None:
        raise IntegrityError("pickle.truncated", f"the line at {at} does not end", offset=at)
    if match.start() - at > limit:
        return None, match.end()
    return str(view[at : match.start()], "latin-1"), match.end()
