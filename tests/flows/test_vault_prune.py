"""Pruning as a story: uploads under way, stores that refuse to delete, copies that are damaged."""

import pytest
from vault_scenes import VaultScene

from modelkeep.core.artifact import Manifest
from modelkeep.core.errors import UnavailableError
from modelkeep.flows.deposit import entered, written
from modelkeep.flows.keep import current_head, current_snapshot
from modelkeep.flows.prune import PrunePolicy, pruned
from modelkeep.sdk.upkeep import Upkeep
from modelkeep.vault.commit import Deposit
from modelkeep.vault.index import ChunkIndex
from modelkeep.vault.mend import opened_indexes, picked
from tests.flows.test_vault_power_cuts import TIDY, demand_snapshots
from tests.unit.vault.parts import source


@pytest.fixture
def scene(tmp_path):
    """Two versions, in both stores; the first one was removed since."""
    scene = VaultScene(tmp_path)
    with scene.create() as keep:
        scene.admit(keep, 0)
        scene.admit(keep, 1)
        Upkeep(keep).remove("family:1")
        keep.backup()
    return scene


def upload(keep, raw):
    opened = keep.opened
    return written(
        opened,
        [source(raw, "fresh.bin", segment_bytes=4 << 20)],
        domain=opened.domains.named("default"),
        snapshot=current_snapshot(opened),
        vault=keep.config.vault,
    )


def enter(keep, done):
    manifest = Manifest(
        name="fresh",
        version=0,
        kind="unknown",
        domain="default",
        admitted_ns=1,
        files=tuple(each.entry for each in done.wrote.files),
    )
    return entered(
        keep.opened,
        manifest,
        done.recipe(),
        domain=done.domain,
        kind="model.admitted",
        vault=keep.config.vault,
    )


def test_what_is_being_uploaded_stays_while_it_is(scene):
    with scene.open() as keep:
        done = upload(keep, b"fresh bytes" * 2000)
        report = pruned(keep.opened, TIDY, vault=keep.config.vault, uploading=True)
        assert report.dropped
        assert report.stores[0].packs  # what only old snapshots named goes all the same
        manifest, _ = enter(keep, done)
        keep.restore("fresh:1", scene.folder / "out")
        assert scene.disk.read(scene.folder / "out") == b"fresh bytes" * 2000
        assert manifest.version == 1


def test_a_commit_whose_chunks_a_prune_took_is_refused_and_may_store_them_again(scene):
    with scene.open() as keep:
        done = upload(keep, b"fresh bytes" * 2000)
        pruned(keep.opened, TIDY, vault=keep.config.vault)
        with pytest.raises(UnavailableError) as refusal:
            enter(keep, done)
        assert refusal.value.code == "vault.pruned"
        enter(keep, upload(keep, b"fresh bytes" * 2000))
        assert Upkeep(keep).check(read_data=1.0).is_whole


def test_a_commit_whose_pack_is_gone_though_indexed_is_refused(scene):
    with scene.open() as keep:
        done = upload(keep, b"fresh bytes" * 2000)
        keep.opened.store.delete(done.wrote.packs[0].name)
        with pytest.raises(UnavailableError):
            enter(keep, done)


@pytest.mark.parametrize("kinds", [("pack",), ("index",), ("pack", "index", "recipe", "head")])
def test_a_store_that_refuses_to_delete_keeps_all_and_stays_whole(scene, kinds, monkeypatch):
    with scene.open() as keep:
        store = keep.opened.stores[1]
        delete = store.delete

        def refused(name):
            if name.startswith(kinds):
                raise UnavailableError("store.write", "the object is locked")
            delete(name)

        monkeypatch.setattr(store, "delete", refused)
        report = Upkeep(keep).prune(TIDY)
        assert report.is_done
        assert report.stores[1].refused
        assert not report.stores[0].refused
    with scene.open() as keep:
        assert Upkeep(keep).check(read_data=1.0).is_whole
        head = current_head(keep.opened).snapshot
        demand_snapshots(keep, keep.opened.reader_of((keep.opened.stores[1],)), head)
        assert not Upkeep(keep).prune(TIDY).stores[1].refused  # the lock has ended
        assert Upkeep(keep).check(read_data=1.0).is_whole


def test_a_second_copy_is_not_given_up_for_one_that_is_damaged(scene):
    """Every chunk lies twice; the packs of one set are damaged: those that are whole stay."""
    with scene.open() as keep:
        opened = keep.opened
        names = {stat.name for stat in opened.store.list("pack/")}
        domain = opened.domains.named("default")
        writer = opened.writer_to(opened.store, domain, keep.config.vault)

        deposit = Deposit(writer, ChunkIndex())
        indexes = list(opened_indexes(opened.store, domain=domain, public=opened.public))
        for pack in [pack for _, index in indexes for pack in index.packs]:
            for chunk in picked(opened.store, pack, range(99), domain=domain):
                deposit.add(chunk)
        deposit.finished()
        twins = {stat.name for stat in opened.store.list("pack/")} - names
        assert twins
    for name in twins:
        path = scene.main / name
        raw = bytearray(scene.disk.read(path))
        raw[100] ^= 1
        scene.disk.rewrite(path, bytes(raw))
    with scene.open() as keep:
        assert Upkeep(keep).prune(TIDY).is_done
        assert not {stat.name for stat in keep.opened.store.list("pack/")} & twins
        assert Upkeep(keep).check(read_data=1.0).is_whole
        scene.demand_whole(keep, {"family:2": 1})


def test_a_damaged_store_is_passed_over(scene):
    for path, _ in scene.disk.walk(scene.offsite / "index"):
        scene.disk.rewrite(path, scene.disk.read(path)[:-1])
    with scene.open() as keep:
        before = scene.objects(scene.offsite)
        main, offsite = Upkeep(keep).prune(TIDY).stores
        assert not main.error
        assert offsite.error
        assert scene.objects(scene.offsite) == before
        Upkeep(keep).repair()
        keep.backup()
        assert Upkeep(keep).prune(TIDY).is_done
        assert Upkeep(keep).check(read_data=1.0).is_whole


def test_a_prune_without_a_wish_keeps_every_snapshot_and_takes_what_cut_runs_left(scene):
    with scene.open() as keep:
        upload(keep, b"never committed" * 2000)
        report = Upkeep(keep).prune(PrunePolicy())
        assert (report.dropped, report.stores[0].packs > 0) == (0, True)
        head = current_head(keep.opened).snapshot
        assert demand_snapshots(keep, keep.opened.reader(), head) == 3
