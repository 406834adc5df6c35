"""Targets appear whole or not at all, whatever cuts them; sources are files; private is private."""

import os
from pathlib import Path

import pytest

from modelkeep.adapters.disk import RealDisk
from modelkeep.adapters.file_streams import (
    file_source,
    file_target,
    private_bytes,
    small_bytes,
)
from modelkeep.core.errors import KeepError, MissingError, RefusedError, UsageError
from modelkeep.testing.power import Fuse, PowerCut, SimulatedDisk

BLOCKS = (b"one", b"two" * 1000, b"three")
WHOLE = b"".join(BLOCKS)


def write(disk, path, *, force=False, blocks=BLOCKS):
    with file_target(disk, path, force=force) as into:
        for block in blocks:
            into(block)


def code(call):
    with pytest.raises(KeepError) as refused:
        call()
    return refused.value.code


def test_a_target_appears_at_the_end_private_and_alone(tmp_path):
    path = tmp_path / "out"
    with file_target(RealDisk(), path) as into:
        for block in BLOCKS:
            into(block)
            assert not path.exists()
    assert path.read_bytes() == WHOLE
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.stat().st_nlink == 1
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError, UsageError("a.b", "c")])
def test_an_error_leaves_nothing(tmp_path, error):
    kind = error if isinstance(error, type) else type(error)

    def cut():
        with file_target(RealDisk(), tmp_path / "out") as into:
            into(b"plaintext")
            raise error

    with pytest.raises(kind):
        cut()
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_stays_unless_its_replacement_was_asked_for(tmp_path):
    path = tmp_path / "out"
    path.write_bytes(b"old")
    assert code(lambda: write(RealDisk(), path)) == "file.exists"
    assert path.read_bytes() == b"old"
    write(RealDisk(), path, force=True)
    assert path.read_bytes() == WHOLE
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_appears_meanwhile_stays(tmp_path):
    path = tmp_path / "out"

    def raced():
        with file_target(RealDisk(), path) as into:
            into(b"ours")
            path.write_bytes(b"theirs")

    assert code(raced) == "file.exists"
    assert path.read_bytes() == b"theirs"
    assert list(tmp_path.iterdir()) == [path]


def test_links_folders_and_devices_are_not_replaced(tmp_path):
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "nowhere")
    assert code(lambda: write(RealDisk(), link)) == "file.exists"
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path in (tmp_path, pipe, link, Path(os.devnull)):
        assert code(lambda path=path: write(RealDisk(), path, force=True)) == "file.kind"
    assert Path(os.devnull).is_char_device()


class NoLinks(RealDisk):
    """A file system without hard links."""

    def link(self, source, target):
        raise PermissionError(1, "Operation not permitted", str(source), None, str(target))


def test_a_file_system_without_hard_links_will_do(tmp_path):
    write(NoLinks(), tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == WHOLE

    def raced():
        with file_target(NoLinks(), tmp_path / "other") as into:
            into(b"ours")
            (tmp_path / "other").write_bytes(b"theirs")

    assert code(raced) == "file.exists"
    assert len(list(tmp_path.iterdir())) == 2


class Full(RealDisk):
    """A disk with room for one block."""

    def append(self, path, raw):
        if self.size(path):
            raise OSError(28, "No space left on device")
        super().append(path, raw)


def test_a_full_disk_is_said_and_leaves_nothing(tmp_path):
    assert code(lambda: write(Full(), tmp_path / "out")) == "file.write"
    assert list(tmp_path.iterdir()) == []
    assert code(lambda: write(RealDisk(), tmp_path / "no" / "out")) == "file.folder"


@pytest.mark.parametrize("force", [False, True])
def test_a_power_cut_anywhere_leaves_all_or_nothing(force):
    """Cut before every operation: the name has the old bytes, the new ones, or none."""
    path = Path("/folder/out")
    for at in range(100):
        disk = SimulatedDisk(Fuse())
        disk.make_folder(path.parent)
        if force:
            disk.create(path, b"old")
            disk.sync(path)
            disk.sync_folder(path.parent)
        disk.fuse.at = disk.fuse.count + at
        try:
            write(disk, path, force=force)
        except PowerCut:
            left = disk.after_power_cut()
            if left.size(path) is not None:
                assert left.read(path) in ({WHOLE, b"old"} if force else {WHOLE})
            else:
                assert not force
            assert len(left.walk(path.parent)) <= 2
            continue
        assert disk.after_power_cut().read(path) == WHOLE
        assert at > 6
        return
    raise AssertionError("the write never ended")


def test_a_source_is_read_from_its_beginning(tmp_path):
    path = tmp_path / "in"
    path.write_bytes(WHOLE)
    with file_source(path) as read:
        assert read(3) + read(10_000) + read(1) == WHOLE


def test_what_is_no_file_is_no_source(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path in (tmp_path, pipe, Path(os.devnull)):
        with pytest.raises(UsageError) as refused, file_source(path):
            pass
        assert refused.value.code == "file.read"
    for path in (tmp_path / "none", tmp_path / "none" / "x"):
        with pytest.raises(MissingError) as missing, file_source(path):
            pass
        assert missing.value.code == "file.missing"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o610, 0o601, 0o644])
def test_private_keys_that_others_may_read_are_refused(tmp_path, mode):
    path = tmp_path / "me.key"
    path.write_bytes(b"secret")
    path.chmod(0o600)
    assert private_bytes(path, size_max=6).reveal() == b"secret"
    path.chmod(mode)
    with pytest.raises(RefusedError) as refused:
        private_bytes(path, size_max=6)
    assert refused.value.code == "file.readable"
    assert "chmod 600" in refused.value.hint


def test_a_small_file_is_as_long_as_allowed_and_no_longer(tmp_path):
    path = tmp_path / "small"
    path.write_bytes(b"123456")
    path.chmod(0o600)
    assert small_bytes(path, size_max=6) == b"123456"
    assert code(lambda: small_bytes(path, size_max=5)) == "file.size"
    assert code(lambda: private_bytes(path, size_max=5)) == "file.size"
