"""Goal: a full disk and a store that fails one call in three end in an error or in success.

Method: a keep with a fast and a small store. Each procedure runs on a disk on which ever fewer
bytes are free, and on one whose stores fail every third call at random. It either says that it
could not (an error of ours), or is done. Then the fault ends: every snapshot that was acknowledged
comes back, and the same procedure brings everything to be whole.
"""

import errno
import random

import pytest
from small_disk import SmallDisk
from vault_scenes import VaultScene

from modelkeep.core.errors import KeepError
from modelkeep.flows.keep import current_head
from modelkeep.sdk.keep import Keep
from modelkeep.sdk.upkeep import Upkeep
from modelkeep.testing.power import SimulatedDisk
from tests.flows.test_vault_power_cuts import TIDY, demand_snapshots, hurt


class FailingDisk(SimulatedDisk):
    """Fails a share of all operations below some folders."""

    def __init__(self, roots, rng, share):
        super().__init__()
        self.roots, self.rng, self.share = tuple(map(str, roots)), rng, share
        self.failed = 0

    def _may_fail(self, path):
        if str(path).startswith(self.roots) and self.rng.random() < self.share:
            self.failed += 1
            raise OSError(errno.EIO, "Input/output error")

    def create(self, path, raw):
        self._may_fail(path)
        super().create(path, raw)

    def sync(self, path):
        self._may_fail(path)
        super().sync(path)

    def link(self, source, target):
        self._may_fail(target)
        super().link(source, target)

    def sync_folder(self, folder):
        self._may_fail(folder)
        super().sync_folder(folder)

    def read(self, path, start=0, length=None):
        self._may_fail(path)
        return super().read(path, start, length)


def moved(disk, to):
    """The same files on another disk."""
    left = disk.after_power_cut()
    to._seen, to._durable = left._seen, left._durable
    return to


def admit(scene: VaultScene, keep: Keep) -> None:
    scene.admit(keep, 2)


def backup(_: VaultScene, keep: Keep) -> None:
    keep.backup()


def prune(_: VaultScene, keep: Keep) -> None:
    Upkeep(keep).prune(TIDY)


def repair(_: VaultScene, keep: Keep) -> None:
    Upkeep(keep).repair()


ACTS = {"admit": admit, "backup": backup, "prune": prune, "repair": repair}


@pytest.fixture(scope="module")
def grown(tmp_path_factory):
    scene = VaultScene(tmp_path_factory.mktemp("faults"))
    with scene.create() as keep:
        scene.admit(keep, 0)
        scene.admit(keep, 1)
        keep.backup()
        Upkeep(keep).remove("family:1")
        scene.admit(keep, 0, name="other")
    return scene, scene.image()


def prepared(grown, name):
    scene, image = grown
    scene.show(image)
    if name == "repair":
        hurt(scene, "offsite")
    elif name == "prune":
        with scene.open() as keep:
            keep.backup()
    return scene, scene.image()


def attempted(scene, name):
    """Whether the procedure was done; otherwise it said why not, in our words."""
    try:
        with scene.open() as keep:
            ACTS[name](scene, keep)
    except KeepError:
        return False
    return True


def demand_whole(scene, name, wanted):
    """Nothing was lost; and without the fault everything can be brought to be whole."""
    with scene.open() as keep:
        opened = keep.opened
        demand_snapshots(keep, opened.reader(may_heal=False), current_head(opened).snapshot)
        held = {f"{each.name}:{each.version}" for each in keep.models()}
        assert wanted <= held
        if name != "admit":
            ACTS[name](scene, keep)
        Upkeep(keep).repair()
        keep.backup()
        report = Upkeep(keep).check(read_data=1.0)
        assert report.is_whole, report.findings
        for store in opened.stores:
            demand_snapshots(keep, opened.reader_of((store,)), current_head(opened).snapshot)


@pytest.mark.slow
@pytest.mark.parametrize("name", ACTS)
def test_a_full_disk_ends_in_an_error_or_in_success_and_loses_nothing(grown, name):
    scene, image = prepared(grown, name)
    outcomes = set()
    for free in (0, 300, 3_000, 8_000, 20_000, 40_000, 80_000, 1_000_000):
        scene.show(image)
        used = sum(size for _, size in scene.disk.walk(scene.folder))
        scene.disk = moved(scene.disk, SmallDisk(used + free))
        outcomes.add(attempted(scene, name))
        scene.disk = moved(scene.disk, SimulatedDisk())
        demand_whole(scene, name, {"family:2", "other:1"})
    assert True in outcomes


@pytest.mark.slow
@pytest.mark.verify("vault-faults")
@pytest.mark.parametrize("name", ACTS)
@pytest.mark.parametrize("share", [0.02, 1 / 3])
def test_a_store_that_fails_ends_in_an_error_or_in_success_and_loses_nothing(
    grown, name, share, count
):
    scene, image = prepared(grown, name)
    failed = 0
    for seed in range(count(15, full=500)):
        scene.show(image)
        roots = [(scene.main, scene.offsite), (scene.main,), (scene.offsite,)][seed % 3]
        rng = random.Random(f"{name}/{share}/{seed}")  # noqa: S311 - it chooses what fails
        disk = scene.disk = moved(scene.disk, FailingDisk(roots, rng, share))
        attempted(scene, name)
        failed += disk.failed
        scene.disk = moved(disk, SimulatedDisk())
        demand_whole(scene, name, {"family:2", "other:1"})
    assert failed
