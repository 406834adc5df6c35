"""Files that stream in, and files whose name appears only when all of them is there.

A target is written under a temporary name beside it and gets its own when the block ends without
an error: bytes durable -> name -> name durable. Errors, Ctrl-C included, remove what was written.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from modelkeep.adapters.disk import Disk, writing
from modelkeep.core.errors import PATH_HINT, MissingError, RefusedError, UsageError
from modelkeep.crypto.secret import Secret


@contextmanager
def file_source(path: Path) -> Iterator[Callable[[int], bytes]]:
    """Read a regular file from its beginning: a function that gives at most so many bytes.

    Raises:
        MissingError: `file.missing`.
        UsageError: `file.read`.
    """
    fd = opened_file(path)
    try:

        def read(size_bytes: int) -> bytes:
            try:
                return os.read(fd, size_bytes)
            except OSError as error:
                raise UsageError("file.read", f"cannot read {path}: {error.strerror}") from error

        yield read
    finally:
        os.close(fd)


@contextmanager
def file_target(
    disk: Disk, path: Path, *, force: bool = False
) -> Iterator[Callable[[bytes], None]]:
    """Write a file, mode 0600, whose name appears when the block ends.

    Raises:
        MissingError: `file.folder`.
        UsageError: `file.exists`, unless it is to be replaced; before anything is written, and
            again at the end. `file.kind`, when a folder or a device has the name.
        UnavailableError: `file.write`.
    """
    if path.is_symlink() or path.exists():
        if not force:
            raise _taken(path)
        if not path.is_file():
            raise UsageError("file.kind", f"{path} is no regular file and is not replaced")
    temporary = path.with_name(f".modelkeep-{os.urandom(8).hex()}.tmp")

    def write(block: bytes) -> None:
        with writing(path):
            disk.append(temporary, block)

    try:
        with writing(path):
            disk.create(temporary, b"")
        yield write
        with writing(path):
            disk.sync(temporary)
            disk.release(temporary)
            _name(disk, temporary, path, force=force)
            disk.sync_folder(path.parent)
    finally:
        disk.unlink(temporary)


def private_bytes(path: Path, *, size_max: int) -> Secret:
    """Read a small file that nobody but its owner may read.

    Raises:
        MissingError: `file.missing`.
        UsageError: `file.read`, `file.size`.
        RefusedError: `file.readable`.
    """
    fd = opened_file(path)
    try:
        if os.fstat(fd).st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise RefusedError(
                "file.readable",
                f"{path} holds private keys and others may read or change it",
                hint=f"chmod 600 {path}",
            )
        return Secret(_small(fd, path, size_max))
    finally:
        os.close(fd)


def small_bytes(path: Path, *, size_max: int) -> bytes:
    """Read a small file whole.

    Raises:
        MissingError: `file.missing`.
        UsageError: `file.read`, `file.size`.
    """
    fd = opened_file(path)
    try:
        return _small(fd, path, size_max)
    finally:
        os.close(fd)


def _small(fd: int, path: Path, size_max: int) -> bytes:
    raw = b""
    while part := os.read(fd, size_max + 1 - len(raw)):
        raw += part
    if len(raw) > size_max:
        raise UsageError("file.size", f"{path} is larger than {size_max} bytes")
    return raw


def opened_file(path: Path) -> int:
    """A descriptor of a regular file that somebody named; the caller's to close.

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
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise UsageError("file.read", f"{path} is no regular file", hint="a pipe is read as `-`")
    return fd


def _name(disk: Disk, temporary: Path, path: Path, *, force: bool) -> None:
    """Give the finished file its name; without force, only if nothing has it."""
    if not force:
        try:
            disk.link(temporary, path)
        except FileExistsError:
            raise _taken(path) from None
        except OSError:  # no hard links here (FAT, some network shares): look again, then rename
            if path.is_symlink() or path.exists():
                raise _taken(path) from None
        else:
            disk.unlink(temporary)
            return
    disk.rename(temporary, path)


def _taken(path: Path) -> UsageError:
    return UsageError("file.exists", f"{path} exists", hint="name another file, or give --force")
