"""The ledger from append to proof: crashes, damage, stores that fail, histories that fork."""

from __future__ import annotations

import contextlib
import random
from pathlib import Path

import pytest

from modelkeep.adapters.journal_file import JournalFile
from modelkeep.core.entry import Entry
from modelkeep.core.errors import IntegrityError, KeepError, UnavailableError, UsageError
from modelkeep.core.verdict import Severity
from modelkeep.crypto.secret import Secret
from modelkeep.crypto.signatures import Signer
from modelkeep.flows.ledger import Sequencer
from modelkeep.flows.ledger_read import (
    LogAccess,
    covered_positions,
    entry_proof,
    find_entries,
    healed_log,
    history_proof,
    latest_checkpoint,
    log_size,
    read_entries,
    tail_entries,
)
from modelkeep.ledger.batch import batch_entry
from modelkeep.ledger.checkpoint import verified_checkpoint
from modelkeep.ledger.log import LogReader
from modelkeep.ledger.proof import consistency_proof, verified_proof_text, verify_consistency
from modelkeep.ledger.tiles import log_prefix, parsed_checkpoint_size
from modelkeep.ledger.tree import leaf_hash
from modelkeep.ledger.verify import demand_whole, verified_log
from modelkeep.testing.memory import MemoryStore, SeededEntropy
from modelkeep.testing.power import Fuse, PowerCut, SimulatedDisk

ORIGIN = "example.org/keep/main"
PREFIX = log_prefix(ORIGIN)
SIGNER = Signer(Secret(b"s" * 32))
BODY_KEY = Secret(b"b" * 32)


def entry(number, kind="model.admitted"):
    return Entry(kind=kind, at_ns=number, actor="cli:root", facts={"number": number})


def wal_on(disk, segment_bytes_max=20_000):
    return JournalFile(disk, Path("/wal"), segment_bytes_max=segment_bytes_max, writable=True)


def sequencer_over(journal, stores, *, entropy=None, origin=ORIGIN):
    return Sequencer(
        origin=origin,
        journal=journal,
        stores=stores,
        signer=SIGNER,
        body_key=BODY_KEY,
        entropy=entropy or SeededEntropy(),
    )


def access_to(store, journal=None):
    return LogAccess(store, ORIGIN, SIGNER.public, BODY_KEY, journal)


def verified(store, *, body_key=BODY_KEY, at_least=None):
    return verified_log(
        store, origin=ORIGIN, public=SIGNER.public, body_key=body_key, at_least=at_least
    )


def numbers(access, start=0):
    return [(index, found.facts["number"]) for index, found in read_entries(access, start)]


class Log:
    """A log over memory, and what it was told to hold."""

    def __init__(self, *sizes, stores=1):
        self.disk = SimulatedDisk()
        self.stores = [MemoryStore(f"store-{number}") for number in range(stores)]
        self.journal = wal_on(self.disk)
        self.sequencer = sequencer_over(self.journal, self.stores)
        self.size = 0
        for size in sizes:
            self.grow(size)

    def append(self, size):
        assert self.sequencer.append([entry(n) for n in range(self.size, size)]) == self.size
        self.size = size

    def grow(self, size):
        self.append(size)
        return self.sequencer.publish()

    @property
    def store(self):
        return self.stores[0]


# ---- what is recorded is read, published or not ---------------------------------------------


def test_what_was_appended_is_read_before_and_after_publishing():
    log = Log()
    log.append(300)
    access = access_to(log.store, log.journal)
    assert numbers(access) == [(n, n) for n in range(300)]
    log.sequencer.publish()
    log.append(700)
    for start in (0, 1, 255, 256, 299, 300, 699):
        assert numbers(access, start) == [(n, n) for n in range(start, 700)]
    assert numbers(access, 700) == []
    assert numbers(access_to(log.store)) == [(n, n) for n in range(300)]
    assert log_size(access) == 700


