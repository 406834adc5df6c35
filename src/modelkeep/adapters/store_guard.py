"""What every store is held to: a place that is the keep's own, objects of a bounded size."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from modelkeep.core.errors import (
    IntegrityError,
    MissingError,
    RefusedError,
    UnavailableError,
)
from modelkeep.core.limits import OBJECT_BYTES_MAX
from modelkeep.core.names import series_name
from modelkeep.ports.range_store import read_into, uncached
from modelkeep.ports.store import ObjectStat, Store

_FIRST = "format/"
_FORM = series_name("format", 0)
_FORMAT_BYTES_READ = 4096


def demand_bounded(label: str, name: str, size_bytes: int) -> None:
    """Check a whole object before it is read: a hostile store must not fill our memory.

    Raises:
        IntegrityError: `store.size`; nothing that modelkeep writes is larger.
    """
    if size_bytes > OBJECT_BYTES_MAX:
        raise IntegrityError(
            "store.size",
            f"{label}: {name} has {size_bytes} bytes, more than any object of ours",
            store=label,
            object=name,
        )


class StoreGuard:
    """Nothing but `format/` is written where no format object of this keep is.

    Args:
        place: for people.
    """

    def __init__(self, label: str, place: str, keep_id: str) -> None:
        self._label = label
        self._place = place
        self._keep_id = keep_id
        self.is_ours = False

    def demand(self, name: str, read_format: Callable[[str, int], bytes | None]) -> None:
        """Check before a name is written, with what reads the first bytes of an object.

        Raises:
            UnavailableError: `store.empty` or `store.foreign`.
        """
        if name.startswith(_FIRST):
            return
        told = read_format(_FORM, _FORMAT_BYTES_READ)
        if told is None:
            raise UnavailableError(
                "store.empty",
                f"{self._label} holds no keep: {self._place} has no format object",
                hint="is it mounted? A damaged store: `modelkeep check --repair`; a new one: "
                f"`modelkeep backup --new {self._label}`",
                store=self._label,
            )
        if f'"keep_id":"{self._keep_id}"'.encode() not in told:
            raise UnavailableError(
                "store.foreign",
                f"{self._label}: {self._place} is not a store of this keep",
                hint="correct it in modelkeep.toml, or `modelkeep check --repair`",
                store=self._label,
            )
        self.is_ours = True


@contextmanager
def _answering() -> Iterator[None]:
    """A store that refuses us is one that does not answer: the others are asked, nothing stops.

    Raises:
        UnavailableError: `store.refused`, with what refused as its cause.
    """
    try:
        yield
    except RefusedError as error:
        raise UnavailableError(
            "store.refused", error.message, hint=error.hint, cause=error.code
        ) from error


class GuardedStore:
    """A store elsewhere that is one of a keep's: it is asked once, before the first write."""

    def __init__(self, store: Store, *, place: str, keep_id: str) -> None:
        self.label = store.label
        self._store = store
        self._guard = StoreGuard(store.label, place, keep_id)

    @property
    def uncached(self) -> Store:
        """The store without what is remembered of it here: whoever checks it must not ask us."""
        return uncached(self._store)

    def put(self, name: str, raw: bytes | memoryview) -> None:
        with _answering():
            if not self._guard.is_ours:
                self._guard.demand(name, self._first_bytes)
            self._store.put(name, raw)

    def get(self, name: str, *, start: int = 0, length: int | None = None) -> bytes:
        with _answering():
            return self._store.get(name, start=start, length=length)

    def get_into(self, name: str, start: int, target: memoryview) -> int:
        with _answering():
            return read_into(self._store, name, start, target)

    def list(self, prefix: str) -> Iterator[ObjectStat]:
        with _answering():
            yield from self._store.list(prefix)

    def stat(self, name: str) -> ObjectStat | None:
        with _answering():
            return self._store.stat(name)

    def delete(self, name: str) -> None:
        with _answering():
            self._store.delete(name)
        if name.startswith(_FIRST):
            self._guard.is_ours = False

    def _first_bytes(self, name: str, length: int) -> bytes | None:
        try:
            return self._store.get(name, start=0, length=length)
        except MissingError:
            return None
