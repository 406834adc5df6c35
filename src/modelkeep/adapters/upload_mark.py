"""A mark in a keep's folder that something is being uploaded which no snapshot names yet.

It is a shared lock on a file, so that it ends with its process, however that ends. Who uploads
takes it before it gives up the keep's writer lock; who holds the writer lock may then ask for it.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from modelkeep.adapters.locks import is_held


@contextmanager
def uploading(path: Path) -> Iterator[None]:
    """Hold the mark; several may at once."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_SH)
        yield
    finally:
        os.close(fd)


def is_uploading(path: Path) -> bool:
    """Whether anybody holds the mark."""
    return is_held(path)
