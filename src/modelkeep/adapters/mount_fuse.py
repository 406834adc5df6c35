"""A FileTree as a read-only file system of this machine: FUSE, through mfusepy and libfuse3.

A read costs the pieces that it touches; decoded ones are kept in a bounded cache, and the next one
is read ahead while somebody reads in order. The kernel keeps pages of its own, which it can do
because nothing here ever changes; they are plaintext in memory, as in any program that has read a
file. Only the user that mounted can look in.

Nothing of a piece is given out before all of it is proven; what cannot be is EIO.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from modelkeep.core.errors import (
    KeepError,
    MissingError,
    RefusedError,
    UnavailableError,
    UsageError,
    extra_hint,
)
from modelkeep.ports.file_tree import FileTree, Node, NodeKind, Piece, PiecedFile

T = TypeVar("T")

CACHE_BYTES = 64 * 1024 * 1024
# Pieces that are read ahead at once, of all files.
_AHEAD = 2
# As many as libfuse starts at most; its own default for this made 3.14 (Debian 12) complain of it.
_THREADS = 10
# What the kernel may keep: nothing changes until the tree ends.
_FOREVER_S = 86_400.0
_BLOCK_BYTES = 512
_TYPES = {
    NodeKind.FOLDER: stat.S_IFDIR,
    NodeKind.FILE: stat.S_IFREG,
    NodeKind.LINK: stat.S_IFLNK,
}


def mount(
    tree: FileTree,
    folder: Path,
    *,
    ready: Callable[[], None] = lambda: None,
    warn: Callable[[str], None] = lambda _: None,
    cache_bytes: int = CACHE_BYTES,
) -> None:
    """Show a tree in a folder until it is unmounted, or this process is told to end.

    Args:
        ready: called when it can be looked at.
        warn: told of every file that could not be read.

    Raises:
        UsageError: `mount.folder`, `mount.library`.
        UnavailableError: `mount.failed`.
    """
    if not folder.is_dir() or next(folder.iterdir(), None) is not None:
        raise UsageError("mount.folder", f"{folder} is no empty folder")
    try:
        import mfusepy  # noqa: PLC0415 - it loads libfuse as it is imported
    except ModuleNotFoundError as error:
        raise UsageError(
            "extra.missing",
            "a mount needs mfusepy, which is not installed",
            hint=extra_hint("mount"),
        ) from error
    except OSError as error:
        raise UsageError(
            "mount.library", "there is no libfuse on this machine", hint="apt install fuse3"
        ) from error
    operations = _Operations(tree, ready=ready, warn=warn, cache_bytes=cache_bytes)
    try:
        mfusepy.FUSE(
            operations,
            str(folder),
            foreground=True,
            ro=True,
            default_permissions=True,
            fsname="modelkeep",
            subtype="modelkeep",
            **({"max_idle_threads": _THREADS} if mfusepy.fuse_version_major >= 3 else {}),
        )
    except RuntimeError as error:
        if not operations.is_ready:
            raise UnavailableError(
                "mount.failed",
                f"{folder} could not be mounted",
                hint="is /dev/fuse there, and may this user use fusermount3?",
            ) from error
    finally:
        operations.close()


class _Operations:
    """What libfuse calls, from several threads; mfusepy finds the methods by their names."""

    use_ns = True

    def __init__(
        self,
        tree: FileTree,
        *,
        ready: Callable[[], None],
        warn: Callable[[str], None],
        cache_bytes: int,
    ) -> None:
        self.is_ready = False
        self._tree = tree
        self._ready = ready
        self._warn = warn
        self._pieces = _Pieces(cache_bytes)
        self._handles: dict[int, _Handle] = {}
        self._next = 0
        self._lock = threading.Lock()
        self._warned: set[str] = set()

    def close(self) -> None:
        self._pieces.close()

    def init_with_config(self, _connection: Any, config: Any) -> None:
        if config is not None:
            config.kernel_cache = 1
            config.entry_timeout = config.attr_timeout = config.negative_timeout = _FOREVER_S
        self.is_ready = True
        self._ready()

    def getattr(self, path: str, _handle: int | None = None) -> dict[str, int]:
        node = self._asked(path, self._tree.node)
        return _attributes(node)

    def readdir(self, path: str, _handle: int) -> list[str]:
        return [".", "..", *self._asked(path, self._tree.names)]

    def readlink(self, path: str) -> str:
        return self._asked(path, self._tree.node).target

    def open(self, path: str, _flags: int) -> int:
        file = self._asked(path, self._tree.opened)
        with self._lock:
            self._next += 1
            self._handles[self._next] = _Handle(file)
            return self._next

    def read(self, path: str, size_bytes: int, offset: int, handle: int) -> bytes:
        held = self._handles[handle]
        return self._asked(path, lambda _: held.read(self._pieces, offset, size_bytes))

    def release(self, _path: str, handle: int) -> int:
        with self._lock:
            self._handles.pop(handle, None)
        return 0

    def _asked(self, path: str, ask: Callable[[str], T]) -> T:
        """Ask the tree; an error of ours becomes one of the system's."""
        try:
            return ask(path)
        except MissingError as error:
            if error.code == "tree.path":
                raise OSError(errno.ENOENT, os.strerror(errno.ENOENT)) from error
            raise self._failed(path, error) from error
        except KeepError as error:
            raise self._failed(path, error) from error

    def _failed(self, path: str, error: KeepError) -> OSError:
        with self._lock:
            is_new = path not in self._warned
            self._warned.add(path)
        if is_new:
            self._warn(f"{path}: {error}")
        number = errno.EACCES if isinstance(error, RefusedError) else errno.EIO
        return OSError(number, os.strerror(number))


