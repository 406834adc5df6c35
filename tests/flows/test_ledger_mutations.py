"""Goal: 10,000 random flips, deletions, reorders, truncations and forks, and all of them found.

Method: a log of several bundles, levels and checkpoints, and another history under the same keys.
Each round changes the objects in one of those ways and verifies, knowing one checkpoint that was
seen before (a witness's). What the sequencer itself removes as superseded is no damage.
"""

from __future__ import annotations

import random
from collections import Counter

import pytest
from ledger_log import BODY_KEY, PREFIX, Log, access_to, numbers, sequencer_over, verified

from modelkeep.adapters.journal_file import JournalFile
from modelkeep.core.errors import KeepError
from modelkeep.flows.ledger_read import latest_checkpoint
from modelkeep.ledger.entry import opened_bodies, sealed_bodies
from modelkeep.ledger.tiles import parsed_place
from modelkeep.testing.memory import SeededEntropy

SIZES = (200, 256, 300, 512, 520)
KINDS = ("flip", "delete", "reorder", "truncate", "fork")


def forked(at):
    """Another history of the same sizes: the same entries up to `at`, then others."""
    log = Log()
    for size in SIZES:
        if size > at and log.size <= at:
            log.sequencer = sequencer_over(log.journal, log.stores, entropy=SeededEntropy(99))
        log.grow(size)
    return log.store.objects


@pytest.fixture(scope="module")
def life():
    log = Log(*SIZES)
    return (
        dict(log.store.objects),
        latest_checkpoint(access_to(log.store)),
        [forked(at) for at in (0, 256, 512)],
    )


def may_go(objects):
    """What the sequencer would have removed by now had it kept fewer checkpoints."""
    older = {f"{PREFIX}checkpoint/{size:012d}" for size in SIZES[:-1]}
    return older | {name for name in objects if "/000.p/200" in name or "/001.p/44" in name}


def flip(objects, rng):
    name = rng.choice(sorted(objects))
    raw = bytearray(objects[name])
    bit = rng.randrange(len(raw) * 8)
    raw[bit // 8] ^= 1 << bit % 8
    objects[name] = bytes(raw)


def delete(objects, rng):
    del objects[rng.choice(sorted(objects.keys() - may_go(objects)))]


def truncate(objects, rng):
    name = rng.choice(sorted(objects))
    objects[name] = objects[name][: rng.randrange(len(objects[name]))]


def reorder(objects, rng):
    """Two objects, or two things in one: hashes, leaves, or bodies by who has their key."""
    name = rng.choice(sorted(name for name in objects if "/checkpoint/" not in name))
    place = parsed_place(PREFIX, name)
    if place.width == 1 or rng.random() < 0.3:
        other = rng.choice([each for each in objects if objects[each] != objects[name]])
        objects[name], objects[other] = objects[other], objects[name]
        return
    if place.kind == "body":
        bodies = opened_bodies(objects[name], prefix=PREFIX, place=place, body_key=BODY_KEY)
        records = swapped([body.record for body in bodies], rng)
        objects[name] = sealed_bodies(records, prefix=PREFIX, place=place, body_key=BODY_KEY)
        return
    size = len(objects[name]) // place.width
    raw = objects[name]
    parts = swapped([raw[at : at + size] for at in range(0, len(raw), size)], rng)
    objects[name] = b"".join(parts)


def swapped(parts, rng):
    one, other = rng.sample(range(len(parts)), 2)
    parts[one], parts[other] = parts[other], parts[one]
    return parts


def fork(objects, rng, forks):
    """Objects of another history under the same keys: some of them, or all, newest head or not."""
    theirs = rng.choice(forks)
    names = sorted(name for name in objects if theirs[name] != objects[name])
    chosen = names if rng.random() < 0.3 else rng.sample(names, rng.randint(1, len(names)))
    objects |= {name: theirs[name] for name in chosen}


@pytest.mark.slow
@pytest.mark.verify("ledger")
def test_every_flip_deletion_reorder_truncation_and_fork_is_found(life, count):
    whole, seen, forks = life
    log = Log()
    log.store.objects = dict(whole)
    assert verified(log.store, at_least=seen).findings == ()
    rng = random.Random(7)  # noqa: S311 - a seed that replays
    done = Counter()
    for number in range(count(1_000, full=10_000)):
        kind = KINDS[number % len(KINDS)]
        log.store.objects = objects = dict(whole)
        while objects == whole:
            if kind == "fork":
                fork(objects, rng, forks)
            else:
                globals()[kind](objects, rng)
        try:
            report = verified(log.store, at_least=seen)
        except KeepError:
            done[kind] += 1  # not even a checkpoint is left
            continue
        assert not report.is_whole, f"round {number}: {kind} was not found"
        done[kind] += 1
    assert set(done) == set(KINDS)


@pytest.mark.verify("ledger")
def test_a_journal_that_was_changed_never_gives_another_entry(count):
    """What no checkpoint covers yet can be cut off unseen; nothing else, and nothing is made up."""
    log = Log()
    log.journal = JournalFile(log.disk, log.journal._folder, segment_bytes_max=4_000, writable=True)
    log.sequencer = sequencer_over(log.journal, log.stores)
    for size in range(10, 101, 10):
        log.append(size)
    log.sequencer.publish()
    log.append(130)
    files = {path: log.disk.read(path) for path, _ in log.disk.walk(log.journal._folder)}
    assert len(files) > 5
    rng = random.Random(11)  # noqa: S311 - a seed that replays
    found = 0
    for number in range(count(300, full=2_000)):
        disk = log.disk.after_power_cut()
        objects = dict(files)
        kind = (flip, truncate, move)[number % 3]
        kind(objects, rng)
        for path, raw in objects.items():
            disk.rewrite(path, raw)
        try:
            journal = JournalFile(disk, log.journal._folder, writable=True)
            sequencer_over(journal, log.stores)
            # From the start, as a store would that lacks everything.
            assert [at for at, _ in journal.read(0)] == list(range(journal.next_position()))
            entries = numbers(access_to(log.store, journal))
        except KeepError:
            found += 1
            continue
        assert entries == [(n, n) for n in range(len(entries))], f"round {number}"
        assert len(entries) >= 100, f"round {number}"
    assert found > 100


def move(objects, rng):
    one, other = rng.sample(sorted(objects), 2)
    objects[one], objects[other] = objects[other], objects[one]


def test_the_other_history_is_whole_in_itself(life):
    whole, _, forks = life
    log = Log()
    for objects in forks:
        log.store.objects = dict(objects)
        assert verified(log.store).findings == ()
        assert objects != whole
        assert objects.keys() == whole.keys()
