"""Key bytes that do not print, pickle or compare in variable time.

Python cannot promise that an immutable `bytes` is wiped; what is promised is that a Secret never
reaches a log, an error, a JSON document or a pickle by accident. `grep -rn 'reveal()'` is the
audit.
"""

from __future__ import annotations

import hmac
from typing import NoReturn


class Secret:
    """Bytes with one exit, `reveal`."""

    __slots__ = ("_raw",)

    def __init__(self, raw: bytes) -> None:
        self._raw = raw

    def reveal(self) -> bytes:
        """Hand out the bytes; every call site is an audit point."""
        return self._raw

    def __len__(self) -> int:
        return len(self._raw)

    def __repr__(self) -> str:
        return "Secret(…)"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and hmac.compare_digest(self._raw, other._raw)

    __hash__ = None  # type: ignore[assignment]  # a hash would leak equality in variable time

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret cannot be pickled")
