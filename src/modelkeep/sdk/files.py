"""Files that come in: as a map that costs no memory, steady while they are read, and whole folders.

What is scanned, signed and stored must be the same bytes. A lease on the file (fcntl(2),
F_SETLEASE) sees to that without a copy: whoever opens it for writing waits, and we notice at the
next read. Where a lease cannot be had (another owner, a file system without them, somebody writes
already) the bytes are copied into memory of our own; a large file of which nothing is judged is
read piece by piece instead, and its times are compared at the end.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import signal
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from modelkeep.core.errors import PATH_HINT, MissingError, UsageError
from modelkeep.flows.save import FileMark
from modelkeep.kernels.formats import identify

# Below this a copy is cheaper than a map and a lease.
COPIED_BYTES_MAX = 1024 * 1024
# A file without a lease that is not judged is copied up to here, and streamed beyond.
PRIVATE_BYTES_MAX = 64 * 1024 * 1024
# Of a file that is streamed, what is looked at for the layout: these formats begin with it.
_HEAD_BYTES = 32 * 1024 * 1024
_HEAD_KINDS = ("safetensors", "gguf", "npy")
# A manifest of half a million files is 100 MB; no object of a store may have more than 256.
TREE_ENTRIES_MAX = 500_000
# The coarsest time that a file system keeps (FAT): a file that changed more recently than this
# before it was read may change again without another time.
_TIMES_COARSE_NS = 2_000_000_000
# `fcntl` and `mmap` of Python 3.11 do not name them all.
_F_SETSIG = getattr(fcntl, "F_SETSIG", 10)
_MAP_NORESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000)


@dataclass(frozen=True, slots=True)
class SteadyFile:
    """A file that nobody changes without our noticing.

    Attributes:
        raw: its bytes; of a file that is streamed the first ones only, then zeros, and nothing
            where its format needs more than its beginning.
        read_into: fills a buffer from an offset on; several threads may ask at once.
        forget: drops pages of `raw` that were looked at.
        demand_steady: checks that it is what it was; UsageError `file.changed`.
        fd: a descriptor of all its bytes that can only be read, for another process; -1 for none,
            as of a small file: there may be thousands of them.
    """

    size_bytes: int
    raw: memoryview
    read_into: Callable[[int, memoryview], None]
    forget: Callable[[], None] = lambda: None
    demand_steady: Callable[[], None] = lambda: None
    fd: int = -1


@dataclass(frozen=True, slots=True)
class Walked:
    """What is below a folder, in the order of the paths; or one file, whose path is its name.

    Attributes:
        folders: path and permission bits, parents first; the folder itself is `.`. Empty for a
            file.
        links: path and what it says.
        skipped: neither file, folder nor link: sockets, pipes, devices.
    """

    root: Path
    files: tuple[FileMark, ...]
    folders: tuple[tuple[str, int], ...] = ()
    links: tuple[tuple[str, str], ...] = ()
    skipped: tuple[str, ...] = ()

    def place_of(self, path: str) -> Path:
        """Where a file of it lies."""
        return self.root / path if self.folders else self.root


@contextmanager
def mapped(path: Path) -> Iterator[memoryview]:
    """A file as a read-only memory map, so that size costs no memory.

    Raises:
        MissingError: `file.missing`.
        UsageError: `file.read`.
    """
    with opened_file(path) as fd, _map_of(fd) as view:
        yield view[0]


@contextmanager
def steady(
    path: Path, *, may_stream: bool = False, follow: bool = True, is_checked: bool = True
) -> Iterator[SteadyFile]:
    """A file that stays as it is while it is read.

    Args:
        may_stream: nothing is judged by `raw`, so a large file without a lease is not copied.
        follow: whether the path may be a symbolic link.
        is_checked: whether it must still be the same when the block ends; else the caller asks.

    Raises:
        MissingError: `file.missing`.
        UsageError: `file.read` or `file.changed`.
    """
    with ExitStack() as stack:
        try:
            found = _steady(stack, path, may_stream=may_stream, follow=follow)
        except OSError as error:  # of a map, or of memory for a copy
            raise _unread(path, error) from error
        yield found
        if is_checked:
            found.demand_steady()


def _steady(stack: ExitStack, path: Path, *, may_stream: bool, follow: bool) -> SteadyFile:
    """Open a file; what is open at the end is what it needs, and the stack's to close."""
    source = stack.enter_context(ExitStack())
    fd = source.enter_context(opened_file(path, follow=follow))
    before = _marks_of(os.fstat(fd))
    size_bytes = before[0]
    if size_bytes > COPIED_BYTES_MAX and _is_leased(fd):
        view, forget = stack.enter_context(_map_of(fd))
        check = partial(_demand_leased, fd, path)
        read = partial(_read_checked, fd, path, check)
        return SteadyFile(size_bytes, view, read, forget, check, fd)
    if may_stream and size_bytes > PRIVATE_BYTES_MAX:
        view = stack.enter_context(_head_of(fd, path, size_bytes))
        check = partial(_demand_same, fd, path, before)
        read = partial(_read_checked, fd, path, check)
        return SteadyFile(size_bytes, view, read, demand_steady=check)
    view, copied = stack.enter_context(_copy_of(fd, path, size_bytes))
    if _marks_of(os.fstat(fd)) != before:
        raise _changed(path)
    source.close()
    return SteadyFile(size_bytes, view, partial(_copy_into, view), fd=copied)


