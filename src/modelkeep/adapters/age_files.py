"""The public age format (age-encryption.org/v1) through pyrage: X25519 recipients, any length.

pyrage turns whatever a reader or a writer raises, Ctrl-C too, into an error of its own; what was
raised is kept here and raised again. Plaintext leaves pyrage after its chunk's tag verified.
"""

from __future__ import annotations

import base64
import binascii
import io
import re
from collections.abc import Callable, Sequence
from typing import Any

from modelkeep.core.errors import IntegrityError, LimitError, RefusedError, UsageError
from modelkeep.crypto.secret import Secret
from modelkeep.crypto.stream import exactly

AGE_FIRST_BYTES = (b"age-encryption.org/", b"-----BEGIN AGE ENCRYPTED FILE-----")
# The library reads a header of any size in quadratic time: 1 MB of it took 47 s. Here it must end
# within 64 KiB, which is some 500 recipients, in armour within half as much again.
HEADER_BYTES_MAX = 64 * 1024
_HEAD_BYTES = HEADER_BYTES_MAX * 3 // 2
# The library lets the last line of a stanza be missing; the format does not. A stanza is a line
# that begins with an arrow, lines of 64 characters, and one shorter line.
_HEADER = re.compile(
    rb"age-encryption\.org/v1(\n-> [!-~ ]+(\n[A-Za-z0-9+/]{64})*+\n[A-Za-z0-9+/]{0,63})+"
)
_NO_MATCH = "No matching keys found"


class _Reader:
    """What pyrage reads from; keeps what was raised."""

    def __init__(self, read: Callable[[int], bytes]) -> None:
        self._read = read
        self.raised: BaseException | None = None

    def read(self, size_bytes: int) -> bytes:
        try:
            return self._read(size_bytes)
        except BaseException as error:
            self.raised = error
            raise


class _Writer:
    """What pyrage writes to; keeps what was raised."""

    def __init__(self, write: Callable[[bytes], object]) -> None:
        self._write = write
        self.size_bytes = 0
        self.raised: BaseException | None = None

    def write(self, block: bytes) -> int:
        try:
            self._write(block)
        except BaseException as error:
            self.raised = error
            raise
        self.size_bytes += len(block)
        return len(block)

    def flush(self) -> None:
        """Nothing is held back."""


def encrypt_age(
    read: Callable[[int], bytes], write: Callable[[bytes], object], *, recipients: Sequence[str]
) -> None:
    """Encrypt a stream to `age1…` recipients.

    Raises:
        UsageError: `age.recipient`.
    """
    import pyrage  # type: ignore[import-untyped]  # noqa: PLC0415 - only who uses age pays for it

    try:
        keys = [pyrage.x25519.Recipient.from_str(text) for text in recipients]
    except pyrage.RecipientError as error:
        raise UsageError(
            "age.recipient",
            f"this is no age X25519 recipient: {error}",
            hint="it begins with age1; plugins, SSH keys and age1pq1 are not supported",
        ) from error
    _run(pyrage.encrypt_io, _Reader(read), _Writer(write), keys)


def decrypt_age(
    read: Callable[[int], bytes], write: Callable[[bytes], object], *, identities: Sequence[Secret]
) -> int:
    """Decrypt a stream with `AGE-SECRET-KEY-1…` identities; its size in bytes.

    Raises:
        UsageError: `age.identity`.
        RefusedError: `age.key`, when none of them opens it.
        IntegrityError: `age.damaged`; what was written until then is not the whole.
    """
    import pyrage  # noqa: PLC0415

    try:
        keys = [pyrage.x25519.Identity.from_str(each.reveal().decode()) for each in identities]
    except (pyrage.IdentityError, UnicodeDecodeError):
        raise UsageError("age.identity", "this is no age X25519 identity") from None
    target = _Writer(write)
    _run(pyrage.decrypt_io, _Reader(_bounded(read)), target, keys)
    return target.size_bytes


def _bounded(read: Callable[[int], bytes]) -> Callable[[int], bytes]:
    """The same stream, after its header was seen to end, and to have the form that age demands.

    Raises:
        LimitError: `age.header`.
        IntegrityError: `age.damaged`.
    """
    head = exactly(read, _HEAD_BYTES)
    is_long = len(head) == _HEAD_BYTES
    plain = head
    if head.lstrip().startswith(AGE_FIRST_BYTES[1]):
        head = head.lstrip()  # white space around armour is allowed, and the library wants none
        plain = _unarmoured(head)
    header, end, _ = plain[:HEADER_BYTES_MAX].partition(b"\n--- ")
    if is_long and not end:
        raise LimitError("age.header", "the header of an age file is larger than 64 KiB")
    if end and _HEADER.fullmatch(header) is None:
        raise IntegrityError("age.damaged", "the header of this age file has not the right form")
    held = io.BytesIO(head)
    return lambda size_bytes: held.read(size_bytes) or read(size_bytes)


def _unarmoured(head: bytes) -> bytes:
    """The beginning of what text armour holds, as the library will decode it if it does."""
    lines = head.split(b"\n", 1)[-1].partition(b"-")[0]  # up to the last line
    body = b"".join(lines.split())
    try:
        return base64.b64decode(body[: len(body) // 4 * 4], validate=True)
    except binascii.Error:
        return b""  # the library will say what is wrong with it


def _run(function: Callable[..., Any], source: _Reader, target: _Writer, keys: list[Any]) -> None:
    import pyrage  # noqa: PLC0415

    try:
        function(source, target, keys)
    except (pyrage.EncryptError, pyrage.DecryptError, OSError) as error:
        raised = source.raised or target.raised
        if raised is not None:
            raise raised from None
        if _NO_MATCH in str(error):
            raise RefusedError(
                "age.key",
                "none of the given age identities opens this file",
                hint="an AGE-SECRET-KEY-1… in an identity file; passphrases need the age program",
            ) from error
        raise IntegrityError(
            "age.damaged", f"this age file is altered or not whole: {error}"
        ) from error
