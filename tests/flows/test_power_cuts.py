"""Goal: a power cut at any moment costs nothing that was acknowledged.

Method: run a keep's life over `SimulatedDisk`, which forgets whatever was not synced, and blow the
fuse before every single change in turn: store objects, journal frames, configuration, heads, and
before and after each State transaction. Then open what is left, on a disk that works again.
"""

from collections.abc import Callable
from pathlib import Path

import pytest
from onnx_models import two_models
from scenes import PASSPHRASE, Scene

from modelkeep.core.rows import Alias
from modelkeep.sdk.keep import Keep, means_of
from modelkeep.sdk.restoration import Plan, restored_folder
from modelkeep.testing.power import Fuse, PowerCut
from modelkeep.wiring import KeepFolder


def admit(version: int) -> Callable[[Scene, Fuse], None]:
    def act(scene: Scene, fuse: Fuse) -> None:
        with scene.open(fuse) as keep:
            done = keep.admit(two_models()[version - 1], name="digits")
            assert done.version == version

    return act


def create(scene: Scene, fuse: Fuse) -> None:
    scene.create(fuse).close()


def alias(scene: Scene, fuse: Fuse) -> None:
    with scene.open(fuse) as keep:
        keep.set_alias("digits:prod", 1)


def token(scene: Scene, fuse: Fuse) -> None:
    with scene.open(fuse) as keep:
        keep.access.new_token("alice")


def revoke(scene: Scene, fuse: Fuse) -> None:
    with scene.open(fuse) as keep:
        keep.access.revoke_token(keep.access.tokens()[0].token_id)


def principal(scene: Scene, fuse: Fuse) -> None:
    with scene.open(fuse) as keep:
        keep.access.new_principal("eve", roles=("caller",))
        keep.access.disable_principal("eve")


def backup(scene: Scene, fuse: Fuse) -> None:
    with scene.open(fuse) as keep:
        assert all(report.is_whole for report in keep.backup())


def configure(scene: Scene, fuse: Fuse) -> None:
    """The operator edits modelkeep.toml; the next opening gives the stores a copy."""
    path = scene.keep_path / "modelkeep.toml"
    text = scene.disk.read(path).replace(b"replicas = 2", b"replicas = 3")
    scene.disk.rewrite(path, text)
    scene.open(fuse).close()


LIFE: tuple[tuple[str, Callable[[Scene, Fuse], None]], ...] = (
    ("create", create),
    ("admit-1", admit(1)),
    ("alias", alias),
    ("token", token),
    ("backup-1", backup),
    ("admit-2", admit(2)),
    ("configure", configure),
    ("revoke", revoke),
    ("backup-2", backup),
    ("principal", principal),
)


def demand_acknowledged(keep: Keep, done: list[str], folder: Path) -> None:
    """Everything that was acknowledged is there, and everything that is there is whole."""
    versions = [each.version for each in keep.models()]
    for version in (1, 2):
        if f"admit-{version}" in done:
            assert version in versions
            out = folder / f"out-{version}.onnx"
            keep.restore(f"digits:{version}", out, force=True)
            assert keep.folder.world.disk.read(out) == two_models()[version - 1].read_bytes()
    if "alias" in done:
        assert Alias(model="digits", alias="prod", version=1) in keep.opened.state.rows(Alias)
    if "token" in done:
        assert [each.principal for each in keep.access.tokens()] == ["alice"]
    if "revoke" in done:
        assert keep.access.tokens()[0].revoked
    if "principal" in done:
        assert [(each.name, each.disabled) for each in keep.access.principals()] == [("eve", True)]
    assert keep.check(read_data=True).is_whole
    for _, report in keep.ledger.verify():
        assert report.is_whole, report.findings


@pytest.mark.slow
@pytest.mark.parametrize("place", range(len(LIFE)), ids=[name for name, _ in LIFE])
def test_a_cut_before_any_change_loses_nothing_that_was_acknowledged(place, tmp_path):
    scene = Scene(tmp_path)
    for _, act in LIFE[:place]:
        act(scene, Fuse())
    before = scene.image()
    done = [name for name, _ in LIFE[:place]]
    name, act = LIFE[place]
    whole = Fuse()
    act(scene, whole)
    assert whole.count > 3
    for at in range(whole.count):
        scene.show(before)
        with pytest.raises(PowerCut):
            act(scene, Fuse(at))
        scene.show(scene.image())
        if name == "create" and scene.disk.size(scene.keep_path / "modelkeep.toml") is None:
            create(scene, Fuse())
        scene.open(Fuse()).close()  # what was recorded but not published goes to every store
        with scene.open(Fuse()) as keep:
            demand_acknowledged(keep, done, tmp_path)
        if name not in ("create", "token"):
            act(scene, Fuse())
            with scene.open(Fuse()) as keep:
                demand_acknowledged(keep, [*done, name], tmp_path)


@pytest.mark.slow
def test_a_cut_before_any_change_of_a_recovery_leaves_one_that_can_be_run_again(tmp_path):
    scene = Scene(tmp_path)
    done = [name for name, act in LIFE[:7] if act(scene, Fuse()) is None]
    done.remove("configure")
    backup(scene, Fuse())
    for path, _ in scene.disk.walk(scene.keep_path):
        scene.disk.lose(path)
    for path in scene.keep_path.glob("state.db*"):
        path.unlink()
    before = scene.image()

    def recover(fuse: Fuse) -> None:
        plan = Plan(target=scene.keep_path, source=scene.offsite, means=means_of(PASSPHRASE))
        restored_folder(plan, KeepFolder(scene.keep_path, scene.world(fuse)), lambda _: 0.0)

    whole = Fuse()
    recover(whole)
    assert whole.count > 100
    for at in range(whole.count):
        scene.show(before)
        with pytest.raises(PowerCut):
            recover(Fuse(at))
        scene.show(scene.image())
        if scene.disk.size(scene.keep_path / "modelkeep.toml") is None:
            recover(Fuse())
        with scene.open() as keep:
            assert keep.opened.epochs[-1].number == 1
            if at % 7 == 0:
                demand_acknowledged(keep, done, tmp_path)
            else:
                assert [each.version for each in keep.models()] == [1, 2]
