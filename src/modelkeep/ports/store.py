"""Named immutable objects somewhere durable."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from modelkeep.core.record import Record


class ObjectStat(Record, frozen=True):
    """What a store says of one object without reading it."""

    name: str
    size_bytes: int


class Store(Protocol):
    """Named immutable objects. Safe to use from several threads and processes at once.

    A name is ASCII: lower-case letters, digits, '.', '-', '_' and '/', no empty, '.' or '..' part
    (`core.names.checked_object_name`); a bad name is UsageError `store.name`.
    """

    label: str
    """The store's name in modelkeep.toml, for messages and the ledger."""

    def put(self, name: str, raw: bytes | memoryview) -> None:
        """Write an object if the name is free.

        Durable and complete on return; never visible in part. An existing object of the same
        bytes is success; of other bytes it is IntegrityError `store.exists` and stays as it was.

        Raises:
            IntegrityError: `store.exists`.
            UnavailableError: `store.write`; the object may or may not be there; retry is safe.
        """
        ...

    def get(self, name: str, *, start: int = 0, length: int | None = None) -> bytes:
        """Read an object or a byte range of it. A range past the end returns what there is.

        Raises:
            MissingError: `store.missing`.
            IntegrityError: `store.size`, for a whole object beyond OBJECT_BYTES_MAX.
            UnavailableError: `store.read`; retry may help.
        """
        ...

    def list(self, prefix: str) -> Iterator[ObjectStat]:
        """Objects whose name starts with the prefix, sorted by name; none is not an error."""
        ...

    def stat(self, name: str) -> ObjectStat | None:
        """Size of the object, or None when there is none."""
        ...

    def delete(self, name: str) -> None:
        """Remove an object; durable on return; a missing object is success."""
        ...
