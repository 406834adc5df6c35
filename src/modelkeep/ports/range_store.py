"""What a Store may offer beyond its five verbs: reading into memory that is there."""

from __future__ import annotations

from typing import Protocol, cast, runtime_checkable

from modelkeep.ports.store import Store


@runtime_checkable
class IntoStore(Protocol):
    """A Store that reads without a fresh buffer (fresh memory costs more than the reading)."""

    def get_into(self, name: str, start: int, target: memoryview) -> int:
        """Fill `target` (writable, contiguous bytes) from an object, from `start` on.

        What stands in `target` beyond the count that comes back is unspecified.

        Returns:
            How many bytes were read: fewer than `target` has only at the object's end.

        Raises:
            KeepError: as `Store.get`.
        """
        ...


def read_into(store: Store, name: str, start: int, target: memoryview) -> int:
    """`get_into` of any store; one without it reads and copies.

    Raises:
        KeepError: as `Store.get`.
    """
    get_into = getattr(store, "get_into", None)  # a hundredth of what isinstance costs
    if get_into is not None:
        return cast("IntoStore", store).get_into(name, start, target)
    raw = store.get(name, start=start, length=len(target))
    target[: len(raw)] = raw
    return len(raw)


def uncached(store: Store) -> Store:
    """The store itself, where what is given may remember what it has read."""
    found = getattr(store, "uncached", store)
    return cast("Store", found)  # whatever offers it says so in its own type
