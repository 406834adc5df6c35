"""A stream of any length in authenticated chunks: the STREAM construction, as age has it.

Each chunk of 64 KiB is sealed under one key with its number and one bit, whether it is the last,
as nonce. So a chunk that is moved, doubled or dropped, a stream that is cut (its last bit is then
missing) and bytes after the end are all tags that do not verify. A key must serve one stream only.

What is read comes through `Read`, which returns at most as many bytes as it is asked for, and none
at the end; pieces are cut before they are looked at, so memory does not grow with the stream.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator

from modelkeep.core.errors import IntegrityError, LimitError
from modelkeep.crypto.aead import TAG_BYTES, Cipher
from modelkeep.crypto.secret import Secret

CHUNK_BYTES = 64 * 1024
SEALED_CHUNK_BYTES = CHUNK_BYTES + TAG_BYTES
# 256 TiB: far below what AES-GCM bears under one key with nonces that never repeat.
CHUNKS_MAX = 2**32

Read = Callable[[int], bytes]
Piece = tuple[memoryview, bool]


def pieces(read: Read, size_bytes: int, *, tail_bytes: int = 0) -> Generator[Piece, None, bytes]:
    """Cut a stream into pieces of one size, each with whether it is the last; that may be shorter.

    An empty stream is one empty piece. The last `tail_bytes` of the stream are no piece: they are
    what the generator returns (fewer, when the whole stream is shorter).
    """
    held = exactly(read, size_bytes + tail_bytes)
    more = b""
    while len(held) == size_bytes + tail_bytes:
        more = exactly(read, size_bytes)
        if len(more) < size_bytes:
            break
        yield memoryview(held)[:size_bytes], False
        held = held[size_bytes:] + more
        more = b""
    held += more
    end = max(len(held) - tail_bytes, 0)
    rest = memoryview(held)[:end]
    if end > size_bytes:
        yield rest[:size_bytes], False
        rest = rest[size_bytes:]
    yield rest, True
    return held[end:]


def exactly(read: Read, size_bytes: int) -> bytes:
    """Read so many bytes, or all there are; a pipe gives them in parts."""
    got = read(size_bytes)
    if len(got) == size_bytes:
        return got
    parts = [got]
    missing = size_bytes - len(got)
    while got and missing:
        got = read(missing)
        missing -= len(got)
        parts.append(got)
    return b"".join(parts)


def sealed_chunks(key: Secret, plain: Iterable[Piece]) -> Iterator[bytes]:
    """Seal pieces of `CHUNK_BYTES`.

    Raises:
        LimitError: `sealed.size`.
    """
    cipher = Cipher(key)
    for number, (piece, is_last) in enumerate(plain):
        yield cipher.seal(_nonce(number, is_last=is_last), piece, bound=b"")


def opened_chunks(key: Secret, sealed: Iterable[Piece]) -> Iterator[bytes]:
    """Open pieces of `SEALED_CHUNK_BYTES`; each is released after its own tag verified.

    Raises:
        IntegrityError: `sealed.chunk`: altered, moved, cut short, or followed by other bytes.
        LimitError: `sealed.size`.
    """
    cipher = Cipher(key)
    for number, (piece, is_last) in enumerate(sealed):
        try:
            plain = cipher.open(_nonce(number, is_last=is_last), piece, bound=b"")
        except IntegrityError:
            plain = None
        # Nobody writes an empty chunk after a full one: one plaintext has one form.
        if plain is None or (not plain and number):
            raise IntegrityError(
                "sealed.chunk",
                "the sealed file is altered, cut short, or has bytes after its end",
                hint="fetch it again; what was written before this point is not the whole file",
                chunk=number,
            )
        yield plain


def _nonce(number: int, *, is_last: bool) -> int:
    """The nonce as a number: eleven bytes of counter, one byte that marks the last chunk."""
    if number >= CHUNKS_MAX:
        raise LimitError("sealed.size", "a sealed file holds at most 256 TiB")
    return number << 8 | is_last
