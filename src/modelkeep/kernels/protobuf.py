"""A bounded walk over the protobuf wire format that copies nothing.

Theory of operation. A message is a row of fields; each is a tag (field number and wire type) and a
value. `fields` yields where every value lies and never looks inside a length-delimited one: the
caller does, one depth further, if the field is a message by its schema. So:

- every byte is looked at once per depth, and depth is bounded as in the official parsers;
- a length is believed only after it was held against the end of its own message;
- a varint has at most ten bytes and 64 bits; padded (non-minimal) ones pass, as they do everywhere;
- groups (wire types 3 and 4) are refused: proto2 deprecated them and no model format has any.

Long rows of equal small fields (a tree ensemble writes a million `ints`) are matched by one
compiled pattern, so they cost no Python per element: see `run_of`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import NamedTuple

from modelkeep.core.errors import IntegrityError

VARINT = 0
FIXED64 = 1
LENGTH = 2
FIXED32 = 5

# The official parsers refuse deeper messages too (protobuf's default recursion limit).
DEPTH_MAX = 100
# Field numbers have 29 bits (protobuf language guide, "Assigning Field Numbers").
NUMBER_MAX = (1 << 29) - 1
_VARINT_BYTES_MAX = 10
_VARINT_LIMIT = 1 << 64
_COUNT_STEP_BYTES = 1 << 20
_GROUP_TAGS = (3, 4)
_FIXED_BYTES = {FIXED64: 8, FIXED32: 4}
_CONTINUED = bytes(range(0x80, 0x100))
_OVERLONG = re.compile(rb"[\x80-\xff]{10}")

Runs = Mapping[int, re.Pattern[bytes]]
NO_RUNS: Runs = MappingProxyType({})


class Field(NamedTuple):
    """Where one field's value lies.

    Attributes:
        value: of a varint; 0 for every other wire type.
        offset: of the value's (not the length's) first byte in the view.
        length: of the value in bytes.
        many: 1; in a run, how many fields of this number it stands for (`value` is then 0 and
            the span covers their tags too).
    """

    number: int
    wire: int
    value: int
    offset: int
    length: int
    many: int = 1


def fields(
    view: memoryview,
    start: int = 0,
    end: int | None = None,
    *,
    depth: int = 0,
    runs: Runs = NO_RUNS,
    groups_pass: bool = False,
) -> Iterator[Field]:
    """Yield the fields of the message that lies in `view[start:end]`.

    Args:
        depth: how many messages enclose this one.
        runs: patterns by one-byte tag, from `run_of`; their repetitions come as one Field.
        groups_pass: walk into groups as if their fields stood here instead of refusing them; only
            for telling what a file is, as loaders skip groups of unknown number.

    Raises:
        IntegrityError: `protobuf.depth`, `protobuf.number`, `protobuf.truncated`,
            `protobuf.varint` or `protobuf.wire`.
    """
    stop = len(view) if end is None else end
    if depth > DEPTH_MAX:
        raise IntegrityError("protobuf.depth", "messages nest too deeply", depth_max=DEPTH_MAX)
    at = start
    while at < stop:
        tag, value_at = varint(view, at, stop)
        number, wire = tag >> 3, tag & 7
        if not 0 < number <= NUMBER_MAX:
            raise IntegrityError("protobuf.number", f"no field has the number {number}", offset=at)
        value, value_at, length = _measured(view, value_at, stop, wire, groups_pass=groups_pass)
        if length > stop - value_at:
            message = f"field {number} claims {length} bytes where {stop - value_at} are left"
            raise IntegrityError(
                "protobuf.truncated", message, offset=at, number=number, depth=depth
            )
        yield Field(number, wire, value, value_at, length)
        at = value_at + length
        if tag in runs:
            run = _run(runs[tag], view, at, stop, number=number, wire=wire)
            if run is not None:
                yield run
                at += run.length


def varint(view: memoryview, at: int, end: int) -> tuple[int, int]:
    """Read a varint: its value, and where the next byte lies.

    Raises:
        IntegrityError: `protobuf.truncated`, or `protobuf.varint` when it is over 64 bits.
    """
    if at < end and view[at] < 0x80:  # nearly all tags and lengths: no loop
        return view[at], at + 1
    value = 0
    for place in range(_VARINT_BYTES_MAX):
        if at + place >= end:
            raise IntegrityError("protobuf.truncated", "the bytes end inside a number", offset=at)
        byte = view[at + place]
        value |= (byte & 0x7F) << (7 * place)
        if byte < 0x80:
            if value >= _VARINT_LIMIT:
                break
            return value, at + place + 1
    raise IntegrityError("protobuf.varint", "a number has more than 64 bits", offset=at)


def _measured(
    view: memoryview, at: int, stop: int, wire: int, *, groups_pass: bool
) -> tuple[int, int, int]:
    """A varint's value (else 0), where the value's bytes begin, and how many they are."""
    if wire == LENGTH:
        length, at = varint(view, at, stop)
        return 0, at, length
    if wire == VARINT:
        value, after = varint(view, at, stop)
        return value, at, after - at
    if wire in _FIXED_BYTES:
        return 0, at, _FIXED_BYTES[wire]
    if groups_pass and wire in _GROUP_TAGS:
        return 0, at, 0
    message = f"wire type {wire} has no place in a model file"
    raise IntegrityError("protobuf.wire", message, offset=at)


def signed(value: int) -> int:
    """A varint's value read as int32 or int64 (two's complement on 64 bits)."""
    return value - _VARINT_LIMIT if value >> 63 else value


def packed_count(view: memoryview, start: int, end: int) -> int:
    """How many varints lie packed in `view[start:end]`.

    Raises:
        IntegrityError: `protobuf.truncated` or `protobuf.varint`.
    """
    if start < end and view[end - 1] >= 0x80:
        raise IntegrityError("protobuf.truncated", "a packed field ends inside a number")
    if _OVERLONG.search(view, start, end) is not None:
        raise IntegrityError("protobuf.varint", "a packed number has more than 64 bits")
    return sum(
        len(bytes(view[at : min(at + _COUNT_STEP_BYTES, end)]).translate(None, _CONTINUED))
        for at in range(start, end, _COUNT_STEP_BYTES)
    )


def run_of(number: int, wire: int) -> tuple[int, re.Pattern[bytes]]:
    """The tag of a field and a pattern for its repetitions; the number must be below 16.

    What the pattern does not take (an overlong varint, a cut) is left to `fields`, which refuses
    it. Possessive, so that a long run needs no stack.
    """
    tag = number << 3 | wire
    if tag >= 0x80:
        raise AssertionError("only a one-byte tag has a run")
    value = {
        VARINT: rb"(?:[\x80-\xff]{0,8}+[\x00-\x7f]|[\x80-\xff]{9}[\x00\x01])",
        FIXED32: rb".{4}",
        FIXED64: rb".{8}",
    }[wire]
    return tag, re.compile(rb"(?:" + re.escape(bytes([tag])) + value + rb")*+", re.DOTALL)


def _run(
    pattern: re.Pattern[bytes], view: memoryview, at: int, end: int, *, number: int, wire: int
) -> Field | None:
    match = pattern.match(view, at, end)
    if match is None or match.end() == at:
        return None
    length = match.end() - at
    # A tag below 0x80 and a value's last byte: two bytes without continuation per element.
    count = (
        packed_count(view, at, match.end()) // 2
        if wire == VARINT
        else length // (1 + _FIXED_BYTES[wire])
    )
    return Field(number, wire, 0, at, length, count)
