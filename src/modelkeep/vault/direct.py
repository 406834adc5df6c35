"""The short way from a store into memory: raw segments, read and decrypted in place.

A chunk that lies raw in the first store is read into a buffer that is used again and decrypted
straight to where it belongs; its AEAD tag, which binds id, number and domain, is what proves it.
It is not hashed: whoever needs more than the tag hashes what comes out (`flows.load` does so for
the first load on a host). Everything else goes the reader's way: another encoding, a delta, another
store, a copy to be healed; there each chunk is hashed against its id.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass, field

from modelkeep.core.errors import IntegrityError, KeepError, MissingError, UnavailableError
from modelkeep.crypto.aead import TAG_BYTES, Cipher
from modelkeep.kernels.encoding import Encoding
from modelkeep.ports.range_store import read_into
from modelkeep.vault.index import Pack
from modelkeep.vault.load import Reader
from modelkeep.vault.pack import Segment, bound_to, pack_cipher
from modelkeep.vault.pieces import pieces_of
from modelkeep.vault.snapshot import RecipeFile

# Chunks that one worker takes at a time: so much that handing them out costs next to nothing.
_RUN_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class _Place:
    """A raw segment of the first store."""

    pack: Pack
    segment: Segment
    cipher: Cipher
    bound: bytes


def filled(
    reader: Reader, target: memoryview, file: RecipeFile, *, key_id: str, at_once: int = 0
) -> Generator[memoryview, None, None]:
    """Decrypt a whole file in place, by the reader's workers. Close it: then none works on.

    Args:
        target: writable, exactly as long as the file.
        key_id: of the domain key that the recipe's chunks are under.
        at_once: how many workers; 0 for all.

    Yields:
        Each part of `target` when it is filled, in order. All of it is only when this ends.

    Raises:
        IntegrityError: `vault.recipe`; `vault.chunk`, with offset and length in the file, when no
            store has a good copy of a chunk. What was not proven is zeroed.
    """
    pieces = pieces_of(file, key_id)
    if len(target) != file.size_bytes:
        raise IntegrityError("vault.recipe", f"{file.path} has another size")

    places = _Places(reader, key_id)

    def fill(run: range) -> memoryview:
        for number in run:
            chunk_id, length = file.chunks[number]
            into = target[pieces.starts[number] : pieces.starts[number] + length]
            place = places.of(chunk_id, length)
            if place is None or not _decrypted(reader, place, into):
                pieces.read_into(into, number, reader)
        start, end = pieces.starts[run[0]], pieces.starts[run[-1]] + file.chunks[run[-1]][1]
        return target[start:end]

    yield from reader.workers.map(fill, _runs(file), at_once=at_once)


def _decrypted(reader: Reader, place: _Place, target: memoryview) -> bool:
    """Whether the first store gave it whole; else the target is zeroed, or as it was."""
    segment = place.segment
    with reader.borrowed(segment.length + TAG_BYTES) as sealed:
        try:
            if read_into(reader.stores[0], place.pack.name, segment.offset, sealed) != len(sealed):
                return False
            place.cipher.open_into(segment.number, sealed, target, bound=place.bound)
        except (IntegrityError, MissingError, UnavailableError):
            return False
    return True


def _runs(file: RecipeFile) -> Iterator[range]:
    """Numbers of neighbouring chunks, up to a size together."""
    first = size_bytes = 0
    for number, (_, length) in enumerate(file.chunks):
        if number > first and size_bytes + length > _RUN_BYTES:
            yield range(first, number)
            first, size_bytes = number, 0
        size_bytes += length
    if first < len(file.chunks):
        yield range(first, len(file.chunks))


@dataclass(slots=True)
class _Places:
    """Where chunks lie raw in the first store, under one key; a cipher for each pack."""

    reader: Reader
    key_id: str
    ciphers: dict[str, Cipher] = field(default_factory=dict)

    def of(self, chunk_id: bytes, length: int) -> _Place | None:
        """The place of a chunk, or None for what is not so plain."""
        try:
            found = self.reader.index_of(self.reader.stores[0], self.key_id).find(chunk_id)
            if found is None:
                return None
            pack, segment = found
            is_plain = segment.encoding == Encoding.RAW and not segment.base
            if not is_plain or segment.length != length or segment.payload_bytes != length:
                return None
            domain = self.reader.domains.of(pack.name)
            if pack.name not in self.ciphers:  # a key for each pack, not derived for each segment
                self.ciphers[pack.name] = pack_cipher(domain, pack.salt)
            return _Place(pack, segment, self.ciphers[pack.name], bound_to(domain.name, segment))
        except KeepError:
            return None
