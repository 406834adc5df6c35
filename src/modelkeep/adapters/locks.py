"""Advisory locks on files: who may write to a keep, and who runs its service."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from modelkeep.adapters.disk import RealDisk
from modelkeep.core.errors import UnavailableError

# How long a writer waits for the one before it, which may still drain.
PREDECESSOR_WAIT_S = 30.0


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


@contextmanager
def sole_writer(journal_folder: Path, *, wait_s: float = PREDECESSOR_WAIT_S) -> Iterator[None]:
    """Hold the lock beside a journal's folder: whoever writes there keeps it for life.

    A process that lost its supervisor still drains and appends; its successor waits here.

    Raises:
        UnavailableError: `lock.held`.
    """
    RealDisk().make_folder(journal_folder.parent)
    what = f"another process writes the journal {journal_folder.name}"
    with held(journal_lock(journal_folder), wait_s=wait_s, what=what):
        yield


def journal_lock(journal_folder: Path) -> Path:
    """The lock file of a journal's folder."""
    return journal_folder.with_name(f"{journal_folder.name}.lock")


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
