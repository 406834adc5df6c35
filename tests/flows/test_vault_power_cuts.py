"""Goal: whatever a power cut leaves of a backup, a prune, a repair, every snapshot comes back.

Method: a keep with a fast and a small store, deltas, several packs and several snapshots lies on a
`SimulatedDisk`. Each procedure is cut before every single change in turn. What is left is opened:
every snapshot that was committed and is kept is read from all stores together, and from each store
alone as far as its own head goes; the procedure is run again, and both stores are whole.

Two disks: one that forgets all that was not synced, and one on which chance decides what of it
survives, in which order (seeded; the seed is printed when it fails).
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

import pytest
from vault_scenes import VaultScene

from modelkeep.core.names import key_id_of
from modelkeep.flows.keep import current_head
from modelkeep.flows.prune import PrunePolicy
from modelkeep.flows.registry import proof_of
from modelkeep.kernels.digest import digest_of
from modelkeep.sdk.keep import Keep
from modelkeep.sdk.upkeep import Upkeep
from modelkeep.seal.trust import file_of
from modelkeep.testing.power import Fuse, PowerCut
from modelkeep.vault.check import snapshots
from modelkeep.vault.load import Reader
from modelkeep.vault.objects import latest
from modelkeep.vault.snapshot import Head

TIDY = PrunePolicy(keep_last=1, waste_max=0.0)


@dataclass
class Case:
    """What a procedure starts from, and what it is."""

    name: str
    prepare: Callable[[VaultScene], None]
    act: Callable[[Keep], None]
    snapshots_min: int = field(default=1)


def backup(keep: Keep) -> None:
    assert all(report.is_whole for report in keep.backup())


def prune(keep: Keep) -> None:
    report = Upkeep(keep).prune(TIDY)
    assert report.is_done
    # Not vacuous, unless a cut run has done it already: packs go, what is needed of others moves.
    main, offsite = report.stores
    assert not report.dropped or (main.packs > main.moved and offsite.packs >= offsite.moved > 0)


def repair(keep: Keep) -> None:
    assert Upkeep(keep).repair().is_whole


def nothing(scene: VaultScene) -> None:
    """The keep as `grown` leaves it."""


def backed_up(scene: VaultScene) -> None:
    with scene.open() as keep:
        backup(keep)


def shrunk(scene: VaultScene) -> None:
    """All but one delta were removed, its base too; both stores know."""
    with scene.open() as keep:
        for reference in ("family:1", "family:2", "other:1"):
            Upkeep(keep).remove(reference)
        backup(keep)


def hurt(scene: VaultScene, store: str) -> None:
    """One store lost a pack, an index and a recipe, and has two damaged packs."""
    backed_up(scene)
    root = getattr(scene, store)
    packs = scene.disk.walk(root / "pack")
    scene.disk.lose(packs[0][0])
    for path, size in packs[1:3]:
        raw = bytearray(scene.disk.read(path))
        raw[size // 2] ^= 1
        scene.disk.rewrite(path, bytes(raw))
    for kind in ("index", "recipe"):
        scene.disk.lose(scene.disk.walk(root / kind)[0][0])


CASES = (
    Case("backup", nothing, backup, snapshots_min=4),
    Case("backup-again", backed_up, backup, snapshots_min=4),
    Case("prune", shrunk, prune),
    Case("prune-behind", nothing, lambda keep: Upkeep(keep).prune(TIDY)),
    Case("backup-after-prune", lambda scene: (shrunk(scene), run(scene, prune)), backup),
    Case("repair-fast", lambda scene: hurt(scene, "main"), repair, snapshots_min=4),
    Case("repair-small", lambda scene: hurt(scene, "offsite"), repair, snapshots_min=4),
)


def run(scene: VaultScene, act: Callable[[Keep], None], fuse: Fuse | None = None) -> None:
    with scene.open(fuse) as keep:
        act(keep)


@pytest.fixture(scope="module")
def grown(tmp_path_factory):
    """Three versions of one family, one of them twice, backed up half-way."""
    scene = VaultScene(tmp_path_factory.mktemp("power"))
    with scene.create() as keep:
        scene.admit(keep, 0)
        scene.admit(keep, 1)
        keep.backup()
        scene.admit(keep, 1, name="other")
        scene.admit(keep, 2)
    return scene, scene.image()


def demand_snapshots(keep: Keep, reader: Reader, name: str) -> int:
    """Every artifact of every kept snapshot comes back as its signed manifest says."""
    seen: set[str] = set()
    count = 0
    for _, snapshot in snapshots(reader, name):
        count += 1
        for entry in snapshot.artifacts:
            if entry.recipe in seen:
                continue
            seen.add(entry.recipe)
            proof = proof_of(keep.opened, reader, snapshot, name=entry.name, version=entry.version)
            for file in reader.recipe(entry.recipe).files:
                target = bytearray(file.size_bytes)
                reader.file_into(memoryview(target), file, key_id=key_id_of(entry.recipe))
                wanted = file_of(proof.manifest, file.path).digest
                assert digest_of(bytes(target)) == wanted, entry
    return count


def demand_restorable(keep: Keep, case: Case, *, is_hurt: bool) -> None:
    opened = keep.opened
    whole = demand_snapshots(keep, opened.reader(may_heal=False), current_head(opened).snapshot)
    assert whole >= case.snapshots_min
    for store in opened.stores if not is_hurt else ():
        own = latest(Head, store, "head", public=opened.public).member
        demand_snapshots(keep, opened.reader_of((store,)), own.snapshot)


@pytest.mark.slow
@pytest.mark.verify("vault-power")
@pytest.mark.parametrize("disk", ["forgets", "reorders"])
@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_a_cut_before_any_change_leaves_every_snapshot_restorable(grown, case, disk, count):
    scene, image = grown
    scene.show(image)
    case.prepare(scene)
    before = scene.image()
    whole = Fuse()
    run(scene, case.act, whole)
    assert whole.count > 20
    is_hurt = case.name.startswith("repair")
    again_every = count(5, full=1)
    rounds = count(1, full=5) if disk == "reorders" else 1
    for at in range(whole.count):
        for turn in range(rounds):
            seed = f"{case.name}/{at}/{turn}"
            chance = Random(seed) if disk == "reorders" else None  # noqa: S311 - of what survives
            scene.show(before)
            with pytest.raises(PowerCut):
                run(scene, case.act, Fuse(at))
            scene.show_after_cut(chance)
            with scene.open() as keep:
                demand_restorable(keep, case, is_hurt=is_hurt)
            if (at + turn) % again_every == 0:
                run(scene, case.act)
                with scene.open() as keep:
                    keep.backup()
                    demand_restorable(keep, case, is_hurt=False)
                    report = Upkeep(keep).check(read_data=1.0)
                    assert report.is_whole, (at, turn, report.findings)


@pytest.mark.slow
def test_a_disk_that_lies_about_syncs_would_be_found_out(grown, monkeypatch):
    """The test above is worth something: without the syncs of objects it must fail."""
    scene, image = grown
    scene.show(image)
    shrunk(scene)
    before = scene.image()
    monkeypatch.setattr(type(scene.disk), "sync", lambda self, _: self.fuse.spend())
    whole = Fuse()
    run(scene, prune, whole)
    losses = 0
    for at in range(whole.count // 2, whole.count):
        scene.show(before)
        with pytest.raises(PowerCut):
            run(scene, prune, Fuse(at))
        scene.show_after_cut(Random(at))  # noqa: S311 - it chooses what survives
        try:
            with scene.open() as keep:
                demand_restorable(keep, CASES[2], is_hurt=False)
        except Exception:  # noqa: BLE001 - any failure is the one that was wanted
            losses += 1
    assert losses