def test_entries_are_found_by_kind_actor_and_time():
    log = Log(10)
    log.sequencer.append([entry(10, kind="models.other"), entry(11, kind="token.issued")])
    access = access_to(log.store, log.journal)
    assert [index for index, _ in find_entries(access, kind="model")] == list(range(10))
    assert [index for index, _ in find_entries(access, kind="token.issued")] == [11]
    assert [index for index, _ in find_entries(access, since_ns=5, until_ns=8)] == [5, 6, 7]
    assert list(find_entries(access, actor="nobody")) == []
    assert [index for index, _ in tail_entries(access, count=3)] == [9, 10, 11]


def test_a_log_of_any_size_verifies_in_every_store():
    log = Log(stores=2)
    for size in (1, 2, 255, 256, 257, 511, 512, 600, 1024):
        log.grow(size)
        for store in log.stores:
            report = verified(store)
            assert (report.size, report.findings) == (size, ())
            demand_whole(report)


def test_nothing_readable_lies_in_store_or_journal():
    log = Log(30)
    log.append(40)
    everything = b"".join(log.store.objects.values()) + b"".join(
        log.disk.read(path) for path, _ in log.disk.walk(Path("/wal"))
    )
    assert b"admitted" not in everything
    assert b"cli:root" not in everything


def test_only_eight_checkpoints_and_their_tiles_stay():
    log = Log()
    for size in range(1, 40):
        log.grow(size)
    names = set(log.store.objects)
    sizes = sorted(filter(None, (parsed_checkpoint_size(PREFIX, name) for name in names)))
    assert sizes == list(range(32, 40))
    assert {name.rpartition("/")[2] for name in names if ".p/" in name} == set(map(str, sizes))
    log.grow(300)
    assert verified(log.store).findings == ()


def test_every_entry_is_proven_offline():
    log = Log(700)
    access = access_to(log.store)
    leaves = [
        leaf for index in range(3) for leaf in LogReader(log.store, ORIGIN).leaves(700, index=index)
    ]
    for index in (0, 1, 255, 256, 511, 512, 699):
        text = entry_proof(access, index)
        hashed = leaf_hash(leaves[index])
        found = verified_proof_text(text, hashed_leaf=hashed, origin=ORIGIN, public=SIGNER.public)
        assert found == (index, latest_checkpoint(access))
    with pytest.raises(UsageError):
        entry_proof(access, 700)


def test_history_is_proven_between_checkpoints():
    log = Log(100)
    access = access_to(log.store)
    before = latest_checkpoint(access)
    log.grow(700)
    now, proof = history_proof(access, 100)
    verify_consistency(old=100, old_root=before.root, size=now.size, root=now.root, proof=proof)


def test_covered_positions_are_those_of_the_last_batches():
    log = Log()
    for number in range(3):
        log.sequencer.append(
            [
                batch_entry([b"x"] * 5, journal="gateway-0", first=5 * number, at_ns=0),
                batch_entry([b"x"] * 7, journal="gateway-1", first=7 * number, at_ns=0),
            ]
        )
    log.sequencer.append([entry(n) for n in range(5000)])
    log.sequencer.publish()
    log.sequencer.append([batch_entry([b"x"], journal="gateway-0", first=15, at_ns=0)])
    access = access_to(log.store, log.journal)
    wanted = {"gateway-0": 16, "gateway-1": 21, "gateway-2": 0}
    assert covered_positions(access, wanted) == wanted


def test_an_entry_that_is_too_long_records_nothing():
    log = Log(1)
    long = Entry(kind="x", at_ns=0, actor="x", facts={"text": "a" * 70_000})
    with pytest.raises(UsageError):
        log.sequencer.append([entry(1), long])
    assert log.sequencer.size == 1


# ---- crashes ----------------------------------------------------------------------------------


