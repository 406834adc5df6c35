"""What a Store may offer beyond its five verbs: many new objects under few syncs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

Object = tuple[str, bytes]


@runtime_checkable
class BatchStore(Protocol):
    """A Store in which putting many objects together costs less than one after the other."""

    def put_new(self, objects: Sequence[Object]) -> list[Object]:
        """Write the objects whose names are free; all of them are durable on return.

        Each is as with `put`: never visible in part, never in place of another.

        Returns:
            Those whose names were taken, whatever is under them: they are for `put` to judge.

        Raises:
            UnavailableError: `store.write`; any of them may be there; retry is safe.
        """
        ...
