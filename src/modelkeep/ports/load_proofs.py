"""What this host has proven before: models whose plaintext was hashed against their manifests."""

from __future__ import annotations

from typing import Protocol


class LoadProofs(Protocol):
    """Remembers proofs of loads; only this host, with the keep's keys, can make one that counts."""

    def knows(self, what: bytes) -> bool:
        """Whether this host proved it before; False whenever that is in doubt."""
        ...

    def note(self, what: bytes) -> None:
        """Remember that this host proved it; best effort, and idempotent."""
        ...


class NoLoadProofs:
    """Remembers nothing: every load is proven in full."""

    def knows(self, what: bytes) -> bool:  # noqa: ARG002 - the port's signature
        """Never."""
        return False

    def note(self, what: bytes) -> None:
        """Forget it."""


NO_LOAD_PROOFS: LoadProofs = NoLoadProofs()
