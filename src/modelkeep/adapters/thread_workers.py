"""Workers as threads of this process."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
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
        begun = _Begun()
        pending: deque[Future[R]] = deque()
        try:
            for item in items:
                pending.append(pool.submit(begun.run, work, item))
                if len(pending) > AHEAD_PER_THREAD * self._count:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            begun.end()
            if is_narrower:
                pool.shutdown(cancel_futures=True)

    def submit(self, work: Callable[[], R]) -> Callable[[], R]:
        return self._pool.submit(work).result

    def close(self) -> None:
        """End the threads; idempotent."""
        self._pool.shutdown(cancel_futures=True)


class _Begun:
    """What one `map` has begun.

    An interrupt may come before a future is known to the caller, or while its result is awaited,
    so the work itself says that it runs.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._running = 0
        self._is_over = False

    def run(self, work: Callable[[T], R], item: T) -> R:
        """Do the work, unless the caller has gone."""
        with self._changed:
            if self._is_over:
                raise CancelledError
            self._running += 1
        try:
            return work(item)
        finally:
            with self._changed:
                self._running -= 1
                self._changed.notify_all()

    def end(self) -> None:
        """Begin nothing more, and wait for what runs; an impatient second Ctrl-C waits as well."""
        again: KeyboardInterrupt | None = None
        while True:
            try:
                with self._changed:
                    self._is_over = True
                    self._changed.wait_for(lambda: not self._running)
            except KeyboardInterrupt as error:
                again = error
            else:
                break
        if again is not None:
            raise again
