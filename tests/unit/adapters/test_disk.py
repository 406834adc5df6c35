"""The few file operations that everything durable is made of."""

import errno

import pytest

from modelkeep.adapters.disk import RealDisk, write_replacing


class FullDisk(RealDisk):
    """A disk that takes some bytes and then has no room for more."""

    def create(self, path, raw):
        super().create(path, raw[: len(raw) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_keeps_the_old_bytes_and_nothing_of_the_new_ones(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(OSError, match="No space"):
        write_replacing(FullDisk(), path, b"new and longer")
    assert {each.name: each.read_bytes() for each in tmp_path.iterdir()} == {"file": b"old"}