class CuttingStore(MemoryStore):
    """A store whose power fails before one of its changes; what was put is durable."""

    def __init__(self, fuse, left=None):
        super().__init__("store")
        self.objects = dict(left or {})
        self.fuse = fuse

    def put(self, name, raw):
        if name not in self.objects:
            self.fuse.spend()
        super().put(name, raw)

    def delete(self, name):
        if name in self.objects:
            self.fuse.spend()
        super().delete(name)


STEPS = (1, 3, 254, 258, 259, 520)


def story(disk, stores, *, entropy):
    """Append and publish as STEPS say, going on from what is there; what was acknowledged."""
    told = []
    try:
        journal = wal_on(disk)
        sequencer = sequencer_over(journal, stores, entropy=entropy)
        for size in STEPS:
            size_now = sequencer.size
            if size > size_now:
                sequencer.append([entry(n) for n in range(size_now, size)])
            told.append(max(size, size_now))
            sequencer.publish()
    except PowerCut:
        pass
    return told


def checkpoints_in(stores):
    return {
        verified_checkpoint(raw, origin=ORIGIN, public=SIGNER.public)
        for store in stores
        for name, raw in store.objects.items()
        if "/checkpoint/" in name
    }


def assert_one_history(store, seen):
    log = LogReader(store, ORIGIN)
    size = log.latest(public=SIGNER.public).size
    root = log.range_root(size)
    for each in seen:
        assert each.size <= size
        proof = consistency_proof(each.size, size=size, range_root=root)
        verify_consistency(
            old=each.size, old_root=each.root, size=size, root=root(0, size), proof=proof
        )


def cut_once(at):
    """Cut the power before change `at`, start again, compare; whether the cut came at all."""
    fuse = Fuse(at)
    disk = SimulatedDisk(fuse)
    stores = [CuttingStore(fuse), CuttingStore(fuse)]
    acknowledged = [0, *story(disk, stores, entropy=SeededEntropy(1))][-1]
    seen = checkpoints_in(stores)
    was_cut = fuse.count >= at
    disk = disk.after_power_cut()
    stores = [CuttingStore(Fuse(), store.objects) for store in stores]
    for store in stores:
        for size in [each.size for each in seen]:
            assert size <= wal_on(disk).next_position()
        if store.objects:  # what a crash leaves is never taken for damage
            with contextlib.suppress(KeepError):
                assert verified(store).is_whole
    assert len(numbers(access_to(stores[0], wal_on(disk)))) >= acknowledged
    story(disk, stores, entropy=SeededEntropy(2))
    for store in stores:
        report = verified(store)
        assert (report.size, report.findings) == (STEPS[-1], ())
        assert numbers(access_to(store)) == [(n, n) for n in range(STEPS[-1])]
        assert_one_history(store, seen)
    return was_cut


def changes_in_story():
    fuse = Fuse()
    assert story(
        SimulatedDisk(fuse),
        [CuttingStore(fuse), CuttingStore(fuse)],
        entropy=SeededEntropy(1),
    ) == list(STEPS)
    return fuse.count


def test_a_power_cut_before_any_change_loses_nothing_and_forks_nothing():
    changes = changes_in_story()
    assert changes > 80
    for at in range(changes):
        assert cut_once(at)


# ---- stores that fail ---------------------------------------------------------------------------


class FailingStore(MemoryStore):
    fails = False

    def put(self, name, raw):
        if self.fails:
            raise UnavailableError("store.write", "the store is away")
        super().put(name, raw)


def test_a_failing_second_store_stops_nobody_and_catches_up():
    disk = SimulatedDisk()
    stores = [MemoryStore("first"), FailingStore("second"), MemoryStore("third")]
    journal = wal_on(disk, segment_bytes_max=2_000)
    sequencer = sequencer_over(journal, stores)
    stores[1].fails = True
    for at in range(0, 600, 20):
        sequencer.append([entry(n) for n in range(at, at + 20)])
        reports = sequencer.publish()
        assert [report.size for report in reports] == [at + 20, 0, at + 20]
        assert [bool(report.error) for report in reports] == [False, True, False]
    assert next(iter(journal.read(0)))[0] == 0  # kept for the store that lacks it
    stores[1].fails = False
    assert [report.size for report in sequencer.publish()] == [600, 600, 600]
    assert stores[0].objects.keys() >= stores[1].objects.keys()
    assert verified(stores[1]).findings == ()


