"""Threads for work that lets go of the interpreter: hashing, encryption, codecs, disks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol, TypeVar

T = TypeVar("T")
R = TypeVar("R")


class Workers(Protocol):
    """A bounded pool. What runs in it is bytes in, bytes out; decisions stay with the caller."""

    @property
    def count(self) -> int:
        """How many pieces of work run at once; 1 when everything runs in the caller's thread."""
        ...

    def map(self, work: Callable[[T], R], items: Iterable[T], *, at_once: int = 0) -> Iterator[R]:
        """Results in the order of the items, a bounded number of them ahead of the caller.

        At most `at_once` run at a time, or as many as there are threads, if that is less; 0 for
        all. A caller who works as hard as they do leaves room for himself.

        The first error of `work` is raised where its result would have come; what was begun is
        waited for before that, so that no work outlives the iteration.
        """
        ...

    def submit(self, work: Callable[[], R]) -> Callable[[], R]:
        """Begin one piece of work; call what comes back to wait for its result or its error."""
        ...


class SerialWorkers:
    """Everything in the caller's thread, in order: for few bytes, and for tests that count."""

    @property
    def count(self) -> int:
        """One."""
        return 1

    def map(
        self,
        work: Callable[[T], R],
        items: Iterable[T],
        *,
        at_once: int = 0,  # noqa: ARG002 - one in any case
    ) -> Iterator[R]:
        """As `Workers.map`, one by one when they are asked for."""
        return map(work, items)

    def submit(self, work: Callable[[], R]) -> Callable[[], R]:
        """As `Workers.submit`, done on return."""
        result = work()
        return lambda: result


SERIAL: Workers = SerialWorkers()