class _Handle:
    """A file that somebody has open."""

    __slots__ = ("_file", "_last")

    def __init__(self, file: PiecedFile) -> None:
        self._file = file
        self._last = -1

    def read(self, pieces: _Pieces, offset: int, size_bytes: int) -> bytes:
        """Bytes from an offset on, as many as there are."""
        end = min(offset + size_bytes, self._file.size_bytes)
        parts: list[bytes] = []
        at = offset
        while at < end and (piece := self._file.piece_at(at)) is not None:
            left, right = at - piece.start, min(end - piece.start, piece.length)
            parts.append(bytes(pieces.get(self._file, piece)[left:right]))
            if piece.number == self._last + 1:
                pieces.ahead(self._file, piece)
            self._last = piece.number
            at = piece.start + right
        return parts[0] if len(parts) == 1 else b"".join(parts)


class _Pieces:
    """Decoded pieces, the most recently used first, within a number of bytes.

    A piece that several threads ask for is read once. Equal pieces of several files are one.
    """

    def __init__(self, size_bytes_max: int) -> None:
        self._size_bytes_max = size_bytes_max
        self._size_bytes = 0
        self._held: OrderedDict[bytes, Future[memoryview]] = OrderedDict()
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(_AHEAD, thread_name_prefix="modelkeep-ahead")

    def get(self, file: PiecedFile, piece: Piece) -> memoryview:
        """The bytes of a piece.

        Raises:
            KeepError: what reading it raised; it is tried again the next time.
        """
        future, is_mine = self._future(piece)
        if is_mine:
            self._read(file, piece, future)
        return future.result()

    def ahead(self, file: PiecedFile, piece: Piece) -> None:
        """Begin to read the piece after this one."""
        after = file.piece_at(piece.start + piece.length)
        if after is None or after.length > self._size_bytes_max // (2 * _AHEAD):
            return
        future, is_mine = self._future(after)
        if is_mine:
            try:
                self._pool.submit(self._read, file, after, future)
            except RuntimeError:  # the end has come
                self._drop(after, future)
                future.cancel()

    def close(self) -> None:
        """Wait for what is being read."""
        self._pool.shutdown(cancel_futures=True)

    def _future(self, piece: Piece) -> tuple[Future[memoryview], bool]:
        """Where a piece is or will be, and whether the caller is to read it."""
        with self._lock:
            found = self._held.get(piece.identity)
            if found is not None:
                self._held.move_to_end(piece.identity)
                return found, False
            future: Future[memoryview] = Future()
            self._held[piece.identity] = future
            self._size_bytes += piece.length
            self._evict()
            return future, True

    def _read(self, file: PiecedFile, piece: Piece, future: Future[memoryview]) -> None:
        try:
            raw = file.read(piece)
        except KeepError as error:
            self._drop(piece, future)
            future.set_exception(error)
        except BaseException:
            self._drop(piece, future)
            future.cancel()
            raise
        else:
            future.set_result(memoryview(raw).toreadonly())

    def _drop(self, piece: Piece, future: Future[memoryview]) -> None:
        with self._lock:
            if self._held.get(piece.identity) is future:
                del self._held[piece.identity]
                self._size_bytes -= piece.length

    def _evict(self) -> None:
        """Let go of what was not used for longest; what is still being read counts and stays."""
        for identity, future in list(self._held.items()):
            if self._size_bytes <= self._size_bytes_max:
                return
            if future.done() and future.exception() is None:
                del self._held[identity]
                self._size_bytes -= len(future.result())


def _attributes(node: Node) -> dict[str, int]:
    return {
        "st_mode": _TYPES[node.kind] | node.mode,
        "st_nlink": 2 if node.kind is NodeKind.FOLDER else 1,
        "st_size": node.size_bytes,
        "st_blocks": -(-node.size_bytes // _BLOCK_BYTES),
        "st_uid": os.getuid(),
        "st_gid": os.getgid(),
        "st_mtime": node.modified_ns,
        "st_ctime": node.modified_ns,
        "st_atime": node.modified_ns,
    }
