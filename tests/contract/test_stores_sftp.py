"""A store over SFTP keeps the promises of the port, on a real sshd."""

from __future__ import annotations

import itertools
import stat
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest
from object_servers import free_port, protected
from sftp_server import running_sftp

from modelkeep.adapters.stores import opened_store
from modelkeep.core.errors import IntegrityError, KeepError
from modelkeep.testing.store_contract import StoreContract

COUNTER = itertools.count()


@pytest.fixture(scope="module")
def sftp(tmp_path_factory):
    with running_sftp(tmp_path_factory.mktemp("sftp")) as server:
        yield server


class TestSftp(StoreContract):
    @pytest.fixture
    def store(self, sftp):
        return opened_store(sftp.settings(f"contract-{next(COUNTER)}"))


def code_of(call):
    with pytest.raises(KeepError) as failed:
        call()
    assert failed.value.message.startswith("remote: ")
    return failed.value.code


def test_an_object_is_its_owners_only_and_no_temporary_file_stays(sftp):
    store = opened_store(sftp.settings("modes"))
    store.put("pack/ab/object", b"bytes")
    store.put("pack/ab/object", b"bytes")
    with pytest.raises(IntegrityError):
        store.put("pack/ab/object", b"other")
    for path in (sftp.folder / "modes").rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path
        assert path.stat().st_nlink == 1 or path.is_dir()
    assert list((sftp.folder / "modes" / ".tmp").iterdir()) == []


def test_what_others_put_there_is_neither_listed_nor_in_the_way(sftp):
    store = opened_store(sftp.settings("shared"))
    store.put("head/000000000001", b"bytes")
    for name in ("Photo.JPG", ".DS_Store", "a b"):
        (sftp.folder / "shared" / name).write_bytes(b"")
    (sftp.folder / "shared" / "lost+found").mkdir()
    (sftp.folder / "shared" / "loop").symlink_to(sftp.folder / "shared")
    assert [each.name for each in store.list("head/")] == ["head/000000000001"]
    assert {each.name for each in store.list("")} <= {"head/000000000001", "loop"}


def test_of_many_writers_with_different_bytes_exactly_one_wins(sftp):
    stores = [opened_store(sftp.settings("race")) for _ in range(4)]

    def won(number):
        wins = []
        for name in range(10):
            try:
                stores[number].put(f"object/{name}", b"%d" % number * 10_000)
            except IntegrityError:
                continue
            wins.append(name)
        return wins

    with ThreadPoolExecutor(4) as pool:
        winners = list(pool.map(won, range(4)))
    assert sorted(name for wins in winners for name in wins) == list(range(10))
    for number, wins in enumerate(winners):
        for name in wins:
            assert stores[0].get(f"object/{name}") == b"%d" % number * 10_000


def test_threads_share_one_connection(sftp):
    store = opened_store(sftp.settings("threads"))
    names = [f"object/{number:03d}" for number in range(50)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: store.put(name, name.encode() * 1000), names))
        assert list(pool.map(store.get, names)) == [name.encode() * 1000 for name in names]
    assert [each.name for each in store.list("")] == names


# ---- whom to trust ---------------------------------------------------------------------------


def test_a_pinned_fingerprint_is_as_good_as_a_known_hosts_file(sftp):
    store = opened_store(sftp.settings("pinned", known_hosts=sftp.fingerprint))
    store.put("object", b"bytes")
    assert store.get("object") == b"bytes"


def test_an_unknown_host_key_is_refused_at_the_first_sight(sftp, tmp_path):
    (tmp_path / "empty").write_text("")
    for pin in (str(tmp_path / "empty"), "SHA256:" + "A" * 43):
        store = opened_store(sftp.settings("unknown", known_hosts=pin, retries=2))
        assert code_of(lambda store=store: store.put("object", b"bytes")) == "store.host_key"
    assert not (sftp.folder / "unknown").exists()


def test_another_key_is_not_permitted(sftp, tmp_path):
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "other"],  # noqa: S607
        check=True,
    )
    store = opened_store(sftp.settings("other", credentials=f"file:{tmp_path}/other"))
    assert code_of(lambda: store.get("object")) == "store.denied"


def test_a_key_that_is_none_is_an_error_without_its_text(sftp, tmp_path):
    path = protected(tmp_path / "none", "canary-secret")
    store = opened_store(sftp.settings("none", credentials=f"file:{path}"))
    with pytest.raises(IntegrityError, match=r"store\.credentials") as failed:
        store.get("object")
    assert "canary" not in str(failed.value.as_facts())


# ---- a world that fails ----------------------------------------------------------------------


def test_nobody_there_is_unavailable(sftp):
    url = sftp.settings("x").url.replace(f":{sftp.port}", f":{free_port()}")
    store = opened_store(sftp.settings("x", url=url))
    assert code_of(lambda: store.get("object")) == "store.read"
    assert code_of(lambda: store.put("object", b"")) == "store.write"
    assert code_of(lambda: list(store.list(""))) == "store.read"


def test_a_connection_that_broke_is_made_again(tmp_path):
    with running_sftp(tmp_path) as server:
        store = opened_store(server.settings("store", retries=4))
        store.put("object", b"bytes")
        store._store._session._connection.abort()
        assert store.get("object") == b"bytes"
        store.put("other", b"bytes")


def test_a_folder_that_may_only_be_read_refuses(tmp_path):
    with running_sftp(tmp_path, "ForceCommand internal-sftp -R") as server:
        (server.folder / "store").mkdir()
        (server.folder / "store" / "object").write_bytes(b"bytes")
        store = opened_store(server.settings("store"))
        assert store.get("object") == b"bytes"
        assert code_of(lambda: store.put("other", b"")) == "store.denied"
        assert code_of(lambda: store.delete("object")) == "store.denied"


@pytest.mark.parametrize("request_name", ["hardlink", "fsync"])
def test_a_server_that_cannot_write_durably_is_refused(tmp_path, request_name):
    with running_sftp(tmp_path, f"ForceCommand internal-sftp -P {request_name}") as server:
        store = opened_store(server.settings("store"))
        assert code_of(lambda: store.put("object", b"bytes")) in ("store.extension", "store.denied")
        assert list(store.list("")) == []


def test_a_writer_that_may_not_remove_still_writes(tmp_path):
    """`-P remove` is an append-only writer: it leaves its temporary name behind."""
    with running_sftp(tmp_path, "ForceCommand internal-sftp -P remove,rename,posix-rename") as it:
        store = opened_store(it.settings("store"))
        store.put("object", b"bytes")
        assert store.get("object") == b"bytes"
        assert code_of(lambda: store.delete("object")) == "store.denied"
