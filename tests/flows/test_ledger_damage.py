"""Whatever is changed in a published log is found, located, and healed from another store."""

from __future__ import annotations

import random

import pytest
from ledger_log import (
    PREFIX,
    Log,
    access_to,
    entry,
    sequencer_over,
    verified,
    wal_on,
)

from modelkeep.core.errors import IntegrityError
from modelkeep.core.verdict import Severity
from modelkeep.flows.ledger_read import healed_log, latest_checkpoint
from modelkeep.ledger.verify import demand_whole
from modelkeep.testing.memory import MemoryStore, SeededEntropy
from modelkeep.testing.power import SimulatedDisk


def damaged(objects, rng):
    """One random mutation of one or two objects; what was done."""
    names = sorted(objects)
    name = rng.choice(names)
    raw = objects[name]
    act = rng.choice(["flip", "flip", "delete", "truncate", "swap", "prolong"])
    if act == "flip":
        bit = rng.randrange(len(raw) * 8)
        flipped = bytearray(raw)
        flipped[bit // 8] ^= 1 << bit % 8
        objects[name] = bytes(flipped)
    elif act == "delete":
        del objects[name]
    elif act == "truncate":
        objects[name] = raw[: rng.randrange(len(raw))]
    elif act == "prolong":
        objects[name] = raw + rng.randbytes(rng.choice([1, 2, 32]))
    else:
        other = rng.choice([each for each in names if objects[each] != raw])
        objects[name], objects[other] = objects[other], raw
        return act, {name, other}
    return act, {name}


@pytest.mark.verify("ledger")
def test_every_random_mutation_is_found_and_located(count):
    """Whoever deletes the latest checkpoint makes an older log: what lies beyond is noted. To
    delete what was superseded is what the sequencer does itself."""
    log = Log(200, 256, 300, 512, 520)
    whole = dict(log.store.objects)
    assert verified(log.store).findings == ()
    older = {f"{PREFIX}checkpoint/{size:012d}" for size in (200, 256, 300, 512)}
    may_go = older | {name for name in whole if "/000.p/200" in name or "/001.p/44" in name}
    rng = random.Random(3)  # noqa: S311 - a seed that replays
    for _ in range(count(1_000, full=10_000)):
        log.store.objects = dict(whole)
        act, names = damaged(log.store.objects, rng)
        if act == "delete" and names <= may_go:
            continue
        report = verified(log.store)
        assert report.findings, f"{act} of {names} was not found"
        latest = f"{PREFIX}checkpoint/{520:012d}"
        if act == "delete" and names == {latest}:
            assert {each.rule for each in report.findings} == {"ledger.beyond"}
            continue
        assert not report.is_whole
        accused = {each.subject for each in report.findings if each.severity is not Severity.NOTE}
        assert accused <= names, f"{act} of {names} accuses {accused}"
        with pytest.raises(IntegrityError):
            demand_whole(report)


def test_a_flipped_bit_is_located_to_the_entry_and_the_hash():
    log = Log(520)
    whole = dict(log.store.objects)

    def found(name, at):
        log.store.objects = dict(whole)
        raw = bytearray(whole[PREFIX + name])
        raw[at] ^= 1
        log.store.objects[PREFIX + name] = bytes(raw)
        [finding] = verified(log.store).findings
        assert finding.subject == PREFIX + name
        return finding

    in_entry = found("tile/entries/001", 35 * 7 + 10)
    assert in_entry.rule == "ledger.entry"
    assert in_entry.evidence.startswith("entry 263: expected ")
    in_last = found("tile/entries/002.p/8", 35 * 7 + 10)
    assert in_last.evidence.startswith("entry 519: ")
    in_tile = found("tile/0/001", 32 * 9 + 1)
    assert in_tile.rule == "ledger.tile"
    assert in_tile.evidence.startswith("hash 9: expected ")
    assert found("tile/1/000.p/2", 33).evidence.startswith("hash 1: ")
    assert found("tile/0/002.p/8", 5).evidence.startswith("hash 0: ")
    assert found("body/001", 500).rule == "ledger.body"


def test_without_the_body_key_all_but_the_bodies_is_proven():
    log = Log(520)
    assert verified(log.store, body_key=None).findings == ()
    log.store.objects[PREFIX + "tile/0/000"] = bytes(8192)
    assert not verified(log.store, body_key=None).is_whole
    del log.store.objects[PREFIX + "body/000"]
    report = verified(log.store, body_key=None)
    assert "ledger.missing" in {finding.rule for finding in report.findings}


def test_a_stray_object_is_found():
    log = Log(5)
    log.store.put(PREFIX + "tile/0/000.txt", b"")
    [finding] = verified(log.store).findings
    assert finding.rule == "ledger.stray"


def test_a_rollback_is_found_by_whoever_saw_more():
    log = Log(10)
    before = dict(log.store.objects)
    log.grow(20)
    seen = latest_checkpoint(access_to(log.store))
    log.store.objects = before
    assert verified(log.store).findings == ()  # one store alone cannot know
    [finding] = verified(log.store, at_least=seen).findings
    assert finding.rule == "ledger.rollback"


def test_a_second_history_under_the_same_key_is_found():
    log = Log(10)
    other = MemoryStore("other")
    stranger = sequencer_over(wal_on(SimulatedDisk()), [other], entropy=SeededEntropy(9))
    stranger.append([entry(n) for n in range(5)])
    stranger.publish()
    [finding] = verified(log.store, at_least=latest_checkpoint(access_to(other))).findings
    assert finding.rule == "ledger.fork"


def test_damage_in_one_store_is_healed_from_another():
    log = Log(200, 520, stores=2)
    whole = dict(log.store.objects)
    rng = random.Random(5)  # noqa: S311 - a seed that replays
    for _ in range(40):
        log.store.objects = dict(whole)
        _, names = damaged(log.store.objects, rng)
        healed = healed_log(log.store, access_to(log.stores[1]))
        assert set(healed) <= names
        assert verified(log.store).is_whole
    log.store.objects = {}
    healed_log(log.store, access_to(log.stores[1]))
    assert log.store.objects == whole


def test_the_sequencer_goes_on_over_damage_at_the_edge():
    log = Log(300, stores=2)
    whole = dict(log.store.objects)
    for name, right in whole.items():
        log.store.objects = dict(whole)
        raw = bytearray(right)
        raw[len(raw) // 2] ^= 1
        log.store.objects[name] = bytes(raw)
        again = sequencer_over(log.journal, log.stores)
        reports = again.publish()
        assert [report.error for report in reports] == [None, None]
        assert reports[0].size == 300
        healed_log(log.store, access_to(log.stores[1]))
        assert log.store.objects == whole
