"""Who can say what time it was: a time stamping authority (RFC 3161)."""

from __future__ import annotations

from typing import Protocol


class TimestampAuthority(Protocol):
    """One authority, and the certificates under which its answers are believed."""

    url: str
    """Where it is asked; names it in messages."""

    def stamped(self, message: bytes) -> bytes:
        """Ask for a time stamp on a message; its answer, verified.

        Raises:
            UnavailableError: `timestamp.unavailable`; retry may help.
            IntegrityError: `timestamp.bad`, when the answer does not verify.
        """
        ...

    def stamped_ns(self, answer: bytes, message: bytes) -> int:
        """The instant (ns) that a verified answer states for a message; asks nobody.

        Raises:
            IntegrityError: `timestamp.bad`.
        """
        ...
