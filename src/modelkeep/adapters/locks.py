"""Advisory locks on files: who may write to a keep, and who runs its service."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from modelkeep.core.errors import UnavailableError


@contextmanager
def held(path: Path, *, wait_s: float, what: str) -> Iterator[None]:
    """Hold an exclusive lock; the kernel releases it when this process dies.

    Raises:
        UnavailableError: `lock.held`, when somebody else holds it longer than `wait_s`.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        deadline = time.monotonic() + wait_s
        while not _taken(fd):
            if time.monotonic() >= deadline:
                raise UnavailableError(
                    "lock.held", f"{what}", hint="wait for it to end, or stop it", lock=path.name
                )
            time.sleep(0.02)
        yield
    finally:
        os.close(fd)


def is_held(path: Path) -> bool:
    """Whether some process holds the lock now."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        return not _taken(fd)
    finally:
        os.close(fd)


def _taken(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
