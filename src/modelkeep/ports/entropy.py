"""Where random bytes come from."""

from __future__ import annotations

from typing import Protocol


class Entropy(Protocol):
    """A cryptographically secure source of randomness."""

    def random_bytes(self, count: int) -> bytes:
        """`count` fresh bytes, unpredictable to anyone else."""
        ...
