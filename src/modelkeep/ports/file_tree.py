"""Folders and files to be shown: read-only, in pieces that are proven one by one."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple, Protocol

from modelkeep.core.record import Record


class NodeKind(StrEnum):
    """What stands under a name."""

    FOLDER = "folder"
    FILE = "file"
    LINK = "link"


class Node(Record, frozen=True):
    """What a tree says of one path.

    Attributes:
        mode: permission bits of its owner; nobody may write.
        target: what a link says.
    """

    kind: NodeKind
    mode: int
    modified_ns: int
    size_bytes: int = 0
    target: str = ""


class Piece(NamedTuple):
    """A part of a file that is read as a whole.

    Attributes:
        number: in its file, from 0.
        identity: equal for pieces of equal content.
        start: offset of its first byte in the file.
    """

    number: int
    identity: bytes
    start: int
    length: int


class PiecedFile(Protocol):
    """A file that is open for reading; safe to use from several threads."""

    size_bytes: int

    def piece_at(self, offset: int) -> Piece | None:
        """The piece that an offset lies in; None at the end of the file."""
        ...

    def read(self, piece: Piece) -> bytearray:
        """The bytes of a piece, proven.

        Raises:
            RefusedError: `policy.*`, when it may not be read, or not any more.
            IntegrityError: when no store has a good copy.
            UnavailableError: when no store answers.
        """
        ...


class FileTree(Protocol):
    """A tree that does not change; paths are absolute, `/` is its root. Safe for several threads.

    Every method raises MissingError `tree.path` for a path that is not there, and what reading the
    keep raises.
    """

    def node(self, path: str) -> Node:
        """What stands under a path."""
        ...

    def names(self, path: str) -> list[str]:
        """The names in a folder."""
        ...

    def opened(self, path: str) -> PiecedFile:
        """A file, to be read.

        Raises:
            RefusedError: `policy.*`.
        """
        ...
