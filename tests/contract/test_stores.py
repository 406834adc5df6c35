"""Every Store keeps the promises of its port; a folder also those about crashes and writers."""

import contextlib
import errno
import os
import stat
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest

from modelkeep.adapters.disk import RealDisk
from modelkeep.adapters.store_folder import FolderStore
from modelkeep.core.errors import IntegrityError, MissingError, UnavailableError
from modelkeep.testing.memory import MemoryStore
from modelkeep.testing.power import Fuse, PowerCut, SimulatedDisk
from modelkeep.testing.store_contract import StoreContract


class TestMemoryStore(StoreContract):
    @pytest.fixture
    def store(self):
        return MemoryStore()


class TestFolderStore(StoreContract):
    @pytest.fixture
    def store(self, tmp_path):
        return FolderStore(tmp_path / "store", "main")


class TestFolderStoreOnASimulatedDisk(StoreContract):
    @pytest.fixture
    def store(self):
        return FolderStore(Path("/store"), "main", SimulatedDisk())


# ---- power cuts ----------------------------------------------------------------------------------


def opened(disk):
    return FolderStore(Path("/store"), "main", disk)


def test_a_cut_at_any_point_of_a_put_leaves_all_of_the_object_or_nothing():
    whole = SimulatedDisk()
    opened(whole).put("a/b/object", b"all of it")
    assert whole.fuse.count > 4
    for at in range(whole.fuse.count):
        disk = SimulatedDisk(Fuse(at))
        with pytest.raises(PowerCut):
            opened(disk).put("a/b/object", b"all of it")
        disk = disk.after_power_cut()
        names = [found.name for found in opened(disk).list("")]
        assert names in ([], ["a/b/object"])
        if names:
            assert opened(disk).get("a/b/object") == b"all of it"
        opened(disk).put("a/b/object", b"all of it")
        assert opened(disk.after_power_cut()).get("a/b/object") == b"all of it"


def test_what_was_put_is_durable_on_return():
    disk = SimulatedDisk()
    opened(disk).put("object", b"bytes")
    assert opened(disk.after_power_cut()).get("object") == b"bytes"


def test_what_was_put_again_is_durable_on_return_although_the_first_put_was_cut():
    """The first writer died between the name and its durability; the second one answers for it."""
    for at in range(12):
        disk = SimulatedDisk(Fuse(at))
        with contextlib.suppress(PowerCut):
            opened(disk).put("object", b"bytes")
        disk.fuse = Fuse()
        opened(disk).put("object", b"bytes")
        assert opened(disk.after_power_cut()).get("object") == b"bytes"


def test_what_was_deleted_stays_deleted():
    disk = SimulatedDisk()
    opened(disk).put("object", b"bytes")
    opened(disk).delete("object")
    assert opened(disk.after_power_cut()).stat("object") is None


# ---- a real folder -------------------------------------------------------------------------------


class DyingDisk(RealDisk):
    """A real disk whose process dies between the temporary file and its name."""

    def link(self, source, target):
        del source, target
        raise PowerCut


def test_a_crash_between_the_temporary_file_and_its_name_leaves_nothing_visible(tmp_path):
    with pytest.raises(PowerCut):
        FolderStore(tmp_path, "main", DyingDisk()).put("pack/ab/object", b"bytes")
    store = FolderStore(tmp_path, "main")
    assert list(store.list("")) == []
    assert store.stat("pack/ab/object") is None
    store.put("pack/ab/object", b"other bytes")
    assert store.get("pack/ab/object") == b"other bytes"


def test_what_a_crash_left_in_the_temporary_folder_is_never_listed(tmp_path):
    store = FolderStore(tmp_path, "main")
    store.put("object", b"bytes")
    (tmp_path / ".tmp" / "0123456789abcdef").write_bytes(b"half")
    assert [found.name for found in store.list("")] == ["object"]


def test_whatever_is_listed_can_be_read(tmp_path):
    """A file manager's or an attacker's files must not stop those who read what is listed."""
    store = FolderStore(tmp_path, "main")
    store.put("head/000000000001", b"bytes")
    for name in ("Photo.JPG", ".DS_Store", "head/Thumbs.db", "head/٠٠٠٠٠٠٠٠٠٠٠٢", "a b"):
        (tmp_path / name).write_bytes(b"not ours")
    (tmp_path / "lost+found").mkdir()
    (tmp_path / "lost+found" / "x").write_bytes(b"not ours")
    for found in (*store.list(""), *store.list("head/")):
        assert len(store.get(found.name)) == found.size_bytes