def test_the_journal_lets_go_of_what_every_store_has():
    log = Log(stores=2)
    log.journal = wal_on(log.disk, segment_bytes_max=2_000)
    log.sequencer = sequencer_over(log.journal, log.stores)
    for size in range(50, 2_001, 50):
        log.grow(size)
    assert log.journal.first_position() > 1_000
    again = sequencer_over(wal_on(log.disk), log.stores)
    assert [report.size for report in again.publish()] == [2_000, 2_000]


def test_a_new_store_is_filled_from_the_first_one():
    log = Log(stores=1)
    log.journal = wal_on(log.disk, segment_bytes_max=2_000)
    log.sequencer = sequencer_over(log.journal, log.stores)
    for size in range(50, 1_001, 50):
        log.grow(size)
    assert log.journal.first_position() > 0
    stores = [log.store, MemoryStore("new")]
    sequencer = sequencer_over(wal_on(log.disk), stores)
    assert [report.error for report in sequencer.publish()] == [None, None]
    assert verified(stores[1]).findings == ()
    assert numbers(access_to(stores[1])) == [(n, n) for n in range(1_000)]


def test_a_journal_that_was_rolled_back_is_refused():
    log = Log(10, stores=2)
    before = log.disk.after_power_cut()
    log.grow(20)
    for stores in ([log.stores[0]], [MemoryStore("fresh"), log.stores[1]]):
        with pytest.raises(IntegrityError, match=r"ledger\.behind"):
            sequencer_over(wal_on(before), stores)


def test_a_store_with_another_history_is_not_written_to():
    log = Log(10)
    other = MemoryStore("other")
    stranger = sequencer_over(wal_on(SimulatedDisk()), [other], entropy=SeededEntropy(9))
    stranger.append([entry(n) for n in range(5)])
    stranger.publish()
    before = dict(other.objects)
    both = sequencer_over(log.journal, [log.store, other])
    [first, second] = both.publish()
    assert first.error is None
    assert second.error is not None
    assert second.error.code == "ledger.fork"
    assert other.objects == before


def test_checkpoints_of_another_key_are_never_replaced():
    log = Log(10)
    before = dict(log.store.objects)
    stranger = Sequencer(
        origin=ORIGIN,
        journal=log.journal,
        stores=[log.store],
        signer=Signer(Secret(b"x" * 32)),
        body_key=BODY_KEY,
        entropy=SeededEntropy(),
    )
    with pytest.raises(IntegrityError, match=r"ledger\.checkpoint"):
        stranger.publish()
    assert log.store.objects == before


def test_a_latest_checkpoint_that_was_damaged_is_written_anew():
    log = Log(5, 10)
    name = f"{PREFIX}checkpoint/{10:012d}"
    right = log.store.objects[name]
    log.store.objects[name] = right[:-9] + right[-8:]
    [report] = sequencer_over(log.journal, [log.store]).publish()
    assert report.healed == (name,)
    assert log.store.objects[name] == right


def test_a_log_with_a_new_origin_lies_beside_the_old_one():
    log = Log(10)
    before = dict(log.store.objects)
    fresh = sequencer_over(
        JournalFile(SimulatedDisk(), Path("/wal"), writable=True),
        [log.store],
        origin="example.org/keep/recovered",
    )
    fresh.append([entry(0, kind="ledger.resumed")])
    fresh.publish()
    assert {name: log.store.objects[name] for name in before} == before
    assert verified(log.store).size == 10


# ---- damage -------------------------------------------------------------------------------------


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
