"""Pickles of every protocol and family of opcodes: ways to name, to call and to hide.

All call `os.system`, or `exec`, of Python's library. The twin has the same opcodes with
`decimal.Decimal` and a number, or the same texts uncalled.
"""
# ruff: noqa: E501 - a table

from __future__ import annotations

import io
import pickle
import struct
from collections.abc import Iterator

from modelkeep.core.verdict import Decision
from tests.attack.scan.corpus import Call, polyglot
from tests.corpus.cases import Case, Family, Harm, Trap, Traps
from tests.corpus.opcodes import (
    PROTO,
    applied,
    called,
    line,
    mapped,
    named,
    raw,
    short,
    state,
    text,
    tupled,
    whole,
)

FAMILY = Family("pickle", "pickle", "model.pkl")
_NUMBER = text("1")


class Honest:
    """Pickles as a call of what only holds a number."""

    def __reduce__(self) -> tuple[type, tuple[str]]:
        from decimal import Decimal  # noqa: PLC0415

        return Decimal, ("1",)


def cases(traps: Traps) -> Iterator[Case]:
    """All of them."""
    for protocol in range(6):
        trap = traps(f"pickle-protocol-{protocol}")
        evil = pickle.dumps({"note": Call(exec, trap.code)}, protocol)
        yield FAMILY.case(f"protocol-{protocol}", evil, pickle.dumps({"note": Honest()}, protocol))
    for name, (evil_form, twin_form) in _FORMS.items():
        trap = traps(f"pickle-{name}")
        yield FAMILY.case(name, _filled(evil_form, trap), _filled(twin_form, trap))
    yield from _others(traps)
    yield from _larger(traps)


def _filled(form: bytes, trap: Trap) -> bytes:
    """A form with its argument: COMMAND as BINUNICODE, or as a line."""
    return form.replace(b"<COMMAND>", text(trap.command)).replace(b"<LINE>", trap.command.encode())


