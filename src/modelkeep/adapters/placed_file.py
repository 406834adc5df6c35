"""A file that is read where one likes; whether it stays as it is, those who read it prove."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from modelkeep.adapters.file_streams import opened_file
from modelkeep.core.errors import UsageError


@contextmanager
def placed_file(path: Path) -> Iterator[tuple[Callable[[int, memoryview], int], int]]:
    """Open a regular file: what fills a buffer from an offset on and says how far, and its size.

    Raises:
        MissingError: `file.missing`.
        UsageError: `file.read`.
    """
    fd = opened_file(path)

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
        yield read_at, os.fstat(fd).st_size
    finally:
        os.close(fd)
