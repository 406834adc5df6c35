"""Memory that a gateway and one replica share: calls one way, answers the other.

The gateway makes both memory files and seals their size (F_SEAL_SHRINK, F_SEAL_GROW, F_SEAL_SEAL),
so nothing that the other side does to them makes a read here end the process with SIGBUS. The one
for calls is sealed against writing too once the gateway has mapped it (F_SEAL_FUTURE_WRITE, Linux
5.1): a replica can only read it. What a replica wrote is copied, bounded, before anybody looks at
it, so it cannot change after it was checked.

A replica maps them after it was locked in. Python's `mmap` duplicates the descriptor, which the
filter of system calls forbids, as it does `fstat`; so its half calls the C library's `mmap`, and
learns the size by seeking.
"""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
from collections.abc import Sequence
from contextlib import suppress

from modelkeep.adapters.memory_file import F_SEAL_FUTURE_WRITE
from modelkeep.core.errors import IntegrityError
from modelkeep.kernels.extents import Extents
from modelkeep.kernels.link_frames import Span, aligned, checked_spans, spans_from

_FIXED = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
_FAILED = ctypes.c_void_p(-1).value
# What a replica maps at most, whatever it is told.
SHARED_BYTES_MAX = 1 << 30

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = (
    ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long,
)  # fmt: skip
_libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)


class GatewayMemory:
    """The gateway's half of the memory of one connection.

    Raises:
        OSError: when the kernel has no memory file to give.
    """

    def __init__(self, size_bytes: int) -> None:
        self.size_bytes = size_bytes
        self._extents = Extents(size_bytes)
        self._offset_by_call: dict[int, int] = {}
        self.descriptors: tuple[int, ...] = ()
        try:
            self._calls = self._made("calls", mmap.PROT_READ | mmap.PROT_WRITE, is_ours=True)
            self._answers = self._made("answers", mmap.PROT_READ, is_ours=False)
        except OSError:
            self.close_descriptors()
            raise

    def written(self, number: int, tensors: Sequence[bytes | memoryview]) -> tuple[Span, ...]:
        """Put a call's tensors down; nothing where there is no room for them."""
        lengths = [len(each) for each in tensors]
        offset = self._extents.take(sum(map(aligned, lengths)))
        if offset < 0:
            return ()
        self._offset_by_call[number] = offset
        spans = spans_from(offset, lengths)
        for (start, length), tensor in zip(spans, tensors, strict=True):
            self._calls[start : start + length] = tensor
        return spans

    def freed(self, number: int) -> None:
        """A call has its reply: its room is free; nothing happens if it had none."""
        offset = self._offset_by_call.pop(number, -1)
        if offset >= 0:
            self._extents.give(offset)

    def copied(self, offset: int, lengths: Sequence[int]) -> tuple[memoryview, ...]:
        """What a replica says lies there, as bytes of our own.

        Raises:
            IntegrityError: `frame.span`.
        """
        if any(length < 0 for length in lengths):
            raise IntegrityError("frame.span", "a tensor of less than nothing")
        spans = spans_from(offset, lengths)
        checked_spans(spans, self.size_bytes)
        return tuple(memoryview(self._answers[start : start + size]) for start, size in spans)

    def close_descriptors(self) -> None:
        """The other side has them; the mappings stay for as long as this object does."""
        for fd in self.descriptors:
            os.close(fd)
        self.descriptors = ()

    def _made(self, name: str, protection: int, *, is_ours: bool) -> mmap.mmap:
        fd = os.memfd_create(f"modelkeep-{name}", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        self.descriptors += (fd,)
        os.ftruncate(fd, self.size_bytes)
        mapped = mmap.mmap(fd, self.size_bytes, prot=protection)
        mapped.madvise(mmap.MADV_DONTDUMP)
        if is_ours:
            with suppress(OSError):  # an older kernel: the replica could change its own calls
                fcntl.fcntl(fd, fcntl.F_ADD_SEALS, F_SEAL_FUTURE_WRITE)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _FIXED)
        return mapped


class ReplicaMemory:
    """The replica's half; takes the descriptors over and closes them.

    Raises:
        IntegrityError: `frame.share`, when they are no such memory.
    """

    def __init__(self, size_bytes: int, descriptors: Sequence[int]) -> None:
        self._addresses: list[int] = []
        self._size = size_bytes
        self._extents = Extents(size_bytes)
        try:
            sizes = [os.lseek(fd, 0, os.SEEK_END) for fd in descriptors]
            if sizes != [size_bytes] * 2 or not 0 < size_bytes <= SHARED_BYTES_MAX:
                raise IntegrityError("frame.share", "two memory files of another size")
            self._calls = self._mapped(descriptors[0], mmap.PROT_READ)
            self._answers = self._mapped(descriptors[1], mmap.PROT_READ | mmap.PROT_WRITE)
        except (OSError, IntegrityError):
            self.close()
            raise
        finally:
            for fd in descriptors:
                os.close(fd)

    def read(self, spans: Sequence[Span]) -> tuple[memoryview, ...]:
        """A call's tensors where they lie; good until its reply is sent.

        Raises:
            IntegrityError: `frame.span`.
        """
        checked_spans(spans, self._size)
        return tuple(self._calls[start : start + length] for start, length in spans)

    def written(self, tensors: Sequence[bytes | memoryview]) -> tuple[int, tuple[int, ...]]:
        """Put an answer's tensors down: offset and lengths; an offset below 0 for no room."""
        lengths = tuple(len(each) for each in tensors)
        offset = self._extents.take(sum(map(aligned, lengths)))
        if offset >= 0:
            for (start, length), tensor in zip(spans_from(offset, lengths), tensors, strict=True):
                self._answers[start : start + length] = tensor
        return offset, lengths

    def freed(self, offset: int) -> None:
        """The gateway has copied what lay there.

        Raises:
            IntegrityError: `frame.span`, when nothing did.
        """
        if not self._extents.give(offset):
            raise IntegrityError("frame.span", "no answer lies there")

    def close(self) -> None:
        """Unmap; whoever still holds a view must not look at it any more."""
        for address in self._addresses:
            _libc.munmap(address, self._size)
        self._addresses = []

    def _mapped(self, fd: int, protection: int) -> memoryview:
        address = _libc.mmap(None, self._size, protection, mmap.MAP_SHARED, fd, 0)
        if address is None or address == _FAILED:
            raise IntegrityError("frame.share", f"cannot map: {os.strerror(ctypes.get_errno())}")
        self._addresses.append(address)
        return memoryview((ctypes.c_ubyte * self._size).from_address(address)).cast("B")
