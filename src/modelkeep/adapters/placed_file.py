"""A file that is read where one likes; whether it stays as it is, those who read it prove."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from modelkeep.core.errors import PATH_HINT, MissingError, UsageError


@contextmanager
def placed_file(path: Path) -> Iterator[tuple[Callable[[int, memoryview], int], int]]:
    """Open a regular file: what fills a buffer from an offset on and says how far, and its size.

    Raises:
        MissingError: `file.missing`.
        UsageError: `file.read`.
    """
    try:
        # Not blocking: a FIFO would hold us until somebody writes into it.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise MissingError("file.missing", f"there is no file {path}", hint=PATH_HINT) from error
    except OSError as error:
        raise UsageError("file.read", f"cannot read {path}: {error.strerror}") from error

    def read_at(start: int, target: memoryview) -> int:
        done = 0
        while done < len(target):
            try:
                count = os.preadv(fd, [target[done:]], start + done)
            except OSError as error:
                raise UsageError("file.read", f"cannot read {path}: {error.strerror}") from error
            if not count:
                break
            done += count
        return done

    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            raise UsageError("file.read", f"{path} is no regular file")
        yield read_at, found.st_size
    finally:
        os.close(fd)
