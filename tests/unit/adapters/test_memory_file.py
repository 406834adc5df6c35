"""Memory files: given up cleanly, even while somebody still looks at their bytes."""

import os
from pathlib import Path

import pytest

from modelkeep.adapters.memory_file import MemoryFile


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
