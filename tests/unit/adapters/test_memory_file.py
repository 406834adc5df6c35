"""Memory files: given up cleanly, even while somebody still looks at their bytes."""

import ctypes
import errno
import fcntl
import mmap
import os
from pathlib import Path

import numpy as np
import pytest

from modelkeep.adapters.memory_file import MemoryFile, OwnMemory, sealed_bytes
from modelkeep.core.errors import UnavailableError


def test_a_file_is_given_up_while_slices_of_it_live():
    before = len(list(Path("/proc/self/fd").iterdir()))
    file = MemoryFile("model")
    piece = file.allocate(1 << 16)[10:20]
    file.dropped()
    assert bytes(piece) == bytes(10)
    del piece
    assert len(list(Path("/proc/self/fd").iterdir())) == before


@pytest.mark.parametrize("size", [1, 4096, 4097])
def test_a_sealed_file_cannot_be_changed(size):
    file = MemoryFile("model")
    file.allocate(size)[:] = b"x" * size
    fd = file.sealed()
    with pytest.raises(PermissionError):
        os.pwrite(fd, b"y", 0)
    os.close(fd)


def test_a_sealed_file_cannot_be_mapped_for_writing_by_who_gets_it():
    file = MemoryFile("model")
    file.allocate(4096)[:] = b"x" * 4096
    fd = os.dup(file.sealed())
    with pytest.raises(PermissionError):
        mmap.mmap(fd, 4096)
    file.dropped()
    assert os.pread(fd, 4096, 0) == b"x" * 4096
    os.close(fd)


@pytest.mark.parametrize("is_old", [False, True], ids=["linux 5.1", "an older kernel"])
def test_sealed_bytes_cannot_be_changed(monkeypatch, is_old):
    seal = fcntl.fcntl
    waits = []

    def older(fd, what, seals):
        if seals & 0x10:  # F_SEAL_FUTURE_WRITE
            raise OSError(errno.EINVAL, "what is that")
        if len(waits) < 2:
            waits.append(seals)
            raise OSError(errno.EBUSY, "somebody looks at a page")
        return seal(fd, what, seals)

    if is_old:
        monkeypatch.setattr("modelkeep.adapters.memory_file.fcntl.fcntl", older)
    fd = sealed_bytes("it", b"x" * 5000)
    for change in (
        lambda: os.pwrite(fd, b"y", 0),
        lambda: os.truncate(fd, 10),
        lambda: os.truncate(fd, 10_000),
        lambda: mmap.mmap(fd, 5000),
    ):
        with pytest.raises(PermissionError):
            change()
    assert os.pread(fd, 6000, 0) == b"x" * 5000
    os.close(fd)


def test_wiping_a_sealed_file_leaves_zeros_to_whoever_still_maps_it():
    file = MemoryFile("model")
    file.allocate(5000)[:] = b"x" * 5000
    fd = os.dup(file.sealed())
    with mmap.mmap(fd, 5000, prot=mmap.PROT_READ) as seen:
        assert seen[:] == b"x" * 5000
        file.wiped()
        file.wiped()
        assert seen[:] == bytes(5000)
    os.close(fd)


def test_own_memory_is_not_dumped_and_is_zero_after_it_was_closed():
    with OwnMemory(3 << 20) as memory:
        view = memory.view[10:20]
        view[:] = b"secret tex"
        memory.freeze()
        assert "dd" in _flags_of(view)
    assert bytes(view) == bytes(10)


def test_what_is_too_much_for_the_machine_is_an_error_and_not_a_crash():
    with pytest.raises(UnavailableError) as error:
        MemoryFile("model").allocate(1 << 60)
    assert error.value.code == "memory.full"
    with pytest.raises(UnavailableError):
        OwnMemory(1 << 60)


def _flags_of(view):
    """What /proc says of the mapping that a view lies in."""
    address = ctypes.addressof(ctypes.c_char.from_buffer(view))
    inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        head = line.split()[0]
        if "-" in head:
            low, high = (int(each, 16) for each in head.split("-"))
            inside = low <= address < high
        elif inside and head == "VmFlags:":
            return line.split()[1:]
    raise AssertionError("nothing is mapped there")


def test_an_empty_file_needs_no_memory():
    file = MemoryFile("empty")
    assert len(file.allocate(0)) == 0
    assert os.fstat(file.sealed()).st_size == 0
    file.wiped()


def test_an_array_that_outlives_its_memory_shows_zeros():
    memory = OwnMemory(4096)
    memory.view[:] = b"x" * 4096
    array = np.ndarray((1024,), np.uint32, buffer=memory.view.toreadonly())
    assert array.any()
    memory.close()
    assert not array.any()


def test_memory_that_nobody_looks_at_is_unmapped_when_it_is_closed():
    def pages():
        return int(Path("/proc/self/statm").read_text().split()[0])

    memories = [OwnMemory(1 << 20) for _ in range(50)]
    before = pages()
    for each in memories:
        each.close()
    assert before - pages() >= 40 * 256
