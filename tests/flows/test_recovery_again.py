"""Goal: a recovery that failed is run again, and never costs anything but its own files."""

from dataclasses import replace

import pytest
from onnx_models import two_models
from scenes import CHEAP, PASSPHRASE, Scene

from modelkeep.adapters.locks import held
from modelkeep.core.errors import KeepError
from modelkeep.sdk.keep import Keep, means_of
from modelkeep.sdk.recovery import drilled
from modelkeep.sdk.restoration import Plan, restored_folder
from modelkeep.testing.power import Fuse, PowerCut
from modelkeep.wiring import KeepFolder


@pytest.fixture
def scene(tmp_path):
    """A keep that was backed up; of its folder nothing is left."""
    scene = Scene(tmp_path)
    with scene.create() as keep:
        keep.admit(two_models()[0], name="digits")
        keep.backup()
    lose(scene, scene.keep_path)
    return scene


def lose(scene, folder):
    for path, _ in scene.disk.walk(folder):
        scene.disk.lose(path)
    for path in scene.keep_path.glob("state.db*"):
        path.unlink()


def write(scene, path):
    scene.disk.create(path, b"mine")
    scene.disk.sync(path)
    scene.disk.sync_folder(path.parent)


def recovered(scene, *, fuse=None, **other):
    plan = Plan(target=scene.keep_path, source=scene.offsite, means=means_of(PASSPHRASE))
    plan = replace(plan, **other)
    folder = KeepFolder(plan.target, scene.world(fuse or Fuse()))
    return restored_folder(plan, folder, lambda _: 0.0)


def refused(scene, **other):
    """The code of a refusal that changed nothing."""
    before = everything(scene)
    with pytest.raises(KeepError) as failure:
        recovered(scene, **other)
    assert everything(scene) == before
    return failure.value.code


def everything(scene):
    return {path: scene.disk.read(path) for path, _ in scene.disk.walk(scene.folder)}


def is_marked(scene):
    return scene.disk.size(scene.keep_path / "pending") is not None


def cut(scene):
    """A recovery that failed in its midst."""
    with pytest.raises(PowerCut):
        recovered(scene, fuse=Fuse(30))
    scene.disk.fuse = Fuse()
    assert is_marked(scene)


# ---- what is never touched -----------------------------------------------------------------------


@pytest.mark.parametrize("place", ["..", "../offsite"])
def test_a_store_in_the_target_is_refused_even_where_a_recovery_failed(scene, place):
    target = (scene.keep_path / place).resolve()
    assert refused(scene, target=target) == "recover.inside"
    scene.disk.create(target / "pending", b"recovery")
    assert refused(scene, target=target) == "recover.inside"


def test_a_store_among_the_targets_own_is_recovered_from_where_it_is(scene):
    moved = scene.keep_path / "stores" / "usb"
    for path, _ in scene.disk.walk(scene.offsite):
        scene.disk.rename(path, moved / path.relative_to(scene.offsite))
    scene.disk.sync_folder(moved)
    recovered(scene, source=moved)
    with scene.open() as keep:
        assert [each.version for each in keep.models()] == [1]
        assert [each.path for each in keep.config.stores] == ["stores/main", str(moved)]


@pytest.mark.parametrize("name", ["photos/1.jpg", "ledger/book.txt", "stores/main/x", "pending"])
def test_a_folder_with_anything_in_it_is_refused(scene, name):
    write(scene, scene.keep_path / name)
    assert refused(scene) == "recover.taken"


def test_what_others_put_beside_a_failed_recovery_stays_when_it_is_run_again(scene):
    cut(scene)
    others = [scene.keep_path / name for name in ("photos/1.jpg", "notes", "drill/x", "usb/x")]
    leftovers = [scene.keep_path / name for name in ("journals/g/1", "ledger/wal-7/1", "state.db")]
    leftovers.append(scene.keep_path / f".modelkeep.toml.{'0' * 16}.tmp")
    for path in (*others, *leftovers):
        write(scene, path)
    recovered(scene)
    assert all(scene.disk.read(path) == b"mine" for path in others)
    assert not any(scene.disk.size(path) for path in leftovers)
    with scene.open() as keep:
        assert keep.check(read_data=True).is_whole


