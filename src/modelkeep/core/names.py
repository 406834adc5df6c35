"""Names of objects in a store: what may stand in them, and how each kind is built."""

from __future__ import annotations

import re

from modelkeep.core.errors import UsageError
from modelkeep.core.limits import OBJECT_NAME_BYTES_MAX, SERIES_DIGITS

_PART = re.compile(r"[a-z0-9_][a-z0-9._-]*")


def checked_object_name(name: str) -> str:
    """Accept a name that is safe as a path below a folder and as a key in a bucket.

    No part starts with a dot, so neither `..` nor a store's own temporary files can be named.

    Raises:
        UsageError: `store.name`.
    """
    if not is_object_name(name):
        raise UsageError("store.name", f"{name[:80]!r} cannot name an object")
    return name


def is_object_name(name: str) -> bool:
    """Whether a name is one that an object may have."""
    return len(name) <= OBJECT_NAME_BYTES_MAX and all(map(_PART.fullmatch, name.split("/")))


def content_name(kind: str, key_id: str, hex_digest: str) -> str:
    """The name of an object under a domain's key, with the digest of its own bytes.

    `pack/<key id>/ab/ab12…`: what is encrypted under one key lies under one prefix, so that it can
    be found, and removed, by those who cannot read it.
    """
    return f"{kind}/{key_id}/{hex_digest[:2]}/{hex_digest}"


def key_id_of(name: str) -> str:
    """The key under which a content-named object is encrypted; empty for other names."""
    parts = name.split("/")
    return parts[1] if len(parts) == 4 else ""


def series_name(kind: str, number: int) -> str:
    """The name of one member of a numbered series: `head/000000000042`."""
    return f"{kind}/{number:0{SERIES_DIGITS}d}"


def series_number(name: str) -> int:
    """The number in a series member's name; -1 when it is not one."""
    digits = name.rpartition("/")[2]
    is_number = len(digits) == SERIES_DIGITS and digits.isascii() and digits.isdecimal()
    return int(digits) if is_number else -1