_SYSTEM, _DECIMAL = line("os", "system"), line("decimal", "Decimal")
_BOTH = short("os") + short("system"), short("decimal") + short("Decimal")
_FORMS: dict[str, tuple[bytes, bytes]] = {
    "inst": (b"(S'<LINE>'\nios\nsystem\n.", b"(S'1'\nidecimal\nDecimal\n."),
    "obj": (b"(" + _SYSTEM + b"<COMMAND>o.", b"(" + _DECIMAL + _NUMBER + b"o."),
    "newobj": (
        whole(line("pathlib", "Path") + text("x") + b"\x85\x810" + _SYSTEM + b"<COMMAND>\x85R"),
        whole(_DECIMAL + _NUMBER + b"\x85\x81"),
    ),
    "newobj-ex": (
        whole(line("decimal", "Decimal") + b")}\x920" + _SYSTEM + b"<COMMAND>\x85R"),
        whole(line("decimal", "Decimal") + b")}\x92"),
    ),
    "put-and-get-by-text": (
        b"S'os'\np+1_0\n0S'system'\np 7\n0\x80\x04g10\ng7\n\x93<COMMAND>\x85R.",
        b"S'decimal'\np+1_0\n0S'Decimal'\np 7\n0\x80\x04g10\ng7\n\x93" + _NUMBER + b"\x85R.",
    ),
    "memo-behind-noise": (
        whole(short("os") + b"\x94" + short("system") + b"\x9400" + b"N0h\x00h\x01\x93<COMMAND>\x85R"),
        whole(short("os") + b"\x94" + short("system") + b"\x9400" + b"N0h\x00h\x01\x86"),
    ),
    "long-memo": (
        whole(_SYSTEM + b"r\x2c\x01\x00\x000j\x2c\x01\x00\x00<COMMAND>\x85R"),
        whole(_DECIMAL + b"r\x2c\x01\x00\x000j\x2c\x01\x00\x00" + _NUMBER + b"\x85R"),
    ),
    "memo-overwritten": (
        whole(_DECIMAL + b"q\x000" + _SYSTEM + b"q\x000h\x00<COMMAND>\x85R"),
        whole(line("fractions", "Fraction") + b"q\x000" + _DECIMAL + b"q\x000h\x00"
              + _NUMBER + b"\x85R"),
    ),
    "unicode-escapes": (
        b"\x80\x04V\\u006fs\nV\\u0073ystem\n\x93<COMMAND>\x85R.",
        b"\x80\x04V\\u0064ecimal\nV\\u0044ecimal\n\x93" + _NUMBER + b"\x85R.",
    ),
    "string-escapes": (
        b"\x80\x04S'\\x6f\\163'\nS'\\x73yst\\145m'\n\x93<COMMAND>\x85R.",
        b"\x80\x04S'\\x64\\145cimal'\nS'\\x44ecim\\141l'\n\x93" + _NUMBER + b"\x85R.",
    ),
    "binstring-names": (
        b"\x80\x04T\x02\x00\x00\x00osU\x06system\x93<COMMAND>\x85R.",
        b"\x80\x04T\x07\x00\x00\x00decimalU\x07Decimal\x93" + _NUMBER + b"\x85R.",
    ),
    "long-unicode-names": (
        b"\x80\x04\x8d" + struct.pack("<Q", 2) + b"os\x8d" + struct.pack("<Q", 6) + b"system\x93<COMMAND>\x85R.",
        b"\x80\x04\x8d" + struct.pack("<Q", 7) + b"decimal\x8d" + struct.pack("<Q", 7) + b"Decimal\x93" + _NUMBER + b"\x85R.",
    ),
    "dup-of-the-function": (
        whole(_SYSTEM + b"2<COMMAND>\x85R0"), whole(_DECIMAL + b"2" + _NUMBER + b"\x85R0"),
    ),
    "popped-afterwards": (
        whole(_SYSTEM + b"<COMMAND>\x85R0N"), whole(_DECIMAL + _NUMBER + b"\x85R0N"),
    ),
    "pop-mark": (
        whole(b"(" + _SYSTEM + b"<COMMAND>\x85R1N"), whole(b"(" + _DECIMAL + _NUMBER + b"\x85R1N"),
    ),
    "frames": (
        PROTO + b"\x95" + struct.pack("<Q", 5) + b"NNN00" + b"\x95" + struct.pack("<Q", len(_SYSTEM)) + _SYSTEM + b"<COMMAND>\x85R.",
        PROTO + b"\x95" + struct.pack("<Q", 5) + b"NNN00" + b"\x95" + struct.pack("<Q", len(_DECIMAL)) + _DECIMAL + _NUMBER + b"\x85R.",
    ),
    "protocol-in-the-middle": (
        b"\x80\x02" + _SYSTEM + b"\x80\x00<COMMAND>\x80\x05\x85R.",
        b"\x80\x02" + _DECIMAL + b"\x80\x00" + _NUMBER + b"\x80\x05\x85R.",
    ),
    "protocol-zero-lines": (b"cos\nsystem\n(V<LINE>\ntR.", b"cdecimal\nDecimal\n(V1\ntR."),
    "protocol-one-without-proto": (b"cos\nsystem\nq\x01(<COMMAND>tq\x02Rq\x03.", b"cdecimal\nDecimal\nq\x01(" + _NUMBER + b"tq\x02Rq\x03."),
    "python-2-names": (b"ccommands\ngetoutput\n(<COMMAND>tR.", b"c__builtin__\nunicode\n(" + _NUMBER + b"tR."),
    "computed-name": (
        whole(called("builtins", "str", text("os")) + text("system") + b"\x93<COMMAND>\x85R"),
        whole(called("builtins", "str", text("os")) + text("system") + b"\x86"),
    ),
    "name-out-of-bytes": (
        whole(applied(named("_codecs", "decode"), raw(b"os"), text("ascii")) + text("system") + b"\x93<COMMAND>\x85R"),
        whole(applied(named("_codecs", "encode"), text("os"), text("latin1")) + text("system") + b"\x86"),
    ),
    "cut-after-the-call": (_SYSTEM + b"<COMMAND>\x85R", whole(_DECIMAL + _NUMBER + b"\x85R")),
    "garbage-after-the-call": (whole(_SYSTEM + b"<COMMAND>\x85R")[:-1] + b"\xff\xfe", whole(_DECIMAL + _NUMBER + b"\x85R")),
    "call-in-a-key": (
        whole(b"}" + _SYSTEM + b"<COMMAND>\x85RNs"), whole(b"}" + _DECIMAL + _NUMBER + b"\x85RNs"),
    ),
    "call-in-a-set": (
        whole(b"\x8f(" + _SYSTEM + b"<COMMAND>\x85R\x90"), whole(b"\x8f(" + _DECIMAL + _NUMBER + b"\x85R\x90"),
    ),
    "call-in-a-frozenset": (
        whole(b"(" + _SYSTEM + b"<COMMAND>\x85R\x91"), whole(b"(" + _DECIMAL + _NUMBER + b"\x85R\x91"),
    ),
    "call-in-a-state": (
        whole(named("uuid", "UUID") + b")\x81}" + text("int") + _SYSTEM + b"<COMMAND>\x85Rsb"),
        whole(named("uuid", "UUID") + b")\x81}" + text("int") + b"K\x07sb"),
    ),
}  # fmt: skip


