"""The opcodes of a pickle: where each lies, what its argument is, where the next one lies.

A table of all protocols up to 5 (CPython, Lib/pickletools.py) and a reader of one opcode at a time;
nothing is executed and nothing copied but short texts. What an opcode does is the caller's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from modelkeep.core.errors import IntegrityError

# Text that names something; longer ones are stepped over.
TEXT_BYTES_MAX = 1024
# Longer numbers are no sizes.
NUMBER_BYTES_MAX = 9
# One line of a text opcode, at most 64 KiB.
_LINE = re.compile(rb"[^\n]{0,65536}+\n")

# Forms: "" no argument; "u1", "u2", "u4", "u8", "i4" a number; "n1", "n4", "n8" counted bytes;
# "t1", "t4", "t8" counted text; "z1", "z4" a counted number; "line", "lines" text; "f8" a float.
_FORMS: Mapping[str, tuple[str, ...]] = {
    "": (
        "(MARK", ".STOP", "0POP", "1POP_MARK", "2DUP", "NNONE", "QBINPERSID", "RREDUCE", "aAPPEND",
        "bBUILD", "dDICT", "}EMPTY_DICT", "eAPPENDS", "lLIST", "]EMPTY_LIST", "oOBJ", "sSETITEM",
        "tTUPLE", ")EMPTY_TUPLE", "uSETITEMS", "\x81NEWOBJ", "\x85TUPLE1", "\x86TUPLE2",
        "\x87TUPLE3", "\x88NEWTRUE", "\x89NEWFALSE", "\x8fEMPTY_SET", "\x90ADDITEMS",
        "\x91FROZENSET", "\x92NEWOBJ_EX", "\x93STACK_GLOBAL", "\x94MEMOIZE", "\x97NEXT_BUFFER",
        "\x98READONLY_BUFFER",
    ),
    "line": ("FFLOAT", "IINT", "LLONG", "PPERSID", "SSTRING", "VUNICODE", "gGET", "pPUT"),
    "lines": ("cGLOBAL", "iINST"),
    "u1": ("KBININT1", "hBINGET", "qBINPUT", "\x80PROTO", "\x82EXT1"),
    "u2": ("MBININT2", "\x83EXT2"),
    "u4": ("jLONG_BINGET", "rLONG_BINPUT", "\x84EXT4"),
    "u8": ("\x95FRAME",),
    "i4": ("JBININT",),
    "f8": ("GBINFLOAT",),
    "n1": ("CSHORT_BINBYTES",),
    "n4": ("BBINBYTES",),
    "n8": ("\x8eBINBYTES8", "\x96BYTEARRAY8"),
    "t1": ("USHORT_BINSTRING", "\x8cSHORT_BINUNICODE"),
    "t4": ("TBINSTRING", "XBINUNICODE"),
    "t8": ("\x8dBINUNICODE8",),
    "z1": ("\x8aLONG1",),
    "z4": ("\x8bLONG4",),
}  # fmt: skip
OPCODES: Mapping[int, tuple[str, str]] = {
    ord(each[0]): (each[1:], form) for form, every in _FORMS.items() for each in every
}


class Step(NamedTuple):
    """One opcode met.

    Attributes:
        number: its number, if it has one that could be a size; of bytes and of text that is stepped
            over their length; else None.
        text: its text, if it has one that could be a name; else None.
        more: the second line of a GLOBAL or INST.
        after: where the next opcode lies.
    """

    name: str
    number: int | None
    text: str | None
    more: str
    after: int


def step_at(view: memoryview, at: int) -> Step:
    """Decode the opcode at `at`.

    Raises:
        IntegrityError: `pickle.opcode` or `pickle.truncated`.
    """
    if at >= len(view):
        raise IntegrityError("pickle.truncated", "the pickle ends before its STOP", offset=at)
    name, form = OPCODES.get(view[at], ("", ""))
    if not name:
        raise IntegrityError("pickle.opcode", f"byte {view[at]:#04x} is no opcode", offset=at)
    at += 1
    if not form:
        return Step(name, None, None, "", at)
    if form[0] == "l":
        text, after = _line(view, at)
        more = ""
        if form == "lines":
            more, after = _line(view, after)
        return Step(name, None, text, more, after)
    start = at + int(form[1])
    value = int.from_bytes(view[at:start], "little", signed=form[0] == "i")
    if form[0] in "uif":
        return Step(name, None if form == "f8" else value, None, "", _within(view, start))
    after = _within(view, start + value) if start <= len(view) else _within(view, start)
    if form[0] == "t" and value <= TEXT_BYTES_MAX:
        return Step(name, None, str(view[start:after], "utf-8", "replace"), "", after)
    if form[0] == "z" and value <= NUMBER_BYTES_MAX:
        number = int.from_bytes(view[start:after], "little", signed=True)
        return Step(name, number, None, "", after)
    return Step(name, None if form[0] == "z" else value, None, "", after)


def _within(view: memoryview, after: int) -> int:
    if after > len(view):
        raise IntegrityError("pickle.truncated", "the pickle ends inside an opcode", offset=after)
    return after


def _line(view: memoryview, at: int) -> tuple[str, int]:
    match = _LINE.match(view, at)
    if match is None:
        raise IntegrityError("pickle.truncated", "a line of the pickle does not end", offset=at)
    return str(view[at : match.end() - 1], "utf-8", "replace"), match.end()
