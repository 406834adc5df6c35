"""A Store that moves at most so many bytes a second, each way.

A bucket of tokens a way: it fills at the rate, up to one second's worth, and a transfer takes what
it moves, if need be on credit. A `put` waits before it sends, a `get` after it has read: the rate
holds over seconds, not inside one object.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

from modelkeep.core.instant import NS_PER_S
from modelkeep.ports.clock import Clock
from modelkeep.ports.range_store import read_into
from modelkeep.ports.store import ObjectStat, Store


class ThrottledStore:
    """Another store, slower.

    Args:
        sleep: waits for so many seconds.
    """

    def __init__(
        self, store: Store, *, bytes_per_s: int, clock: Clock, sleep: Callable[[float], None]
    ) -> None:
        self.label = store.label
        self._store = store
        self._sleep = sleep
        self._up = _Bucket(bytes_per_s, clock)
        self._down = _Bucket(bytes_per_s, clock)

    def put(self, name: str, raw: bytes | memoryview) -> None:
        self._wait(self._up.taken(len(raw)))
        self._store.put(name, raw)

    def get(self, name: str, *, start: int = 0, length: int | None = None) -> bytes:
        raw = self._store.get(name, start=start, length=length)
        self._wait(self._down.taken(len(raw)))
        return raw

    def get_into(self, name: str, start: int, target: memoryview) -> int:
        count = read_into(self._store, name, start, target)
        self._wait(self._down.taken(count))
        return count

    def list(self, prefix: str) -> Iterator[ObjectStat]:
        return self._store.list(prefix)

    def stat(self, name: str) -> ObjectStat | None:
        return self._store.stat(name)

    def delete(self, name: str) -> None:
        self._store.delete(name)

    def _wait(self, seconds: float) -> None:
        if seconds > 0:
            self._sleep(seconds)


class _Bucket:
    def __init__(self, bytes_per_s: int, clock: Clock) -> None:
        self._rate = bytes_per_s
        self._clock = clock
        self._tokens = float(bytes_per_s)
        self._at_ns = clock.monotonic_ns()
        self._lock = threading.Lock()

    def taken(self, count: int) -> float:
        """Take tokens; the seconds until they are there."""
        with self._lock:
            now_ns = self._clock.monotonic_ns()
            gained = (now_ns - self._at_ns) / NS_PER_S * self._rate
            self._tokens = min(self._tokens + gained, self._rate) - count
            self._at_ns = now_ns
            return max(-self._tokens / self._rate, 0.0)