def _others(traps: Traps) -> Iterator[Case]:
    """Streams one after another, streams that other readers read, numbers for names."""
    for name, first in (("second-stream", pickle.dumps([1])), ("third-stream", b"N.N.")):
        trap = traps(f"pickle-{name}")
        evil = whole(called("os", "system", text(trap.command)))
        twin = whole(called("decimal", "Decimal", _NUMBER))
        yield FAMILY.case(name, first + evil, first + twin, loader="pickles")
    # copyreg gives a number to a name: here the stream itself does, before it uses it
    trap = traps("pickle-extension-code")
    register = called("copyreg", "add_extension", text("os"), text("system"), b"K\x4d") + b"0"
    evil = whole(register, applied(b"\x82\x4d", text(trap.command)))
    yield FAMILY.case("extension-code", evil, whole(tupled(b"K\x4d", text(trap.command))))
    # a hook is set first, and called by the second BUILD
    trap = traps("pickle-setstate-hook")
    made = named("argparse", "Namespace") + b")\x81"
    hook = made + mapped(("__setstate__", named("os", "system"))) + b"b"
    evil = whole(hook, text(trap.command), b"b")
    yield FAMILY.case("setstate-hook", evil, whole(made, mapped(("a", text(trap.command))), b"b"))
    # state of a module's class: what everybody makes later calls it
    trap = traps("pickle-class-changed")
    change = named("argparse", "Namespace") + tupled(b"N", mapped(("a", b"K\x01"))) + b"b"
    use = called("os", "system", text(trap.command))
    yield FAMILY.case("class-changed", whole(change, b"0", use), whole(made))
    # a polyglot: a whole safetensors file that pickle reads as well
    trap = traps("pickle-valid-safetensors-file")
    yield FAMILY.case(
        "valid-safetensors-file",
        polyglot(trap.code),
        _safetensors(trap.code),
        main="model.safetensors",
        loader="pickle_or_safetensors",
    )
    trap = traps("pickle-no-extension")
    evil = whole(called("builtins", "exec", text(trap.code)))
    yield FAMILY.case("no-extension", evil, whole(called("decimal", "Decimal", _NUMBER)), main="w")
    trap = traps("pickle-named-as-text")
    yield FAMILY.case(
        "named-as-text",
        _filled(b"cos\nsystem\n(S'<LINE>'\ntR.", trap),
        _filled(b"(S'os'\nS'<LINE>'\nt.", trap),
        main="notes.txt",
    )
    trap = traps("pickle-frame-past-the-end")
    # Only Python's own Unpickler takes a frame that is cut short by the end of the file
    evil = PROTO + b"\x95" + struct.pack("<Q", 1 << 20) + _SYSTEM + text(trap.command) + b"\x85R."
    yield FAMILY.case(
        "frame-past-the-end", evil, whole(b"\x95" + struct.pack("<Q", 2) + b"N"),
        loader="pickle_python",
    )  # fmt: skip


def _larger(traps: Traps) -> Iterator[Case]:
    """Pickles that take memory, and one that is far behind."""
    memo = PROTO + b"Nr" + struct.pack("<I", 0x7FFFFFF0) + b"."
    small = PROTO + b"Nr\x09\x00\x00\x00."
    yield FAMILY.case("memo-of-two-billion", memo, small, harm=Harm.MEMORY)
    huge, small = (whole(called("fractions", "Fraction", text(each))) for each in (
        "1e1000000000", "10000000000"))  # fmt: skip
    yield FAMILY.case("fraction-of-a-huge-power", huge, small, harm=Harm.TIME, wanted=Decision.HOLD)
    lots = io.BytesIO()
    lots.write(PROTO + b"]")
    trap = traps("pickle-behind-many-opcodes")
    lots.write(b"K\x01a" * 60_000)
    evil = lots.getvalue() + called("os", "system", text(trap.command)) + b"a."
    yield FAMILY.case("behind-many-opcodes", evil, lots.getvalue() + b".")
    trap = traps("pickle-deep")
    deep = b"]" * 900 + _SYSTEM + text(trap.command) + b"\x85R" + b"a" * 900
    calm = b"]" * 900 + _DECIMAL + _NUMBER + b"\x85R" + b"a" * 900
    yield FAMILY.case("deep", whole(deep), whole(calm))
    trap = traps("pickle-large-bytes-first")
    big = raw(bytes(range(256)) * 4096)
    yield FAMILY.case(
        "large-bytes-first",
        state(tupled(big, called("os", "system", text(trap.command)))),
        state(tupled(big, text(trap.command))),
    )


def _safetensors(code: str) -> bytes:
    payload = code.encode()
    head = b'{"__metadata__":{"x":"y"},"a":{"dtype":"U8","shape":[%d],"data_offsets":[0,%d]}}'
    header = head % (len(payload), len(payload))
    return struct.pack("<Q", len(header)) + header + payload
