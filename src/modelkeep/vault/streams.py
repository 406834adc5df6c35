"""Files that are read piece by piece, cut for the vault: no step has more than a window of one.

A file with tensors is cut at their borders; another one where its content says, found in a window
that moves along. The cut of a chunk depends on nothing after the longest chunk from its beginning,
so the borders are those of the whole file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from modelkeep.crypto.kdf import derived_key
from modelkeep.kernels.chunker import MAXIMUM_BYTES, chunk_lengths
from modelkeep.vault.bases import Tensors
from modelkeep.vault.commit import PIECE_BYTES_MIN, Stream, Writer, cuts

_NOTHING = memoryview(b"")
# What is looked at for borders at once; a multiple of the longest chunk.
_WINDOW_BYTES = 8 * MAXIMUM_BYTES


@dataclass(frozen=True, slots=True)
class Plain:
    """A file whose bytes can be had.

    Attributes:
        read_into: fills a buffer from an offset on; several threads may ask at once.
        raw: all of it, where that costs no memory, to look for tensors in; empty where it does.
        forget: drops the pages of `raw` that were looked at.
        fd: a descriptor of the same bytes that can only be read; -1 for none.
    """

    path: str
    size_bytes: int
    read_into: Callable[[int, memoryview], None]
    raw: memoryview = _NOTHING
    forget: Callable[[], None] = lambda: None
    fd: int = -1


def streamed(plain: Plain, tensors: Tensors, *, writer: Writer) -> Stream:
    """Cut a file for a writer."""
    segment_bytes = writer.settings.segment_bytes
    places: Iterable[tuple[int, int]]
    if tensors or plain.size_bytes <= PIECE_BYTES_MIN:
        places = cuts(plain.size_bytes, tensors, segment_bytes)
    else:
        key = derived_key(writer.domain.chunk_ids, "chunk-borders")
        places = (  # found while the chunks before are stored, so that a file is read once
            (start, min(segment_bytes, left + length - start))
            for left, length in _content_cuts(plain, key.reveal())
            for start in range(left, left + length, segment_bytes)
        )
    return Stream(
        path=plain.path,
        size_bytes=plain.size_bytes,
        places=places,
        read=plain.read_into,
        tensors=tensors,
    )


def _content_cuts(plain: Plain, key: bytes) -> Iterator[tuple[int, int]]:
    """Start and length of the chunks of a file, where its content says."""
    window = memoryview(bytearray(min(_WINDOW_BYTES, plain.size_bytes)))
    start = 0
    while start < plain.size_bytes:
        part = window[: min(len(window), plain.size_bytes - start)]
        plain.read_into(start, part)
        end = start + len(part)
        for length in chunk_lengths(part, key=key):
            if end < plain.size_bytes and end - start < MAXIMUM_BYTES:
                break  # what follows the window may move this border
            yield start, length
            start += length
