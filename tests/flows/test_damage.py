"""Goal: whatever single thing happens to one store, it is noticed, and healed from the other.

Method: damage every object of either store in turn (a flipped bit, a truncation, another object's
bytes, deletion), open the keep, read both models back, repair, compare with what was there.
"""

import random
import time

import pytest
from onnx_models import two_models
from scenes import Scene

from modelkeep.core.errors import IntegrityError
from modelkeep.core.rows import Alias

KINDS = ("flip", "truncate", "swap", "delete")


@pytest.fixture(scope="module")
def life(tmp_path_factory):
    scene = Scene(tmp_path_factory.mktemp("damage"))
    with scene.create() as keep:
        for path in two_models():
            keep.admit(path, name="digits")
        keep.set_alias("digits:prod", 1)
        keep.access.new_token("alice")
        keep.backup()
    with scene.open() as keep:
        assert keep.check(read_data=True).is_whole
        assert all(report.is_whole for _, report in keep.ledger.verify())
    return scene, scene.image()


def damaged(raw: bytes, kind: str, other: bytes, rng: random.Random) -> bytes | None:
    if kind == "flip":
        at = rng.randrange(len(raw))
        return raw[:at] + bytes([raw[at] ^ (1 << rng.randrange(8))]) + raw[at + 1 :]
    if kind == "truncate":
        return raw[: rng.randrange(len(raw))]
    return other if kind == "swap" else None


@pytest.mark.slow
@pytest.mark.verify("damage")
@pytest.mark.parametrize("side", ["main", "offsite"])
def test_damage_to_any_object_of_one_store_is_noticed_and_healed(life, side, count):
    scene, image = life
    seed = time.time_ns()
    rng = random.Random(seed)  # noqa: S311 - it chooses what to damage, no key
    scene.show(image)
    root = getattr(scene, side)
    paths = [path for path, _ in scene.disk.walk(root) if {".tmp", "alive"}.isdisjoint(path.parts)]
    assert len(paths) > 20
    for path in paths:
        for kind in rng.sample(KINDS, count(1, full=4)):
            scene.show(image)
            raw = scene.disk.read(path)
            other = rng.choice([each for each in paths if scene.disk.read(each) != raw])
            bad = damaged(raw, kind, scene.disk.read(other), rng)
            if bad == raw:
                continue
            if bad is None:
                scene.disk.lose(path)
            else:
                scene.disk.rewrite(path, bad)
            demand_healed(scene, path, raw, f"{kind} {path} (seed {seed})")


def demand_healed(scene, path, raw, what):
    newest = path.with_name("000000000002")
    with scene.open() as keep:
        for version, model in enumerate(two_models(), start=1):
            out = scene.folder / f"out-{version}"
            keep.restore(f"digits:{version}", out, force=True)
            assert scene.disk.read(out) == model.read_bytes(), what
        assert Alias(model="digits", alias="prod", version=1) in keep.opened.state.rows(Alias)
        report = keep.check(read_data=True, repair=True)
        keep.ledger.verify(repair=True)
        # A second store without its newest head looks like one that waits for its next backup.
        is_behind = any(finding.rule == "check.behind" for finding in report.findings)
        if is_behind:
            keep.backup()
        kinds = [entry.kind for _, entry in keep.ledger.entries()]
        after = keep.check(read_data=True)
        assert after.is_whole, (what, after.findings)
        assert all(report.is_whole for _, report in keep.ledger.verify()), what
    # Deleting what newer members of its series or wider tiles have superseded costs nothing.
    is_gone, kind = scene.disk.size(path) is None, path.parent.name
    is_superseded = is_gone and ("ledger" in path.parts or (kind == "head" and path != newest))
    # Of packs and indexes each store has its own: what one has lost is made again from the other.
    is_remade = not {"pack", "index"}.isdisjoint(path.parts)
    assert is_superseded or is_remade or scene.disk.read(path) == raw, what
    assert is_superseded or is_behind or "vault.healed" in kinds, what


def test_damage_to_both_copies_names_model_version_and_tensor(life):
    scene, image = life
    scene.show(image)
    with scene.open() as keep:
        manifest = keep.manifest("digits:2")
    names = {tensor.name for tensor in manifest.files[0].tensors}
    for root in (scene.main, scene.offsite):
        for path, size in scene.disk.walk(root / "pack"):
            raw = scene.disk.read(path)
            middle = bytes([raw[size // 2] ^ 1])
            scene.disk.rewrite(path, raw[: size // 2] + middle + raw[size // 2 + 1 :])
    with scene.open() as keep, pytest.raises(IntegrityError) as failure:
        keep.restore("digits:2", scene.folder / "out", force=True)
    assert failure.value.code == "model.damaged"
    assert (failure.value.context["model"], failure.value.context["version"]) == ("digits", 2)
    assert set(failure.value.context["tensors"].split(", ")) <= names
    assert scene.disk.size(scene.folder / "out") is None


def test_a_head_that_was_rolled_back_is_made_again(life):
    scene, image = life
    scene.show(image)
    for root in (scene.main, scene.offsite):
        newest = max(path for path, _ in scene.disk.walk(root / "head"))
        scene.disk.lose(newest)
    with scene.open() as keep:
        assert [each.version for each in keep.models()] == [1, 2]
        assert "vault.healed" in [entry.kind for _, entry in keep.ledger.entries()]
