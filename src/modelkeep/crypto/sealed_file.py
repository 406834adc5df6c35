"""Sealed files, format v0: header, chunks and signature (docs/design/sealed-file.md).

Read order, numbered as in the code:

1. The first line and the length of the header, within bounds.
2. The header decodes strictly, and every field has its size.
3. The first stanza that opens gives the file key.
4. The commitment fits it, so a file cannot mean one thing to one reader and another to the next.
5. The MAC verifies over every byte so far: all stanzas, the salt, the signer.
6. The signer is one of those demanded, if any is.
7. Chunks, each released after its tag verified; the last one says that it is.
8. The signature, over all bytes before it. What came out of 7 until then is not attributed yet.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

from modelkeep.core.errors import IntegrityError, RefusedError, UsageError
from modelkeep.core.record import Record, from_msgpack, to_msgpack
from modelkeep.crypto.kdf import KEY_BYTES, SALT_BYTES, derived_key
from modelkeep.crypto.keytext import verifier_text
from modelkeep.crypto.locks import (
    Key,
    Lock,
    PassphraseStanza,
    Stanza,
    is_well_formed,
    opened_file_key,
    stanza_of,
)
from modelkeep.crypto.secret import Secret
from modelkeep.crypto.signatures import PUBLIC_KEY_BYTES, SIGNATURE_BYTES, Signer, verify
from modelkeep.crypto.stream import (
    CHUNK_BYTES,
    SEALED_CHUNK_BYTES,
    Piece,
    Read,
    exactly,
    opened_chunks,
    pieces,
    sealed_chunks,
)

FIRST_LINE = b"modelkeep sealed file v0\n"
# A team, not a mailing list; 64 recipients make a header of 75 kB.
STANZAS_MAX = 64
HEADER_BYTES_MAX = 1024 * 1024

_LENGTH_BYTES = 4
_MAC_BYTES = 32
_CONTEXT = "sealed-file"


class Header(Record, frozen=True):
    """What stands before the chunks."""

    salt: bytes
    commitment: bytes
    stanzas: tuple[Stanza, ...]
    signer: bytes


@dataclass(frozen=True, slots=True)
class Opened:
    """A sealed file whose header is proven.

    Attributes:
        signer: verifier of who signed it, empty if nobody did. Proven when the chunks have ended,
            and then proven to be one of those demanded, if any was.
        chunks: the plaintext; it ends with an IntegrityError where the file is not whole.
    """

    signer: bytes
    stanzas: int
    chunks: Iterator[bytes]


def sealed_file(
    read: Read,
    *,
    locks: Sequence[Lock],
    signer: Signer | None = None,
    random_bytes: Callable[[int], bytes],
) -> Iterator[bytes]:
    """Seal a stream: the bytes of the file, in parts.

    Raises:
        UsageError: `sealed.recipients`, at once.
    """
    file_key = Secret(random_bytes(KEY_BYTES))
    salt = random_bytes(SALT_BYTES)
    header = Header(
        salt=salt,
        commitment=_commitment(file_key, salt),
        stanzas=tuple(stanza_of(lock, file_key, random_bytes=random_bytes) for lock in locks),
        signer=signer.public if signer else b"",
    )
    if not _is_well_formed(header):
        raise UsageError(
            "sealed.recipients",
            f"a file is sealed to 1 to {STANZAS_MAX} recipients, one passphrase at most",
        )
    return _written(read, header, file_key, signer)


def opened_file(
    read: Read, *, keys: Iterable[Key], signers: Collection[bytes] | None = None
) -> Opened:
    """Open a stream as far as its header; the chunks come out of what is returned.

    Args:
        signers: verifiers, one of whom must have signed; None demands nobody, and an empty
            collection trusts nobody.

    Raises:
        IntegrityError: `sealed.format`, `sealed.header`, `sealed.commitment`, `sealed.mac`,
            `kdf.cost`; from the chunks `sealed.chunk`, `sealed.signature`.
        RefusedError: `sealed.key`, `sealed.signer`.
    """
    start, raw, mac = _read_header(read)  # step 1
    header = from_msgpack(Header, raw, what="the header of a sealed file")  # step 2
    if not _is_well_formed(header):
        raise IntegrityError("sealed.header", "the header of a sealed file is out of bounds")
    file_key = opened_file_key(header.stanzas, keys)  # step 3
    if not hmac.compare_digest(_commitment(file_key, header.salt), header.commitment):  # step 4
        raise IntegrityError("sealed.commitment", "a key opens this file that is not the file's")
    if not hmac.compare_digest(_mac(file_key, header.salt, start + raw), mac):  # step 5
        raise IntegrityError("sealed.mac", "the header of a sealed file was altered")
    if signers is not None and header.signer not in signers:  # step 6
        raise unnamed_signer(header.signer)
    payload_key = _payload_key(file_key, mac)
    chunks = _opened_payload(read, payload_key, header.signer, start + raw + mac)
    return Opened(signer=header.signer, stanzas=len(header.stanzas), chunks=chunks)


def unnamed_signer(signer: bytes) -> RefusedError:
    """The refusal of a file that nobody signed who was demanded; whom it names is not proven."""
    if not signer:
        return RefusedError(
            "sealed.signer", "nobody signed this file", hint="ask the sender to sign it"
        )
    return RefusedError(
        "sealed.signer",
        f"this file says that {verifier_text(signer)} signed it, whom you did not name",
        hint="have the sender tell you their verifier on a way that you trust; if it is this one, "
        "name it: --signer mkv1…",
    )


def _written(
    read: Read, header: Header, file_key: Secret, signer: Signer | None
) -> Iterator[bytes]:
    raw = to_msgpack(header)
    start = FIRST_LINE + len(raw).to_bytes(_LENGTH_BYTES, "big") + raw
    mac = _mac(file_key, header.salt, start)
    start += mac
    yield start
    chunks = sealed_chunks(_payload_key(file_key, mac), pieces(read, CHUNK_BYTES))
    if signer is None:
        yield from chunks
        return
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk)
        yield chunk
    yield signer.sign(hashlib.sha256(start).digest() + digest.digest(), context=_CONTEXT)


def _opened_payload(
    read: Read, payload_key: Secret, signer: bytes, start: bytes
) -> Iterator[bytes]:
    """Steps 7 and 8."""
    if not signer:
        yield from opened_chunks(payload_key, pieces(read, SEALED_CHUNK_BYTES))
        return
    digest = hashlib.sha256()
    signature = b""

    def hashed() -> Iterator[Piece]:
        nonlocal signature
        cut = pieces(read, SEALED_CHUNK_BYTES, tail_bytes=SIGNATURE_BYTES)
        while True:
            try:
                piece, is_last = next(cut)
            except StopIteration as end:
                signature = end.value
                return
            digest.update(piece)
            yield piece, is_last

    yield from opened_chunks(payload_key, hashed())
    message = hashlib.sha256(start).digest() + digest.digest()
    try:
        verify(signature, message, context=_CONTEXT, public=signer)
    except IntegrityError:
        raise IntegrityError(
            "sealed.signature", "the signature of a sealed file does not verify"
        ) from None


def _read_header(read: Read) -> tuple[bytes, bytes, bytes]:
    """What stands before the header, the header, and its MAC."""
    start = exactly(read, len(FIRST_LINE) + _LENGTH_BYTES)
    if start[: len(FIRST_LINE)] != FIRST_LINE:
        raise IntegrityError(
            "sealed.format",
            "this is no sealed file",
            hint="it begins with other bytes than a sealed file of a known version",
        )
    size_bytes = int.from_bytes(start[len(FIRST_LINE) :], "big")
    if size_bytes > HEADER_BYTES_MAX:
        raise IntegrityError("sealed.header", "the header of a sealed file is out of bounds")
    rest = exactly(read, size_bytes + _MAC_BYTES)
    if len(rest) < size_bytes + _MAC_BYTES:
        raise IntegrityError("sealed.header", "a sealed file is cut short within its header")
    return start, rest[:size_bytes], rest[size_bytes:]


def _is_well_formed(header: Header) -> bool:
    passphrases = sum(isinstance(each, PassphraseStanza) for each in header.stanzas)
    return (
        len(header.salt) == SALT_BYTES
        and len(header.commitment) == KEY_BYTES
        and len(header.signer) in (0, PUBLIC_KEY_BYTES)
        and 1 <= len(header.stanzas) <= STANZAS_MAX
        and passphrases <= 1
        and all(map(is_well_formed, header.stanzas))
    )


def _commitment(file_key: Secret, salt: bytes) -> bytes:
    return derived_key(file_key, "sealed-file/commitment", salt=salt).reveal()


def _payload_key(file_key: Secret, mac: bytes) -> Secret:
    """Salted with the MAC: even a file key that came twice gives two keys under two headers."""
    return derived_key(file_key, "sealed-file/payload", salt=mac)


def _mac(file_key: Secret, salt: bytes, message: bytes) -> bytes:
    key = derived_key(file_key, "sealed-file/header", salt=salt)
    return hmac.digest(key.reveal(), message, "sha256")