def walked(root: Path, *, now_ns: Callable[[], int] = time.time_ns) -> Walked:
    """What is below a folder; links are listed and not followed, but for the folder itself.

    Raises:
        MissingError: `file.missing`.
        UsageError: `tree.name`, `tree.entries` or `file.read`.
    """
    try:
        found = root.stat()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise MissingError("file.missing", f"there is no file {root}", hint=PATH_HINT) from error
    except OSError as error:
        raise UsageError("file.read", f"cannot read {root}: {error.strerror}") from error
    since_ns = now_ns() - _TIMES_COARSE_NS
    if not stat.S_ISDIR(found.st_mode):
        if not stat.S_ISREG(found.st_mode):
            raise UsageError("file.read", f"{root} is neither a regular file nor a folder")
        return Walked(root=root, files=(_mark(_text(root.name, root), found, since_ns),))
    files: list[FileMark] = []
    folders = [(".", stat.S_IMODE(found.st_mode))]
    links: list[tuple[str, str]] = []
    skipped: list[str] = []
    for path, place, status in _below(root):
        if stat.S_ISREG(status.st_mode):
            files.append(_mark(path, status, since_ns))
        elif stat.S_ISDIR(status.st_mode):
            folders.append((path, stat.S_IMODE(status.st_mode)))
        elif stat.S_ISLNK(status.st_mode):
            says = os.readlink(place)  # noqa: PTH115 - a Path would write it another way
            links.append((path, _text(says, place)))
        else:
            skipped.append(path)
        if len(files) + len(folders) + len(links) > TREE_ENTRIES_MAX:
            raise UsageError(
                "tree.entries",
                f"{root} has more than {TREE_ENTRIES_MAX} files and folders",
                hint="save parts of it under names of their own, or archive it first",
            )
    return Walked(
        root=root,
        files=tuple(sorted(files, key=lambda each: each.path)),
        folders=tuple(sorted(folders)),
        links=tuple(sorted(links)),
        skipped=tuple(sorted(skipped)),
    )


def _below(root: Path) -> Iterator[tuple[str, Path, os.stat_result]]:
    """Everything below a folder, with its path; no link is followed."""
    waiting = [(root, "")]
    while waiting:
        folder, prefix = waiting.pop()
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    place = Path(entry.path)
                    path = prefix + _text(entry.name, place)
                    status = entry.stat(follow_symlinks=False)
                    if stat.S_ISDIR(status.st_mode):
                        waiting.append((place, f"{path}/"))
                    yield path, place, status
        except FileNotFoundError as error:
            raise _changed(folder) from error
        except OSError as error:
            raise UsageError("file.read", f"cannot read {folder}: {error.strerror}") from error


def _mark(path: str, found: os.stat_result, since_ns: int) -> FileMark:
    changed: tuple[int, ...] = (found.st_mtime_ns,)
    if max(found.st_mtime_ns, found.st_ctime_ns) < since_ns:
        changed = (found.st_mtime_ns, found.st_ctime_ns, found.st_ino)
    return FileMark(path, found.st_size, stat.S_IMODE(found.st_mode), changed)


def _text(name: str, place: Path) -> str:
    """A name as a manifest may hold it.

    Raises:
        UsageError: `tree.name`.
    """
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise UsageError(
            "tree.name", f"{os.fsencode(place)!r} is not valid UTF-8", hint="rename it"
        ) from error
    return name


@contextmanager
def opened_file(path: Path, *, follow: bool = True) -> Iterator[int]:
    """A regular file, opened for reading; a pipe or a device is refused without waiting.

    Raises:
        MissingError: `file.missing`.
        UsageError: `file.read`.
    """
    try:
        # Not blocking: a FIFO would hold us until somebody writes into it.
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | (0 if follow else os.O_NOFOLLOW)
        fd = os.open(path, flags)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise MissingError("file.missing", f"there is no file {path}", hint=PATH_HINT) from error
    except OSError as error:
        raise _unread(path, error) from error
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise UsageError("file.read", f"{path} is no regular file")
        yield fd
    finally:
        os.close(fd)


