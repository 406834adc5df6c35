"""Files that come in: as a map that costs no memory, or as a copy that nobody else can change."""

from __future__ import annotations

import mmap
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from modelkeep.core.errors import MissingError, UsageError


@contextmanager
def mapped(path: Path) -> Iterator[memoryview]:
    """A file as a read-only memory map, so that size costs no memory.

    Raises:
        MissingError: `file.missing`.
        UsageError: `file.read`.
    """
    try:
        # Not blocking: a FIFO would hold us until somebody writes into it.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(fd, "rb") as stream:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise UsageError("file.read", f"{path} is no regular file")
            if os.fstat(stream.fileno()).st_size == 0:
                yield memoryview(b"")
                return
            with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as whole:
                view = memoryview(whole)
                try:
                    yield view
                finally:
                    view.release()
    except FileNotFoundError as error:
        raise MissingError("file.missing", f"there is no file {path}") from error
    except OSError as error:
        raise UsageError("file.read", f"cannot read {path}: {error.strerror}") from error


@contextmanager
def private_copy(path: Path) -> Iterator[memoryview]:
    """A file's bytes in memory of our own: what is scanned is what is signed and stored.

    A map of the file itself would show whatever its owner writes into it in the meantime.

    Raises:
        MissingError: `file.missing`.
        UsageError: `file.read` or `file.changed`.
    """
    with mapped(path) as whole:
        size_bytes = len(whole)
    private = mmap.mmap(-1, max(size_bytes, 1))
    view = memoryview(private)[:size_bytes]
    try:
        with path.open("rb", buffering=0) as stream:
            done = 0
            while done < size_bytes and (count := stream.readinto(view[done:])):
                done += count
            is_same = done == size_bytes and not stream.read(1)
        if not is_same:
            raise UsageError("file.changed", f"{path} changed while it was read")
        yield view
    finally:
        # The traceback of what went wrong may hold slices: the last one of them unmaps.
        with suppress(BufferError):
            view.release()
            private.close()
