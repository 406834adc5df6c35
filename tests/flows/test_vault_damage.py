"""Goal: whatever is done to the objects of one store, each damage is found, and all are healed.

Method: a keep with a fast and a small store, deltas included. In each round many objects of one
store are flipped by a bit, cut off, replaced by others or deleted, all at random (the seed is
printed when it fails). One check with repair must name every one of them; the other store, left
alone, must be enough to make the damaged one whole, on its own.
"""

import random
import time
from pathlib import Path

import pytest
from vault_scenes import VaultScene, damaged

from modelkeep.flows.keep import current_head
from modelkeep.sdk.upkeep import Upkeep
from tests.flows.test_vault_power_cuts import demand_snapshots

KINDS = ("flip", "truncate", "swap", "delete")
# Kinds of objects that are named by their own digest: each damage is found under its name.
CONTENT = ("pack", "index", "recipe", "envelope", "snapshot")
# How many objects are damaged at once.
PER_ROUND = (1, 20, 20)
WANTED = {"family:1": 0, "family:2": 1, "family:3": 2, "other:1": 1}


@pytest.fixture(scope="module")
def life(tmp_path_factory):
    scene = VaultScene(tmp_path_factory.mktemp("damage"))
    with scene.create() as keep:
        for number in range(3):
            scene.admit(keep, number)
            keep.backup()
        scene.admit(keep, 1, name="other")
        keep.backup()
    return scene, scene.image()


def done_to(scene: VaultScene, root: Path, rng: random.Random) -> dict[Path, tuple[str, bytes]]:
    """Damage objects of one store; what was done to each, and its bytes before."""
    paths = scene.objects(root)
    before = {path: scene.disk.read(path) for path in paths}
    done: dict[Path, tuple[str, bytes]] = {}
    for path in rng.sample(paths, rng.choice(PER_ROUND)):
        raw, kind = before[path], rng.choice(KINDS)
        other = before[rng.choice([each for each in paths if each != path])]
        bad = damaged(raw, kind, other, rng)
        if bad == raw:
            continue
        if bad is None:
            scene.disk.lose(path)
        else:
            scene.disk.rewrite(path, bad)
        done[path] = (kind, raw)
    return done


def demand_found(label, root, path, kind, subjects):
    """Every damaged object was named, or what is known of one that is gone.

    A deleted index, and a pack that only it named, are missed by their chunks, or listed anew with
    another damaged index; what only a lost head named is missed as a store that is behind.
    """
    name = path.relative_to(root).as_posix()
    family = name.partition("/")[0]
    if family not in CONTENT:
        return  # a series: what counts is that its newest member counts again
    named = {f"{label}:{name}"}
    if kind == "delete" and family in CONTENT[:2]:
        own = f"{label}:index/{name.split('/')[1]}"
        named |= {each for each in subjects if each.startswith(own)}
    elif kind == "delete":
        named.add(f"{label}:head")
    what = (kind, name, sorted(subjects))
    assert named & subjects, what


@pytest.mark.slow
@pytest.mark.verify("vault-damage")
def test_every_damage_to_one_store_is_found_and_healed_from_the_other(life, count):
    scene, image = life
    seed = time.time_ns()
    wanted, total, number = count(1_000, full=10_000), 0, 0
    while total < wanted:
        rng = random.Random(f"{seed}/{number}")  # noqa: S311 - it chooses what to damage, no key
        number += 1
        scene.show(image)
        label, root = rng.choice((("main", scene.main), ("offsite", scene.offsite)))
        done = done_to(scene, root, rng)
        total += len(done)
        what = f"seed {seed}, round {number}"
        with scene.open() as keep:
            start = keep.opened.state.applied().entries
            report = Upkeep(keep).check(read_data=1.0, repair=True)
            subjects = {each.subject for each in report.findings}
            healed = (entry.facts for _, entry in keep.ledger.entries(start - 8))
            subjects |= {f"{each.get('store')}:{each.get('object')}" for each in healed}
            for path, (kind, _) in done.items():
                demand_found(label, root, path, kind, subjects)
            assert not report.lost, what
            keep.backup()
        with scene.open() as keep:
            after = Upkeep(keep).check(read_data=1.0)
            assert after.is_whole, (what, after.findings)
            opened = keep.opened
            for store in opened.stores:
                head = current_head(opened).snapshot
                assert demand_snapshots(keep, opened.reader_of((store,)), head) == 4, what
            scene.demand_whole(keep, WANTED)
