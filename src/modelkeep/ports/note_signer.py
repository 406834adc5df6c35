"""Who signs checkpoints: a key at hand, or a process that holds it."""

from __future__ import annotations

from typing import Protocol


class NoteSigner(Protocol):
    """An Ed25519 key that signs C2SP notes and statements; `crypto.signatures.Signer` is one."""

    public: bytes
    """The public half, 32 bytes."""

    def sign(self, message: bytes, *, context: str) -> bytes:
        """Sign a statement bound to a context.

        Raises:
            RefusedError: `keyholder.refused`, for a context that is not this signer's.
            UnavailableError: `keyholder.lost`.
        """
        ...

    def sign_bare(self, message: bytes) -> bytes:
        """Sign the text of a checkpoint, exactly these bytes; the same text, the same signature.

        Raises:
            RefusedError: `keyholder.refused`, when it would contradict what was signed before.
            UnavailableError: `keyholder.lost`; nothing is published; the next try may work.
        """
        ...
