"""Files and folders that are restored: written beside their place, there only when they are whole.

Order: temporary name -> bytes, from several threads -> times and permission bits -> bytes durable
-> links -> names durable -> own name -> that name durable. Errors, Ctrl-C included, remove what was
written. In a folder no link exists before every file does, so none leads a write elsewhere.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from modelkeep.adapters.disk import Disk, RealDisk, writing
from modelkeep.adapters.sync_together import sync_together
from modelkeep.core.errors import UsageError

_WHOLE = "."
_PERMISSIONS = 0o777  # no setuid, setgid or sticky bit comes out of a store
_OWN_READ = 0o400
_FLUSHED_BYTES_MIN = 256 * 1024


@contextmanager
def appearing(disk: Disk, path: Path, *, is_folder: bool, force: bool) -> Iterator[AnyTarget]:
    """A target for a restore.

    Args:
        force: replace a file of that name; a folder must be empty in any case.

    Raises:
        UsageError: `restore.exists`, before anything is written and again at the end.
        UnavailableError: `file.write`.
    """
    _demand_free(path, is_folder=is_folder, force=force)
    with writing(path), ExitStack() as stack:
        temporary = path.with_name(f".modelkeep-{os.urandom(8).hex()}.tmp")
        if not isinstance(disk, RealDisk) and not is_folder:
            stack.callback(disk.unlink, temporary)
            disk.create(temporary, b"")
            yield InOrder(disk, temporary)
            _name_file(disk, temporary, path, force=force)
            return
        target = Anywhere(temporary, is_folder=is_folder)
        stack.callback(target.remove)
        yield target
        target.sync()
        if is_folder:
            _name_folder(temporary, path)
        else:
            _name_file(RealDisk(), temporary, path, force=force)


class InOrder:
    """One file on a simulated disk, which counts its changes in order."""

    is_ordered = True

    def __init__(self, disk: Disk, temporary: Path) -> None:
        self._disk = disk
        self._temporary = temporary

    def begin(self, path: str, size_bytes: int) -> None:
        """It is there already."""

    def write(self, path: str, start: int, block: memoryview) -> None:
        del path, start
        self._disk.append(self._temporary, block)

    def end(self, path: str, *, mode: int, mtime_ns: int) -> None:
        del path, mode, mtime_ns
        self._disk.sync(self._temporary)
        self._disk.release(self._temporary)

    def frame(self, folders: Iterable[tuple[str, int]], links: Iterable[tuple[str, str]]) -> None:
        """A file has none."""


class Anywhere:
    """A file or a folder of the operating system, written from several threads."""

    is_ordered = False

    def __init__(self, root: Path, *, is_folder: bool) -> None:
        self._root = root
        self._open: dict[str, int] = {}
        self._unsynced: list[Path] = []
        self._folders: dict[Path, None] = {}
        if is_folder:
            self._folder(root)

    def begin(self, path: str, size_bytes: int) -> None:
        del size_bytes
        place = self._place(path)
        if path != _WHOLE:
            self._folder(place.parent)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        self._open[path] = os.open(place, flags, 0o600)

    def write(self, path: str, start: int, block: memoryview) -> None:
        fd = self._open[path]
        done = 0
        while done < len(block):
            done += os.pwrite(fd, block[done:], start + done)
        if len(block) >= _FLUSHED_BYTES_MIN:
            # The disk begins at once, and not when all is written: 0.6 s for 500 MB and their
            # sync, which took 0.9.
            os.posix_fadvise(fd, start, len(block), os.POSIX_FADV_DONTNEED)

    def end(self, path: str, *, mode: int, mtime_ns: int) -> None:
        fd = self._open.pop(path)
        try:
            if mtime_ns >= 0:
                os.utime(fd, ns=(mtime_ns, mtime_ns))
            if mode >= 0:
                os.fchmod(fd, mode & _PERMISSIONS)
            if mode >= 0 and not mode & _OWN_READ:
                os.fsync(fd)  # nobody can open it again to do so
            else:
                self._unsynced.append(self._place(path))
        finally:
            os.close(fd)

    def frame(self, folders: Iterable[tuple[str, int]], links: Iterable[tuple[str, str]]) -> None:
        modes = dict(folders)
        for path in modes:
            self._folder(self._place(path))
        for path, says in links:
            place = self._place(path)
            self._folder(place.parent)
            place.symlink_to(says)
        self.sync()
        for path in sorted(modes, reverse=True):  # those below first: then it may be closed
            self._place(path).chmod(modes[path] & _PERMISSIONS)

    def sync(self) -> None:
        """Make everything so far durable."""
        sync_together(RealDisk(), [*self._unsynced, *self._folders])
        self._unsynced, self._folders = [], {}

    def remove(self) -> None:
        """Whatever still has the temporary name."""
        for fd in self._open.values():
            os.close(fd)
        self._open = {}
        if self._root.is_dir() and not self._root.is_symlink():
            with suppress(OSError):
                _reopen(self._root)
            shutil.rmtree(self._root, ignore_errors=True)
        else:
            self._root.unlink(missing_ok=True)

    def _place(self, path: str) -> Path:
        return self._root if path == _WHOLE else self._root / path

    def _folder(self, place: Path) -> None:
        if place in self._folders or place.is_dir():
            return
        if place != self._root:
            self._folder(place.parent)
        place.mkdir(mode=0o700)
        self._folders[place] = None


AnyTarget = InOrder | Anywhere


def _demand_free(path: Path, *, is_folder: bool, force: bool) -> None:
    if not (path.is_symlink() or path.exists()):
        return
    if is_folder:
        if path.is_dir() and not path.is_symlink() and not any(path.iterdir()):
            return
        raise UsageError(
            "restore.exists",
            f"{path} exists, and a folder is restored to one that is new or empty",
            hint="name another folder; --force replaces a file only",
        )
    if path.is_dir() and not path.is_symlink():
        raise UsageError("restore.exists", f"{path} is a folder", hint="name a file in it")
    if not force:
        raise _taken(path)


def _name_file(disk: Disk, temporary: Path, path: Path, *, force: bool) -> None:
    """Give the finished file its name; without force, only if nothing has it."""
    if force:
        disk.rename(temporary, path)
    else:
        try:
            disk.link(temporary, path)
        except FileExistsError:
            raise _taken(path) from None
        except OSError:  # no hard links here (FAT, some network shares): look again, then rename
            if path.is_symlink() or path.exists():
                raise _taken(path) from None
            disk.rename(temporary, path)
        else:
            disk.unlink(temporary)
    disk.sync_folder(path.parent)


def _name_folder(temporary: Path, path: Path) -> None:
    try:
        temporary.rename(path)  # over an empty folder, never over one that is not
    except OSError as error:
        if path.exists():
            raise _taken(path) from error
        raise
    RealDisk().sync_folder(path.parent)


def _reopen(root: Path) -> None:
    """Let the owner into every folder again, so that what lies there can go."""
    root.chmod(0o700)
    for above, names, _ in os.walk(root):  # goes down into a folder after it was opened here
        for place in (Path(above, name) for name in names):
            if not place.is_symlink():
                place.chmod(0o700)


def _taken(path: Path) -> UsageError:
    return UsageError("restore.exists", f"{path} exists", hint="name another file, or give --force")