def test_no_temporary_file_is_left_behind(tmp_path):
    store = FolderStore(tmp_path, "main")
    store.put("a", b"1")
    store.put("a", b"1")
    with pytest.raises(IntegrityError):
        store.put("a", b"2")
    assert list((tmp_path / ".tmp").iterdir()) == []


def race(folder, number):
    """Put bytes of one's own under a name that others want too; whether that worked."""
    store = FolderStore(folder, "main")
    won = []
    for name in range(20):
        try:
            store.put(f"object/{name}", b"%d" % number * 10_000)
        except IntegrityError:
            continue
        won.append(name)
    return won


@pytest.mark.slow
def test_of_writers_with_different_bytes_exactly_one_wins(tmp_path):
    with ProcessPoolExecutor(4, mp_context=get_context("spawn")) as pool:
        won = list(pool.map(race, [tmp_path] * 4, range(4)))
    assert sorted(name for names in won for name in names) == list(range(20))
    store = FolderStore(tmp_path, "main")
    for number, names in enumerate(won):
        for name in names:
            assert store.get(f"object/{name}") == b"%d" % number * 10_000


def test_objects_and_folders_are_their_owners_only(tmp_path):
    store = FolderStore(tmp_path / "store", "main")
    store.put("pack/ab/object", b"bytes")
    for path in (tmp_path / "store").rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


def test_a_name_below_an_object_is_missing_and_not_an_accident(tmp_path):
    store = FolderStore(tmp_path, "main")
    store.put("a", b"bytes")
    with pytest.raises(MissingError):
        store.get("a/b")
    assert store.stat("a/b") is None


class BrokenDisk(RealDisk):
    """A real disk that has had enough."""

    def __init__(self, number):
        super().__init__()
        self.number = number

    def create(self, path, raw):
        del raw
        raise OSError(self.number, os.strerror(self.number), str(path))

    def read(self, path, start=0, length=None):
        del start, length
        raise OSError(self.number, os.strerror(self.number), str(path))

    def walk(self, folder):
        raise OSError(self.number, os.strerror(self.number), str(folder))


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EROFS, errno.EACCES])
def test_a_disk_that_fails_is_unavailable_with_the_stores_name_and_a_remedy(tmp_path, number):
    FolderStore(tmp_path, "offsite").put("there", b"bytes")
    store = FolderStore(tmp_path, "offsite", BrokenDisk(number))
    for code, call in (
        ("store.write", lambda: store.put("object", b"bytes")),
        ("store.read", lambda: store.get("there")),
        ("store.read", lambda: list(store.list(""))),
    ):
        with pytest.raises(UnavailableError) as failed:
            call()
        assert failed.value.code == code
        assert failed.value.message.startswith("offsite: ")
        assert failed.value.hint
        assert ("free some space" in failed.value.hint) == (number == errno.ENOSPC)
    assert FolderStore(tmp_path, "offsite").stat("object") is None


def test_a_store_in_a_file_is_unavailable(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    store = FolderStore(tmp_path / "file", "main")
    with pytest.raises(UnavailableError):
        store.put("object", b"bytes")


def test_a_store_of_a_keep_takes_nothing_where_it_is_not_mounted_or_is_another_keeps(tmp_path):
    store = FolderStore(tmp_path, "main", keep_id="0123456789abcdef")
    with pytest.raises(UnavailableError) as refused:
        store.put("pack/ab/object", b"bytes")
    assert refused.value.code == "store.empty"
    assert list(tmp_path.iterdir()) == []
    store.put("format/000000000000", b'{"number":0,"keep_id":"fedcba9876543210"}\n')
    with pytest.raises(UnavailableError) as refused:
        store.put_new([("pack/ab/object", b"bytes")])
    assert refused.value.code == "store.foreign"
    store.delete("format/000000000000")
    store.put("format/000000000000", b'{"number":0,"keep_id":"0123456789abcdef"}\n')
    store.put("pack/ab/object", b"bytes")
    assert store.get("pack/ab/object") == b"bytes"
