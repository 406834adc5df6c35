"""The chunks of one file, found by offset: a ranged read costs what it touches."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass

from modelkeep.core.errors import IntegrityError, MissingError
from modelkeep.vault.load import Reader, demand_sum, places_in
from modelkeep.vault.snapshot import RecipeFile


@dataclass(frozen=True, slots=True)
class Pieces:
    """A file's chunks in order; 8 bytes of memory for each.

    Attributes:
        key_id: of the domain key that they are under.
    """

    file: RecipeFile
    key_id: str
    starts: array[int]

    def __iter__(self) -> Iterator[int]:
        """The number of every chunk."""
        return iter(range(len(self.starts)))

    def number_at(self, offset: int) -> int:
        """The number of the chunk that an offset lies in; -1 outside of the file."""
        if not 0 <= offset < self.file.size_bytes:
            return -1
        return bisect_right(self.starts, offset) - 1

    def read_into(self, target: memoryview, number: int, reader: Reader) -> None:
        """Read one chunk and prove it; `target` is exactly as long.

        Raises:
            IntegrityError: `vault.chunk`, with offset and length in the file, when no store has a
                good copy.
            UnavailableError: when no store answers.
        """
        chunk_id, length = self.file.chunks[number]
        try:
            reader.chunk_into(target, chunk_id, key_id=self.key_id)
        except (IntegrityError, MissingError) as error:
            start = self.starts[number]
            raise IntegrityError(
                "vault.chunk",
                f"{self.file.path}: bytes {start} to {start + length} are damaged in every store",
                hint="restore the keep from another copy; what else is hit: `modelkeep check`",
                path=self.file.path,
                offset=start,
                length=length,
                cause=error.code,
            ) from error


def pieces_of(file: RecipeFile, key_id: str) -> Pieces:
    """Find a file's chunks.

    Raises:
        IntegrityError: `vault.recipe`, when they do not add up.
    """
    demand_sum(file)
    return Pieces(file, key_id, array("Q", (start for start, _ in places_in(file))))
