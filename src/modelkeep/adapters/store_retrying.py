"""A Store that repeats, a bounded number of times, a call that the world failed.

Every verb may be repeated by the port's promises: `put` of the same bytes is success, `delete` of
a missing object too. Only UnavailableError is tried again; what is missing, damaged or refused is
so the next time as well. Waits grow and are drawn at random, so that many clients of a store that
comes back do not all come at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from modelkeep.core.errors import UnavailableError
from modelkeep.ports.range_store import read_into
from modelkeep.ports.store import ObjectStat, Store

WAIT_S_FIRST = 0.2
WAIT_S_MAX = 10.0
T = TypeVar("T")


class RetryingStore:
    """Another store, more patient.

    Args:
        retries: how often one call is made again.
        sleep: waits for so many seconds.
    """

    def __init__(self, store: Store, *, retries: int, sleep: Callable[[float], None]) -> None:
        self.label = store.label
        self._store = store
        self._retries = retries
        self._sleep = sleep

    def put(self, name: str, raw: bytes | memoryview) -> None:
        self._tried(lambda: self._store.put(name, raw))

    def get(self, name: str, *, start: int = 0, length: int | None = None) -> bytes:
        return self._tried(lambda: self._store.get(name, start=start, length=length))

    def get_into(self, name: str, start: int, target: memoryview) -> int:
        return self._tried(lambda: read_into(self._store, name, start, target))

    def list(self, prefix: str) -> Iterator[ObjectStat]:
        """As the port; a listing that breaks off is begun again behind what was seen of it."""
        last = ""
        for attempt in self._attempts():
            with attempt:
                for stat in self._store.list(prefix):
                    if stat.name > last:
                        last = stat.name
                        yield stat

    def stat(self, name: str) -> ObjectStat | None:
        return self._tried(lambda: self._store.stat(name))

    def delete(self, name: str) -> None:
        self._tried(lambda: self._store.delete(name))

    def _tried(self, call: Callable[[], T]) -> T:
        return self._attempts()(call)

    def _attempts(self) -> Retrying:
        return Retrying(
            stop=stop_after_attempt(self._retries + 1),
            wait=wait_random_exponential(multiplier=WAIT_S_FIRST, max=WAIT_S_MAX),
            retry=retry_if_exception_type(UnavailableError),
            sleep=self._sleep,
            reraise=True,
        )
