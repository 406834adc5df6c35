"""The seam under every durable write: the few file operations whose order matters.

Stores, journals and configuration write through a `Disk` and nothing else, so that
`modelkeep.testing.power` can stand in for it: it forgets whatever was not synced and cuts the
power before each single operation. SQLite answers for its own inside.

The promises are those of POSIX and no more: bytes are durable after `sync` of the file, a name
(created, linked, renamed or removed) after `sync_folder` of its folder.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol, runtime_checkable

from modelkeep.core.errors import MissingError, UnavailableError


class Disk(Protocol):
    """File operations, each one a point where the power may fail. Errors are OSError."""

    def create(self, path: Path, raw: bytes | memoryview) -> None:
        """Write a new file (FileExistsError if there is one), mode 0600; not durable yet."""
        ...

    def append(self, path: Path, raw: bytes | memoryview) -> None:
        """Add bytes to the end of a file, creating it if need be; not durable yet."""
        ...

    def truncate(self, path: Path, size_bytes: int) -> None:
        """Shorten a file; not durable yet."""
        ...

    def sync(self, path: Path) -> None:
        """Make a file's bytes durable."""
        ...

    def link(self, source: Path, target: Path) -> None:
        """Give a file a second name; FileExistsError if the name is taken; not durable yet."""
        ...

    def rename(self, source: Path, target: Path) -> None:
        """Give a file another name, replacing what had it; atomic; not durable yet."""
        ...

    def unlink(self, path: Path) -> None:
        """Remove a name; a missing one is no error; not durable yet."""
        ...

    def make_folder(self, folder: Path) -> None:
        """Create a folder, mode 0700, with its parents; an existing one is no error; durable."""
        ...

    def sync_folder(self, folder: Path) -> None:
        """Make the names in a folder durable."""
        ...

    def read(self, path: Path, start: int = 0, length: int | None = None) -> bytes:
        """Read a file or a range of it; FileNotFoundError if there is none."""
        ...

    def size(self, path: Path) -> int | None:
        """Size of a file in bytes, or None when there is none."""
        ...

    def walk(self, folder: Path) -> list[tuple[Path, int]]:
        """All files under a folder with their sizes, sorted by path; none if it is missing."""
        ...

    def release(self, path: Path) -> None:
        """Let go of what `append` may keep open for a file."""
        ...


@runtime_checkable
class IntoDisk(Protocol):
    """A Disk that reads into memory that is there already."""

    def read_into(self, path: Path, start: int, target: memoryview) -> int:
        """Fill `target` from a file; how many bytes were read, fewer only at its end."""
        ...


@runtime_checkable
class OpenDisk(Protocol):
    """A Disk whose appended files can be synced by somebody else."""

    def descriptor(self, path: Path) -> int:
        """The open file that `append` writes to; it stays open until `release`."""
        ...


class RealDisk:
    """The operating system's files. Appended files stay open until `release`."""

    def __init__(self) -> None:
        self._open: dict[Path, int] = {}

    def create(self, path: Path, raw: bytes | memoryview) -> None:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            _write_all(fd, raw)
        finally:
            os.close(fd)

    def append(self, path: Path, raw: bytes | memoryview) -> None:
        fd = self._open.get(path)
        if fd is None:
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
            fd = self._open[path] = os.open(path, flags, 0o600)
        _write_all(fd, raw)

    def descriptor(self, path: Path) -> int:
        return self._open[path]

    def truncate(self, path: Path, size_bytes: int) -> None:
        os.truncate(path, size_bytes)

    def sync(self, path: Path) -> None:
        fd = self._open.get(path)
        if fd is not None:
            os.fdatasync(fd)
            return
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def link(self, source: Path, target: Path) -> None:
        os.link(source, target)

    def rename(self, source: Path, target: Path) -> None:
        os.replace(source, target)

    def unlink(self, path: Path) -> None:
        self.release(path)
        path.unlink(missing_ok=True)

    def make_folder(self, folder: Path) -> None:
        missing = []
        while not folder.is_dir():
            missing.append(folder)
            folder = folder.parent
        for each in reversed(missing):
            each.mkdir(mode=0o700, exist_ok=True)
            self.sync_folder(each.parent)

    def sync_folder(self, folder: Path) -> None:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def read(self, path: Path, start: int = 0, length: int | None = None) -> bytes:
        fd, size_bytes = _opened_file(path)
        try:
            if length is None:
                length = max(size_bytes - start, 0)
            parts = []
            while length > 0:
                part = os.pread(fd, length, start)
                if not part:
                    break
                parts.append(part)
                start += len(part)
                length -= len(part)
        finally:
            os.close(fd)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def read_into(self, path: Path, start: int, target: memoryview) -> int:
        fd, _ = _opened_file(path)
        at = 0
        try:
            while at < len(target):
                count = os.preadv(fd, [target[at:]], start + at)
                if not count:
                    break
                at += count
        finally:
            os.close(fd)
        return at

    def size(self, path: Path) -> int | None:
        try:
            return path.stat().st_size
        except (FileNotFoundError, NotADirectoryError):
            return None

    def walk(self, folder: Path) -> list[tuple[Path, int]]:
        found = []
        for parent, _, names in os.walk(folder):
            for name in names:
                path = Path(parent, name)
                size_bytes = self.size(path)
                if size_bytes is not None:
                    found.append((path, size_bytes))
        return sorted(found)

    def release(self, path: Path) -> None:
        fd = self._open.pop(path, None)
        if fd is not None:
            os.close(fd)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """What writes a file that a person named; how the system refuses it, said as one error.

    Raises:
        MissingError: `file.folder`.
        UnavailableError: `file.write`.
    """
    try:
        yield
    except OSError as error:
        if not path.parent.is_dir():
            raise MissingError(
                "file.folder",
                f"there is no folder {path.parent} to write {path.name} in",
                hint="make it, or name another place",
            ) from error
        raise UnavailableError(
            "file.write", f"cannot write {path}: {error.strerror}", hint="is the disk full?"
        ) from error


def write_replacing(disk: Disk, path: Path, raw: bytes | memoryview) -> None:
    """Put bytes under a name, atomically and durably; what had the name before is gone.

    Order: temporary file -> its bytes durable -> rename -> name durable. A crash leaves the old
    bytes or the new ones, and at most a temporary file beside them.
    """
    temporary = path.with_name(f".{path.name}.{os.urandom(8).hex()}.tmp")
    try:
        disk.create(temporary, raw)
        disk.sync(temporary)
        disk.rename(temporary, path)
    except OSError:  # a full disk too: what it took is removed
        disk.unlink(temporary)
        raise
    disk.sync_folder(path.parent)


def _opened_file(path: Path) -> tuple[int, int]:
    """A descriptor of a regular file for reading, and its size."""
    # Not blocking, so that a FIFO somebody put here cannot hold us for ever.
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
    except OSError:
        os.close(fd)
        raise
    return fd, found.st_size


def _write_all(fd: int, raw: bytes | memoryview) -> None:
    view = memoryview(raw)
    while view:
        view = view[os.write(fd, view) :]
