"""Detached signatures of files: three lines of text beside a file, whatever its size.

The signature is over SHA-256 of the file and its length, in a context of its own. It names its
verifier, so that a reader can say whose it is; whether that one is trusted is the caller's to say.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import dataclass

from modelkeep.core.errors import IntegrityError, UsageError
from modelkeep.crypto.keytext import verifier_bytes, verifier_text
from modelkeep.crypto.signatures import SIGNATURE_BYTES, Signer, verify

FIRST_LINE = "modelkeep signature v0"
SIGNATURE_TEXT_BYTES = 174  # 22 + 60 + 88 characters, three line feeds, one to see what is too long
_CONTEXT = "file"


class FileDigest:
    """What is signed, taken in as the file is read."""

    __slots__ = ("_digest", "size_bytes")

    def __init__(self) -> None:
        self._digest = hashlib.sha256()
        self.size_bytes = 0

    def update(self, block: bytes | memoryview) -> None:
        """Take in the next bytes."""
        self._digest.update(block)
        self.size_bytes += len(block)

    @property
    def message(self) -> bytes:
        """SHA-256 of the bytes, and their number."""
        return self._digest.digest() + self.size_bytes.to_bytes(8, "big")


@dataclass(frozen=True, slots=True)
class FileSignature:
    """A signature that was read and not checked yet."""

    verifier: bytes
    signature: bytes

    def verify(self, digest: FileDigest) -> None:
        """Check it against a file.

        Raises:
            IntegrityError: `signature.bad`.
        """
        verify(self.signature, digest.message, context=_CONTEXT, public=self.verifier)


def signed_file(digest: FileDigest, signer: Signer) -> bytes:
    """The text of a detached signature."""
    signature = signer.sign(digest.message, context=_CONTEXT)
    lines = (FIRST_LINE, verifier_text(signer.public), base64.b64encode(signature).decode())
    return "".join(f"{line}\n" for line in lines).encode()


def parsed_signature(raw: bytes) -> FileSignature:
    """Read the text of a detached signature; one signature has one form.

    Raises:
        IntegrityError: `signature.form`.
    """
    try:
        first, key, text, end = raw.decode("ascii").split("\n")
        found = FileSignature(verifier_bytes(key), base64.b64decode(text, validate=True))
        again = base64.b64encode(found.signature).decode()
    except (ValueError, UsageError, binascii.Error):
        first = key = text = end = again = ""
        found = FileSignature(b"", b"")
    if (
        first != FIRST_LINE
        or end
        or text != again  # base64 has spare bits
        or key != key.lower()
        or len(found.signature) != SIGNATURE_BYTES
    ):
        raise IntegrityError("signature.form", "this is no modelkeep signature of a file")
    return found
