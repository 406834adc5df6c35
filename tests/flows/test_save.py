"""Saving while others change the keep: redone, or a clear error; never a version with a hole."""

import os
import shutil
from contextlib import contextmanager

import pytest
from command import CHEAP, PASSPHRASE, Desk
from trees import picture, write_tree

from modelkeep.adapters.upload_mark import is_uploading
from modelkeep.core.errors import KeepError, MissingError, UnavailableError, UsageError
from modelkeep.flows import deposit
from modelkeep.flows.deposit import SoleTurn
from modelkeep.flows.save import FileMark, Tree, saved
from modelkeep.sdk.contents import tree_of
from modelkeep.sdk.keep import Keep
from modelkeep.sdk.upkeep import upload_mark_of
from modelkeep.vault.streams import Plain

OTHER = "another one altogether"


@pytest.fixture
def desk(tmp_path, monkeypatch):
    monkeypatch.setattr(deposit, "KEPT_TURN_BYTES_MAX", -1)  # the turn is given up for any size
    return Desk.made(tmp_path, second=False)


@pytest.fixture
def root(tmp_path):
    return write_tree(tmp_path / "tree")


def opened(desk):
    return Keep(desk.keep, passphrase=PASSPHRASE)


class Meddled:
    """A turn that others use as soon as everything is written and before it is ours again."""

    def __init__(self, keep, act, times=1):
        self._keep = keep
        self._act = act
        self._left = times

    @property
    def opened(self):
        return self._keep.opened

    @contextmanager
    def released(self):
        with self._keep.released():
            yield
            if self._left:
                self._left -= 1
                self._act()


def keep_it(keep, root, act, *, times=1, **words):
    tree = tree_of(root, keep.folder, lambda _: None)
    turn = Meddled(keep, act, times)
    return saved(turn, tree, name="run", vault=keep.config.vault, **words)


def demand_whole(desk, root, reference="run"):
    out = desk.folder / "out"
    shutil.rmtree(out, ignore_errors=True)
    with opened(desk) as keep:
        keep.restore(reference, out)
    assert picture(out) == picture(root)


def lose_chunks(desk):
    """What a prune that does not know of the upload would take: packs and indexes."""
    for kind in ("pack", "index"):
        shutil.rmtree(desk.main / kind, ignore_errors=True)


def test_others_change_the_keep_meanwhile(desk, root):
    def act():
        with opened(desk) as other:
            assert is_uploading(upload_mark_of(other.folder)), "a prune would spare what we wrote"
            other.save(root / "run.sh", name="other")
            other.keys.rotate(passphrase=PASSPHRASE)

    with opened(desk) as keep:
        done = keep_it(keep, root, act)
        assert (done.version, done.is_new) == (1, True)
        assert {each.name for each in keep.models()} == {"run", "other"}
        assert not is_uploading(upload_mark_of(keep.folder))
    demand_whole(desk, root)


def test_the_same_saved_twice_at_once_is_one_version(desk, root):
    def act():
        with opened(desk) as other:
            assert other.save(root, name="run").is_new

    with opened(desk) as keep:
        done = keep_it(keep, root, act)
        assert (done.version, done.is_new) == (1, False)
    demand_whole(desk, root)


def test_what_a_prune_took_is_written_again(desk, root):
    with opened(desk) as keep:
        done = keep_it(keep, root, lambda: lose_chunks(desk))
        assert done.version == 1
    demand_whole(desk, root)


def test_a_rekey_meanwhile_is_followed(desk, root):
    def act():
        with opened(desk) as other:
            other.keys.rekey("default")

    with opened(desk) as keep:
        done = keep_it(keep, root, act)
        assert done.version == 1
    demand_whole(desk, root)


def test_a_prune_again_and_again_is_an_error_and_not_a_loop(desk, root):
    with opened(desk) as keep:
        with pytest.raises(UnavailableError) as failure:
            keep_it(keep, root, lambda: lose_chunks(desk), times=100)
        assert failure.value.code == "vault.pruned"
        assert not keep.models()


def test_a_domain_destroyed_meanwhile_is_a_clear_error(desk, root):
    def act():
        with opened(desk) as other:
            other.keys.destroy("gone")

    with opened(desk) as keep:
        keep.keys.new("gone")
        with pytest.raises(MissingError) as failure:
            keep_it(keep, root, act, domain="gone")
        assert failure.value.code == "keys.domain"
        assert not keep.models()
        assert keep.save(root, name="run").is_new  # it goes on


def test_another_passphrase_meanwhile_is_a_clear_error(desk, root):
    def act():
        with opened(desk) as other:
            other.keys.rotate(passphrase=OTHER)

    with opened(desk) as keep, pytest.raises(KeepError) as failure:
        keep_it(keep, root, act)
    assert failure.value.code == "keys.passphrase"
    with Keep(desk.keep, passphrase=OTHER) as keep:
        assert not keep.models()


def test_the_same_name_in_another_domain_meanwhile_is_refused(desk, root):
    def act():
        with opened(desk) as other:
            other.keys.new("acme")
            other.save(root / "run.sh", name="run", domain="acme")

    with opened(desk) as keep, pytest.raises(UsageError) as failure:
        keep_it(keep, root, act)
    assert failure.value.code == "admit.domain"


def test_an_error_meanwhile_leaves_the_keep_open_and_nothing_behind(desk, root):
    def act():
        raise UsageError("file.changed", "somebody writes into it")

    with opened(desk) as keep:
        with pytest.raises(UsageError):
            keep_it(keep, root, act)
        assert not keep.models()
        assert keep.save(root, name="run").version == 1
    demand_whole(desk, root)


def test_files_that_are_no_paths_are_saved_too(tmp_path):
    """Such as those of an inbox: they can be read, and there is no map of them."""
    raw = os.urandom(5_000_000)

    @contextmanager
    def open_(path):
        def read_into(start, target):
            target[:] = raw[start : start + len(target)]

        yield Plain(path=path, size_bytes=len(raw), read_into=read_into)

    with Keep.create(tmp_path / "keep", passphrase=PASSPHRASE, port=0, argon2=CHEAP) as keep:
        tree = Tree(
            files=(FileMark(path="a/b", size_bytes=len(raw)),),
            open=open_,
            folders=((".", 0o755), ("a", 0o755)),
        )
        more = ("x.test.done", {"number": 7})
        done = saved(
            SoleTurn(keep.opened),
            tree,
            name="run",
            vault=keep.config.vault,
            also=(lambda version: (more[0], more[1] | {"version": version}),),
        )
        assert done.version == 1
        keep.restore("run", tmp_path / "out")
        kinds = [entry.kind for _, entry in keep.ledger.entries()]
    assert (tmp_path / "out" / "a" / "b").read_bytes() == raw
    at = kinds.index("files.saved")
    assert kinds[at : at + 3] == ["files.saved", "x.test.done", "vault.committed"]
