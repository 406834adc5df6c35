"""Evidence from a program: it gets the nonce as 64 hex digits behind its arguments, and prints.

For a TPM, SEV-SNP or TDX through the tools that know them, and for asking another machine.
"""

from __future__ import annotations

from collections.abc import Sequence

from modelkeep.adapters.keysource_exec import TIMEOUT_S, program_output
from modelkeep.core.errors import MissingError, UnavailableError


class ExecAttester:
    """Runs its program for each piece of evidence, as `keysource_exec` runs programs."""

    def __init__(self, words: Sequence[str], *, timeout_s: float = TIMEOUT_S) -> None:
        self._words = tuple(words)
        self._timeout_s = timeout_s

    def evidence(self, nonce: bytes) -> bytes:
        try:
            return program_output((*self._words, nonce.hex()), timeout_s=self._timeout_s)
        except (MissingError, UnavailableError) as error:
            raise UnavailableError(
                "attest.unavailable",
                error.message,
                hint="it gets a nonce in hex as its last argument and must print evidence",
            ) from error
