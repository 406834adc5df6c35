"""Goal: one store and the passphrase bring back all that the store can honour, and say the rest.

The part before any process, over a simulated disk; tests/cli/ recovers with real processes.
"""

import pytest
from onnx_models import two_models
from scenes import PASSPHRASE, Scene

from modelkeep.core.errors import IntegrityError, MissingError, RefusedError
from modelkeep.core.rows import Alias
from modelkeep.sdk.keep import means_of
from modelkeep.sdk.restoration import Plan, restored_folder
from modelkeep.testing.power import Fuse
from modelkeep.wiring import KeepFolder


@pytest.fixture
def scene(tmp_path):
    scene = Scene(tmp_path)
    with scene.create() as keep:
        keep.admit(two_models()[0], name="digits")
        keep.set_alias("digits:prod", 1)
        keep.access.new_token("alice")
        keep.backup()
    return scene


def destroyed(scene):
    """The whole keep folder is gone."""
    for path, _ in scene.disk.walk(scene.keep_path):
        scene.disk.lose(path)
    for path in scene.keep_path.glob("state.db*"):
        path.unlink()


def recovered(scene, *, passphrase=PASSPHRASE, expected=None):
    plan = Plan(
        target=scene.keep_path,
        source=scene.offsite,
        means=means_of(passphrase),
        expected=expected,
    )
    folder = KeepFolder(scene.keep_path, scene.world(Fuse()))
    return restored_folder(plan, folder, lambda _: 0.0)


def demand_whole(keep):
    assert keep.check(read_data=True).is_whole
    assert all(report.is_whole for _, report in keep.ledger.verify())


def test_everything_that_was_backed_up_comes_back(scene):
    destroyed(scene)
    assert recovered(scene).lost == ()
    with scene.open() as keep:
        assert [each.version for each in keep.models()] == [1]
        assert keep.opened.state.rows(Alias) == (Alias(model="digits", alias="prod", version=1),)
        assert [token.principal for token in keep.access.tokens()] == ["alice"]
        kinds = [entry.kind for _, entry in keep.ledger.entries()]
        assert kinds[keep.opened.epochs[-1].base] == "ledger.resumed"
        demand_whole(keep)


def test_a_commit_that_was_never_backed_up_is_named_and_does_not_stop_the_recovery(scene):
    with scene.open() as keep:
        keep.admit(two_models()[1], name="digits")
        before = keep.opened.state.applied().head
    destroyed(scene)
    assert recovered(scene).lost == ("digits:2",)
    with scene.open() as keep:
        assert [each.version for each in keep.models()] == [1]
        assert keep.opened.state.applied().head > before
        again = keep.admit(two_models()[1], name="digits")
        assert again.version == 3  # a number that was in use is not used again
        assert all(report.is_whole for report in keep.backup())
        demand_whole(keep)


def test_a_recovered_keep_can_be_lost_and_recovered_again(scene):
    for number in (1, 2, 3):
        destroyed(scene)
        recovered(scene)
        with scene.open() as keep:
            assert keep.opened.epochs[-1].number == number
            assert all(report.is_whole for report in keep.backup())
            demand_whole(keep)


def test_an_expected_checkpoint_proves_freshness(scene):
    with scene.open() as keep:
        checkpoint = keep.ledger.checkpoint().raw
    destroyed(scene)
    assert recovered(scene, expected=checkpoint).was.is_expected


def test_a_store_that_was_rolled_back_is_refused_when_a_newer_checkpoint_is_expected(scene):
    old = {path: scene.disk.read(path) for path, _ in scene.disk.walk(scene.offsite)}
    with scene.open() as keep:
        keep.access.new_token("bob")
    with scene.open() as keep:
        newer = keep.ledger.checkpoint().raw
    destroyed(scene)
    for path, _ in scene.disk.walk(scene.offsite):
        scene.disk.lose(path)
    for path, raw in old.items():
        scene.disk.create(path, raw)
        scene.disk.rewrite(path, raw)
        scene.disk.sync_folder(path.parent)
    with pytest.raises(IntegrityError):
        recovered(scene, expected=newer)
    assert scene.disk.size(scene.keep_path / "modelkeep.toml") is None
    assert not recovered(scene).was.is_expected


def test_a_wrong_passphrase_recovers_nothing(scene):
    destroyed(scene)
    with pytest.raises(RefusedError):
        recovered(scene, passphrase="another one")  # noqa: S106 - a wrong one
    assert scene.disk.size(scene.keep_path / "modelkeep.toml") is None


