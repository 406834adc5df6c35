"""Goal: a power cut at any moment of a key's life loses no key and revives none.

Method: as test_power_cuts: the fuse blows before every single change in turn, then what is left is
opened, judged, and the same command is run again.
"""

import contextlib

import pytest
from key_scenes import FILES, NEW, KeyScene, demand_whole, fill, key_ids
from onnx_models import two_models
from scenes import PASSPHRASE

from modelkeep.adapters.keyholder_local import local_keyholder
from modelkeep.core.errors import KeepError, RefusedError
from modelkeep.core.rows import Domain, DomainStatus
from modelkeep.crypto.secret import Secret
from modelkeep.flows.keyring import Keyring
from modelkeep.ports.keyholder import PASSPHRASE as SOURCE
from modelkeep.ports.keyholder import Means
from modelkeep.testing.memory import SeededEntropy
from modelkeep.testing.power import Fuse, PowerCut
from modelkeep.vault.objects import unverified_member

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    scene = KeyScene(tmp_path_factory.mktemp("cuts"))
    scene.create().close()
    fill(scene)
    return scene, scene.image()


def every_cut(filled, act, count):
    """Cut `act` before each of its changes (in CI: of a sample of them) and show what is left."""
    scene, before = filled
    scene.show(before)
    whole = Fuse()
    act(scene, whole)
    assert whole.count > 10
    step = max(1, whole.count // count(5, full=100_000))
    for at in sorted({*range(0, whole.count, step), whole.count - 1}):
        scene.show(before)
        with pytest.raises(PowerCut):
            act(scene, Fuse(at))
        scene.show(scene.image())
        yield at


def demand_one_ring(scene):
    rings = [
        {name: raw for name, raw in scene.objects(store).items() if name.startswith("keyring/")}
        for store in (scene.main, scene.offsite)
    ]
    assert len(rings[0]) == 1
    assert rings[0] == rings[1]


def domains_held(scene):
    """Every domain whose key is in any keyring of any store."""
    held = set()
    for store in (scene.main, scene.offsite):
        for name in scene.rings(store):
            ring = unverified_member(Keyring, name, scene.objects(store)[name])
            means = Means(source=SOURCE, passphrase=Secret(PASSPHRASE.encode()))
            body = local_keyholder(means, entropy=SeededEntropy()).unlock([ring])[1]
            held |= {each.name for each in body.domains}
    return held


@pytest.mark.verify("keys")
def test_a_cut_while_domains_are_made_is_made_up_for_by_the_same_command(filled, count):
    def make(scene, fuse):
        with scene.open(fuse) as keep:
            keep.access.new_tenant("blue", domain="blue-1")
            keep.keys.new("blue-1", "blue-2", tenant="blue")

    scene, _ = filled
    for _ in every_cut(filled, make, count):
        make(scene, Fuse())
        demand_one_ring(scene)
        with scene.open() as keep:
            rows = {row.name: row for row in keep.opened.state.rows(Domain)}
            assert {rows["blue-1"].tenant, rows["blue-2"].tenant} == {"blue"}
            assert keep.opened.domains.names() == ("acme", "blue-1", "blue-2", "default", "zeta")
            demand_whole(scene, keep, "fraud:2")


@pytest.mark.verify("keys")
def test_after_a_cut_of_a_rotation_exactly_one_passphrase_opens(filled, count):
    def rotate(scene, fuse):
        with scene.open(fuse) as keep:
            keep.keys.rotate(passphrase=NEW)

    scene, _ = filled
    opened = set()
    for at in every_cut(filled, rotate, count):
        found = []
        for passphrase in (PASSPHRASE, NEW):
            with contextlib.suppress(RefusedError):
                scene.open(passphrase=passphrase).close()
                found.append(passphrase)
        assert len(found) == 1, at
        demand_one_ring(scene)
        opened |= set(found)
        with scene.open(passphrase=found[0]) as keep:
            demand_whole(scene, keep, "fraud:2", "other:1")
    assert opened == {PASSPHRASE, NEW}


@pytest.mark.verify("keys")
def test_a_cut_of_a_split_leaves_a_keep_that_its_passphrase_opens(filled, count):
    def split(scene, fuse):
        with scene.open(fuse) as keep:
            keep.keys.split(needed=2, shares=3)

    scene, _ = filled
    for _ in every_cut(filled, split, count):
        scene.open().close()
        demand_one_ring(scene)
        with scene.open() as keep:
            words = keep.keys.split(needed=2, shares=3)
        with scene.open(means=Means(words=words[:2])) as keep:
            demand_whole(scene, keep, "fraud:2")


@pytest.mark.verify("keys")
def test_after_a_cut_of_a_rekey_everything_is_there_and_the_same_command_ends_it(filled, count):
    def rekey(scene, fuse):
        with scene.open(fuse) as keep:
            keep.keys.rekey("acme")

    scene, before = filled
    scene.show(before)
    with scene.open() as keep:
        (old,) = key_ids(keep, "acme")
    for _ in every_cut(filled, rekey, count):
        with scene.open() as keep:
            demand_whole(scene, keep, *FILES)
        rekey(scene, Fuse())
        demand_one_ring(scene)
        with scene.open() as keep:
            assert len(key_ids(keep, "acme")) == 1
            demand_whole(scene, keep, *FILES)
        for store in (scene.main, scene.offsite):
            assert not scene.objects(store, old)


@pytest.mark.verify("keys")
def test_after_a_cut_of_a_destruction_the_next_opening_ends_it_or_nothing_happened(filled, count):
    def destroy(scene, fuse):
        with scene.open(fuse) as keep:
            keep.keys.destroy("acme")

    scene, _ = filled
    seen = set()
    for at in every_cut(filled, destroy, count):
        scene.open().close()
        demand_one_ring(scene)
        with scene.open() as keep:
            statuses = {row.name: row.status for row in keep.opened.state.rows(Domain)}
            seen.add(statuses["acme"])
            if statuses["acme"] is DomainStatus.LIVE:
                demand_whole(scene, keep, *FILES)
                continue
            assert domains_held(scene) == {"default", "zeta"}, at
            assert [each.name for each in keep.models()] == ["digits", "other"]
            with pytest.raises(KeepError):
                keep.admit(two_models()[0], name="new", domain="acme")
            keep.backup()
            demand_whole(scene, keep, "digits:1", "other:1")
    assert seen == {DomainStatus.LIVE, DomainStatus.DESTROYED}
