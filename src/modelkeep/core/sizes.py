"""Sizes as people write them: `8 GiB`, `500 MB`, `4096`."""

from __future__ import annotations

import re

from modelkeep.core.errors import UsageError

_FORM = re.compile(r"([0-9]{1,18}(?:\.[0-9]{1,6})?) ?(B|[KMGT]i?B)?", re.ASCII)
_POWERS = {"K": 1, "M": 2, "G": 3, "T": 4}
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def parsed_size(text: str) -> int:
    """How many bytes a text means; a number without a unit is bytes.

    Raises:
        UsageError: `size.text`.
    """
    match = _FORM.fullmatch(text.strip()[:40])
    if match is None:
        raise UsageError(
            "size.text",
            f"{text[:40]!r} is no size",
            hint="write a number and B, KB, MB, GB, TB (of 1000) or KiB, MiB, GiB, TiB (of 1024)",
        )
    number, unit = match[1], match[2] or "B"
    factor = int((1024 if "i" in unit else 1000) ** _POWERS.get(unit[0], 0))
    whole, _, part = number.partition(".")
    return int(whole) * factor + int(part or 0) * factor // int(10 ** len(part))


def size_text(size_bytes: int) -> str:
    """A size for people, in units of 1024."""
    size = float(size_bytes)
    for unit in _UNITS:
        if size < 1024 or unit == _UNITS[-1]:
            break
        size /= 1024
    return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