def test_what_a_kill_before_the_mark_leaves_does_not_stop_the_next_run(scene):
    write(scene, scene.keep_path / f".pending.{'0' * 16}.tmp")
    write(scene, scene.keep_path / "run" / "serve.lock")
    recovered(scene)


def test_a_wrong_passphrase_leaves_what_a_recovery_left(scene):
    cut(scene)
    assert refused(scene, means=means_of("another one")) == "keys.passphrase"


# ---- a keep that is in use -----------------------------------------------------------------------


@pytest.mark.parametrize("name", ["run/serve.lock", "run/writer.lock", "ledger/wal-1.lock"])
def test_a_folder_in_which_something_runs_is_never_begun_anew(scene, monkeypatch, name):
    monkeypatch.setattr("modelkeep.sdk.restoration.LOCK_WAIT_S", 0.0)
    recovered(scene)
    lock = scene.keep_path / name
    lock.parent.mkdir(exist_ok=True)
    with held(lock, wait_s=0.0, what="a service"):
        assert refused(scene) == "lock.held"
    recovered(scene)


def test_a_keep_that_a_verb_has_opened_since_is_not_replaced(scene):
    recovered(scene)
    assert is_marked(scene)
    scene.open().close()
    assert not is_marked(scene)
    assert refused(scene) == "recover.exists"


def test_who_cannot_open_the_keep_does_not_end_its_recovery(scene):
    recovered(scene)
    with pytest.raises(KeepError):
        Keep(scene.keep_path, passphrase="no", world=scene.world(Fuse()))  # noqa: S106 - a wrong one
    assert is_marked(scene)


@pytest.mark.parametrize("actor", ["recovery", "supervisor", "cli:root"])
def test_only_a_recovery_that_runs_keeps_its_mark(scene, actor):
    recovered(scene)
    lock = KeepFolder(scene.keep_path).recovery_lock

    def opened():
        world = scene.world(Fuse())
        Keep(scene.keep_path, passphrase=PASSPHRASE, actor=actor, world=world).close()
        return is_marked(scene)

    with held(lock, wait_s=0.0, what="this test"):
        assert opened() == (actor != "cli:root")
    assert not opened()


def test_a_rehearsal_throws_no_store_away(tmp_path):
    stores = {"offsite": tmp_path / "drill" / "store"}
    with Keep.create(tmp_path, passphrase=PASSPHRASE, stores=stores, argon2=CHEAP) as keep:
        before = sorted((tmp_path / "drill").rglob("*"))
        with pytest.raises(KeepError) as failure:
            drilled(keep)
        assert failure.value.code == "recover.inside"
        assert sorted((tmp_path / "drill").rglob("*")) == before


# ---- the recovered modelkeep.toml ----------------------------------------------------------------


@pytest.mark.parametrize("name", ['a"]\nport = 1 #', 'quo"te', "back\\slash", "plain"])
def test_a_path_is_written_as_what_it_is_or_not_at_all(scene, name):
    moved = scene.folder / name
    for path, _ in scene.disk.walk(scene.offsite):
        scene.disk.rename(path, moved / path.relative_to(scene.offsite))
    if "\n" in name:
        assert refused(scene, source=moved) == "config.value"
        return
    recovered(scene, source=moved)
    with scene.open() as keep:
        assert keep.config.stores[1].path == str(moved)
        assert (keep.config.stores[0].label, keep.config.serve.port) == ("main", 8443)


def test_a_configuration_that_would_say_something_else_too_is_not_written(tmp_path):
    scene = Scene(tmp_path)
    scene.create().close()
    path = scene.keep_path / "modelkeep.toml"
    more = f'[[ledger.witness.stores]]\nlabel = "w"\npath = "{scene.offsite}"\n'
    scene.disk.rewrite(path, scene.disk.read(path) + more.encode())
    with scene.open() as keep:
        keep.backup()
    lose(scene, scene.keep_path)
    moved = scene.folder / "moved"
    for each, _ in scene.disk.walk(scene.offsite):
        scene.disk.rename(each, moved / each.relative_to(scene.offsite))
    assert refused(scene, source=moved) == "recover.config"
