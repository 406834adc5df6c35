"""Pickles written opcode by opcode."""

from __future__ import annotations

import struct

PROTO = b"\x80\x04"


def text(value: str) -> bytes:
    """BINUNICODE."""
    raw = value.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def short(value: str) -> bytes:
    """SHORT_BINUNICODE."""
    return b"\x8c" + bytes([len(value.encode())]) + value.encode()


def raw(value: bytes) -> bytes:
    """BINBYTES."""
    return b"B" + struct.pack("<I", len(value)) + value


def named(module: str, name: str) -> bytes:
    """STACK_GLOBAL of two texts."""
    return text(module) + text(name) + b"\x93"


def line(module: str, name: str) -> bytes:
    """GLOBAL."""
    return f"c{module}\n{name}\n".encode()


def tupled(*values: bytes) -> bytes:
    """TUPLE."""
    return b"(" + b"".join(values) + b"t"


def listed(*values: bytes) -> bytes:
    """LIST."""
    return b"(" + b"".join(values) + b"l"


def mapped(*pairs: tuple[str, bytes]) -> bytes:
    """DICT with keys of text."""
    return b"(" + b"".join(text(key) + value for key, value in pairs) + b"d"


def called(module: str, name: str, *arguments: bytes) -> bytes:
    """REDUCE of a name."""
    return named(module, name) + tupled(*arguments) + b"R"


def applied(function: bytes, *arguments: bytes) -> bytes:
    """REDUCE of whatever lies on the stack."""
    return function + tupled(*arguments) + b"R"


def whole(*parts: bytes) -> bytes:
    """A pickle of protocol 4 that is these opcodes."""
    return PROTO + b"".join(parts) + b"."


def state(note: bytes) -> bytes:
    """What a checkpoint looks like: numbers by name, and this value."""
    weights = listed(*(b"G" + struct.pack(">d", each) for each in (0.5, 0.25, 0.125)))
    return whole(b"}(", text("weights"), weights, text("epoch"), b"K\x03", text("note"), note, b"u")


def integer(value: int) -> bytes:
    """LONG1."""
    size = value.bit_length() // 8 + 1
    return b"\x8a" + bytes([size]) + value.to_bytes(size, "little", signed=True)


def legacy(value: bytes) -> bytes:
    """A file of torch's old format without storages, whose object these opcodes make."""
    head = [b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19", b"M\xe9\x03", b"}"]
    tail = b"\x80\x02]."
    return b"".join(b"\x80\x02" + each + b"." for each in [*head, value]) + tail