@contextmanager
def _map_of(fd: int) -> Iterator[tuple[memoryview, Callable[[], None]]]:
    """A map of a file, and what drops its pages from our memory; the kernel keeps its copy."""
    if os.fstat(fd).st_size == 0:
        yield memoryview(b""), lambda: None
        return
    whole = mmap.mmap(fd, 0, access=mmap.ACCESS_READ)
    with _released(whole, memoryview(whole)) as view:
        yield view, partial(whole.madvise, mmap.MADV_DONTNEED)


@contextmanager
def _copy_of(fd: int, path: Path, size_bytes: int) -> Iterator[tuple[memoryview, int]]:
    """A file's bytes in memory of our own, and a descriptor of it that can only be read.

    A small one has no descriptor: whoever sends it to another process copies it once more.
    """
    with ExitStack() as stack:
        reading = -1
        if size_bytes <= COPIED_BYTES_MAX or not hasattr(os, "memfd_create"):  # only Linux has it
            flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
            private = mmap.mmap(-1, max(size_bytes, 1), flags=flags)
        else:
            private, reading = _memory(size_bytes)
            stack.callback(os.close, reading)
        view = stack.enter_context(_released(private, memoryview(private)[:size_bytes]))
        _read_into(fd, path, 0, view)
        if os.pread(fd, 1, size_bytes):
            raise _changed(path)
        yield view, reading


def _memory(size_bytes: int) -> tuple[mmap.mmap, int]:
    """The map of a memory file, and a descriptor of it that can only be read."""
    memory = os.memfd_create("copy", os.MFD_CLOEXEC)
    try:
        os.ftruncate(memory, size_bytes)
        private = mmap.mmap(memory, size_bytes)
        return private, os.open(f"/proc/self/fd/{memory}", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(memory)


@contextmanager
def _head_of(fd: int, path: Path, size_bytes: int) -> Iterator[memoryview]:
    """The beginning of a file, then zeros that take no memory, as long as the file."""
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE
    private = mmap.mmap(-1, size_bytes, flags=flags)
    with _released(private, memoryview(private)) as view:
        _read_into(fd, path, 0, view[:_HEAD_BYTES])
        yield view if identify(view) in _HEAD_KINDS else view[:0]


@contextmanager
def _released(whole: mmap.mmap, view: memoryview) -> Iterator[memoryview]:
    try:
        yield view
    finally:
        # The traceback of what went wrong may hold slices: the last one of them unmaps.
        with suppress(BufferError), closing(whole):
            view.release()


def _is_leased(fd: int) -> bool:
    """Take a lease; whoever opens the file for writing from now on breaks it."""
    try:
        fcntl.fcntl(fd, _F_SETSIG, signal.SIGURG)  # which is ignored, where SIGIO would end us
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError:
        return False
    return True


def _demand_leased(fd: int, path: Path) -> None:
    if fcntl.fcntl(fd, fcntl.F_GETLEASE) != fcntl.F_RDLCK:
        raise _changed(path)


def _demand_same(fd: int, path: Path, before: tuple[int, ...]) -> None:
    if _marks_of(os.fstat(fd)) != before:
        raise _changed(path)


def _marks_of(found: os.stat_result) -> tuple[int, ...]:
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _read_checked(
    fd: int, path: Path, check: Callable[[], None], start: int, target: memoryview
) -> None:
    check()  # at every chunk: a writer that waits for our lease need not wait for long
    _read_into(fd, path, start, target)


def _read_into(fd: int, path: Path, start: int, target: memoryview) -> None:
    """Fill a buffer: the kernel copies, so that no page of the file becomes one of ours."""
    done = 0
    while done < len(target):
        try:
            count = os.preadv(fd, [target[done:]], start + done)
        except OSError as error:
            raise UsageError("file.read", f"cannot read {path}: {error.strerror}") from error
        if not count:
            raise _changed(path)
        done += count


def _copy_into(view: memoryview, start: int, target: memoryview) -> None:
    target[:] = view[start : start + len(target)]


def _unread(path: Path, error: OSError) -> UsageError:
    is_full = error.errno in (errno.EMFILE, errno.ENFILE)
    return UsageError(
        "file.read",
        f"cannot read {path}: {error.strerror}",
        hint="raise the limit of open files (`ulimit -n`) and try again" if is_full else "",
    )


def _changed(path: Path) -> UsageError:
    return UsageError(
        "file.changed",
        f"{path} changed while it was read",
        hint="wait until nobody writes into it, or take a copy, and run the same command again",
    )
