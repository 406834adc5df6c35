"""What a supervisor waits for between two turns."""

from __future__ import annotations

import contextlib
import os
import select
import signal
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Wakes:
    """Why the loop wakes up: signals, the loader, and the end of whoever started us."""

    reading: int
    writing: int
    lifeline_fd: int

    @classmethod
    def of(cls, lifeline_fd: int) -> Wakes:
        """Take over SIGTERM, SIGINT and SIGHUP."""
        reading, writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(writing)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda *_: None)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        return cls(reading, writing, lifeline_fd)

    def wake(self) -> None:
        """Wake the loop up, from any thread."""
        with contextlib.suppress(BlockingIOError):
            os.write(self.writing, b"\0")

    def wait(self, fds: Iterator[int], wait_s: float) -> frozenset[int]:
        """Wait for any of these; the signals that came, SIGTERM when the lifeline broke."""
        poll = select.poll()
        for fd in (self.reading, *fds):
            poll.register(fd, select.POLLIN)
        if self.lifeline_fd >= 0:
            poll.register(self.lifeline_fd, select.POLLIN)
        came = {fd for fd, _ in poll.poll(max(int(wait_s * 1000), 1))}
        numbers: set[int] = set()
        if self.reading in came:
            numbers.update(os.read(self.reading, 4096))
        if self.lifeline_fd in came:
            numbers.add(signal.SIGTERM)
        return frozenset(numbers)
