"""MessagePack, walked value by value: what its texts and bytes are, and nothing is built.

Theory of operation (msgpack specification, 2017). One pass with a stack of the lists and maps that
are open; a value's first byte says its length. Numbers in a row of one kind, as lists of weights
and of tokens are, are passed by one search each. Claims of counts cost nothing: every value takes a
byte at least. A map whose `kind` is `O` is how msgpack-numpy keeps an array of objects: its `data`
is a pickle, which the reader loads.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from modelkeep.core.errors import IntegrityError

# What is shorter is no pickle that acts, and no file.
SPAN_BYTES_MIN = 8
_RUN_MIN = 16
# Of `kind` and `data`.
_KEY_BYTES = 4


class Span(NamedTuple):
    """Bytes or text inside.

    Attributes:
        is_text: whether it was written as text; older writers know no other kind.
        is_pickle: whether a reader of arrays loads it as a pickle.
    """

    offset: int
    length: int
    is_text: bool = False
    is_pickle: bool = False


@dataclass(slots=True)
class _Open:
    """A list or map whose values are not all read: of a map, keys and values count alike."""

    left: int
    is_map: bool
    key: bytes = b""
    is_object: bool = False
    data: Span | None = None


def _table() -> bytes:
    """By the first byte of a number or constant: how long it is; 0 for all else."""
    sizes = {0xC0: 1, 0xC2: 1, 0xC3: 1, 0xCC: 2, 0xD0: 2, 0xCD: 3, 0xD1: 3}
    sizes |= {0xCE: 5, 0xD2: 5, 0xCA: 5, 0xCF: 9, 0xD3: 9, 0xCB: 9}
    small = (1 if lead < 0x80 or lead >= 0xE0 else sizes.get(lead, 0) for lead in range(256))
    return bytes(small)


_SIZES = _table()
_NUMBER = (
    rb"(?s:[\x00-\x7f\xe0-\xff\xc0\xc2\xc3]|[\xcf\xd3\xcb].{8}|[\xce\xd2\xca].{4}"
    rb"|[\xcd\xd1]..|[\xcc\xd0].)"
)
# So many numbers in a row are passed by one search.
_RUNS = tuple((count, re.compile(_NUMBER + b"{%d}" % count)) for count in (1024, 128, 16))
# First byte: bytes of the length that follows. Of an ext its type follows that.
_LENGTHS = {
    0xC4: 1, 0xC5: 2, 0xC6: 4, 0xC7: 1, 0xC8: 2, 0xC9: 4, 0xD9: 1, 0xDA: 2, 0xDB: 4,
}  # fmt: skip
_TEXTS, _EXTS = (0xD9, 0xDA, 0xDB), (0xC7, 0xC8, 0xC9)
_FIXED_EXTS = {0xD4: 1, 0xD5: 2, 0xD6: 4, 0xD7: 8, 0xD8: 16}
_LISTS = {0xDC: (2, False), 0xDD: (4, False), 0xDE: (2, True), 0xDF: (4, True)}


def is_container(lead: int) -> bool:
    """Whether a first byte is that of a list or map."""
    return 0x80 <= lead <= 0x9F or lead in _LISTS


def msgpack_spans(
    view: memoryview, *, depth_max: int, values_max: int, is_stream: bool
) -> Iterator[Span]:
    """Walk a file of one value, or of several; hand out its texts and bytes on the way.

    Raises:
        IntegrityError: `msgpack.broken`, `msgpack.depth`, or `msgpack.limit` where it has more
            values than are looked at.
    """
    walk = _Walk(view, depth_max, values_max)
    yield from walk.value()
    while is_stream and walk.at < len(view):
        yield from walk.value()
    if walk.at < len(view):
        raise _broken("goes on after its value", walk.at)


class _Walk:
    __slots__ = ("_depth_max", "_steps", "_view", "at")

    def __init__(self, view: memoryview, depth_max: int, values_max: int) -> None:
        self._view = view
        self._depth_max = depth_max
        self._steps = values_max
        self.at = 0

    def value(self) -> Iterator[Span]:
        """One value with all that is in it."""
        opened = [_Open(1, is_map=False)]
        while opened:
            top = opened[-1]
            if not top.left:
                if top.is_object and top.data is not None:
                    yield top.data
                opened.pop()
                continue
            lead = self._lead()
            if _SIZES[lead]:
                self._numbers(top, lead)
                continue
            top.left -= 1
            if not is_container(lead):
                span = self._span(lead)
                if top.is_map:
                    self._note(top, span)
                if span.length >= SPAN_BYTES_MIN:
                    yield span
                continue
            opened.append(self._opened(lead))
            if len(opened) > self._depth_max + 1:
                message = f"its lists lie more than {self._depth_max} deep"
                raise IntegrityError("msgpack.depth", message, offset=self.at)

    def _lead(self) -> int:
        """The first byte of the next value."""
        self._steps -= 1
        if self._steps < 0:
            raise IntegrityError("msgpack.limit", "it has more values than are looked at")
        if self.at >= len(self._view):
            raise _broken("is cut short", self.at)
        return self._view[self.at]

    def _numbers(self, top: _Open, lead: int) -> None:
        """Step over a number, and over those that follow it."""
        for count, pattern in _RUNS if top.left >= _RUN_MIN else ():
            if top.left >= count:
                match = pattern.match(self._view, self.at)
                if match is not None:
                    self.at = match.end()
                    top.left -= count
                    return
        self.at += _SIZES[lead]
        if self.at > len(self._view):
            raise _broken("is cut short", self.at)
        top.left -= 1

    def _opened(self, lead: int) -> _Open:
        self.at += 1
        if lead < 0x90:
            return _Open(2 * (lead & 15), is_map=True)
        if lead < 0xA0:
            return _Open(lead & 15, is_map=False)
        size, is_map = _LISTS[lead]
        count = self._number(size)
        return _Open(2 * count if is_map else count, is_map=is_map)

    def _span(self, lead: int) -> Span:
        self.at += 1
        if 0xA0 <= lead <= 0xBF:
            length = lead & 31
        elif lead in _FIXED_EXTS:
            length = _FIXED_EXTS[lead]
        elif lead in _LENGTHS:
            length = self._number(_LENGTHS[lead])
        else:
            raise _broken("has a value of no known kind", self.at - 1)
        self.at += 1 if lead in _EXTS or lead in _FIXED_EXTS else 0
        start = self.at
        if start + length > len(self._view):
            raise _broken("is cut short", start)
        self.at = start + length
        return Span(start, length, is_text=0xA0 <= lead <= 0xBF or lead in _TEXTS)

    def _note(self, top: _Open, span: Span) -> None:
        """Keep what tells an array of objects; `left` was counted down for this value."""
        if top.left & 1:
            is_short = span.length == _KEY_BYTES
            top.key = bytes(self._view[span.offset : span.offset + _KEY_BYTES]) if is_short else b""
        elif top.key == b"kind":
            raw = bytes(self._view[span.offset : span.offset + 1])
            top.is_object = top.is_object or raw == b"O"
        elif top.key == b"data":
            top.data = Span(span.offset, span.length, is_pickle=True)

    def _number(self, size: int) -> int:
        if self.at + size > len(self._view):
            raise _broken("is cut short", self.at)
        self.at += size
        return int.from_bytes(self._view[self.at - size : self.at], "big")


def _broken(message: str, at: int) -> IntegrityError:
    return IntegrityError("msgpack.broken", f"it {message} (at {at})", offset=at)
