"""Sealed memory files: bytes that live in memory only and that nobody can change any more.

`memfd_create` with F_SEAL_SHRINK, F_SEAL_GROW, F_SEAL_WRITE and F_SEAL_SEAL (Linux 3.17).
"""

from __future__ import annotations

import fcntl
import mmap
import os
from contextlib import suppress

from modelkeep.core.errors import UnavailableError

_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL


class MemoryFile:
    """A memory file while it is being written; `sealed` ends that and gives the descriptor."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        self._mapped: mmap.mmap | None = None
        self._view: memoryview | None = None

    def allocate(self, size_bytes: int) -> memoryview:
        """Room for exactly that many bytes, its pages already there.

        Raises:
            UnavailableError: `memory.full`, when the machine has no room for it.
        """
        try:
            os.posix_fallocate(self._fd, 0, size_bytes)
            self._mapped = mmap.mmap(self._fd, size_bytes)
        except OSError as error:
            raise UnavailableError(
                "memory.full",
                f"no memory for {self._name} ({size_bytes} bytes): {error.strerror}",
                hint="free some memory, or serve fewer models on this machine",
            ) from error
        self._view = memoryview(self._mapped)
        return self._view

    def sealed(self) -> int:
        """Seal the file for good; the descriptor (close-on-exec) is the caller's."""
        self._unmap()
        fcntl.fcntl(self._fd, fcntl.F_ADD_SEALS, _SEALS)
        return self._fd

    def dropped(self) -> None:
        """Give everything up, unsealed, even while somebody still looks at its bytes.

        The traceback of what went wrong may hold slices of the view; the last one unmaps.
        """
        with suppress(BufferError):
            self._unmap()
        self._view = self._mapped = None
        os.close(self._fd)

    def _unmap(self) -> None:
        if self._view is not None and self._mapped is not None:
            self._view.release()
            self._mapped.close()
            self._view = self._mapped = None


def sealed_bytes(name: str, raw: bytes) -> int:
    """A sealed memory file with these bytes; returns its descriptor (close-on-exec)."""
    file = MemoryFile(name)
    if raw:
        file.allocate(len(raw))[:] = raw
    return file.sealed()
