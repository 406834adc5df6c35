"""MATLAB's MAT files, version 5: function handles and objects of classes are held.

Theory of operation (MAT-File Format, MathWorks). A header of 128 bytes, then elements: a kind, a
length, and data; matrices hold elements of their own, the first of which says their class. A cell
or structure holds further matrices. Compressed elements are inflated for their first bytes, and
wholly only where those say that more matrices are inside. Numbers and words are data; a function
handle or an object is code of whoever loads it.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Literal

from modelkeep.core.errors import IntegrityError
from modelkeep.core.verdict import Finding, Severity
from modelkeep.scan.cases import Case
from modelkeep.scan.streams import inflated

_HEADER_BYTES = 128
_SUBSYSTEM_AT = 116
_MATRIX, _COMPRESSED = 14, 15
_FLAGS = 6
_CELL, _STRUCTURE = 1, 2
_CODE = {3: "an object of a class", 16: "a function handle", 17: "an object of a class"}
# Tag, tag and flags of a matrix: what says its class.
_BEGINNING_BYTES = 4096
_DEPTH_MAX = 64
_ELEMENTS_MAX = 1_000_000
ByteOrder = Literal["little", "big"]


def matlab_findings(case: Case) -> tuple[Finding, ...]:
    """Judge a MAT file of version 5."""
    walk = _Walk(case)
    try:
        for what in walk.codes():
            text = f"holds {what}: code of whoever loads it"
            return (case.found("scan.matlab.code", Severity.MEDIUM, text),)
    except IntegrityError as error:
        text = f"does not walk as a MAT file: {error.message}"
        return (case.found("scan.matlab.broken", Severity.MEDIUM, text),)
    text = "is matlab: numbers and words, which nothing executes"
    return (case.found("scan.format.data", Severity.NOTE, text),)


class _Walk:
    __slots__ = ("_case", "_left", "_order")

    def __init__(self, case: Case) -> None:
        self._case = case
        self._left = _ELEMENTS_MAX
        self._order: ByteOrder = "big" if bytes(case.view[126:128]) == b"MI" else "little"

    def codes(self) -> Iterator[str]:
        """What the file holds that is more than data."""
        view = self._case.view
        if bytes(view[_SUBSYSTEM_AT : _SUBSYSTEM_AT + 8]).strip(b" \0"):
            yield "data of a subsystem, which objects and function handles have"
        yield from self._elements(view, _HEADER_BYTES, len(view), 0)

    def _elements(self, view: memoryview, at: int, stop: int, depth: int) -> Iterator[str]:
        if depth > _DEPTH_MAX:
            raise _broken(f"its cells lie more than {_DEPTH_MAX} deep")
        while at + 8 <= stop:
            self._left -= 1
            if self._left < 0:
                raise _broken("it has more elements than are looked at")
            kind, length, start = self._tag(view, at)
            if start + length > stop:
                raise _broken(f"an element at {at} leaves the file")
            if kind == _MATRIX:
                yield from self._matrix(view, start, start + length, depth)
            elif kind == _COMPRESSED:
                yield from self._packed(view[start : start + length], depth)
            if start - at == 4:
                at += 8
            else:  # compressed elements are not padded, all others to a multiple of eight
                at = start + (length if kind == _COMPRESSED else -(-length // 8) * 8)

    def _matrix(self, view: memoryview, at: int, stop: int, depth: int) -> Iterator[str]:
        if at == stop:  # an empty cell
            return
        kind, length, start = self._tag(view, at)
        if kind != _FLAGS or length != 8:
            raise _broken("a matrix has no class")
        is_of = self._number(view, start) & 255
        if is_of in _CODE:
            yield _CODE[is_of]
        elif is_of in (_CELL, _STRUCTURE):
            yield from self._elements(view, start + 8, stop, depth + 1)

    def _packed(self, view: memoryview, depth: int) -> Iterator[str]:
        head = memoryview(_begun(view))
        if len(head) < 24:
            raise _broken("a compressed element is damaged")
        kind, _, start = self._tag(head, 0)
        flags, _, at = self._tag(head, start)
        if kind == _MATRIX and flags == _FLAGS and len(head) >= at + 4:
            is_of = self._number(head, at) & 255
            if is_of in _CODE:
                yield _CODE[is_of]
            if is_of not in (_CELL, _STRUCTURE):
                return
        allowance, limit = self._case.place.allowance, self._case.settings.member_bytes_max
        plain, _ = inflated(view, "zlib", max(0, min(limit, allowance.plain_bytes)))
        if plain is None:
            raise _broken("a compressed element is larger than what is looked at")
        allowance.plain_bytes -= len(plain)
        yield from self._elements(memoryview(plain), 0, len(plain), depth + 1)

    def _tag(self, view: memoryview, at: int) -> tuple[int, int, int]:
        """Kind and length of an element, and where its data begins."""
        kind = self._number(view, at)
        if kind >> 16:  # a small one has both in four bytes, and its data in the next four
            return kind & 0xFFFF, kind >> 16, at + 4
        return kind, self._number(view, at + 4), at + 8

    def _number(self, view: memoryview, at: int) -> int:
        if at + 4 > len(view):
            raise _broken("it is cut short")
        return int.from_bytes(view[at : at + 4], self._order)


def _begun(view: memoryview) -> bytes:
    try:
        return zlib.decompressobj().decompress(view[: 4 * _BEGINNING_BYTES], _BEGINNING_BYTES)
    except zlib.error as error:
        raise _broken(f"a compressed element: {error}") from None


def _broken(message: str) -> IntegrityError:
    return IntegrityError("matlab.broken", message)
