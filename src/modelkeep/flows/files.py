"""Files and streams: sealed, opened, signed, verified, from a `Read` to a `Write`.

Nothing here knows of keeps, names or terminals; where bytes come from and go to is the caller's.
What was written before an error is not the whole: the caller makes it vanish, or says so.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass

from modelkeep.core.errors import RefusedError
from modelkeep.crypto.file_signature import FileDigest, FileSignature, signed_file
from modelkeep.crypto.locks import Key, Lock
from modelkeep.crypto.sealed_file import opened_file, sealed_file
from modelkeep.crypto.signatures import Signer
from modelkeep.crypto.stream import Read
from modelkeep.ports.entropy import Entropy

BLOCK_BYTES = 1024 * 1024
Write = Callable[[bytes], object]
Progress = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Plaintext:
    """What a sealed file was found to hold.

    Attributes:
        signer: verifier of who signed it, proven; empty if nobody did.
    """

    size_bytes: int
    signer: bytes


def seal(
    read: Read,
    write: Write,
    *,
    locks: Sequence[Lock],
    signer: Signer | None,
    entropy: Entropy,
) -> None:
    """Seal a stream.

    Raises:
        UsageError: `sealed.recipients`, before anything is read or written.
        LimitError: `sealed.size`.
    """
    parts = sealed_file(read, locks=locks, signer=signer, random_bytes=entropy.random_bytes)
    for part in parts:
        write(part)


def open_sealed(
    read: Read, write: Write, *, keys: Iterable[Key], signers: Collection[bytes] | None
) -> Plaintext:
    """Open a stream; each part is written after its tag verified, the signature comes last.

    Raises:
        IntegrityError: `sealed.*`.
        RefusedError: `sealed.key`, `sealed.signer`; nothing is written then.
    """
    opened = opened_file(read, keys=keys, signers=signers)
    size_bytes = 0
    for chunk in opened.chunks:
        write(chunk)
        size_bytes += len(chunk)
    return Plaintext(size_bytes=size_bytes, signer=opened.signer)


def sign(read: Read, signer: Signer) -> bytes:
    """Read a file to its end; the text of its detached signature."""
    return signed_file(_digest(read), signer)


def verify(read: Read, signature: FileSignature, *, verifiers: Collection[bytes]) -> int:
    """Read a file to its end and check its detached signature; its size in bytes.

    Raises:
        RefusedError: `signature.signer`: by nobody whom you named; the file is not read.
        IntegrityError: `signature.bad`.
    """
    if signature.verifier not in verifiers:
        raise RefusedError(
            "signature.signer",
            "the signature is by nobody whom you named",
            hint="ask the sender for the verifier (mkv1…), over a way that you trust",
        )
    digest = _digest(read)
    signature.verify(digest)
    return digest.size_bytes


def _digest(read: Read) -> FileDigest:
    digest = FileDigest()
    while block := read(BLOCK_BYTES):
        digest.update(block)
    return digest
