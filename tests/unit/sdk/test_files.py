"""Files that come in: they stay as they are while they are read, or it is noticed."""

import os
import resource
import socket
import threading
import time
from contextlib import ExitStack

import pytest

from modelkeep.core.errors import MissingError, UsageError
from modelkeep.sdk import files
from modelkeep.sdk.files import COPIED_BYTES_MAX, mapped, steady, walked

BIG = COPIED_BYTES_MAX + 12_345


@pytest.fixture(params=[100, BIG], ids=["copied", "leased"])
def path(request, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(os.urandom(request.param))
    return path


@pytest.fixture
def no_leases(monkeypatch):
    monkeypatch.setattr(files, "_is_leased", lambda _: False)


def read(file, start=0, length=None):
    target = bytearray(file.size_bytes - start if length is None else length)
    file.read_into(start, memoryview(target))
    return bytes(target)


def test_a_steady_file_is_what_stands_there(path):
    raw = path.read_bytes()
    with steady(path) as file:
        assert file.size_bytes == len(raw)
        assert bytes(file.raw) == raw
        file.forget()
        assert bytes(file.raw) == read(file) == raw
        assert read(file, 7, 20) == raw[7:27]


def test_an_empty_file_is_steady(tmp_path):
    (tmp_path / "empty").write_bytes(b"")
    with steady(tmp_path / "empty") as file:
        assert (file.size_bytes, bytes(file.raw), read(file)) == (0, b"", b"")


def test_whoever_opens_it_for_writing_is_noticed_and_does_not_wait_for_long(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(bytes(BIG))

    def write():
        with path.open("r+b") as stream:
            stream.write(b"changed")

    writer = threading.Thread(target=write)
    started_s = time.monotonic()
    with pytest.raises(UsageError) as refused, steady(path) as file:  # noqa: PT012
        writer.start()
        while time.monotonic() - started_s < 10:
            assert read(file, 0, 7) == bytes(7), "the writer waits while we read"
            time.sleep(0.005)
    writer.join(5)
    assert refused.value.code == "file.changed"
    assert time.monotonic() - started_s < 5
    assert path.read_bytes()[:7] == b"changed"


def test_readers_of_a_file_are_not_in_each_others_way(path):
    with steady(path) as one, steady(path) as two:
        assert bytes(one.raw) == bytes(two.raw) == path.read_bytes()


def test_a_file_that_somebody_writes_is_copied(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(bytes(BIG))
    with path.open("r+b") as writer, steady(path) as file:
        writer.write(b"late")
        writer.flush()
        assert bytes(file.raw[:4]) == bytes(4)


@pytest.fixture
def few_descriptors():
    """Sets how many more files may be open."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)

    def limit(more):
        free = os.dup(0)
        os.close(free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (free + more, before[1]))

    yield limit
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_small_files_are_steady_however_many_there_are(tmp_path, few_descriptors):
    (tmp_path / "small").write_bytes(b"abc")
    few_descriptors(8)
    with ExitStack() as stack:
        opened = [stack.enter_context(steady(tmp_path / "small")) for _ in range(300)]
        assert {(bytes(each.raw), each.fd) for each in opened} == {(b"abc", -1)}


@pytest.mark.parametrize("is_leased", [True, False])
def test_of_too_many_large_files_the_limit_is_said(
    tmp_path, few_descriptors, monkeypatch, is_leased
):
    if not is_leased:
        monkeypatch.setattr(files, "_is_leased", lambda _: False)
    (tmp_path / "large").write_bytes(bytes(BIG))

    def open_many(stack):
        for _ in range(20):
            file = stack.enter_context(steady(tmp_path / "large"))
            assert os.pread(file.fd, 1, BIG - 1) == b"\0"

    for room in range(9, 13):  # whichever descriptor is the first for which there is no room
        few_descriptors(room)
        with ExitStack() as stack, pytest.raises(UsageError) as refused:
            open_many(stack)
        assert refused.value.code == "file.read"
        assert "ulimit -n" in refused.value.hint


@pytest.mark.usefixtures("no_leases")
def test_a_large_file_without_a_lease_is_streamed_if_nothing_is_judged(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "PRIVATE_BYTES_MAX", 1000)
    path = tmp_path / "file"
    path.write_bytes(os.urandom(BIG))
    with steady(path) as file:
        assert len(file.raw) == BIG
    with steady(path, may_stream=True) as file:
        assert len(file.raw) == 0
        assert read(file) == path.read_bytes()
    with pytest.raises(UsageError) as refused, steady(path, may_stream=True) as file:
        path.write_bytes(bytes(BIG))
    assert refused.value.code == "file.changed"


@pytest.mark.usefixtures("no_leases")
def test_of_a_streamed_file_the_head_is_there_for_formats_that_begin_with_it(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "PRIVATE_BYTES_MAX", 1000)
    path = tmp_path / "file"
    raw = b"GGUF" + os.urandom(BIG)
    path.write_bytes(raw)
    with steady(path, may_stream=True) as file:
        assert bytes(file.raw) == raw  # shorter than the head


@pytest.mark.usefixtures("no_leases")
def test_a_file_that_shrinks_is_no_bus_error(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "PRIVATE_BYTES_MAX", 1000)
    path = tmp_path / "file"
    path.write_bytes(bytes(BIG))
    with pytest.raises(UsageError), steady(path, may_stream=True) as file:  # noqa: PT012
        os.truncate(path, 5)
        read(file)


@pytest.mark.parametrize("opened", [mapped, steady])
def test_what_is_no_file_is_refused(opened, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for name, error, code in (
        ("none", MissingError, "file.missing"),
        ("pipe", UsageError, "file.read"),
        (".", UsageError, "file.read"),
    ):
        with pytest.raises(error) as refused, opened(tmp_path / name):
            pass
        assert refused.value.code == code


def test_a_link_is_followed_only_where_that_is_meant(tmp_path):
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "link").symlink_to("file")
    with steady(tmp_path / "link") as file:
        assert bytes(file.raw) == b"x"
    with pytest.raises(UsageError), steady(tmp_path / "link", follow=False):
        pass


def test_a_folder_is_walked_in_order_with_all_that_is_kept_of_it(tmp_path):
    root = tmp_path / "root"
    (root / "b" / "empty").mkdir(parents=True)
    (root / "b" / "two").write_bytes(b"22")
    (root / "a").write_bytes(b"1")
    (root / "a").chmod(0o640)
    (root / "b" / "empty").chmod(0o711)
    (root / "b-c").write_bytes(b"3")
    (root / "out").symlink_to("../../etc/./passwd")
    (root / "into").symlink_to("b")
    os.mkfifo(root / "pipe")
    with socket.socket(socket.AF_UNIX) as held:
        held.bind(str(root / "socket"))
    found = walked(root)
    assert [(each.path, each.size_bytes) for each in found.files] == [
        ("a", 1),
        ("b-c", 1),
        ("b/two", 2),
    ]
    assert found.files[0].mode == 0o640
    assert [path for path, _ in found.folders] == [".", "b", "b/empty"]
    assert dict(found.folders)["b/empty"] == 0o711
    assert found.links == (("into", "b"), ("out", "../../etc/./passwd"))
    assert found.skipped == ("pipe", "socket")


def test_a_single_file_is_a_tree_without_folders(tmp_path):
    (tmp_path / "file").write_bytes(b"x")
    found = walked(tmp_path / "file")
    assert [each.path for each in found.files] == ["file"]
    assert not found.folders
    assert found.place_of("file") == tmp_path / "file"


def test_times_that_are_too_fresh_to_tell_a_change_do_not_count(tmp_path):
    (tmp_path / "file").write_bytes(b"x")
    status = (tmp_path / "file").stat()
    (fresh,) = walked(tmp_path).files
    assert fresh.changed == (status.st_mtime_ns,)
    (old,) = walked(tmp_path, now_ns=lambda: time.time_ns() + 60_000_000_000).files
    assert old.changed == (status.st_mtime_ns, status.st_ctime_ns, status.st_ino)


def test_a_name_that_is_no_text_is_refused(tmp_path):
    (tmp_path / os.fsdecode(b"\xff")).write_bytes(b"x")
    with pytest.raises(UsageError) as refused:
        walked(tmp_path)
    assert refused.value.code == "tree.name"


def test_a_link_that_says_no_text_is_refused(tmp_path):
    (tmp_path / "link").symlink_to(os.fsdecode(b"\xff"))
    with pytest.raises(UsageError) as refused:
        walked(tmp_path)
    assert refused.value.code == "tree.name"


def test_a_tree_is_bounded(tmp_path, monkeypatch):
    for name in "abc":
        (tmp_path / name).write_bytes(b"")
    monkeypatch.setattr(files, "TREE_ENTRIES_MAX", 4)
    assert len(walked(tmp_path).files) == 3
    monkeypatch.setattr(files, "TREE_ENTRIES_MAX", 3)
    with pytest.raises(UsageError) as refused:
        walked(tmp_path)
    assert refused.value.code == "tree.entries"


def test_what_is_not_there_is_missing(tmp_path):
    with pytest.raises(MissingError):
        walked(tmp_path / "none")
