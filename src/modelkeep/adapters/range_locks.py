"""Numbered locks beside a file, between processes and between openings of one process.

The kernel's locks of open file descriptions (Linux 3.15), one byte each, far past the file's end.
They end with the last descriptor of the opening, so nobody can die and keep one.
"""

from __future__ import annotations

import fcntl
import os
import struct
import time

from modelkeep.core.errors import UnavailableError

# Who holds one has it for 10 us; on a machine with ten times the work it can do, up to 0.1 s was
# seen. Who waits longer than this has met a process that was stopped.
WAIT_S = 0.25
_SPINS = 64
_PAUSE_S = 0.0002
_BEGIN = 1 << 40
_FLOCK = struct.Struct("hhqqi4x")


class RangeLocks:
    """The locks of one opening of a file; the descriptor is the caller's."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def take(self, number: int, *, wait_s: float = WAIT_S) -> None:
        """Take one lock.

        Raises:
            UnavailableError: `gate.limiter`, when its holder does not let go in time.
        """
        if not self.is_taken_now(number):
            self._wait(number, wait_s)

    def let_go(self, number: int) -> None:
        """Give a lock back."""
        fcntl.fcntl(self._fd, fcntl.F_OFD_SETLK, _request(fcntl.F_UNLCK, number))

    def is_taken_now(self, number: int) -> bool:
        """Take a lock if nobody else has it; whether it is ours."""
        try:
            fcntl.fcntl(self._fd, fcntl.F_OFD_SETLK, _request(fcntl.F_WRLCK, number))
        except (BlockingIOError, PermissionError):  # POSIX allows either
            return False
        return True

    def is_held_elsewhere(self, number: int) -> bool:
        """Whether another opening has a lock."""
        told = fcntl.fcntl(self._fd, fcntl.F_OFD_GETLK, _request(fcntl.F_WRLCK, number))
        return bool(_FLOCK.unpack(told)[0] != fcntl.F_UNLCK)

    def _wait(self, number: int, wait_s: float) -> None:
        deadline = time.monotonic() + wait_s
        spins = 0
        while time.monotonic() < deadline:
            if spins < _SPINS:
                os.sched_yield()
            else:
                time.sleep(_PAUSE_S)
            spins += 1
            if self.is_taken_now(number):
                return
        raise UnavailableError(
            "gate.limiter",
            "another gateway holds what callers used up, and does not let go",
            hint="try again soon",
        )


def _request(kind: int, number: int) -> bytes:
    return _FLOCK.pack(kind, os.SEEK_SET, _BEGIN + number, 1, 0)
