"""Hashing of content: BLAKE3, plain for identities that may be published, keyed for those not."""

from __future__ import annotations

import blake3

from modelkeep.core.digest import Digest


def digest_of(raw: bytes | memoryview) -> Digest:
    """The digest of some bytes: `blake3:<64 hex digits>`."""
    return Digest("blake3:" + blake3.blake3(raw).hexdigest())


def hex_of(raw: bytes | memoryview) -> str:
    """The bare hex digest, for names of objects."""
    return blake3.blake3(raw).hexdigest()


def keyed_id(key: bytes, raw: bytes | memoryview) -> bytes:
    """The 32-byte keyed digest of some bytes: nobody without the key can probe for content."""
    return blake3.blake3(raw, key=key).digest()


def keyed_pair_id(key: bytes, before: bytes, raw: bytes | bytearray | memoryview) -> bytes:
    """As `keyed_id` of both, one behind the other, without joining them."""
    return blake3.blake3(before, key=key).update(raw).digest()


def keyed_stream(key: bytes, size_bytes: int) -> bytes:
    """Bytes that look random to whoever has not the 32-byte key, and are the same each time."""
    return blake3.blake3(b"", key=key).digest(length=size_bytes)


class KeyedDigester:
    """The keyed digest of bytes that come in pieces; `keyed_id` of all of them."""

    __slots__ = ("_hash",)

    def __init__(self, key: bytes) -> None:
        self._hash = blake3.blake3(key=key)

    def update(self, raw: bytes | memoryview) -> None:
        """Add the next bytes."""
        self._hash.update(raw)

    def digest(self) -> bytes:
        """Of all bytes so far; 32 bytes."""
        return self._hash.digest()


class Digester:
    """The digest of bytes that come in pieces.

    Args:
        threads: by how many large pieces are hashed.
    """

    __slots__ = ("_hash",)

    def __init__(self, *, threads: int = 1) -> None:
        self._hash = blake3.blake3(max_threads=threads)

    def update(self, raw: bytes | memoryview) -> None:
        """Add the next bytes."""
        self._hash.update(raw)

    def digest(self) -> Digest:
        """Of all bytes so far."""
        return Digest("blake3:" + self._hash.hexdigest())
