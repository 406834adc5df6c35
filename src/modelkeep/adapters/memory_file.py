"""Memory for plaintext: never on a disk, not in a core dump, locked where possible, wiped after.

A `MemoryFile` is a memory file (`memfd_create`, Linux 3.17) that other processes get as a
descriptor. While it is written it is ours alone; `sealed` then takes the right to write, grow or
shrink it from everybody (F_SEAL_FUTURE_WRITE, Linux 5.1; F_SEAL_WRITE before) but from the mapping
that it was written through, which stays with its owner and is read-only until the wipe.
`OwnMemory` is memory of this process only, which the kernel can give in huge pages.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
from contextlib import suppress
from typing import Self

from modelkeep.adapters.memory_room import memory_room
from modelkeep.core.errors import UnavailableError

_FIXED = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
F_SEAL_FUTURE_WRITE = 0x0010
_MADV_POPULATE_WRITE = 23  # Linux 5.14: every page is there when the call returns
_ZEROS_BYTES = 1024 * 1024
# F_SEAL_WRITE: the kernel waits a fifth of a second until nobody else looks at the pages; its own
# reclaim does, so on a busy machine that was once too short. F_SEAL_FUTURE_WRITE waits for nobody,
# and says the same of a file that nobody maps; kernels before Linux 5.1 do not have it.
_SEAL_TRIES = 10

_libc = ctypes.CDLL(None, use_errno=True)
for _call in (_libc.mlock, _libc.munlock):
    _call.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
_libc.mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
_libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)


class _Pages:
    """A mapping: its pages made there at once, out of core dumps, locked where limits allow."""

    def __init__(self, mapped: mmap.mmap, size_bytes: int) -> None:
        self.mapped = mapped
        self.size_bytes = size_bytes
        self.view = memoryview(mapped)[:size_bytes]
        self._address = ctypes.addressof(ctypes.c_char.from_buffer(mapped))
        mapped.madvise(mmap.MADV_DONTDUMP)
        self._make_pages()
        self.is_locked = _libc.mlock(self._address, len(mapped)) == 0

    def protect(self, protection: int) -> None:
        """Change what this process may do with the pages."""
        if _libc.mprotect(self._address, len(self.mapped), protection) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

    def wipe(self) -> None:
        """Overwrite everything with zeros."""
        zeros = bytes(min(_ZEROS_BYTES, len(self.view)))
        for start in range(0, len(self.view), _ZEROS_BYTES):
            part = self.view[start : start + _ZEROS_BYTES]
            part[:] = zeros[: len(part)]

    def unmap(self) -> None:
        """Give the mapping up, with its last reference: our owner drops us.

        Somebody may still look at it: the traceback of what went wrong, or an array. It is not
        closed, for nothing would stop that: NumPy takes the mapping itself as an array's base and
        releases the buffer, so that the next look at the array would end the process.
        """
        with suppress(BufferError):
            self.view.release()

    def _make_pages(self) -> None:
        if _libc.madvise(self._address, len(self.mapped), _MADV_POPULATE_WRITE) == 0:
            return
        if ctypes.get_errno() not in (errno.EINVAL, errno.ENOSYS):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        for start in range(0, len(self.view), mmap.PAGESIZE):  # an older kernel
            self.view[start] = 0


class MemoryFile:
    """A memory file while it is being written; `sealed` ends that and gives the descriptor."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        self._pages: _Pages | None = None
        self._is_sealed = False

    def allocate(self, size_bytes: int) -> memoryview:
        """Room for exactly that many bytes, its pages already there.

        Raises:
            UnavailableError: `memory.full`, when the machine has no room for it.
        """
        if not size_bytes:
            return memoryview(bytearray())  # an empty file has no pages to map
        _demand_room(self._name, size_bytes)
        try:
            os.posix_fallocate(self._fd, 0, size_bytes)
            self._pages = _Pages(mmap.mmap(self._fd, size_bytes), size_bytes)
        except OSError as error:
            raise no_memory(self._name, size_bytes, error) from error
        return self._pages.view

    def sealed(self) -> int:
        """Seal the file for good; the descriptor (close-on-exec) is this object's until `wiped`.

        Nobody can change the bytes from now on but `wiped`. Idempotent.
        """
        if self._is_sealed:
            return self._fd
        self._is_sealed = True
        if self._pages is not None:
            self._pages.protect(mmap.PROT_READ)
        try:
            fcntl.fcntl(self._fd, fcntl.F_ADD_SEALS, _FIXED | F_SEAL_FUTURE_WRITE)
        except OSError:  # an older kernel: no mapping may be left that can write
            if self._pages is not None:
                self._pages.unmap()
                self._pages = None
            fcntl.fcntl(self._fd, fcntl.F_ADD_SEALS, _FIXED | fcntl.F_SEAL_WRITE)
        return self._fd

    def wiped(self) -> None:
        """Overwrite the bytes and give everything up; whoever still maps the file sees zeros.

        Idempotent.
        """
        if self._pages is not None:
            self._pages.protect(mmap.PROT_READ | mmap.PROT_WRITE)
            self._pages.wipe()
        self.dropped()

    def dropped(self) -> None:
        """Give everything up, even while somebody still looks at its bytes; idempotent."""
        if self._pages is not None:
            self._pages.unmap()
            self._pages = None
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class OwnMemory:
    """Memory of this process for one model; wiped when it is closed."""

    def __init__(self, size_bytes: int) -> None:
        """Take the memory, its pages already there.

        Raises:
            UnavailableError: `memory.full`.
        """
        _demand_room("a model", size_bytes)
        try:
            mapped = mmap.mmap(-1, max(size_bytes, 1), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            with suppress(OSError):
                mapped.madvise(mmap.MADV_HUGEPAGE)
            self._pages: _Pages | None = _Pages(mapped, size_bytes)
        except OSError as error:
            raise no_memory("a model", size_bytes, error) from error

    @property
    def view(self) -> memoryview:
        """All of it."""
        assert self._pages is not None, "the memory was given up"
        return self._pages.view

    @property
    def is_locked(self) -> bool:
        """Whether it is never swapped out."""
        return self._pages is not None and self._pages.is_locked

    def freeze(self) -> None:
        """Take the right to write from everybody until it is closed; a write ends the process."""
        if self._pages is not None:
            self._pages.protect(mmap.PROT_READ)

    def close(self) -> None:
        """Overwrite it and give it back; idempotent. Whoever still looks at it sees zeros."""
        if self._pages is not None:
            self._pages.protect(mmap.PROT_READ | mmap.PROT_WRITE)
            self._pages.wipe()
            self._pages.unmap()
            self._pages = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def sealed_bytes(name: str, raw: bytes | memoryview) -> int:
    """A sealed memory file with these bytes; its descriptor (close-on-exec) is the caller's."""
    fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        at = 0
        while at < len(raw):
            at += os.write(fd, raw[at:])
        _seal_unmapped(fd)
    except OSError:
        os.close(fd)
        raise
    return fd


def _seal_unmapped(fd: int) -> None:
    """Seal a file that nobody maps: for good, nobody can write to it."""
    try:
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _FIXED | F_SEAL_FUTURE_WRITE)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
    else:
        return
    for left in reversed(range(_SEAL_TRIES)):  # an older kernel
        try:
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _FIXED | fcntl.F_SEAL_WRITE)
        except OSError as error:
            if error.errno != errno.EBUSY or not left:
                raise
        else:
            return


def _demand_room(name: str, size_bytes: int) -> None:
    """Refuse what the kernel would begin to give, and end some process for, halfway.

    Raises:
        UnavailableError: `memory.full`.
    """
    room = memory_room()
    if 0 <= room.available_bytes < size_bytes:
        raise no_memory(name, size_bytes, OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)))


def no_memory(name: str, size_bytes: int, error: OSError) -> UnavailableError:
    """What is said where the kernel has no memory to give."""
    return UnavailableError(
        "memory.full",
        f"no memory for {name} ({size_bytes} bytes): {error.strerror}",
        hint="free some memory, or serve fewer models on this machine",
    )
