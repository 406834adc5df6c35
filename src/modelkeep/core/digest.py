"""Content identity: a hash that names its algorithm."""

from __future__ import annotations

import re
from typing import NewType

from modelkeep.core.errors import IntegrityError

Digest = NewType("Digest", str)  # "blake3:" + 64 hex digits

_FORM = re.compile(r"blake3:[0-9a-f]{64}")


def checked_digest(text: str) -> Digest:
    """Accept a digest only in its one form.

    Raises:
        IntegrityError: `digest.form`.
    """
    if _FORM.fullmatch(text) is None:
        raise IntegrityError("digest.form", f"{text[:80]!r} is not a digest", wanted="blake3:<hex>")
    return Digest(text)
