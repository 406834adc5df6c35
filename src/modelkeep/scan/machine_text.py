"""Text and numbers of a pickle's line opcodes, read as CPython's loaders read them."""

from __future__ import annotations

import codecs
import warnings

_INDEX_CHARS_MAX = 40
_DIGITS_MAX = 4300  # CPython's own bound on the digits of a number


def quoted_text(line: str) -> str | None:
    """The text of STRING, which stands in quotes with Python 2's escapes; None for a broken one."""
    line = line.strip()
    if len(line) < 2 or line[0] != line[-1] or line[0] not in "\"'":
        return None
    try:
        with warnings.catch_warnings(action="ignore"):  # an unknown escape stays as it is
            raw, _ = codecs.escape_decode(line[1:-1].encode("latin-1"))
    except ValueError:
        return None
    return bytes(raw).decode("latin-1")


def escaped_text(line: str) -> str | None:
    """The text of UNICODE, which may hold escapes by code point; None for a broken one."""
    try:
        return line.encode("latin-1").decode("raw_unicode_escape")
    except UnicodeDecodeError:
        return None


def utf8_text(line: str) -> str:
    """A line of GLOBAL or INST, whose bytes are UTF-8."""
    return line if line.isascii() else line.encode("latin-1").decode("utf-8", "replace")


def line_number(line: str) -> int | None:
    """The number of INT or LONG, in any base; INT's `01` is true."""
    text = line.strip()
    if text in ("00", "01"):
        return text == "01"
    base = 0 if text[:1] != "0" or not text.isdecimal() else 10
    try:
        return int(text.rstrip("lL")[:_DIGITS_MAX], base)
    except ValueError:
        return None


def index_number(line: str) -> int | None:
    """The number of GET or PUT as Python's `int` reads it (spaces, `+1`, `1_0`)."""
    try:
        index = int(line) if len(line) <= _INDEX_CHARS_MAX else -1
    except ValueError:
        return None
    return index if index >= 0 else None
