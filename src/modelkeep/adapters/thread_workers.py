"""Workers as threads of this process."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

# Results that may wait for the caller, per thread: enough to hide one slow item, little memory.
AHEAD_PER_THREAD = 2


class ThreadWorkers:
    """A pool of threads, started when it is first used."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._pool = ThreadPoolExecutor(count, thread_name_prefix="modelkeep")

    @property
    def count(self) -> int:
        return self._count

    def map(self, work: Callable[[T], R], items: Iterable[T], *, at_once: int = 0) -> Iterator[R]:
        is_narrower = 0 < at_once < self._count
        pool = ThreadPoolExecutor(at_once, "modelkeep") if is_narrower else self._pool
        pending: deque[Future[R]] = deque()
        try:
            for item in items:
                pending.append(pool.submit(work, item))
                if len(pending) > AHEAD_PER_THREAD * self._count:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for each in pending:
                each.cancel()
            wait(pending)
            if is_narrower:
                pool.shutdown()

    def submit(self, work: Callable[[], R]) -> Callable[[], R]:
        return self._pool.submit(work).result

    def close(self) -> None:
        """End the threads; idempotent."""
        self._pool.shutdown(cancel_futures=True)