def test_an_empty_folder_is_no_store_to_recover_from(scene):
    destroyed(scene)
    for path, _ in scene.disk.walk(scene.offsite):
        scene.disk.lose(path)
    with pytest.raises(MissingError):
        recovered(scene)


def test_damage_that_no_entry_depends_on_does_not_stop_a_recovery(scene):
    for name in ("bob", "carol"):
        with scene.open() as keep:
            keep.access.new_token(name)
    destroyed(scene)
    bundles = [path for path, _ in scene.disk.walk(scene.offsite) if "entries" in path.parts]
    assert len(bundles) > 1
    oldest = min(bundles, key=lambda path: int(path.name))
    raw = scene.disk.read(oldest)
    scene.disk.rewrite(oldest, raw[:-1] + bytes([raw[-1] ^ 1]))
    assert recovered(scene).damaged


def test_an_entry_that_is_gone_stops_a_recovery(scene):
    destroyed(scene)
    for path, _ in scene.disk.walk(scene.offsite):
        if "body" in path.parts:
            raw = scene.disk.read(path)
            scene.disk.rewrite(path, raw[:-1] + bytes([raw[-1] ^ 1]))
    with pytest.raises(IntegrityError):
        recovered(scene)


def test_a_store_that_is_not_mounted_is_not_taken_for_an_empty_one(scene):
    for path, _ in scene.disk.walk(scene.offsite):
        scene.disk.lose(path)
    with scene.open() as keep:
        assert "backup.empty" in keep.backup()[0].error
        assert keep.backup(fresh=["offsite"])[0].is_whole


def test_a_backup_writes_nothing_into_another_keeps_store(scene, tmp_path):
    other = Scene(tmp_path / "other", seed=10_000)
    other.create().close()
    for path, _ in scene.disk.walk(scene.offsite):
        scene.disk.lose(path)
    for path, _ in other.disk.walk(other.offsite):
        target = scene.offsite / path.relative_to(other.offsite)
        scene.disk.create(target, other.disk.read(path))
        scene.disk.sync(target)
        scene.disk.sync_folder(target.parent)
    with scene.open() as keep:
        before = {path: scene.disk.read(path) for path, _ in scene.disk.walk(scene.offsite)}
        assert "backup.foreign" in keep.backup()[0].error
        assert {path: scene.disk.read(path) for path, _ in scene.disk.walk(scene.offsite)} == before


def test_a_backup_reads_back_what_it_vouches_for(scene):
    for kind in ("config", "keyring", "envelope", "pack"):
        for path, _ in scene.disk.walk(scene.offsite / kind):
            raw = scene.disk.read(path)
            scene.disk.rewrite(path, raw[:-1] + bytes([raw[-1] ^ 1]))
    with scene.open() as keep:
        report = keep.backup()[0]
        assert report.replaced >= 4
        assert report.is_whole
    destroyed(scene)
    recovered(scene)


def test_a_keep_that_was_recovered_elsewhere_is_not_written_any_more(scene):
    before = scene.image()
    destroyed(scene)
    recovered(scene)
    offsite = {path: scene.disk.read(path) for path, _ in scene.disk.walk(scene.offsite)}
    scene.show(before)
    for path, raw in offsite.items():
        if scene.disk.size(path) is None:
            scene.disk.create(path, raw)
            scene.disk.sync(path)
            scene.disk.sync_folder(path.parent)
    with pytest.raises(RefusedError) as refusal:
        scene.open()
    assert refusal.value.code == "keep.superseded"


def test_an_index_after_a_recovery_is_the_one_that_every_verb_means(scene):
    destroyed(scene)
    recovered(scene)
    with scene.open() as keep:
        first = keep.ledger.append("note.audit", {"n": 1}, private={"who": "A. Smith"})
        second = keep.ledger.append("note.audit", {"n": 2}, private={"who": "B. Jones"})
        assert keep.ledger.entry(second).facts["n"] == 2
        keep.ledger.erase(second, reason="asked for")
        found = dict(keep.ledger.entries(first))
        assert found[first].facts["n"] == 1
        assert keep.ledger.private_facts(found[first]) == {"who": "A. Smith"}
        assert keep.ledger.private_facts(found[second]) is None


def test_junk_with_high_numbers_does_not_hide_the_keyring(scene):
    """Whoever may only add objects has the highest numbers; the lowest are read too."""
    with scene.open() as keep:
        for store in keep.opened.stores:
            for number in range(5):
                store.put(f"keyring/99999999999{number}", b"junk")
    with scene.open() as keep:
        assert [each.version for each in keep.models()]
